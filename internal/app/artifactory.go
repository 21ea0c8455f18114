package app

import (
	"fmt"

	"github.com/drsync/drsync/internal/hint"
)

// The layouts of an Artifactory home.
const (
	Layout6    = "Artifactory 5 or 6"
	Layout7    = "Artifactory 7"
	Layout7Var = "Artifactory 7, var directory"
)

// Artifactory returns the profile of an Artifactory home: of versions 5 and 6,
// or of version 7, where the home is either the product's directory, with var
// below it, or that var directory itself. A home that is none of them is an error.
func Artifactory(exists func(path string) (bool, error)) (Profile, error) {
	for _, l := range []struct {
		layout string
		marks  []string // any of them
	}{
		{Layout7, []string{"var/etc/system.yaml", "var/etc/artifactory", "var/data/artifactory"}},
		{Layout7Var, []string{"etc/system.yaml", "etc/artifactory", "data/artifactory"}},
		{Layout6, []string{
			"etc/artifactory.properties", "etc/db.properties", "etc/binarystore.xml", "etc/storage.properties",
			"etc/ha-node.properties", "etc/artifactory.config.latest.xml", "etc/artifactory.config.xml",
			"etc/artifactory.system.properties", "data/filestore",
		}},
	} {
		for _, mark := range l.marks {
			found, err := exists(mark)
			if err != nil {
				return Profile{}, fmt.Errorf("look for %s in the home: %w", mark, err)
			}
			if !found {
				continue
			}
			switch l.layout {
			case Layout7:
				return artifactory7(l.layout, "var/"), nil
			case Layout7Var:
				return artifactory7(l.layout, ""), nil
			}
			return artifactory6(), nil
		}
	}
	return Profile{}, hint.New("the home has neither the layout of Artifactory 5 or 6 nor that of 7",
		"give the directory that has etc and data, or var, below it: /var/opt/jfrog/artifactory of a package, $JFROG_HOME/artifactory of an archive")
}

// binaries is the family of all of Artifactory's blobs. The set is what
// Artifactory's own pruning goes by: a row of binaries keeps a file, whether or
// not a node names it. Rows whose key starts with ## are uploads in progress of
// the full-db chains.
func binaries() BlobSet {
	return BlobSet{
		Name:  "binaries",
		Refs:  `SELECT sha1, bin_length FROM binaries WHERE sha1 NOT LIKE '##%'`,
		Named: `SELECT sha1 FROM binaries WHERE sha1 = ?`,
		// The path "." is the root of a repository. CONCAT is understood by
		// MySQL, MariaDB, PostgreSQL and SQLite alike, || is not.
		Paths: `SELECT repo, CASE WHEN node_path = '.' THEN node_name ELSE CONCAT(node_path, '/', node_name) END` +
			` FROM nodes WHERE sha1_actual = ? ORDER BY repo, node_path, node_name`,
	}
}

func artifactory6() Profile {
	return Profile{
		Name: NameArtifactory, Layout: Layout6,
		BlobSets: []BlobSet{binaries()},
		Required: []string{"etc", "data"},
		DataDir:  "data", ChainFile: "etc/binarystore.xml", LockFile: "data/.lock",
		dataDirFile: "etc/ha-node.properties",
		HostSpecific: []string{
			// Where this host's database is.
			"/etc/db.properties", "/etc/.secrets/", "/etc/storage.properties",
			// Which member of a cluster this host is.
			"/etc/ha-node.properties",
			// A file with an identity that is found at start replaces the one in
			// the database, and that one travels with the database.
			"/etc/security/access/keys/service_id", "/etc/security/access/keys/cluster.id", "/etc/cluster.id",
			// Imported at start, over the configuration in the database.
			"/etc/*.import.*", "/access/etc/*.import.*",
			// Licences are issued to a server.
			"/etc/artifactory.lic", "/etc/artifactory.cluster.license",
			"/data/.lock",
		},
		NotTree: []string{
			"/data/filestore/", "/data/eventual/", "/data/cache/", "/data/tmp*/",
			"/data/derby/", "/access/data/derby/", // a live database's files, torn when copied
			"/data/index/", "/data/workspaces/", // of old versions; rebuilt
			"/work/", "/logs/", "/run/", "/backup/", "/support/",
			"/access/logs/", "/access/tmp/", "/access/work/",
			"/replicator/logs/", "/replicator/tmp/", "/replicator/work/",
			"/tomcat/logs/", "/tomcat/temp/", "/tomcat/work/",
		},
		// The database and etc are encrypted with these. Other keys travel with
		// the tree and may be renewed on the active; these name the installation.
		Identical: []string{"etc/security/master.key", "etc/security/communication.key"},
	}
}

// artifactory7 returns the profile of version 7, where v is "var/" or "".
func artifactory7(layout, v string) Profile {
	return Profile{
		Name: NameArtifactory, Layout: layout,
		BlobSets: []BlobSet{binaries()},
		Required: []string{v + "etc", v + "data"},
		DataDir:  v + "data/artifactory", ChainFile: v + "etc/artifactory/binarystore.xml", LockFile: v + "data/artifactory/.lock",
		SystemFile: v + "etc/system.yaml", dataDirFile: v + "etc/system.yaml",
		HostSpecific: anchored(v,
			// system.yaml mixes the host's address, node name and database with
			// settings of the installation. It stays at home as a whole, and
			// CompareSystemYAML says which of the latter differ.
			"etc/system.yaml",
			"etc/artifactory/ha-node.properties", "etc/artifactory/db.properties", "etc/artifactory/.secrets/", "etc/artifactory/storage.properties",
			"etc/artifactory/security/access/keys/service_id", "etc/artifactory/security/access/keys/cluster.id", "etc/artifactory/cluster.id",
			"etc/*.import.*", "etc/artifactory/*.import.*", "etc/access/*.import.*",
			"bootstrap/", // consumed at the next start
			"etc/artifactory/artifactory.lic", "etc/artifactory/artifactory.cluster.license",
			"data/artifactory/.lock",
		),
		NotTree: append(anchored(v,
			"data/artifactory/filestore/", "data/artifactory/eventual/", "data/artifactory/cache/", "data/artifactory/tmp*/",
			"data/artifactory/derby/", "data/access/derby/", "data/postgres*/", // live databases' files, torn when copied
			"data/artifactory/index/", "data/artifactory/workspaces/",
			"work/", "log/", "logs/", "run/", "tmp/", "backup/", "support/", "data/artifactory/support/",
		),
			// The program is installed on each host, in the same version.
			"/app/",
		),
		Identical: []string{v + "etc/security/master.key"},
	}
}

// anchored puts the directory v of the home before each pattern.
func anchored(v string, patterns ...string) []string {
	all := make([]string, len(patterns))
	for i, p := range patterns {
		all[i] = "/" + v + p
	}
	return all
}
