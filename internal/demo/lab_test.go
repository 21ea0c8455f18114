package demo

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/config"
	"github.com/drsync/drsync/internal/testenv"
)

func makeLab(t *testing.T) *Lab {
	t.Helper()
	return made(t)(NewLab(filepath.Join(t.TempDir(), "lab")))
}

// smallLab has everything that NewLab's has, but less of it.
func smallLab(t *testing.T) *Lab {
	t.Helper()
	return made(t)(newLab(filepath.Join(t.TempDir(), "lab"), content{small: 80, medium: 2, large: 1}))
}

func made(t *testing.T) func(*Lab, error) *Lab {
	return func(l *Lab, err error) *Lab {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
		return l
	}
}

// replicate does by hand what a run does: the database first, then the files.
func replicate(t *testing.T, l *Lab) {
	t.Helper()
	copyDatabase(t, l)
	names, err := readHome(t.Context(), l.ActiveHome)
	if err != nil {
		t.Fatal(err)
	}
	old, err := readHome(t.Context(), l.StandbyHome)
	if err != nil {
		t.Fatal(err)
	}
	for name := range old {
		if names[name] == "" {
			if err := os.Remove(filepath.Join(l.StandbyHome, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name := range names {
		if !neverTravel(name) {
			copyFile(t, l, name)
		}
	}
	blobs, err := filepath.Glob(filepath.Join(l.ActiveHome, "data/filestore/[0-9a-f][0-9a-f]/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		name, _ := filepath.Rel(l.ActiveHome, b)
		copyFile(t, l, name)
	}
}

func copyDatabase(t *testing.T, l *Lab) {
	t.Helper()
	if err := os.RemoveAll(l.StandbyDB); err != nil {
		t.Fatal(err)
	}
	if _, err := l.db.Exec("VACUUM INTO ?", l.StandbyDB); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, l *Lab, name string) {
	t.Helper()
	to := filepath.Join(l.StandbyHome, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	from := filepath.Join(l.ActiveHome, name)
	if target, err := os.Readlink(from); err == nil {
		_ = os.Remove(to)
		if err := os.Symlink(target, to); err != nil {
			t.Fatal(err)
		}
		return
	}
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(to, info.Mode().Perm()), os.Chtimes(to, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

func TestNewLab(t *testing.T) {
	begin := time.Now()
	l := makeLab(t)
	t.Logf("made in %v: %d artifacts, %s", time.Since(begin), l.Artifacts, Bytes(l.Bytes))

	if l.Artifacts < 500 {
		t.Errorf("%d artifacts, want at least 500", l.Artifacts)
	}
	if l.Bytes < 30_000_000 || l.Bytes > 60_000_000 {
		t.Errorf("%d bytes, want 30 to 60 million", l.Bytes)
	}
	var rows int
	var bytes int64
	if err := l.db.QueryRow(`SELECT COUNT(*), SUM(bin_length) FROM binaries`).Scan(&rows, &bytes); err != nil {
		t.Fatal(err)
	}
	if rows != l.Artifacts || bytes != l.Bytes {
		t.Errorf("the database has %d rows of %d bytes, want %d of %d", rows, bytes, l.Artifacts, l.Bytes)
	}
	for path, mode := range map[string]os.FileMode{
		"etc/security/master.key": 0o600, "etc/security/artifactory.key": 0o600, "etc/security": fs.ModeDir | 0o700,
		"etc/logback.xml": 0o640, "data/.lock": 0o644, "logs/request.log": 0o640,
	} {
		info, err := os.Lstat(filepath.Join(l.ActiveHome, path))
		if err != nil {
			t.Error(err)
		} else if info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), mode)
		}
	}
	repos := map[string]int{}
	list, err := l.db.Query(`SELECT repo, COUNT(*) FROM nodes GROUP BY repo`)
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	for list.Next() {
		var repo string
		var n int
		if err := list.Scan(&repo, &n); err != nil {
			t.Fatal(err)
		}
		repos[repo] = n
	}
	if len(repos) != 3 || repos[localRepo] == 0 || repos[cacheRepo] == 0 || repos[trashRepo] == 0 {
		t.Errorf("nodes by repository: %v", repos)
	}
}

func TestNewLabNeedsAnEmptyDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewLab(dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Fatalf("got %v", err)
	}
}

func TestLabIsTheSameEveryTime(t *testing.T) {
	one, other := makeLab(t), makeLab(t)
	const query = `SELECT repo || '/' || node_path || '/' || node_name || ' ' || COALESCE(sha1_actual, '') FROM nodes ORDER BY node_id`
	if a, b := column(t, one, query), column(t, other, query); !slices.Equal(a, b) {
		t.Error("two labs differ")
	}
}

func column(t *testing.T, l *Lab, query string) []string {
	t.Helper()
	rows, err := l.db.Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

func TestCheckBeforeAnyRun(t *testing.T) {
	if _, err := smallLab(t).Check(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v, want fs.ErrNotExist", err)
	}
}

func TestChangeIsSeenAndCopied(t *testing.T) {
	l := smallLab(t)
	replicate(t, l)
	r := check(t, l)
	if !r.OK() {
		t.Fatalf("after the first copy: %+v", r)
	}
	if r.Binaries != l.Artifacts || r.Bytes != l.Bytes || r.Unnamed != strayBlobs {
		t.Errorf("checked %d blobs, %d bytes, %d unnamed", r.Binaries, r.Bytes, r.Unnamed)
	}
	for range 2 {
		c, err := l.Change(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Uploaded) != uploads || c.UploadedBytes < 1_500_000 || len(c.HostFiles) != 2 {
			t.Errorf("changes: %+v", c)
		}
		if _, err := os.Stat(blobPath(l.ActiveHome, c.CollectedSum)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the collected blob is still there: %v", err)
		}
		r := check(t, l)
		if len(r.Broken) > 0 {
			t.Errorf("a standby that is behind is still whole: %v", r.Broken)
		}
		for _, part := range []string{"table binaries", "table nodes", c.Edited + " is", c.Added + " is missing", c.Removed + " is not on"} {
			if !slices.ContainsFunc(r.Behind, func(s string) bool { return strings.Contains(s, part) }) {
				t.Errorf("nothing says %q: %q", part, r.Behind)
			}
		}
		replicate(t, l)
		if r := check(t, l); !r.OK() {
			t.Errorf("after a copy: %+v", r)
		}
	}
}

func TestChangeObeysItsContext(t *testing.T) {
	l := smallLab(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := l.Change(ctx); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}

func check(t *testing.T, l *Lab) CheckReport {
	t.Helper()
	r, err := l.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestCheckFindsDamage damages the standby in every way that Check promises to find.
func TestCheckFindsDamage(t *testing.T) {
	l := smallLab(t)
	replicate(t, l)
	var sum string
	if err := l.db.QueryRow(`SELECT sha1 FROM binaries WHERE bin_length > 1000 ORDER BY sha1 LIMIT 1`).Scan(&sum); err != nil {
		t.Fatal(err)
	}
	blob, _ := filepath.Rel(l.StandbyHome, blobPath(l.StandbyHome, sum))
	truncate := func(name string, n int64) error { return os.Truncate(filepath.Join(l.StandbyHome, name), n) }
	write := func(name, text string) error {
		return writeFile(l.StandbyHome, homeFile{path: name, mode: 0o640, text: text})
	}
	flip := func(name string) error {
		path := filepath.Join(l.StandbyHome, name)
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, 0o640)
	}
	for _, c := range []struct {
		name   string
		damage func() error
		broken string
		behind string
	}{
		{name: "blob missing", damage: func() error { return os.Remove(filepath.Join(l.StandbyHome, blob)) }, broken: "is missing"},
		{name: "blob short", damage: func() error { return truncate(blob, 999) }, broken: "has 999 bytes instead of"},
		{name: "one bit", damage: func() error { return flip(blob) }, broken: "has the hash"},
		{name: "scratch", damage: func() error { return write("data/tmp/x", "") }, broken: "data/tmp/x is scratch"},
		{name: "half uploads", damage: func() error { return write("data/filestore/_pre/x", "") }, broken: "_pre/x is scratch"},
		{name: "lock", damage: func() error { return write("data/.lock", "") }, broken: "data/.lock is scratch"},
		{name: "host file overwritten", damage: func() error { return write("etc/db.properties", activeHostFiles(0)["etc/db.properties"]) }, broken: "was overwritten"},
		{name: "host file gone", damage: func() error { return os.Remove(filepath.Join(l.StandbyHome, "etc/ha-node.properties")) }, broken: "is gone"},
		{name: "key readable", damage: func() error { return os.Chmod(filepath.Join(l.StandbyHome, "etc/security/master.key"), 0o644) }, behind: "master.key is -rw-r--r--"},
		{name: "link gone", damage: func() error { return os.Remove(filepath.Join(l.StandbyHome, "etc/ui/logo")) }, behind: "etc/ui/logo is missing"},
		{name: "extra file", damage: func() error { return write("etc/plugins/old.groovy", "") }, behind: "old.groovy is not on the active"},
		{name: "row of a blob gone", damage: func() error { return execStandby(l, `DELETE FROM binaries WHERE sha1 = '`+sum+`'`) }, broken: "rows of nodes name content", behind: "table binaries"},
		{name: "row wrong", damage: func() error {
			return execStandby(l, `UPDATE binaries SET bin_length = 7 WHERE sha1 = '`+sum+`'`)
		}, broken: "instead of 7", behind: "table binaries"},
	} {
		if err := c.damage(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		r := check(t, l)
		says := func(lines []string, part string) bool {
			if part == "" {
				return len(lines) == 0
			}
			return slices.ContainsFunc(lines, func(s string) bool { return strings.Contains(s, part) })
		}
		if !says(r.Broken, c.broken) || !says(r.Behind, c.behind) {
			t.Errorf("%s: broken %q, behind %q", c.name, r.Broken, r.Behind)
		}
		mend(t, l, blob)
	}
	if r := check(t, l); !r.OK() {
		t.Errorf("mended: %+v", r)
	}
}

// mend undoes all that TestCheckFindsDamage does.
func mend(t *testing.T, l *Lab, blob string) {
	t.Helper()
	for _, name := range []string{"data/tmp/x", "data/filestore/_pre/x", "data/.lock", "etc/plugins/old.groovy"} {
		if err := os.RemoveAll(filepath.Join(l.StandbyHome, name)); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range standbyHostFiles() {
		if err := writeFile(l.StandbyHome, homeFile{path: path, mode: 0o640, text: text}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{blob, "etc/security/master.key", "etc/ui/logo"} {
		copyFile(t, l, name)
	}
	copyDatabase(t, l)
}

func execStandby(l *Lab, query string) error {
	db, err := openSQLite(l.StandbyDB, "_pragma=foreign_keys(0)")
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec(query)
	return err
}

// TestExcludesAreEnough runs real rsync with the exclude list of the seed: it
// keeps out what it names and nothing else, which is why host-specific files,
// the lock and unfinished uploads need drsync's own knowledge.
func TestExcludesAreEnough(t *testing.T) {
	testenv.Require(t, "rsync")
	l := smallLab(t)
	if _, err := l.WriteConfig("local", SSH{}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "rsync", "-a", "--del", "--exclude-from="+l.excludeFile(),
		l.ActiveHome+"/", l.StandbyHome+"/").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	copyDatabase(t, l)
	r := check(t, l)
	want := []string{
		"etc/db.properties, the standby's own, was overwritten",
		"etc/ha-node.properties, the standby's own, was overwritten",
		"data/.lock is scratch and must not travel",
		"data/filestore/_pre/dbRecord5012.bin is scratch and must not travel",
	}
	if !slices.Equal(r.Broken, want) || len(r.Behind) != 0 {
		t.Errorf("broken %q, behind %q", r.Broken, r.Behind)
	}
}

// TestConfig reads the lab's configuration as drsync does.
func TestConfig(t *testing.T) {
	l := smallLab(t)
	for transport, ssh := range map[string]SSH{
		"local": {},
		"agent": {Host: "127.0.0.1", Port: 2222, User: "demo", Identity: "/k/id", KnownHosts: "/k/hosts", Agent: "/opt/drsync -x"},
	} {
		path, err := l.WriteConfig(transport, ssh)
		if err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(path)
		if err != nil {
			t.Fatalf("%s: %v", transport, err)
		}
		var agent []string
		if ssh.Agent != "" {
			agent = strings.Fields(ssh.Agent)
		}
		active := config.Active{Host: ssh.Host, User: ssh.User, Port: ssh.Port, Identity: ssh.Identity, KnownHosts: ssh.KnownHosts,
			Home: l.ActiveHome, Transport: config.Transport(transport), Agent: agent}
		if !reflect.DeepEqual(c.Active, active) {
			t.Errorf("%s: active is %+v, want %+v", transport, c.Active, active)
		}
		if want := (config.Standby{Home: l.StandbyHome, State: l.StandbyState}); !reflect.DeepEqual(c.Standby, want) {
			t.Errorf("%s: standby is %+v, want %+v", transport, c.Standby, want)
		}
		if d := c.Database; d.Engine != config.EngineSQLite || d.Active.Path != l.ActiveDB || d.Standby.Path != l.StandbyDB {
			t.Errorf("%s: database is %+v", transport, d)
		}
		if got, err := os.ReadFile(c.Files.ExcludeFrom); err != nil || string(got) != excludes {
			t.Errorf("%s: the exclude list is %q, %v", transport, got, err)
		}
		if c.Application != config.Artifactory || c.Snapshots.KeepLast != 1 || c.Prune.MinAge != 0 {
			t.Errorf("%s: %+v", transport, c)
		}
	}
}
