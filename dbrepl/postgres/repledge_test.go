package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

func TestLogPlaces(t *testing.T) {
	h := history{System: "1", Timeline: 3, Segment: 1 << 20}
	for text, want := range map[string]lsn{"0/0": 0, "0/A86738": 0xa86738, "12/3456789A": 0x123456789a, "FFFFFFFF/FFFFFFFF": 1<<64 - 1} {
		got, err := parseLSN(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %x, %v, %s", text, got, err, got)
		}
	}
	for _, text := range []string{"", "0", "/", "0/", "1/2/3", "0/123456789", "0/x", "-1/0"} {
		if got, err := parseLSN(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	for at, want := range map[lsn]lsn{
		0x300000: 0x300000, 0x300028: 0x300000, 0x300018: 0x300000, 0x302018: 0x302000, 0x302028: 0x302028, 0x302060: 0x302060,
	} {
		if got := h.recordEnd(at); got != want {
			t.Errorf("the record before %v ended at %v, want %v", at, got, want)
		}
	}
	for at, want := range map[lsn]string{0: "000000030000000000000000", 0xfff00000: "000000030000000000000FFF", 0x100000000: "000000030000000100000000"} {
		if got := h.name(at); got != want {
			t.Errorf("%v is in %s, want %s", at, got, want)
		}
	}
	h.Segment = 16 << 20
	if got := h.name(0x5_ff000000); got != "0000000300000005000000FF" {
		t.Error(got)
	}
	for _, bad := range []history{{}, {"1", 0, 1 << 20}, {"1", 1, 1<<20 + 1}, {"1", 1, 1 << 31}, {"", 1, 1 << 20}} {
		if bad.valid() == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
}

// TestReceivedLog writes a log in uneven parts, abandons one, and hands over what
// ends in the middle of a segment: behind that there is nothing.
func TestReceivedLog(t *testing.T) {
	dir, into := filepath.Join(t.TempDir(), "wal"), t.TempDir()
	h := history{System: "1", Timeline: 1, Segment: 1 << 20}
	const begin = lsn(5<<20 + 100)
	l, err := newLog(dir, h, begin)
	must(t, err)
	content := func(at lsn) byte { return byte(at>>12) | 1 }
	write := func(w *logWriter, end lsn) {
		for w.at < end {
			part := make([]byte, min(70_001, end-w.at))
			for i := range part {
				part[i] = content(w.at + lsn(i))
			}
			must(t, w.write(part))
		}
	}
	w := l.writer()
	write(w, 7<<20+5000)
	must(t, w.finish())
	again := l.writer()
	write(again, 9<<20)
	again.abandon()
	for _, name := range []string{h.name(9 << 20), handing + "x", "00000001.history"} {
		must(t, os.WriteFile(filepath.Join(into, name), nil, 0o600))
	}
	if l, err = openLog(dir); err != nil || l.state.from != 5<<20 || l.state.to != 7<<20+5000 {
		t.Fatalf("%+v, %v", l, err)
	}
	nobody := owner{uid: os.Geteuid()}
	const end = lsn(7<<20 + 4000)
	if err := l.hand(into, nobody, begin, 7<<20+5001); err == nil {
		t.Error("handed over more than there is")
	}
	must(t, l.hand(into, nobody, begin, end))
	entries, err := os.ReadDir(into)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := fmt.Sprint([]string{"00000001.history", h.name(5 << 20), h.name(6 << 20), h.name(7 << 20)}); fmt.Sprint(names) != want {
		t.Errorf("handed over %q, want %s", names, want)
	}
	var got []byte
	for at := lsn(5 << 20); at < end; at += 1 << 20 {
		data, err := os.ReadFile(filepath.Join(into, h.name(at)))
		must(t, err)
		got = append(got, data...)
	}
	for i, b := range got {
		want := byte(0)
		if at := lsn(5<<20 + i); at < end {
			want = content(at)
		}
		if b != want {
			t.Fatalf("at %v is %d, want %d", lsn(5<<20+i), b, want)
		}
	}
	must(t, l.forget(7<<20+17))
	if l, err = openLog(dir); err != nil || l.state.from != 7<<20 || l.covers(h, 6<<20) || !l.covers(h, 7<<20+17) {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := os.Stat(filepath.Join(dir, h.name(6<<20))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "{}", `{"format":1}`, strings.Repeat("[", 100), `{"format":9,"History":{"system":"1","timeline":1,"segment":1048576},"from":"0/0","to":"0/0"}`} {
		must(t, os.WriteFile(filepath.Join(dir, logStateFile), []byte(bad), 0o600))
		if _, err := openLog(dir); err == nil {
			t.Errorf("the state %q was taken", bad)
		}
	}
}

func TestReplicaSettings(t *testing.T) {
	old := "# comment\nwork_mem = '64MB'\nprimary_conninfo = 'host=x'\nRECOVERY_TARGET_LSN='0/1'\n  max_connections = 5\nmax_connections_x = 7\n"
	got := replicaSettings([]byte(old), map[string]int64{"max_connections": 200})
	for _, want := range []string{"# comment\n", "work_mem = '64MB'\n", "max_connections_x = 7\n", "\nmax_connections = '200'\n", "\nprimary_conninfo = ''\n", "\nrecovery_target_lsn = ''\n", "\nhot_standby = 'on'\n"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("lacks %q:\n%s", want, got)
		}
	}
	for _, not := range []string{"host=x", "0/1", "= 5"} {
		if strings.Contains(string(got), not) {
			t.Errorf("has %q:\n%s", not, got)
		}
	}
	if again := replicaSettings(got, map[string]int64{"max_connections": 200}); !bytes.Equal(again, got) {
		t.Errorf("the second time it is\n%s\nthe first time\n%s", again, got)
	}
}

// TestReplicaAtEdges takes points where a segment and where a page of the log ends.
func TestReplicaAtEdges(t *testing.T) {
	t.Parallel()
	l := newReplicaLab(t, testenv.Postgres(t))
	l.onActive(t, "CREATE TABLE t (n int)")
	r := l.engine(t, func(o *ReplicaOptions) {
		o.Event = func(e event.Event) {
			if e.Kind == event.Warning {
				t.Errorf("warned: %s", e.Text) // that the server is copied anew, for instance
			}
		}
	})
	l.sync(t, r)
	check := func(what string, n int) {
		t.Helper()
		l.sync(t, r)
		if rows, err := l.standby.Query(l.name, "SELECT max(n) FROM t"); err != nil || rows[0] != fmt.Sprint(n) {
			t.Errorf("%s: %q, %v", what, rows, err)
		}
	}
	l.onActive(t, "INSERT INTO t VALUES (1); SELECT pg_switch_wal()")
	check("after a switch", 1)
	check("once more", 1)
	l.onActive(t, "INSERT INTO t VALUES (2)")
	check("behind it", 2)
	c, err := l.active.Conn(t.Context(), l.name)
	must(t, err)
	defer c.Close(context.Background())
	place := func() (at int) {
		must(t, c.QueryRow(t.Context(), "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint % 8192").Scan(&at))
		return at
	}
	fill := func(n int) {
		_, err := c.Exec(t.Context(), "SELECT pg_logical_emit_message(true, 'x', repeat('x', $1::int))", n)
		must(t, err)
	}
	edges := 0
	for try := 0; try < 40 && edges < 2; try++ {
		before := place()
		fill(1000)
		took := place() - before
		if rest := logPage - place(); took > 1000 && rest > took {
			fill(1000 + rest - took)
			if place() == pageHeader {
				if at := l.sync(t, r).(*replica).p.end; at%logPage == 0 {
					edges++
				}
			}
		} else {
			fill(800)
		}
	}
	if edges == 0 {
		t.Error("no record ended with a page")
	}
	l.onActive(t, "INSERT INTO t VALUES (3)")
	check("at last", 3)
}

// TestReplicaThatIsNotReadable begins where a transaction has more
// subtransactions open than a replica is told of.
func TestReplicaThatIsNotReadable(t *testing.T) {
	t.Parallel()
	l := newReplicaLab(t, testenv.Postgres(t))
	l.onActive(t, "CREATE TABLE t (n int)")
	warned := make(chan string, 100)
	r := l.engine(t, func(o *ReplicaOptions) { o.Event = func(e event.Event) { warned <- e.Text } })
	r.patience = 2 * time.Second
	l.sync(t, r)
	c, err := l.active.Conn(t.Context(), l.name)
	must(t, err)
	defer c.Close(context.Background())
	long := "BEGIN"
	for n := range 100 {
		long += fmt.Sprintf("; SAVEPOINT s%d; INSERT INTO t VALUES (%d)", n, n)
	}
	_, err = c.PgConn().Exec(t.Context(), long).ReadAll()
	must(t, err)
	l.onActive(t, "CHECKPOINT; CREATE TABLE later (n int); CHECKPOINT")
	tries := 0
	r.e.during = func(what string) {
		if what != "replay" {
			return
		}
		if tries++; tries == 4 {
			_, err := c.Exec(context.Background(), "COMMIT")
			if err != nil {
				t.Error(err)
			}
			l.onActive(t, "CHECKPOINT")
		}
	}
	// The first of these lets a cluster begin behind the checkpoint, the third
	// brings that one on.
	for range 3 {
		l.sync(t, r)
		l.onActive(t, "INSERT INTO later VALUES (1); CHECKPOINT")
	}
	close(warned)
	said := ""
	for w := range warned {
		said += w + "\n"
	}
	if !strings.Contains(said, "lets nobody read") {
		t.Errorf("warned of %q", said)
	}
	if tries < 5 {
		t.Errorf("%d servers were started for 3 runs; the replica was readable each time", tries)
	}
	rows, err := l.standby.Query(l.name, "SELECT count(*) FROM t")
	if err != nil || rows[0] != "100" {
		t.Errorf("%q, %v", rows, err)
	}
	r.e.opt.Event = nil
}

// TestWhatCheckNamesOfAReplica has an active and a host that lack something.
func TestWhatCheckNamesOfAReplica(t *testing.T) {
	t.Parallel()
	active := testenv.Postgres(t, "max_replication_slots=2", "max_wal_senders=1")
	l := newReplicaLab(t, active)
	l.onActive(t, "CREATE UNLOGGED TABLE lost (n int); CREATE TABLE closed (n int)")
	active.Exec(t, "postgres", "CREATE ROLE weak LOGIN PASSWORD 'x'; CREATE ROLE reader LOGIN")
	active.Exec(t, "postgres", "CREATE DATABASE beside")
	active.Exec(t, "postgres", "SELECT pg_create_physical_replication_slot('a'), pg_create_physical_replication_slot('b')")
	refused := func(r *Replica, texts ...string) {
		t.Helper()
		findings, err := r.Check(t.Context())
		must(t, err)
		_, err = r.Capture(t.Context(), dbrepl.CaptureOptions{})
		for _, text := range texts {
			wantFinding(t, findings, true, text)
			if err == nil || !strings.Contains(err.Error(), text) || hint.Of(err) == "" {
				t.Errorf("capture: %v, want %q", err, text)
			}
		}
		if _, err := os.Stat(r.work); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a refused capture left something: %v", err)
		}
	}
	asWeak := func(o *ReplicaOptions) { o.Active.User, o.Active.Password = "weak", "x" }
	refused(l.engine(t, asWeak), "may not replicate", "all of its 2 replication slots are in use (a, b)", "max_wal_senders is 1")
	findings, err := l.engine(t).Check(t.Context())
	must(t, err)
	wantFinding(t, findings, false, "unlogged table public.lost")
	wantFinding(t, findings, false, "without limit, until its disk is full")
	wantFinding(t, findings, false, "with the database beside")
	refused(l.engine(t, func(o *ReplicaOptions) { o.Standby.User = "reader" }), "may not read table public.closed")
	refused(l.engine(t, func(o *ReplicaOptions) { o.Standby.User = "nobody" }), "has no such account")
	refused(l.engine(t, func(o *ReplicaOptions) { o.Account = "no such account" }), "unknown user no such account")
	refused(l.engine(t, func(o *ReplicaOptions) { o.Standby.Address = active.Socket }), "the active server itself")
	for text, alter := range map[string]func(p *pair){
		"it is a replica itself":                 func(p *pair) { p.active.InRecovery = true },
		"PostgreSQL 12 and newer":                func(p *pair) { p.active.Number = 90624 },
		"server's programs of PostgreSQL 99 are": func(p *pair) { p.active.Number = 990001 },
	} {
		r := l.engine(t)
		r.e.alter = alter
		refused(r, text)
	}
	active.Stop()
	enough := testenv.PostgresFrom(t, func(dir string) { must(t, os.Rename(active.Datadir, dir)) }, "max_replication_slots=4")
	hba := filepath.Join(enough.Datadir, "pg_hba.conf")
	rules, err := os.ReadFile(hba)
	must(t, err)
	must(t, os.WriteFile(hba, []byte("host replication weak 127.0.0.1/32 reject\n"+string(rules)), 0o600))
	enough.Start()
	l.active = enough
	enough.Exec(t, "postgres", "ALTER ROLE weak REPLICATION; GRANT pg_read_all_data TO weak")
	refused(l.engine(t, asWeak), "lets weak not in for replication")
	space := filepath.Join(filepath.Dir(enough.Socket), "space")
	if out, err := enough.Command("mkdir", space).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	enough.Exec(t, "postgres", "CREATE TABLESPACE elsewhere LOCATION '"+space+"'")
	refused(l.engine(t), "tablespace elsewhere")
	enough.Exec(t, "postgres", "DROP TABLESPACE elsewhere")
	// A cluster of somebody else's stays.
	must(t, os.Mkdir(l.standby.Datadir, 0o700))
	precious := filepath.Join(l.standby.Datadir, "PG_VERSION")
	must(t, os.WriteFile(precious, []byte("15\n"), 0o600))
	refused(l.engine(t), "a cluster that drsync did not make")
	must(t, os.Remove(precious))
	l.sync(t, l.engine(t)) // into the empty directory
	for _, bad := range []func(o *ReplicaOptions){
		func(o *ReplicaOptions) { o.DataDirectory = "data" },
		func(o *ReplicaOptions) { o.DataDirectory = "/data" },
		func(o *ReplicaOptions) { o.Slot = `x" PHYSICAL` },
		func(o *ReplicaOptions) { o.Start = nil },
	} {
		o := l.options()
		bad(&o)
		if _, err := NewReplica(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// TestReplicaWithRowSecurity reads by the README's account a database of which it is
// not shown each row: the check and a run say so before anything is copied, and what a
// server says where the rows came to be hidden later has the same advice.
func TestReplicaWithRowSecurity(t *testing.T) {
	t.Parallel()
	l := newReplicaLab(t, testenv.Postgres(t))
	l.active.Exec(t, "postgres", "CREATE ROLE app; CREATE ROLE drsync LOGIN REPLICATION PASSWORD 'x' IN ROLE pg_read_all_data")
	l.onActive(t, "CREATE TABLE secret AS SELECT 1 AS n; ALTER TABLE secret OWNER TO app; CREATE TABLE forced (n int); ALTER TABLE forced OWNER TO app")
	r := l.engine(t, func(o *ReplicaOptions) {
		o.Active.User, o.Active.Password, o.Standby.User, o.Standby.Password = "drsync", "x", "drsync", "x"
	})
	refused := func(tables string) {
		t.Helper()
		findings, err := r.Check(t.Context())
		must(t, err)
		wantFinding(t, findings, true, "row security hides rows from it in "+tables)
		if _, err = r.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), "row security hides rows") || !strings.Contains(hint.Of(err), `ALTER ROLE "drsync" BYPASSRLS`) {
			t.Errorf("capture: %v\n%s", err, hint.Of(err))
		}
		if _, err := os.Stat(r.work); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a refused capture left something: %v", err)
		}
	}
	l.onActive(t, "ALTER TABLE secret ENABLE ROW LEVEL SECURITY; ALTER TABLE forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
	refused("public.forced, public.secret")
	l.active.Exec(t, "postgres", "GRANT app TO drsync")
	refused("public.forced")
	l.active.Exec(t, "postgres", "REVOKE app FROM drsync; ALTER ROLE drsync BYPASSRLS")
	findings, err := r.Check(t.Context())
	must(t, err)
	must(t, dbrepl.Refuse(findings))
	c := l.capture(t, r)
	must(t, c.Publish(t.Context()))
	if rows, err := l.standby.Query(l.name, "TABLE secret"); err != nil || len(rows) != 1 {
		t.Errorf("%q, %v", rows, err)
	}
	conn, err := l.active.Conn(t.Context(), l.name)
	must(t, err)
	defer conn.Close(context.Background())
	_, err = conn.PgConn().Exec(t.Context(), "ALTER ROLE drsync NOBYPASSRLS; SET ROLE drsync; SET row_security = off; TABLE secret").ReadAll()
	if got := hint.Of(r.failed("capture", err)); !strings.Contains(got, `ALTER ROLE "drsync" BYPASSRLS`) {
		t.Errorf("%v: %q", err, got)
	}
}

// TestReplicaServerKilledWhileItReplays kills the next cluster's server, or only
// the process that replays, in the middle of the log: the run says so, the
// visible database stays, and the next run goes on without a new copy.
func TestReplicaServerKilledWhileItReplays(t *testing.T) {
	t.Parallel()
	l := newReplicaLab(t, testenv.Postgres(t))
	l.onActive(t, "CREATE TABLE t (n int, x text)")
	warned := make(chan string, 100)
	r := l.engine(t, func(o *ReplicaOptions) {
		o.Event = func(e event.Event) {
			if e.Kind == event.Warning {
				warned <- e.Text
			}
		}
	})
	l.sync(t, r)
	for n, whole := range []bool{true, false} {
		l.onActive(t, "INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 60000) g")
		var killer sync.WaitGroup
		r.e.during = func(what string) {
			if what != "replay" {
				return
			}
			server := r.server.cmd.Process.Pid
			killer.Go(func() {
				segments := make(map[string]bool)
				eventually(t, "a server in the middle of its log", func() bool {
					if now := doing(server).what; now != "" {
						segments[now] = true
					}
					if len(segments) < 2 {
						return false
					}
					victim := server
					if !whole {
						victim = startupOf(t, server)
					}
					return syscall.Kill(victim, syscall.SIGKILL) == nil
				})
			})
		}
		_, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
		killer.Wait()
		if err == nil || !strings.Contains(err.Error(), "ended before it was at") || strings.Contains(err.Error(), "\n") || !strings.Contains(hint.Of(err), r.stagingLog()) {
			t.Errorf("%v\nhint: %s", err, hint.Of(err))
		}
		r.e.during = nil
		count := func(want int) {
			t.Helper()
			if rows, err := l.standby.Query(l.name, "SELECT count(*) FROM t"); err != nil || rows[0] != fmt.Sprint(want) {
				t.Errorf("%q, %v, want %d", rows, err, want)
			}
		}
		count(60000 * n)
		must(t, r.Recover(t.Context(), nil))
		l.sync(t, r)
		count(60000 * (n + 1))
	}
	if len(warned) > 0 {
		t.Errorf("warned: %s", <-warned)
	}
}

// startupOf is the process of a server that replays.
func startupOf(t *testing.T, server int) int {
	pid := strconv.Itoa(server)
	children, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	if err != nil {
		t.Error(err)
	}
	for _, child := range strings.Fields(string(children)) {
		if title, err := os.ReadFile("/proc/" + child + "/cmdline"); err == nil && strings.Contains(string(title), ": startup ") {
			n, err := strconv.Atoi(child)
			if err != nil {
				t.Error(err)
			}
			return n
		}
	}
	t.Error("no process replays")
	return server
}
