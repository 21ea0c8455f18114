package filestore_test

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/filestore"
	"github.com/drsync/drsync/internal/filestore/storetest"
	"github.com/drsync/drsync/internal/hint"
)

const data = "/home/data"

func chainFile(body string) string { return `<config version="v1">` + body + `</config>` }

func TestLayout(t *testing.T) {
	for _, c := range []struct {
		name, file string
		dirs       []string
		temp       string
		waiting    int
		database   bool
		notes      string // part of the notes
	}{
		{name: "file-system", file: chainFile(`<chain template="file-system"/>`), dirs: []string{data + "/filestore"}},
		{name: "byte order mark", file: "\ufeff<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" + chainFile(`<chain template="file-system"/>`), dirs: []string{data + "/filestore"}},
		{name: "absolute", file: chainFile(`<chain template="file-system"/><provider id="file-system" type="file-system"><fileStoreDir> /mnt/blobs/ </fileStoreDir><tempDir>temp</tempDir></provider>`),
			dirs: []string{"/mnt/blobs"}, temp: "temp"},
		{name: "property", file: chainFile(`<chain template="file-system"/><provider id="file-system" type="file-system"><property name="fileStoreDir" value="blobs"/></provider>`),
			dirs: []string{data + "/blobs"}},
		{name: "settings of another id", file: chainFile(`<chain template="file-system"/><provider id="fs" type="file-system"><fileStoreDir>/mnt</fileStoreDir></provider>`),
			dirs: []string{data + "/filestore"}, notes: "provider fs (file-system) is not in the chain"},
		{name: "settings of another type", file: chainFile(`<chain template="file-system"/><provider id="file-system" type="state-aware"><fileStoreDir>/mnt</fileStoreDir></provider>`),
			dirs: []string{data + "/filestore"}, notes: "not in the chain"},
		{name: "cache", file: chainFile(`<chain template="cache-fs"/><provider id="cache-fs" type="cache-fs"><maxCacheSize>5e+10</maxCacheSize></provider>`),
			dirs: []string{data + "/filestore"}, notes: "cache of cache-fs is not copied"},
		{name: "spelled out, inline settings", file: chainFile(`<!-- comment --><chain> <!--template="file-system"--><provider id="x" type="file-system"><fileStoreDir>inline</fileStoreDir></provider></chain>`),
			dirs: []string{data + "/inline"}},
		{name: "spelled out beside a template", file: chainFile(`<chain template="s3"><provider id="x" type="file-system"/></chain>`), dirs: []string{data + "/filestore"}},
		{name: "full-db", file: chainFile(`<chain template="full-db"/>`), database: true},
		{name: "full-db-direct", file: chainFile(`<chain template="full-db-direct"/>`), database: true},
		{name: "double-shards", file: chainFile(`<chain template="double-shards"/>`), dirs: []string{data + "/shard-fs-1", data + "/shard-fs-2"}},
		{name: "double-shards elsewhere", file: chainFile(`<chain template="double-shards"/><provider id="shard-fs-2" type="state-aware"><fileStoreDir>/mnt/two</fileStoreDir></provider>`),
			dirs: []string{data + "/shard-fs-1", "/mnt/two"}},
		{name: "redundant-shards", file: chainFile(`<chain template="redundant-shards"/>`),
			dirs: []string{data + "/shard-state-aware-1", data + "/shard-state-aware-2"}, notes: "keeps 2 copies"},
		{name: "the first shard is not written to", file: chainFile(`<chain><provider id="s" type="sharding">
			<sub-provider id="a" type="state-aware"><fileStoreDir>a</fileStoreDir><writeEnabled>false</writeEnabled></sub-provider>
			<sub-provider id="b" type="state-aware"><fileStoreDir>b</fileStoreDir></sub-provider></provider></chain>`),
			dirs: []string{data + "/b", data + "/a"}},
		{name: "shards of the templates, spelled out", file: chainFile(`<chain><provider id="s" type="sharding"><sub-provider id="shard-fs-1" type="state-aware"/><sub-provider id="shard-fs-2" type="state-aware"/></provider></chain>`),
			dirs: []string{data + "/shard-fs-1", data + "/shard-fs-2"}},
		{name: "eventual over files", file: chainFile(`<chain><provider id="e" type="eventual"><provider id="r" type="retry"><provider id="f" type="file-system"/></provider></provider></chain>`),
			dirs: []string{data + "/filestore"}, waiting: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain, err := filestore.Parse([]byte(c.file))
			if err != nil {
				t.Fatal(err)
			}
			l, err := chain.Layout(data)
			if err != nil {
				t.Fatal(err)
			}
			var dirs []string
			for _, d := range l.Dirs {
				dirs = append(dirs, d.Path)
				want := c.temp
				if want == "" {
					want = "_pre"
				}
				if d.TempDir != want {
					t.Errorf("tempDir %q, want %q", d.TempDir, want)
				}
			}
			if !slices.Equal(dirs, c.dirs) || l.Database != c.database || len(l.Waiting) != c.waiting {
				t.Errorf("%+v, want %q", l, c.dirs)
			}
			if !strings.Contains(strings.Join(l.Notes, "\n"), c.notes) || c.notes == "" && len(l.Notes) > 0 && c.waiting == 0 && !strings.Contains(c.name, "shards") && !c.database {
				t.Errorf("notes %q, want %q", l.Notes, c.notes)
			}
		})
	}
}

func TestMissingFileIsFileSystem(t *testing.T) {
	absent, err := filestore.Parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := absent.Layout("data")
	if err != nil || len(l.Dirs) != 1 || l.Dirs[0].Path != "data/filestore" {
		t.Errorf("%+v, %v", l, err)
	}
	if got := l.Below("."); !slices.Equal(got, []string{"data/filestore"}) {
		t.Errorf("Below = %q", got)
	}
	if _, err := filestore.Parse([]byte{}); err == nil {
		t.Error("an empty file was taken for an absent one")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{``, "empty"},
		{`<config>`, "not well-formed XML at line 1"},
		{"<config>\n\n<chain template='x'></config>", "line 3"},
		{`<chain template="file-system"/>`, "<chain>, not <config>"},
		{`<config/><config/>`, "more than one outermost"},
		{chainFile(``), "no <chain>"},
		{chainFile(`<chain/>`), "names no template"},
		{chainFile(`<chain template="file-system"/><chain template="s3"/>`), "more than one <chain>"},
		{chainFile(`<chain template="cloudy"/>`), `unknown chain template "cloudy"`},
		{chainFile(`<chain><provider id="a" type="tape"/></chain>`), `unknown provider type "tape" (provider a)`},
		{chainFile(`<chain><provider id="a" type="retry"><provider id="b" type="tape"/></provider></chain>`), `unknown provider type "tape" (provider b)`},
		{chainFile(`<chain><provider id="a" type="file-system"/><provider id="b" type="file-system"/></chain>`), "2 outermost providers"},
		{chainFile(`<chain><provider id="a" type="retry"/></chain>`), "must wrap one provider"},
		{chainFile(`<chain><provider id="a" type="file-system"><provider id="b" type="file-system"/></provider></chain>`), "cannot wrap"},
		{chainFile(`<chain><provider id="a" type="sharding"/></chain>`), "no sub-provider"},
		{chainFile(`<chain><provider type="file-system"/></chain>`), "without id or type"},
		{chainFile(`<chain template="file-system"/><filter/>`), "unknown element <filter>"},
		{chainFile(`<chain template="file-system"/><provider id="x" type="retry"><provider id="y" type="s3"/></provider>`), "stands outside the chain"},
		{chainFile(`<chain><provider id="a" type="file-system"><fileStoreDir>x</fileStoreDir></provider></chain><provider id="a" type="file-system"><fileStoreDir>y</fileStoreDir></provider>`), "fileStoreDir is set twice"},
		{chainFile(`<chain template="redundant-shards"/><provider id="sharding" type="sharding"><redundancy>secretword</redundancy></provider>`), "redundancy is not a number"},
		{chainFile(`<chain template="file-system"/><provider id="file-system" type="file-system"><fileStoreDir><x/></fileStoreDir></provider>`), "contains elements"},
		{strings.Repeat("<config>", 100), "nested deeper"},
		{chainFile(strings.Repeat("<provider/>", 5000)), "more than 4096 elements"},
		{strings.Repeat(" ", 2<<20), "more than a chain can need"},
	} {
		_, err := filestore.Parse([]byte(c.file))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secretword") {
			t.Errorf("%.80s: %v, want %q", c.file, err, c.want)
		}
	}
}

func TestLayoutRefuses(t *testing.T) {
	cases := map[string]string{
		`<chain template="hdfs-like"/>`:                                                                        "unknown chain template",
		`<chain><provider id="hdfs" type="hdfs"/></chain>`:                                                     "provider hdfs: drsync cannot copy blobs that live in HDFS in this version",
		`<chain template="cluster-file-system"/>`:                                                              "nodes of a cluster",
		`<chain><provider id="x" type="external"/></chain>`:                                                    "external directories",
		`<chain><provider id="s" type="sharding"><sub-provider id="a" type="state-aware"/></provider></chain>`: "a shard needs its own fileStoreDir",
		`<chain><provider id="s" type="sharding"><sub-provider id="a" type="state-aware"><fileStoreDir>x</fileStoreDir></sub-provider><sub-provider id="b" type="state-aware"><fileStoreDir>./x</fileStoreDir></sub-provider></provider></chain>`: "share the directory",
		`<chain><provider id="s" type="sharding"><sub-provider id="a" type="state-aware"><fileStoreDir>x</fileStoreDir></sub-provider><sub-provider id="b" type="blob"/></provider></chain>`:                                                      "files and in the database",
		`<chain><provider id="a" type="file-system"><fileStoreDir>${BLOBS}</fileStoreDir></provider></chain>`:                                                                                                                                     "placeholder",
		`<chain><provider id="a" type="file-system"><tempDir>../x</tempDir></provider></chain>`:                                                                                                                                                   "tempDir",
		`<chain><provider id="a" type="file-system"><tempDir>ab</tempDir></provider></chain>`:                                                                                                                                                     "tempDir",
		`<chain><provider id="a" type="file-system"><binariesDir>x</binariesDir></provider></chain>`:                                                                                                                                              "binariesDir",
	}
	for _, store := range []string{"s3", "s3Old", "s3-storage-v3", "google-storage", "google-storage-v2", "azure-blob-storage", "s3-storage-v3-direct", "s3-storage-v3-archive", "google-storage-v2-direct", "azure-blob-storage-direct", "azure-blob-storage-v2-direct", "s3-sharding"} {
		cases[`<chain template="`+store+`"/>`] = "drsync cannot copy blobs that live in a bucket in this version"
	}
	for _, store := range []string{"s3", "s3-storage-v3", "google-storage", "google-storage-v2", "azure-blob-storage", "azure-blob-storage-v2"} {
		cases[`<chain template="cluster-`+store+`"/>`] = "sharding-cluster-eventual-" + store + " (sharding-cluster): drsync cannot copy"
	}
	for body, want := range cases {
		chain, err := filestore.Parse([]byte(chainFile(body)))
		if err == nil {
			_, err = chain.Layout(data)
			if err != nil && strings.Contains(err.Error(), "cannot copy") && hint.Of(err) == "" {
				t.Errorf("%s: no hint", body)
			}
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
}

func TestChainString(t *testing.T) {
	c, err := filestore.Parse([]byte(chainFile(`<chain template="s3-storage-v3"/>
		<provider id="s3-storage-v3" type="s3-storage-v3"><bucketName>blobs</bucketName><identity>AKIA-SECRET</identity><credential>k.aesgcm256.SECRET</credential>
		<endpoint>https://user:SECRET@s3.example.com/x</endpoint></provider>
		<provider id="cache-fs" type="cache-fs"><maxCacheSize>5e+10</maxCacheSize></provider>
		<provider id="old" type="s3"><credential>SECRET</credential></provider>`)))
	if err != nil {
		t.Fatal(err)
	}
	want := `chain, template s3-storage-v3
  cache-fs maxCacheSize=5e+10
    eventual
      retry
        s3-storage-v3 bucketName=blobs endpoint=https://***@s3.example.com/x
  unused settings: provider old (s3) is not in the chain
`
	if got := c.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if n, ok, err := c.Root.Number("maxCacheSize"); n != 5e10 || !ok || err != nil {
		t.Errorf("5e+10 = %v, %v, %v", n, ok, err)
	}
}

func TestParseIsPure(t *testing.T) {
	file := []byte(chainFile(`<chain template="double-shards"/><provider id="shard-fs-1" type="state-aware"><fileStoreDir>/x</fileStoreDir></provider>`))
	a, errA := filestore.Parse(file)
	a.Root.Settings["x"] = "y"
	a.Root.Children[0].Children[1].Settings["fileStoreDir"] = "changed"
	b, errB := filestore.Parse(file)
	c, errC := filestore.Parse(file)
	if errA != nil || errB != nil || errC != nil || !reflect.DeepEqual(b, c) || b.Root.Children[0].Children[1].Settings["fileStoreDir"] != "shard-fs-2" {
		t.Errorf("%v\n%v", b, c)
	}
}

func TestLayoutOpen(t *testing.T) {
	home := t.TempDir()
	c, err := filestore.Parse([]byte(chainFile(`<chain template="redundant-shards"/>`)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := c.Layout(filepath.Join(home, "data"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Open(filestore.DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ref, content := storetest.Content("sharded", 10)
	put(t, s, ref, content)
	if got := filesBelow(t, home); !slices.Equal(got, []string{"data/shard-state-aware-1/" + filestore.Fanned(ref.Sum)}) {
		t.Errorf("%q", got)
	}
	if got := l.Below(home); !slices.Equal(got, []string{"data/shard-state-aware-1", "data/shard-state-aware-2"}) {
		t.Errorf("Below = %q", got)
	}
	if got := l.Below("/elsewhere"); len(got) != 0 {
		t.Errorf("Below = %q", got)
	}
	if _, err := (filestore.Layout{Database: true}).Open(filestore.DirOptions{}); err == nil {
		t.Error("blobs in the database were opened as a directory")
	}
	sum := ref.Sum
	var paths []string
	for _, p := range (filestore.Waiting{}).Paths() {
		paths = append(paths, p(sum))
	}
	if want := []string{string(sum[:2]) + "/" + string(sum), string(sum)}; !slices.Equal(paths, want) {
		t.Errorf("%q", paths)
	}
}

func FuzzParse(f *testing.F) {
	for _, template := range []string{"file-system", "double-shards", "cluster-s3", "nope"} {
		f.Add([]byte(fmt.Sprintf(`<config version="2"><chain template=%q/><provider id="file-system" type="file-system"><fileStoreDir>x</fileStoreDir><property name="a" value="b"/></provider></config>`, template)))
	}
	f.Add([]byte(`<config><chain><provider id="s" type="sharding"><redundancy>5e+10</redundancy><sub-provider id="a" type="state-aware"><fileStoreDir>/x</fileStoreDir></sub-provider><dynamic-provider id="r" type="remote"/></provider></chain></config>`))
	f.Fuzz(func(t *testing.T, file []byte) {
		c, err := filestore.Parse(file)
		if err != nil {
			return
		}
		if again, err := filestore.Parse(file); err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("not the same twice: %v", err)
		}
		_ = c.String()
		l, err := c.Layout("/data")
		if err != nil {
			return
		}
		if l.Database == (len(l.Dirs) > 0) {
			t.Fatalf("neither files nor rows: %+v", l)
		}
		for _, d := range l.Dirs {
			if !filepath.IsAbs(d.Path) || strings.ContainsAny(d.TempDir, "/\x00") || d.TempDir == "" || d.TempDir == ".." {
				t.Fatalf("%+v", d)
			}
		}
	})
}
