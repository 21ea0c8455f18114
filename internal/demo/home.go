package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// homeFile is one file of a home. With a target it is a symbolic link.
type homeFile struct {
	path   string
	mode   os.FileMode
	text   string
	target string
}

// configFiles are the files of an Artifactory 6 home that a standby needs
// identical. Times and modes matter: Artifactory compares the former with rows
// of its database, and refuses keys that others can read.
func configFiles() []homeFile {
	return []homeFile{
		{path: "etc/binarystore.xml", mode: 0o640, text: "<config version=\"2\">\n    <chain template=\"file-system\"/>\n</config>\n"},
		{path: "etc/artifactory.properties", mode: 0o640, text: "artifactory.version=6.20.0\nartifactory.revision=62000900\nartifactory.timestamp=1589190000000\n"},
		{path: "etc/artifactory.system.properties", mode: 0o640, text: systemProperties},
		{path: "etc/artifactory.config.latest.xml", mode: 0o640, text: centralConfig},
		{path: "etc/mimetypes.xml", mode: 0o640, text: mimeTypes},
		{path: logback, mode: 0o640, text: logbackConfig("INFO")},
		{path: "etc/security/master.key", mode: 0o600, text: "d3f2c7a1904be65d8a7703c1f5b98e62\n"},
		{path: "etc/security/artifactory.key", mode: 0o600, text: "JS.25rNn.Ahj9KqQm4Tz7VwXcRb2yPsLfG8dUe3NoMi\n"},
		{path: "etc/plugins/artifactCleanup.groovy", mode: 0o644, text: plugin("artifactCleanup", 0)},
		{path: pluginPath(0), mode: 0o644, text: plugin("quarantineLabels", 0)},
		{path: "etc/plugins/lib/labels.properties", mode: 0o644, text: "quarantine=qa.blocked\nrelease=qa.released\n"},
		{path: "etc/ui/logo-acme.svg", mode: 0o644, text: "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"16\" height=\"16\"><circle cx=\"8\" cy=\"8\" r=\"7\"/></svg>\n"},
		{path: "etc/ui/logo", target: "logo-acme.svg"},
		{path: "access/etc/keys/private.key", mode: 0o600, text: "-----BEGIN DEMO KEY-----\nbm90IGEga2V5LCBvbmx5IHNoYXBlZCBsaWtlIG9uZQ==\n-----END DEMO KEY-----\n"},
		{path: "access/etc/keys/root.crt", mode: 0o644, text: "-----BEGIN DEMO CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGUgZWl0aGVy\n-----END DEMO CERTIFICATE-----\n"},
	}
}

// scratchFiles must not travel: they belong to the running process.
func scratchFiles() []homeFile {
	return []homeFile{
		{path: "data/.lock", mode: 0o644},
		{path: "data/tmp/work/index-7731.tmp", mode: 0o640, text: strings.Repeat("half an index\n", 400)},
		{path: "data/tmp/artifactory-uploads/upload-1.part", mode: 0o640, text: strings.Repeat("half an upload\n", 900)},
		{path: "data/tmp-old/left.bin", mode: 0o640, text: "left by an older version\n"},
		{path: "data/cache/0f/0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c", mode: 0o640, text: "cached content\n"},
		{path: "data/filestore/_pre/dbRecord5012.bin", mode: 0o640, text: "an upload that is not finished\n"},
		{path: "logs/artifactory.log", mode: 0o640, text: strings.Repeat("2026-11-20 08:14:02,731 [art-exec-12] [INFO ] (o.a.s.ArtifactoryApplicationContext) - ready\n", 200)},
		{path: "logs/request.log", mode: 0o640, text: strings.Repeat("20261120081402|18|REQUEST|10.0.0.7|jenkins|GET|/api/system/ping|HTTP/1.1|200|0\n", 300)},
		{path: "work/Catalina/localhost/artifactory/SESSIONS.ser", mode: 0o640, text: "sessions\n"},
	}
}

// neverTravel reports whether a path of the home is scratch.
func neverTravel(path string) bool {
	first, rest, _ := strings.Cut(path, "/")
	switch first {
	case "logs", "work":
		return true
	case "data":
		sub, below, _ := strings.Cut(rest, "/")
		return strings.HasPrefix(sub, "tmp") || sub == "cache" || sub == ".lock" ||
			sub == "filestore" && (below == "_pre" || strings.HasPrefix(below, "_pre/"))
	}
	return false
}

// activeHostFiles and standbyHostFiles are what each host has for itself, by path.
func activeHostFiles(round int) map[string]string {
	return map[string]string{
		"etc/db.properties":      fmt.Sprintf("type=mysql\nurl=jdbc:mysql://10.0.0.1:3306/artdb\nusername=artifactory\npassword=active-%d\n", round),
		"etc/ha-node.properties": fmt.Sprintf("node.id=active-%d\ncontext.url=http://10.0.0.1:8081/artifactory\nmembership.port=10001\nprimary=true\n", round),
	}
}

func standbyHostFiles() map[string]string {
	return map[string]string{
		"etc/db.properties":      "type=mysql\nurl=jdbc:mysql://10.0.0.2:3306/artdb\nusername=artifactory\npassword=standby\n",
		"etc/ha-node.properties": "node.id=standby\ncontext.url=http://10.0.0.2:8081/artifactory\nmembership.port=10001\nprimary=true\n",
	}
}

func writeHome(home string) error {
	files := append(configFiles(), scratchFiles()...)
	for path, text := range activeHostFiles(0) {
		files = append(files, homeFile{path: path, mode: 0o640, text: text})
	}
	old := time.Now().Add(-30 * 24 * time.Hour)
	for i, f := range files {
		if err := writeFile(home, f); err != nil {
			return err
		}
		if f.target != "" {
			continue
		}
		// A home has a past. Were every file as young as the lab, a change in
		// the same second could hide from a comparison of size and time.
		mtime := old.Add(time.Duration(i) * time.Hour)
		if err := os.Chtimes(filepath.Join(home, f.path), mtime, mtime); err != nil {
			return err
		}
	}
	return os.Chmod(filepath.Join(home, "etc/security"), 0o700)
}

// writeFile puts one file in place by renaming, as editors do.
func writeFile(home string, f homeFile) error {
	path := filepath.Join(home, f.path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if f.target != "" {
		return os.Symlink(f.target, path)
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, []byte(f.text), f.mode); err != nil {
		return err
	}
	if err := os.Chmod(temp, f.mode); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
