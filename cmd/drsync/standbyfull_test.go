package main

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
)

const plenty = 1 << 30

// keepDumps configures them, and makes the active's database take a while to load.
func (p *pair) keepDumps() {
	p.t.Helper()
	text := p.mustRead("drsync.yaml", "")
	p.write(p.config, strings.Replace(text, "snapshots: {keep_last: 3}", "snapshots: {keep_last: 3, dumps: true}", 1), 0o600)
	p.exec("INSERT INTO audit (what) SELECT SHA2(seq, 512) FROM seq_1_to_300000")
}

// when runs a command and calls act, once, when the standby's server has a
// schema of the given name.
func (p *pair) when(schema string, act func(), args ...string) (stderr string, status int) {
	p.t.Helper()
	done, acted := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(acted)
		if !p.await(schema, done) {
			p.t.Errorf("drsync %v: the schema %s never came up", args, schema)
			return
		}
		act()
	}()
	_, stderr, status = p.drsync(args...)
	close(done)
	<-acted
	return stderr, status
}

// await returns when the standby's server has a schema with its last table, or
// false when done is closed.
func (p *pair) await(schema string, done <-chan struct{}) bool {
	db := p.open(p.standby, "")
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		var n int
		err := db.QueryRow("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = 'nodes'", schema).Scan(&n)
		if err == nil && n > 0 {
			return true
		}
		select {
		case <-done:
			return false
		case <-tick.C:
		}
	}
}

// oneLine says whether stderr ends with one line of error, and a hint.
func oneLine(stderr string) bool {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	n := len(lines)
	return n > 1 && strings.HasPrefix(lines[n-2], "error:") && strings.HasPrefix(lines[n-1], "hint:")
}

// TestStandbyServerFull: the disk of the standby's database server becomes full
// while a run or a restore loads.
func TestStandbyServerFull(t *testing.T) {
	p := newPair(t, "local")
	p.standby.Stop()
	room := testenv.LimitRoom(t, p.standby.Datadir, plenty, p.standby.Kill)
	p.standby.Start()
	p.keepDumps()
	p.must(exitDone, "now")
	first := p.snapshotIDs()[0]
	p.change()
	before := p.checkPromise()
	for _, test := range []struct {
		schema string
		args   []string
	}{
		{"artdb__drsync_new", []string{"now"}},
		{"artdb__drsync_new", []string{"restore", first, "--yes"}},
		{"artdb_then", []string{"restore", first, "--into", "artdb_then"}},
	} {
		errs, status := p.when(test.schema, func() { room.Leave(32 << 20) }, test.args...)
		if status != exitFailed || !oneLine(errs) || !strings.Contains(errs, "is nearly full") || !strings.Contains(errs, "hint: make room") {
			t.Errorf("%q: exit %d\n%s", test.args, status, errs)
		}
		if got := p.checkPromise(); got != before {
			t.Errorf("%q: %d blobs are named, %d before", test.args, got, before)
		}
		room.Leave(plenty)
	}
	if ids := p.snapshotIDs(); !slices.Equal(ids, []string{first}) {
		t.Errorf("there are snapshots %q", ids)
	}
	p.must(exitDone, "restore", first, "--into", "artdb_then")
	p.must(exitDone, "restore", first, "--yes")
	p.must(exitDone, "now")
	p.checkEqual()
}

// TestStateDirectoryFull: there is no room for the dump that is to be kept.
func TestStateDirectoryFull(t *testing.T) {
	p := newPair(t, "local")
	p.must(exitDone, "now")
	p.keepDumps()
	p.change()
	before, ids := p.checkPromise(), p.snapshotIDs()
	room := testenv.LimitRoom(t, p.path("state"), plenty, func() {})
	room.Leave(1 << 20)
	_, errs := p.must(exitFailed, "now")
	if !oneLine(errs) || !strings.Contains(errs, "write dump") || !strings.Contains(errs, "no space left") || !strings.Contains(errs, "hint: make room in "+p.path("state")) {
		t.Errorf("%s", errs)
	}
	if got := p.checkPromise(); got != before || !slices.Equal(p.snapshotIDs(), ids) {
		t.Errorf("%d blobs are named, %d before; snapshots %q, before %q", got, before, p.snapshotIDs(), ids)
	}
	if left, err := filepath.Glob(p.path("state/snapshots/*/dump*/*")); err != nil || left != nil {
		t.Errorf("left: %q, %v", left, err)
	}
	room.Leave(plenty)
	p.must(exitDone, "now")
	p.checkEqual()
	p.must(exitDone, "restore", p.snapshotIDs()[0], "--into", "artdb_then")
}

// TestKillRestoreInto ends drsync by SIGKILL while it restores beside the visible
// database: half of one is never taken for whole, and not in the way.
func TestKillRestoreInto(t *testing.T) {
	p := newPair(t, "local")
	p.keepDumps()
	p.must(exitDone, "now")
	first := p.snapshotIDs()[0]
	before := p.checkPromise()
	for _, moment := range []time.Duration{0, 40, 300} {
		c := p.command(t.Context(), "restore", first, "--into", "artdb_then")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		p.await("artdb_then", t.Context().Done())
		<-time.After(moment * time.Millisecond)
		if err := c.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		whole := c.Wait() == nil
		var marked int
		db := p.open(p.standby, "")
		if err := db.QueryRow("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'artdb_then' AND TABLE_NAME = 'drsync_unfinished'").Scan(&marked); err != nil {
			t.Fatal(err)
		}
		t.Logf("killed %v after its first table: whole %v, marked %d", moment*time.Millisecond, whole, marked)
		if got := p.checkPromise(); got != before {
			t.Errorf("%d blobs are named, %d before", got, before)
		}
		if whole {
			break
		}
		p.must(exitDone, "restore", first, "--into", "artdb_then")
		var rows sql.NullInt64
		if err := db.QueryRow("SELECT COUNT(*) FROM artdb_then.audit").Scan(&rows); err != nil || rows.Int64 < 300000 {
			t.Errorf("%v rows, %v", rows, err)
		}
		if _, err := db.Exec("DROP DATABASE artdb_then"); err != nil {
			t.Fatal(err)
		}
	}
}
