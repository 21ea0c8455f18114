package app_test

import (
	"database/sql"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/drsync/drsync/internal/app"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx/filter"
)

// has is a home that holds exactly these paths.
func has(paths ...string) func(string) (bool, error) {
	return func(path string) (bool, error) { return slices.Contains(paths, path), nil }
}

func TestLookup(t *testing.T) {
	for _, c := range []struct {
		name   string
		home   []string
		layout string
		err    string
	}{
		{name: "artifactory", home: []string{"etc/db.properties", "etc/artifactory.properties"}, layout: app.Layout6},
		{name: "artifactory", home: []string{"data/filestore"}, layout: app.Layout6},
		{name: "artifactory", home: []string{"var/etc/system.yaml", "etc/db.properties"}, layout: app.Layout7},
		{name: "artifactory", home: []string{"var/data/artifactory"}, layout: app.Layout7},
		{name: "artifactory", home: []string{"etc/system.yaml", "etc/artifactory"}, layout: app.Layout7Var},
		{name: "artifactory", home: []string{"etc/artifactory"}, layout: app.Layout7Var},
		{name: "artifactory", home: []string{"etc", "data", "artifactory/var"}, err: "neither the layout"},
		{name: "artifactory", err: "neither the layout"},
		{name: "custom", layout: "one tree"},
		{name: "nexus", err: `unknown application "nexus"`},
	} {
		p, err := app.Lookup(c.name, has(c.home...))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || hint.Of(err) == "" {
				t.Errorf("%s %q: %v (hint %q), want %q", c.name, c.home, err, hint.Of(err), c.err)
			}
			continue
		}
		if err != nil || p.Layout != c.layout || p.Name != c.name {
			t.Errorf("%s %q: %q, %v, want %q", c.name, c.home, p.Layout, err, c.layout)
		}
	}
	broken := errors.New("no connection")
	if _, err := app.Lookup("artifactory", func(string) (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if _, err := app.Lookup("nexus", has()); !strings.Contains(hint.Of(err), "artifactory") || !strings.Contains(hint.Of(err), "custom") {
		t.Errorf("the hint %q does not list what is known", hint.Of(err))
	}
}

func profile6(t *testing.T) app.Profile {
	t.Helper()
	p, err := app.Artifactory(has("etc/db.properties"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// profile7 has the home at the product's directory if v is "var/", at var if it is "".
func profile7(t *testing.T, v string) app.Profile {
	t.Helper()
	p, err := app.Artifactory(has(v + "etc/system.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// excluded returns the rule that keeps path, or a directory above it, from
// travelling and from being deleted; a trailing slash makes it a directory.
func excluded(t *testing.T, p app.Profile, path string, blobDirs ...string) string {
	t.Helper()
	b := filter.NewBuilder()
	for _, pattern := range p.Excludes(blobDirs...) {
		if err := b.Own(pattern, filter.Sender|filter.Receiver); err != nil {
			t.Fatal(err)
		}
	}
	rules, err := b.Rules(filter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	isDir := strings.HasSuffix(path, "/")
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	nothing := func(string) ([]byte, error) { return nil, fs.ErrNotExist }
	scope, err := rules.Root().Enter("", nothing)
	if err != nil {
		t.Fatal(err)
	}
	for i := range parts {
		name := strings.Join(parts[:i+1], "/")
		dir := i < len(parts)-1 || isDir
		hidden, rule := scope.Excluded(name, dir, filter.Sender)
		protected, _ := scope.Excluded(name, dir, filter.Receiver)
		if hidden != protected {
			t.Errorf("%s: hidden %v, protected %v by %q", name, hidden, protected, rule)
		}
		if hidden {
			return rule
		}
		if dir {
			if scope, err = scope.Enter(name, nothing); err != nil {
				t.Fatal(err)
			}
		}
	}
	return ""
}

func TestTree6(t *testing.T) {
	p := profile6(t)
	stays := `
etc/db.properties
etc/.secrets/.temp.db.properties
etc/storage.properties
etc/ha-node.properties
etc/security/access/keys/service_id
etc/security/access/keys/cluster.id
etc/artifactory.config.import.xml
etc/artifactory.config.import.yml
etc/artifactory.lic
etc/artifactory.cluster.license
access/etc/access.config.import.yml
data/.lock
data/filestore/
data/filestore/ab/abcdefabcdefabcdefabcdefabcdefabcdefabcd
data/filestore/_pre/dbRecord1.bin
data/filestore/_drsync/quarantine/x
data/eventual/_add/ab/x
data/eventual/_queue/x
data/cache/ab/x
data/tmp/
data/tmp/work/x
data/tmp-old/x
data/tmp/artifactory-uploads/x
data/derby/seg0/c10.dat
access/data/derby/seg0/c10.dat
work/x
logs/artifactory.log
run/artifactory.pid
backup/daily/x
support/bundle.zip
access/logs/access.log
replicator/logs/replicator.log
tomcat/temp/x
tomcat/work/Catalina/x
mnt/shard [1]/ab/x
`
	travels := `
etc/
etc/binarystore.xml
etc/gcp.credentials.json
etc/artifactory.properties
etc/artifactory.system.properties
etc/artifactory.config.latest.xml
etc/mimetypes.xml
etc/logback.xml
etc/security/master.key
etc/security/artifactory.key
etc/security/join.key
etc/security/trusted.keys.json
etc/security/artifactory.gpg.private
etc/security/access/access.admin.token
etc/security/access/keys/access.creds
etc/security/access/keys/root.crt
etc/ssh/artifactory.ssh.private
etc/plugins/cleanup.groovy
etc/plugins/work/x.groovy
etc/plugins/site.import.groovy
etc/ui/logo
access/etc/keys/private.key
access/etc/keys/root.crt
access/data/x
replicator/etc/replicator.yaml
data/
data/artifactory.properties
etc/logs/x
data/deep/cache/x
tomcat/conf/server.xml
bin/artifactory.sh
webapps/artifactory.war
mnt/shard 1/x
`
	checkTree(t, p, stays, travels, "data/filestore", "mnt/shard [1]")
}

func TestTree7(t *testing.T) {
	for _, v := range []string{"var/", ""} {
		stays := `
etc/system.yaml
etc/artifactory/ha-node.properties
etc/artifactory/db.properties
etc/artifactory/artifactory.lic
etc/artifactory/artifactory.cluster.license
etc/artifactory/artifactory.config.import.xml
etc/artifactory/security/access/keys/service_id
etc/access/access.config.import.yml
bootstrap/access/etc/security/join.key
bootstrap/etc/access/keys/ca.crt
data/artifactory/.lock
data/artifactory/filestore/ab/x
data/artifactory/eventual/_queue/x
data/artifactory/cache/ab/x
data/artifactory/tmp/work/x
data/artifactory/derby/x
data/access/derby/x
data/postgres/base/1/2
work/access/x
log/artifactory-service.log
backup/artifactory/x
run/x
`
		travels := `
etc/
etc/security/master.key
etc/security/join.key
etc/access/keys/private.key
etc/access/keys/trusted/x.crt
etc/artifactory/binarystore.xml
etc/artifactory/artifactory.properties
etc/artifactory/plugins/x.groovy
etc/artifactory/security/artifactory.key
etc/artifactory/security/access/keys/access.creds
etc/router/x
data/access/x
data/artifactory/
data/artifactory/log/x
data/router/x
`
		at := func(list string) string {
			var all []string
			for path := range strings.FieldsSeq(list) {
				all = append(all, v+path)
			}
			return strings.Join(all, "\n")
		}
		checkTree(t, profile7(t, v), at(stays)+"\napp/\napp/artifactory/tomcat/x", at(travels), v+"data/artifactory/filestore")
	}
}

func checkTree(t *testing.T, p app.Profile, stays, travels string, blobDirs ...string) {
	t.Helper()
	for path := range strings.Lines(stays) {
		if path = strings.TrimSpace(path); path != "" && excluded(t, p, path, blobDirs...) == "" {
			t.Errorf("%s: %s travels", p.Layout, path)
		}
	}
	for path := range strings.Lines(travels) {
		if path = strings.TrimSpace(path); path == "" {
			continue
		}
		if rule := excluded(t, p, path, blobDirs...); rule != "" {
			t.Errorf("%s: %s stays, because of %s", p.Layout, path, rule)
		}
	}
}

// Every pattern hits something of the kind it is for: none is dead.
func TestPatternsAreAnchored(t *testing.T) {
	for _, p := range []app.Profile{profile6(t), profile7(t, "var/"), profile7(t, "")} {
		all := p.Excludes()
		for i, pattern := range all {
			if !strings.HasPrefix(pattern, "/") || strings.Contains(pattern, "//") || slices.Contains(all[:i], pattern) {
				t.Errorf("%s: pattern %q", p.Layout, pattern)
			}
		}
		for _, path := range slices.Concat(p.Identical, []string{p.ChainFile}) {
			if rule := excluded(t, p, path); rule != "" {
				t.Errorf("%s: %s must be the same on both hosts and stays because of %s", p.Layout, path, rule)
			}
		}
		for _, path := range []string{p.LockFile, p.SystemFile, p.DataDir + "/filestore/ab/x"} {
			if path != "" && excluded(t, p, path) == "" {
				t.Errorf("%s: %s travels", p.Layout, path)
			}
		}
	}
	if c := app.Custom(); len(c.Excludes()) != 0 || len(c.BlobSets) != 0 || c.LockFile != "" {
		t.Errorf("%+v", c)
	}
}

func TestAnchor(t *testing.T) {
	for path, want := range map[string]string{
		"data/filestore": "/data/filestore", "data/filestore/": "/data/filestore", `a\b`: `/a\b`, `a\b*`: `/a\\b\*`, "x[1]?": `/x\[1]\?`,
	} {
		if got := app.Anchor(path); got != want {
			t.Errorf("Anchor(%q) = %q, want %q", path, got, want)
		}
		b := filter.NewBuilder()
		if err := b.Own(app.Anchor(path), filter.Sender); err != nil {
			t.Fatal(err)
		}
		rules, err := b.Rules(filter.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if hit, _ := rules.Root().Excluded(strings.Trim(path, "/"), true, filter.Sender); !hit {
			t.Errorf("%q does not match %q", app.Anchor(path), path)
		}
	}
}

func TestQueries(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	a, b, temp := strings.Repeat("a", 40), strings.Repeat("b", 40), "##"+strings.Repeat("z", 38)
	for _, statement := range []string{
		"CREATE TABLE binaries (sha1 CHAR(40) PRIMARY KEY, md5 CHAR(32), bin_length BIGINT)",
		"CREATE TABLE nodes (node_id BIGINT, node_type SMALLINT, repo VARCHAR(64), node_path VARCHAR(1024), node_name VARCHAR(255), sha1_actual CHAR(40))",
		"INSERT INTO binaries VALUES ('" + a + "', '', 7), ('" + b + "', '', 8), ('" + temp + "', '', 9)",
		"INSERT INTO nodes VALUES (1, 1, 'libs', 'org/acme', 'x.jar', '" + a + "'), (2, 1, 'generic', '.', 'x.bin', '" + a + "'), (3, 0, 'libs', '.', 'org', NULL)",
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	set := profile6(t).BlobSets[0]
	rows := func(query string, args ...any) []string {
		t.Helper()
		r, err := db.Query(query, args...)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		columns, err := r.Columns()
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for r.Next() {
			texts, into := make([]string, len(columns)), make([]any, len(columns))
			for i := range into {
				into[i] = &texts[i]
			}
			if err := r.Scan(into...); err != nil {
				t.Fatal(err)
			}
			all = append(all, strings.Join(texts, "/"))
		}
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		return all
	}
	if got := rows(set.Refs); !slices.Equal(got, []string{a + "/7", b + "/8"}) {
		t.Errorf("refs %q", got)
	}
	if got := rows(set.Paths, a); !slices.Equal(got, []string{"generic/x.bin", "libs/org/acme/x.jar"}) {
		t.Errorf("paths %q", got)
	}
	if got := rows(set.Named, b); len(got) != 1 {
		t.Errorf("named %q", got)
	}
	if got := rows(set.Named, strings.Repeat("c", 40)); len(got) != 0 {
		t.Errorf("named %q", got)
	}
}

func TestFindDataDir(t *testing.T) {
	file := func(path, text string) func(string) ([]byte, error) {
		return func(asked string) ([]byte, error) {
			if asked != path {
				t.Errorf("%s was read", asked)
			}
			if text == "" {
				return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}
			return []byte(text), nil
		}
	}
	const ha, system = "etc/ha-node.properties", "var/etc/system.yaml"
	six, seven := profile6(t), profile7(t, "var/")
	for _, c := range []struct {
		profile          app.Profile
		path, text, want string
		fails            bool
	}{
		{six, ha, "", "data", false},
		{six, ha, "node.id=a\n#artifactory.ha.data.dir=/x\n", "data", false},
		{six, ha, "node.id=a\r\nartifactory.ha.data.dir = /mnt/ha/data/\r\n", "/mnt/ha/data", false},
		{six, ha, "artifactory.ha.data.dir:/mnt/ha\\ data", "/mnt/ha data", false},
		{six, ha, "artifactory.ha.data.dir=ha", "", true},
		{six, ha, "artifactory.ha.data.dir=${mnt}/ha", "", true},
		{seven, system, "", "var/data/artifactory", false},
		{seven, system, "shared:\n  node:\n    id: a\n", "var/data/artifactory", false},
		{seven, system, "shared:\n  node:\n    haDataDir: \"/mnt/ha\"\n", "/mnt/ha", false},
		{seven, system, "shared: [", "", true},
	} {
		got, err := c.profile.FindDataDir(file(c.path, c.text))
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%q: %q, %v, want %q", c.text, got, err, c.want)
		}
	}
	if got, err := app.Custom().FindDataDir(nil); got != "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	broken := errors.New("no connection")
	if _, err := six.FindDataDir(func(string) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}
