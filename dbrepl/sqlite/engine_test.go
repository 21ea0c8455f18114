package sqlite

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

func TestCaptureIsInvisibleUntilPublished(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t, mode, 300)
			e := l.engine()
			if _, err := e.Visible(t.Context()); !errors.Is(err, dbrepl.ErrNoDatabase) {
				t.Fatalf("visible before the first publish: %v", err)
			}
			before := time.Now()
			c := l.capture(e)
			l.add(300, 400) // after the point
			if _, err := e.Visible(t.Context()); !errors.Is(err, dbrepl.ErrNoDatabase) {
				t.Fatalf("visible before the first publish: %v", err)
			}
			if got := refsOf(t, c); !slices.Equal(got, expect(300)) {
				t.Fatalf("captured %d blobs", len(got))
			}
			p := c.Point()
			if p.Time.Before(before) || p.Time.After(time.Now()) || p.Time.Location() != time.UTC ||
				p.Skew != time.Second || p.SkewError != time.Millisecond || !strings.HasPrefix(p.Server, "SQLite 3.") || p.Position == "" {
				t.Fatalf("point %+v", p)
			}
			if n := c.Counts(); n.Tables != 2 || n.Rows != 600 || n.Bytes == 0 {
				t.Fatalf("counts %+v", n)
			}
			for range 2 {
				if err := c.Publish(t.Context()); err != nil {
					t.Fatal(err)
				}
				wantVisible(t, e, 300)
			}
			if got := refsOf(t, c); !slices.Equal(got, expect(300)) {
				t.Fatalf("after publish the capture has %d blobs", len(got))
			}
			wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
			if err := c.Discard(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.publish(e)
			wantVisible(t, e, 400)
			wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json", ".app.db.drsync-prev")
			wantWhole(t, e.f.prev, 300)
			// The first capture still reads its own point, which lies under another name now, or says why not.
			for _, err := range c.Refs(t.Context(), refsQuery) {
				if err != nil && !strings.Contains(err.Error(), "replaced meanwhile") {
					t.Fatal(err)
				}
			}
		})
	}
}

// wantWhole asserts that the database at path has the first n rows.
func wantWhole(t *testing.T, path string, n int) {
	t.Helper()
	v, err := openView(t.Context(), candidate{path, readLive})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := v.quickCheck(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := refsOf(t, v); !slices.Equal(got, expect(n)) {
		t.Fatalf("%s names %d blobs, want %d", path, len(got), n)
	}
}

func TestDiscard(t *testing.T) {
	l := newLab(t, "wal", 10)
	e := l.engine()
	l.publish(e)
	l.add(10, 20)
	c := l.capture(e)
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil {
		t.Fatal("a second capture took the place of an unpublished one")
	}
	for range 2 {
		if err := c.Discard(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
	wantVisible(t, e, 10)

	// Once a publish has begun, Recover needs the staged file.
	c = l.capture(e)
	stopped := errors.New("stopped")
	e.step = func(name string) error {
		if name == "rename" {
			return stopped
		}
		return nil
	}
	if err := c.Publish(t.Context()); !errors.Is(err, stopped) {
		t.Fatal(err)
	}
	if err := c.Discard(t.Context()); err != nil {
		t.Fatal(err)
	}
	e = l.engine()
	if err := e.Recover(t.Context(), c.Token()); err != nil {
		t.Fatal(err)
	}
	wantVisible(t, e, 20)
}

func TestRefsAreInByteOrder(t *testing.T) {
	l := newLab(t, "wal", 0)
	for _, v := range []any{"b", "B", "a", "A", "é", "z", nil, []byte("\x00x"), []byte("aa"), 7, strings.Repeat("y", 1000)} {
		l.exec("INSERT INTO nodes VALUES ('r', 'p', 'n', ?)", v)
	}
	c := l.capture(l.engine())
	var got []string
	for r, err := range c.Refs(t.Context(), "SELECT sha1_actual, 1 FROM nodes -- all") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(r.Sum))
	}
	want := []string{"", "\x00x", "7", "A", "B", "a", "aa", "b", strings.Repeat("y", maxName), "z", "é"}
	if !slices.Equal(got, want) {
		t.Fatalf("got %q", got)
	}
	for _, bad := range []string{"SELECT sha1_actual FROM nodes", "SELECT 1, 2, 3", "SELECT 'x', 'y'", "SELECT 'x', 1.5", "SELECT x FROM nowhere", "DELETE FROM nodes"} {
		if !fails(c.Refs(t.Context(), bad)) {
			t.Errorf("%s: no error", bad)
		}
	}
}

func fails[T any](seq iter.Seq2[T, error]) bool {
	for _, err := range seq {
		if err != nil {
			return true
		}
	}
	return false
}

func TestStringsAndNesting(t *testing.T) {
	l := newLab(t, "wal", 50)
	l.exec("INSERT INTO nodes VALUES ('r', NULL, 7, 'x')")
	c := l.capture(l.engine())
	paths := func(sum blob.Sum) (all []string) {
		for s, err := range c.Strings(t.Context(), "SELECT repo, node_path, node_name FROM nodes WHERE sha1_actual = ?", string(sum)) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		return all
	}
	n := 0
	for r, err := range c.Refs(t.Context(), refsQuery) {
		if err != nil {
			t.Fatal(err)
		}
		if p := paths(r.Sum); len(p) != 1 || !strings.HasPrefix(p[0], "libs/a/b/f") {
			t.Fatalf("paths of %s: %q", r.Sum, p)
		}
		n++
	}
	if n != 50 {
		t.Fatalf("%d refs", n)
	}
	if p := paths("x"); !slices.Equal(p, []string{"r//7"}) {
		t.Fatalf("paths %q", p)
	}
	if !fails(c.Strings(t.Context(), "SELECT nothing FROM nodes WHERE repo = ?", "x")) {
		t.Fatal("no error")
	}
}

func TestViewStaysAtItsGeneration(t *testing.T) {
	l := newLab(t, "wal", 10)
	e := l.engine()
	l.publish(e)
	v, err := e.Visible(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	next, stop := iter.Pull2(v.Refs(t.Context(), refsQuery))
	defer stop()
	if _, err, ok := next(); err != nil || !ok {
		t.Fatal(err, ok)
	}
	l.add(10, 20)
	l.publish(e)
	for n := 1; ; n++ {
		_, err, ok := next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			if n != 10 {
				t.Fatalf("%d refs of a view of 10", n)
			}
			break
		}
	}
	for _, err := range v.Refs(t.Context(), refsQuery) {
		if err != nil {
			break // "replaced meanwhile" when no connection is free
		}
	}
	wantVisible(t, e, 20)
}

func TestCancel(t *testing.T) {
	l := newLab(t, "wal", 2000)
	e := l.engine()
	l.publish(e)
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := e.Capture(ctx, dbrepl.CaptureOptions{}); !errors.Is(err, why) {
		t.Errorf("capture: %v", err)
	}
	wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
	c := l.capture(e)
	if err := c.Publish(ctx); !errors.Is(err, why) {
		t.Errorf("publish: %v", err)
	}
	if err := e.Recover(ctx, c.Token()); !errors.Is(err, why) {
		t.Errorf("recover: %v", err)
	}
	if _, err := e.Check(ctx); !errors.Is(err, why) {
		t.Errorf("check: %v", err)
	}
	if _, err := e.StillNamed(ctx, refsQuery, nil); !errors.Is(err, why) {
		t.Errorf("still named: %v", err)
	}
	for _, err := range c.Refs(ctx, refsQuery) {
		if !errors.Is(err, why) {
			t.Errorf("refs: %v", err)
		}
	}
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	var last error
	for _, err := range c.Refs(ctx, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT b.sha1, n.i FROM n, binaries b LIMIT 5000") {
		stop(why)
		last = err
	}
	if !errors.Is(last, why) {
		t.Errorf("refs cancelled in the middle: %v", last)
	}
}

// A stream that stalls is given up when the context ends.
func TestCancelWhileReceiving(t *testing.T) {
	l := newLab(t, "wal", 10)
	o := l.options()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	why := errors.New("why")
	o.Snapshot = func(context.Context, string) (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { // hands out the first line, then nothing
			w.Write([]byte("{"))
			cancel(why)
		}()
		return r, nil
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Capture(ctx, dbrepl.CaptureOptions{}); !errors.Is(err, why) {
		t.Fatal(err)
	}
	wantFiles(t, e.f.dir)
}

func TestOwnerAndModeArePreserved(t *testing.T) {
	testenv.RequireRoot(t)
	l := newLab(t, "wal", 5)
	e := l.engine()
	if err := os.Chown(e.f.dir, 1234, 2345); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(e.f.dir, 0o750); err != nil {
		t.Fatal(err)
	}
	l.publish(e)
	want := func(uid, gid int, mode os.FileMode) {
		t.Helper()
		u, g, m, err := e.attributes()
		if err != nil || u != uid || g != gid || m != mode {
			t.Fatalf("owner %d:%d mode %o, want %d:%d %o (%v)", u, g, m, uid, gid, mode, err)
		}
	}
	want(1234, 2345, 0o640)
	if err := errors.Join(os.Chown(e.f.live, 77, 88), os.Chmod(e.f.live, 0o604)); err != nil {
		t.Fatal(err)
	}
	l.publish(e)
	want(77, 88, 0o604)
}

func TestPromote(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t, mode, 20)
			e := l.engine()
			if _, err := e.Promote(t.Context()); !errors.Is(err, dbrepl.ErrNoDatabase) {
				t.Fatal(err)
			}
			c := l.capture(e)
			if err := c.Publish(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				p, err := e.Promote(t.Context())
				if err != nil || p != c.Point() {
					t.Fatalf("%+v, want %+v, %v", p, c.Point(), err)
				}
			}
			wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
			app, err := open(l.standby, "mode=rw")
			if err != nil {
				t.Fatal(err)
			}
			defer app.Close()
			var got string
			if err := app.QueryRow("PRAGMA journal_mode").Scan(&got); err != nil || got != mode {
				t.Fatalf("journal mode %q %v", got, err)
			}
			// The application is at work already when a failover is resumed.
			for _, s := range []string{"BEGIN IMMEDIATE", "INSERT INTO binaries VALUES ('new', 1)"} {
				if _, err := app.Exec(s); err != nil {
					t.Fatal(err)
				}
			}
			e.o.Event = nil
			if _, err := e.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := app.Exec("COMMIT"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestStillNamed(t *testing.T) {
	l := newLab(t, "wal", 30)
	e := l.engine()
	l.publish(e)
	l.exec("DELETE FROM binaries WHERE sha1 = ?", string(sumOf(3)))
	got, err := e.StillNamed(t.Context(), "SELECT 1 FROM binaries WHERE sha1 = ?", []blob.Sum{sumOf(3), sumOf(4), "'; DROP TABLE binaries"})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[sumOf(3)] || !got[sumOf(4)] {
		t.Fatalf("%v", got)
	}
	wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
	if _, err := e.StillNamed(t.Context(), "SELECT 1 FROM nowhere WHERE sha1 = ?", []blob.Sum{sumOf(3)}); err == nil {
		t.Fatal("no error")
	}
	wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
}

func TestCheck(t *testing.T) {
	l := newLab(t, "wal", 5)
	e := l.engine()
	if f, err := e.Check(t.Context()); err != nil || len(f) != 0 {
		t.Fatalf("%+v %v", f, err)
	}
	wantFiles(t, e.f.dir)

	rollback := newLab(t, "delete", 5)
	f, err := rollback.engine().Check(t.Context())
	if err != nil || len(f) != 1 || f[0].Fatal || !strings.Contains(f[0].Problem, "journal mode") {
		t.Fatalf("%+v %v", f, err)
	}

	for name, change := range map[string]func(*Options){
		"no such active":      func(o *Options) { o.ActivePath += "x" },
		"not served":          func(o *Options) { o.ActivePath = "/etc/passwd" },
		"no such directory":   func(o *Options) { o.StandbyPath = "/nowhere/app.db" },
		"standby is a folder": func(o *Options) { o.StandbyPath = filepath.Dir(o.StandbyPath) },
		"connection refused": func(o *Options) {
			o.Snapshot = func(context.Context, string) (io.ReadCloser, error) { return nil, errors.New("refused") }
		},
	} {
		o := l.options()
		change(&o)
		e, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		f, err := e.Check(t.Context())
		if err != nil || !slices.ContainsFunc(f, func(f dbrepl.Finding) bool { return f.Fatal && f.Problem != "" && f.Subject != "" }) {
			t.Errorf("%s: %+v %v", name, f, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	l := newLab(t, "wal", 0)
	for name, change := range map[string]func(*Options){
		"relative active":  func(o *Options) { o.ActivePath = "app.db" },
		"unclean standby":  func(o *Options) { o.StandbyPath = "/a/../b" },
		"the root":         func(o *Options) { o.StandbyPath = "/" },
		"without snapshot": func(o *Options) { o.Snapshot = nil },
		"without clock":    func(o *Options) { o.Clock = nil },
	} {
		o := l.options()
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLiveInUseIsRefused(t *testing.T) {
	l := newLab(t, "wal", 10)
	e := l.engine()
	l.publish(e)
	l.add(10, 20)
	c := l.capture(e)
	held, err := os.OpenFile(e.f.live, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Publish(t.Context())
	if !errors.Is(err, ErrInUse) || hint.Of(err) == "" {
		t.Fatalf("%v (hint %q)", err, hint.Of(err))
	}
	if f, err := e.Check(t.Context()); err != nil || len(f) != 1 || !f[0].Fatal {
		t.Fatalf("%+v %v", f, err)
	}
	wantVisible(t, e, 10)
	held.Close()
	if err := e.Recover(t.Context(), c.Token()); err != nil {
		t.Fatal(err)
	}
	wantVisible(t, e, 20)
}

// Where the kernel grants no leases, SQLite's own locks must tell.
func TestLockedLiveIsRefused(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		l := newLab(t, "wal", 10)
		e := l.engine()
		l.publish(e)
		app := openApp(t, l.standby, mode)
		for _, s := range []string{"BEGIN IMMEDIATE", "INSERT INTO binaries VALUES ('new', 1)"} {
			if _, err := app.Exec(s); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.settle(t.Context()); !errors.Is(err, ErrInUse) || hint.Of(err) == "" {
			t.Errorf("%s: %v", mode, err)
		}
		app.Close()
	}
}

// Without a write-ahead log writers wait for the copy, and the counts say how long.
func TestWaitIsMeasured(t *testing.T) {
	for mode, waits := range map[string]bool{"wal": false, "delete": true} {
		l := newLab(t, mode, 300)
		c, err := l.engine().Capture(t.Context(), dbrepl.CaptureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n := c.Counts(); (n.Locked > 0) != waits || (n.Against == "writes") != waits {
			t.Errorf("%s: %+v", mode, n)
		}
		if err := errors.Join(c.Discard(t.Context()), c.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
