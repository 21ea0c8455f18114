package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	drsync "github.com/drsync/drsync/sync"
)

// committed kills a run right after its publish was committed: the journal is
// written, nothing is placed yet.
func (p *pair) committed() *drsync.Pending {
	p.t.Helper()
	p.change()
	if !p.killed(killEnv + "=boundary 18") {
		p.t.Fatal("the run was not killed")
	}
	pending, err := drsync.PublishPending(p.path("state"))
	if err != nil || pending == nil {
		p.t.Fatalf("no publish is pending: %v", err)
	}
	return pending
}

func (p *pair) stillPending() bool {
	p.t.Helper()
	pending, err := drsync.PublishPending(p.path("state"))
	if err != nil {
		p.t.Fatal(err)
	}
	return pending != nil
}

// refuses runs a command that must fail with all of the texts.
func (p *pair) refuses(status int, texts []string, args ...string) {
	p.t.Helper()
	_, stderr := p.must(status, args...)
	for _, text := range texts {
		if !strings.Contains(stderr, text) {
			p.t.Errorf("drsync %v: the error lacks %q:\n%s", args, text, stderr)
		}
	}
}

// TestPendingPublish: a committed publish is finished only where and when it may be.
func TestPendingPublish(t *testing.T) {
	p := newPair(t, "local")
	p.must(0, "now")

	t.Run("a dry run leaves it", func(t *testing.T) {
		p.committed()
		before := p.checkPromise()
		p.refuses(1, []string{"interrupted", "hint:"}, "now", "--dry-run")
		p.refuses(1, []string{"interrupted", "hint:"}, "prune")
		if after := p.checkPromise(); after != before || !p.stillPending() {
			t.Errorf("%d blobs are named, %d before; pending %v", after, before, p.stillPending())
		}
		p.must(0, "now")
		p.checkEqual()
	})
	t.Run("the home is not mounted", func(t *testing.T) {
		p.committed()
		rename(t, p.path("standby"), p.path("away"))
		if err := os.Mkdir(p.path("standby"), 0o755); err != nil {
			t.Fatal(err)
		}
		p.refuses(1, []string{"is not the directory", "mounted"}, "now")
		if err := os.RemoveAll(p.path("standby")); err != nil {
			t.Fatal(err)
		}
		rename(t, p.path("away"), p.path("standby"))
		p.must(0, "now")
		p.checkEqual()
	})
	t.Run("the application runs", func(t *testing.T) {
		p.committed()
		before := p.checkPromise()
		t.Run("held", func(t *testing.T) {
			p.holdLock(t)
			p.refuses(1, []string{"running"}, "now")
		})
		if after := p.checkPromise(); after != before || !p.stillPending() {
			t.Errorf("%d blobs are named, %d before; pending %v", after, before, p.stillPending())
		}
		p.must(0, "now")
		p.checkEqual()
	})
	t.Run("no database is configured any more", func(t *testing.T) {
		p.committed()
		t.Run("none", func(t *testing.T) {
			text := p.mustRead("drsync.yaml", "")
			head, rest, _ := strings.Cut(text, "database:\n")
			_, tail, _ := strings.Cut(rest, "files:\n")
			p.replace(t, "drsync.yaml", head+"database: {engine: none}\nfiles:\n"+tail)
			p.refuses(1, []string{"none is configured"}, "now")
		})
		p.must(0, "now")
		p.checkEqual()
	})
	t.Run("another state directory", func(t *testing.T) {
		p.change()
		_, stderr, status := p.during("stage", func() {
			p.write(p.path("other.yaml"), strings.Replace(p.mustRead("drsync.yaml", ""), p.path("state"), p.path("state2"), 1), 0o600)
			p.refuses(exitLocked, []string{"works on the same home"}, "now", "--config", p.path("other.yaml"))
		}, "now")
		if status != 0 {
			t.Errorf("exit %d\n%s", status, stderr)
		}
		p.checkEqual()
	})
	t.Run("the capture is gone", func(t *testing.T) {
		p.committed()
		if _, err := p.open(p.standby, "").Exec("DROP DATABASE artdb__drsync_new"); err != nil {
			t.Fatal(err)
		}
		p.sshd.Stop()
		p.must(0, "now") // gives it up, and captures anew
		p.checkEqual()
		if p.stillPending() {
			t.Error("the publish that was given up is still pending")
		}
	})
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// TestReaderOnTheStandby: somebody has read from the standby's database and not
// ended the transaction. Ctrl-C still ends the run in time, and nothing has changed.
func TestReaderOnTheStandby(t *testing.T) {
	p := newPair(t, "local")
	p.must(0, "now")
	before := p.checkPromise()
	p.change()
	tx, err := p.standby.DB(t, "artdb").Begin()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := tx.QueryRow("SELECT COUNT(*) FROM binaries").Scan(&n); err != nil {
		t.Fatal(err)
	}
	_, stderr, status := p.drsyncEnv([]string{hookEnv + "=part kill -INT $PPID"}, "now")
	if status != 130 {
		t.Errorf("exit %d, want 130\n%s", status, stderr)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if after := p.checkPromise(); after != before {
		t.Errorf("%d blobs are named, %d before", after, before)
	}
	var triggers int
	if err := p.open(p.standby, "").QueryRow("SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = 'artdb'").Scan(&triggers); err != nil || triggers != 1 {
		t.Errorf("%d triggers are left, want 1: %v", triggers, err)
	}
	p.must(0, "now")
	p.checkEqual()
}

// TestLinks: a directory that is a symbolic link on one side is refused or
// kept, never replaced with everything behind it.
func TestLinks(t *testing.T) {
	p := newPair(t, "local")
	link := func(t *testing.T, path, target string) {
		t.Helper()
		if err := os.MkdirAll(p.path("mnt"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(p.path(path)); errors.Is(err, fs.ErrNotExist) {
			if err := os.MkdirAll(p.path(target), 0o755); err != nil {
				t.Fatal(err)
			}
		} else {
			rename(t, p.path(path), p.path(target))
		}
		if err := os.Symlink(p.path(target), p.path(path)); err != nil {
			t.Fatal(err)
		}
	}
	unlink := func(t *testing.T, path, target string) {
		t.Helper()
		if err := os.Remove(p.path(path)); err != nil {
			t.Fatal(err)
		}
		rename(t, p.path(target), p.path(path))
	}
	p.must(0, "now")
	for _, dir := range []string{"standby/data", "standby/etc", "active/data"} {
		link(t, dir, "mnt/x")
		p.change()
		p.refuses(1, []string{"links", "symbolic link"}, "now")
		p.checkPromise()
		unlink(t, dir, "mnt/x")
	}
	for _, dir := range []string{"standby/data/filestore", "active/data/filestore"} {
		link(t, dir, "mnt/x")
		p.change()
		p.must(0, "now")
		p.checkPromise()
		if info, err := os.Lstat(p.path(dir)); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("%s is no link any more: %v", dir, err)
		}
		unlink(t, dir, "mnt/x")
	}
	p.must(0, "now")
	p.checkEqual()
}

// TestForeignDirectories: where blobs are written is this host's operator's to say.
func TestForeignDirectories(t *testing.T) {
	p := newPair(t, "local")
	p.must(0, "now")
	chain := func(dir string) {
		p.write(p.path("active/etc/binarystore.xml"), fmt.Sprintf(
			`<config version="1"><chain template="file-system"/><provider id="file-system" type="file-system"><fileStoreDir>%s</fileStoreDir></provider></config>`, dir), 0o644)
	}
	chain("../../../outside")
	p.refuses(1, []string{"outside the standby's home", "standby.filestore"}, "now")
	rename(t, p.path("active/data/filestore"), p.path("shared"))
	chain(p.path("shared"))
	p.refuses(1, []string{"outside the standby's home"}, "now")
	p.edit(t, "  state:", "  filestore: ["+p.path("shared")+"]\n  state:")
	p.refuses(1, []string{"shared"}, "now")
	if _, err := os.Lstat(p.path("outside")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was written outside: %v", err)
	}
}
