package sqlite

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

// No room on the active for a copy: the check says so, a capture fails, and nothing is left.
func TestActiveIsFull(t *testing.T) {
	fs := testenv.NewFileSystem(t, "ext4", "-m", "0")
	l := newLab(t, "wal", 0)
	l.fill(5_000)
	l.publish(l.engine())
	t.Setenv("TMPDIR", fs.Dir)
	undo := fs.LeaveFree(256 << 10)
	findings, err := l.engine().Check(t.Context())
	if err != nil || len(findings) != 1 || !findings[0].Fatal || !strings.Contains(findings[0].Fix, "TMPDIR") {
		t.Fatalf("%+v %v", findings, err)
	}
	e := l.engine()
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(hint.Of(err), "TMPDIR") {
		t.Fatal(err)
	}
	wantFiles(t, fs.Dir, "filler", "lost+found")
	wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")

	// It may also become full meanwhile.
	db, err := open(l.active, readLive)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = activeError(conn.Raw(func(c any) error { return copyPages(t.Context(), c, filepath.Join(fs.Dir, "x.db")) }))
	if err == nil || !strings.Contains(hint.Of(err), "TMPDIR") {
		t.Fatal(err)
	}
	undo()
	l.capture(e)
}

// The standby's file system becomes full in the middle: the error is its own, the whole is
// not asked for, and what is visible stays.
func TestStandbyIsFull(t *testing.T) {
	fs := testenv.NewFileSystem(t, "ext4", "-m", "0")
	l := newLab(t, "wal", 0)
	l.standby = filepath.Join(fs.Dir, "app.db")
	l.fill(5_000)
	l.publish(l.engine())
	l.exec("UPDATE nodes SET node_name = hex(randomblob(30))")
	e := l.engine()
	honest, asked := e.o.Snapshot, ""
	var undo func()
	e.o.Snapshot = func(ctx context.Context, arg string) (io.ReadCloser, error) {
		kind, _, _ := strings.Cut(arg, ":")
		asked += " " + kind
		if kind == "ranges" && undo == nil {
			undo = fs.LeaveFree(0)
		}
		return honest(ctx, arg)
	}
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if asked != " check sums ranges" {
		t.Fatalf("asked%s", asked)
	}
	wantFiles(t, fs.Dir, "app.db", ".app.db.drsync.json", "filler", "lost+found")
	wantFiles(t, os.Getenv("TMPDIR"))
	findings, err := e.Check(t.Context())
	if err != nil || len(findings) != 1 || !findings[0].Fatal || !strings.HasPrefix(findings[0].Subject, "standby") {
		t.Fatalf("%+v %v", findings, err)
	}
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), "room for") {
		t.Fatal(err)
	}
	undo()
	l.capture(e)
	l.wantSame(e)
}

// An application that keeps its database locked for itself is a finding, and an encrypted one too.
func TestCheckNamesWhatIsLocked(t *testing.T) {
	l := newLab(t, "delete", 10)
	l.exec("PRAGMA locking_mode = EXCLUSIVE")
	l.exec("BEGIN EXCLUSIVE")
	defer l.exec("ROLLBACK")
	findings, err := l.engine().Check(t.Context())
	if err != nil || len(findings) != 1 || !findings[0].Fatal || !strings.Contains(findings[0].Fix, "locking_mode") {
		t.Fatalf("%+v %v", findings, err)
	}
	junk := filepath.Join(filepath.Dir(l.active), "junk.db")
	if err := os.WriteFile(junk, []byte(strings.Repeat("encrypted", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	o := l.options()
	o.ActivePath = junk
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	findings, err = e.Check(t.Context())
	if err != nil || len(findings) != 1 || !findings[0].Fatal || !strings.Contains(findings[0].Fix, "encrypted") {
		t.Fatalf("%+v %v", findings, err)
	}
}
