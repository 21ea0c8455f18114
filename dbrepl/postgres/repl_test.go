package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

// bankState tells what the bank's tables hold: the sum, a digest, and how many
// transfers there were.
const bankState = `SELECT concat_ws('|', (SELECT sum(n) FROM a) + (SELECT sum(n) FROM b), (SELECT md5(string_agg(id || ':' || n, ',' ORDER BY id)) FROM a),
	(SELECT md5(string_agg(id || ':' || n, ',' ORDER BY id)) FROM b), (SELECT count(*) FROM log), (SELECT max(n) FROM log))`

func (l *replicaLab) bank(t *testing.T) (stop func() int) {
	t.Helper()
	return bank(t, &lab{t: t, active: l.active, standby: l.standby, name: l.name})
}

// transfer moves money for a while, each time in a transaction of its own, and
// leaves one open.
func (l *replicaLab) transfer(t testing.TB) {
	t.Helper()
	l.onActive(t, `DO $$ BEGIN FOR i IN 1 .. 300 LOOP
		UPDATE a SET n = n - i WHERE id = i % 100 + 1; INSERT INTO log (x) VALUES ('t'); UPDATE b SET n = n + i WHERE id = i % 100 + 1; COMMIT;
	END LOOP; END $$`)
	c, err := l.active.Conn(t.Context(), l.name)
	must(t, err)
	t.Cleanup(func() { c.Close(context.Background()) })
	_, err = c.Exec(t.Context(), "BEGIN")
	must(t, err)
	_, err = c.Exec(t.Context(), "INSERT INTO log SELECT g, repeat('never committed', 100) FROM generate_series(1, 2000) g")
	must(t, err)
}

// another is a further standby of the same database.
func (l *replicaLab) another(t testing.TB) *replicaLab {
	n := replicaLabs.Add(1)
	a := &replicaLab{t: t, active: l.active, name: l.name, slot: fmt.Sprintf("drsync_%d", n), standby: testenv.PostgresFrom(t, func(string) {})}
	t.Cleanup(func() {
		_, _ = l.active.Query("postgres", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '"+a.slot+"'")
	})
	return a
}

// asked is the answer of a view to bankState.
func asked(t testing.TB, v dbrepl.View) string {
	t.Helper()
	answer := ""
	for line, err := range v.Strings(t.Context(), bankState+" WHERE ? = ''", "") {
		must(t, err)
		answer = line
	}
	if !strings.HasPrefix(answer, "200000|") {
		t.Fatalf("the bank holds %q", answer)
	}
	return answer
}

func (l *replicaLab) shows(t testing.TB) string {
	t.Helper()
	l.up(t)
	rows, err := l.standby.Query(l.name, bankState)
	must(t, err)
	return rows[0]
}

// withoutActive lets nobody answer at the active's address.
func withoutActive(o *ReplicaOptions) {
	o.Active.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("the active is gone") }
}

// killed ends all servers of the standby as a power failure would.
func (l *replicaLab) killed(t testing.TB) {
	t.Helper()
	l.standby.Kill()
	for _, c := range []cluster{{l.standby.Datadir}, {filepath.Join(l.standby.Datadir+workSuffix, "next")}} {
		pid, err := c.running()
		must(t, err)
		if pid == 0 {
			continue
		}
		must(t, syscall.Kill(pid, syscall.SIGKILL))
		_, err = until(t.Context(), endTime, func() (bool, error) { return !isServer(pid), nil })
		must(t, err)
	}
}

// TestReplicaShowsThePoint captures while the bank works: what is published is
// what the capture said, and the sum is exact.
func TestReplicaShowsThePoint(t *testing.T) {
	t.Parallel()
	l := newReplicaLab(t, testenv.Postgres(t))
	stop := l.bank(t)
	r := l.engine(t)
	last, received := "", int64(0)
	for i := range 6 {
		c := l.capture(t, r)
		want := asked(t, c)
		if i > 0 {
			if got := l.shows(t); got != last {
				t.Errorf("run %d: during the capture the standby shows\n%s, published was\n%s", i, got, last)
			}
			if received = c.Counts().Bytes; received <= 0 || received > 8<<20 {
				t.Errorf("run %d: %d bytes came", i, received)
			}
		}
		must(t, c.Publish(t.Context()))
		if got := l.shows(t); got != want {
			t.Errorf("run %d: the standby shows\n%s, captured was\n%s", i, got, want)
		}
		if got := asked(t, c); got != want {
			t.Errorf("run %d: the published capture says\n%s, before\n%s", i, got, want)
		}
		if want == last {
			t.Errorf("run %d: the bank did not work", i)
		}
		last = want
	}
	if n := stop(); n < 20 {
		t.Errorf("only %d transfers", n)
	}
	// Nothing new is a run as well.
	for range 2 {
		c := l.sync(t, r)
		last = asked(t, c)
	}
	rows, err := l.active.Query(l.name, bankState)
	must(t, err)
	if rows[0] != last {
		t.Errorf("the standby has\n%s, the active\n%s", last, rows[0])
	}
	found, err := r.Compare(t.Context())
	if err != nil || found.Different != 0 || found.Tables != 3 {
		t.Errorf("compare: %+v, %v", found, err)
	}
	l.onActive(t, "UPDATE a SET n = n + 1 WHERE id = 7")
	if found, err = r.Compare(t.Context()); err != nil || found.Different != 1 || found.Differences[0].Table != "public.a" {
		t.Errorf("compare: %+v, %v", found, err)
	}
	l.littleIsKept(t, r)
}

// littleIsKept looks at what is left of the log, here and on the active.
func (l *replicaLab) littleIsKept(t *testing.T, r *Replica) {
	t.Helper()
	l.onActive(t, "CHECKPOINT")
	for range 3 {
		l.sync(t, r)
		l.standby.Exec(t, "postgres", "CHECKPOINT") // a restart point of the replica
	}
	l.sync(t, r)
	log, err := openLog(r.logDir())
	must(t, err)
	segments, err := os.ReadDir(log.dir)
	must(t, err)
	if len(segments) > 12 {
		t.Errorf("%d files of the log are kept", len(segments))
	}
	rows, err := l.active.Query("postgres", "SELECT restart_lsn, active FROM pg_replication_slots WHERE slot_name = '"+l.slot+"'")
	must(t, err)
	if rows[0] != log.state.To+"|f" {
		t.Errorf("the active keeps its log from %s, received is up to %s", rows[0], log.state.To)
	}
	left, err := os.ReadDir(r.work)
	must(t, err)
	var names []string
	for _, e := range left {
		names = append(names, e.Name())
	}
	if want := []string{"conf", "lock", "log", "next", "wal"}; !slices.Equal(names, want) {
		t.Errorf("left beside the data directory: %q", names)
	}
}

// TestReplicaPromotesFromAnyCrash ends drsync and the standby's servers at every
// step of a run, and takes over without the active: by drsync, and by hand.
func TestReplicaPromotesFromAnyCrash(t *testing.T) {
	t.Parallel()
	shared := newReplicaLab(t, testenv.Postgres(t, "max_replication_slots=50"))
	shared.bank(t)()
	for _, point := range []string{"replay", "replayed", "captured", "settle", "stop", "exchange", "unmark", "start"} {
		for _, byHand := range []bool{false, true} {
			if byHand && !slices.Contains([]string{"captured", "exchange", "unmark"}, point) {
				continue // the data directory is the same as at one of these
			}
			t.Run(fmt.Sprintf("%s/by hand %v", point, byHand), func(t *testing.T) {
				l := shared.another(t)
				r := l.engine(t)
				old := asked(t, l.sync(t, r))
				shared.transfer(t)
				fresh, token := l.crash(t, r, point)
				if fresh == old {
					t.Error("the bank did not work")
				}
				if byHand {
					l.promotedByHand(t, old, fresh, point)
				} else {
					l.promoted(t, token, map[bool]string{true: fresh, false: old}[token != nil])
				}
			})
		}
	}
}

// crash begins a run that ends at a point. It returns what the run was about to
// publish, and its token if the publish had begun.
func (l *replicaLab) crash(t *testing.T, r *Replica, point string) (fresh string, token dbrepl.Token) {
	t.Helper()
	r.e.during = func(what string) {
		if what == point {
			l.killed(t)
		}
	}
	c, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		return "", nil
	}
	if point != "replayed" {
		fresh = asked(t, c)
	}
	r.e.before = func(what string) error {
		if what != point {
			return nil
		}
		l.killed(t)
		return errCrash
	}
	switch point {
	case "replay", "replayed", "captured":
		l.killed(t)
		return fresh, nil
	}
	if err := c.Publish(t.Context()); !errors.Is(err, errCrash) {
		t.Fatalf("publish: %v", err)
	}
	return fresh, c.Token()
}

// promoted takes over by drsync.
func (l *replicaLab) promoted(t *testing.T, token dbrepl.Token, want string) {
	t.Helper()
	rescue := l.engine(t, withoutActive)
	must(t, rescue.Recover(t.Context(), token))
	for range 2 {
		_, err := rescue.Promote(t.Context())
		must(t, err)
	}
	if got := l.shows(t); got != want {
		t.Errorf("promoted is\n%s, want\n%s", got, want)
	}
	l.standby.Exec(t, l.name, "INSERT INTO log (x) VALUES ('promoted')")
	must(t, rescue.Recover(t.Context(), token))
	if rows, err := l.standby.Query(l.name, "SELECT x FROM log WHERE x = 'promoted'"); err != nil || len(rows) != 1 {
		t.Errorf("after another recovery: %q, %v", rows, err)
	}
	if _, err := l.engine(t).Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), "was promoted") || hint.Of(err) == "" {
		t.Errorf("a capture over a promoted server: %v", err)
	}
}

// promotedByHand takes over by PostgreSQL's own means.
func (l *replicaLab) promotedByHand(t *testing.T, old, fresh, point string) {
	t.Helper()
	l.up(t)
	if out, err := l.standby.Command("pg_ctl", "promote", "-w", "-D", l.standby.Datadir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.standby.Exec(t, l.name, "CREATE TABLE writable ()")
	want := old
	if point == "unmark" || point == "start" { // after the exchange
		want = fresh
	}
	if got := l.shows(t); got != want {
		t.Errorf("promoted is\n%s, want\n%s", got, want)
	}
}

// TestReplicaIsLost has the active give up what it kept: the server is copied
// anew, and until that is published the last snapshot stays.
func TestReplicaIsLost(t *testing.T) {
	t.Parallel()
	l := newReplicaLab(t, testenv.Postgres(t, "max_slot_wal_keep_size=1MB", "max_wal_size=4MB", "min_wal_size=2MB"))
	l.onActive(t, "CREATE TABLE t (n int, x text)")
	warnings := make(chan string, 100)
	r := l.engine(t, func(o *ReplicaOptions) {
		o.Event = func(e event.Event) {
			if e.Kind == event.Warning {
				warnings <- e.Text
			}
		}
	})
	count := func() string {
		l.up(t)
		rows, err := l.standby.Query(l.name, "SELECT count(*) FROM t")
		must(t, err)
		return rows[0]
	}
	l.sync(t, r)
	lose := func() {
		t.Helper()
		for range 6 {
			l.onActive(t, "INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 5000) g; SELECT pg_switch_wal(); CHECKPOINT")
		}
		rows, err := l.active.Query("postgres", "SELECT wal_status FROM pg_replication_slots WHERE slot_name = '"+l.slot+"'")
		must(t, err)
		if rows[0] != "lost" {
			t.Fatalf("the slot is %q", rows[0])
		}
	}
	lose()
	findings, err := r.Check(t.Context())
	must(t, err)
	wantFinding(t, findings, false, "copies its whole server anew")
	c := l.capture(t, r)
	if got := count(); got != "0" {
		t.Errorf("during the new copy the standby shows %s rows", got)
	}
	select {
	case w := <-warnings:
		if !strings.Contains(w, "made anew") || !strings.Contains(w, "no longer has what the standby lacks") {
			t.Errorf("warned: %s", w)
		}
	default:
		t.Error("nobody was warned")
	}
	must(t, c.Publish(t.Context()))
	if got := count(); got != "30000" {
		t.Errorf("%s rows", got)
	}
	for range 2 { // on both clusters
		l.onActive(t, "INSERT INTO t VALUES (1, 'x')")
		l.sync(t, r)
	}
	if got := count(); got != "30002" {
		t.Errorf("%s rows", got)
	}
	// Lost again, and the copy is killed: the last snapshot can be promoted.
	lose()
	ctx, cancel := context.WithCancelCause(t.Context())
	r.e.during = func(what string) {
		if what == "copied" {
			cancel(errCrash)
		}
	}
	if _, err := r.Capture(ctx, dbrepl.CaptureOptions{}); !errors.Is(err, errCrash) {
		t.Errorf("capture: %v", err)
	}
	rescue := l.engine(t, withoutActive)
	must(t, rescue.Recover(t.Context(), nil))
	_, err = rescue.Promote(t.Context())
	must(t, err)
	if got := count(); got != "30002" {
		t.Errorf("%s rows", got)
	}
}

// TestReplicaOfAnotherActive follows when the active itself was taken over.
func TestReplicaOfAnotherActive(t *testing.T) {
	t.Parallel()
	active := testenv.Postgres(t)
	l := newReplicaLab(t, active)
	l.onActive(t, "CREATE TABLE t (n int)")
	r := l.engine(t)
	l.sync(t, r)
	// The active ends a recovery, and so goes on on another timeline.
	active.Stop()
	must(t, os.WriteFile(filepath.Join(active.Datadir, standbySignal), nil, 0o644))
	active.Start()
	if out, err := active.Command("pg_ctl", "promote", "-w", "-D", active.Datadir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.onActive(t, "INSERT INTO t VALUES (1)")
	for range 2 {
		c := l.sync(t, r)
		if !strings.HasSuffix(c.Point().Position, ", timeline 2") {
			t.Errorf("at %s", c.Point().Position)
		}
	}
	if rows, err := l.standby.Query(l.name, "SELECT n FROM t"); err != nil || len(rows) != 1 {
		t.Errorf("%q, %v", rows, err)
	}
}

// TestReplicaThroughATunnel reaches the active only by a function that dials,
// with the rights that the README gives, and loses it on the way.
func TestReplicaThroughATunnel(t *testing.T) {
	t.Parallel()
	l := newReplicaLab(t, testenv.Postgres(t))
	l.active.Exec(t, "postgres", "CREATE ROLE drsync LOGIN REPLICATION PASSWORD 'x' IN ROLE pg_read_all_data")
	l.onActive(t, "CREATE TABLE t (n int)")
	var broken atomic.Bool
	r := l.engine(t, func(o *ReplicaOptions) {
		o.Active = Server{Address: "database.invalid:5999", User: "drsync", Password: "x"}
		o.Active.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if network != "tcp" || addr != "database.invalid:5999" {
				t.Errorf("dials %s %s", network, addr)
			}
			if broken.Load() {
				return nil, errors.New("the tunnel is gone")
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", l.active.Addr)
		}
		o.Standby.User = "drsync"
	})
	r.e.active.private = t.TempDir()
	for n := range 3 {
		l.onActive(t, fmt.Sprintf("INSERT INTO t VALUES (%d)", n))
		l.sync(t, r)
	}
	if rows, err := l.standby.Query(l.name, "SELECT n FROM t"); err != nil || len(rows) != 3 {
		t.Errorf("%q, %v", rows, err)
	}
	findings, err := r.Check(t.Context())
	must(t, err)
	for _, f := range findings {
		if f.Fatal {
			t.Errorf("%+v", f)
		}
	}
	broken.Store(true)
	if _, err := r.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), "the tunnel is gone") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	must(t, r.Recover(t.Context(), nil))
	if _, err := r.Promote(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestReplicaOfADamagedLog spoils what was received: the server is copied anew.
// Meanwhile another process that only looks does not disturb the capture.
func TestReplicaOfADamagedLog(t *testing.T) {
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
	log, err := openLog(r.logDir())
	must(t, err)
	from := log.state.to
	l.onActive(t, "INSERT INTO t SELECT g, repeat('x', 300) FROM generate_series(1, 5000) g")
	l.sync(t, r)
	if log, err = openLog(r.logDir()); err != nil {
		t.Fatal(err)
	}
	h := log.state.History
	at := (from + log.state.to) / 2
	f, err := os.OpenFile(filepath.Join(log.dir, h.name(h.begin(at))), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(make([]byte, 4096), int64(at)%h.Segment)
	must(t, errors.Join(err, f.Close()))
	r.patience = time.Second
	c := l.capture(t, r)
	select {
	case w := <-warned:
		if !strings.Contains(w, "can be read up to") {
			t.Errorf("warned: %s", w)
		}
	default:
		t.Error("nobody was warned")
	}
	other := l.engine(t)
	_, err = other.Check(t.Context())
	must(t, err)
	must(t, other.Close())
	rows := 0
	for line, err := range c.Strings(t.Context(), "SELECT count(*) FROM t WHERE ? = ''", "") {
		must(t, err)
		_, err = fmt.Sscan(line, &rows)
		must(t, err)
	}
	if rows != 5000 {
		t.Errorf("captured %d rows", rows)
	}
	must(t, c.Publish(t.Context()))
}

// TestReplicaTimeIsBeforeThePlace shows that whatever was committed before T is
// there, and that a publish which is over cannot be asked for again.
func TestReplicaTimeIsBeforeThePlace(t *testing.T) {
	t.Parallel()
	l := newReplicaLab(t, testenv.Postgres(t, "synchronous_commit=off"))
	l.onActive(t, "CREATE TABLE ticks (at timestamptz)")
	r := l.engine(t)
	l.sync(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	var after []time.Time // times right after each commit
	writer.Go(func() {
		c, err := l.active.Conn(context.Background(), l.name)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close(context.Background())
		for ctx.Err() == nil {
			var at time.Time
			if _, err := c.Exec(context.Background(), "INSERT INTO ticks VALUES (clock_timestamp())"); err != nil {
				t.Error(err)
				return
			}
			if err := c.QueryRow(context.Background(), "SELECT clock_timestamp()").Scan(&at); err != nil {
				t.Error(err)
				return
			}
			after = append(after, at)
		}
	})
	var before, c dbrepl.Captured
	for range 3 {
		before, c = c, l.sync(t, r)
	}
	cancel()
	writer.Wait()
	committed := 0
	for _, at := range after {
		if at.Before(c.Point().Time) {
			committed++
		}
	}
	ticks := func() (n int) {
		t.Helper()
		rows, err := l.standby.Query(l.name, "SELECT count(*) FROM ticks")
		must(t, err)
		_, err = fmt.Sscan(rows[0], &n)
		must(t, err)
		return n
	}
	shown := ticks()
	if shown < committed || shown > committed+20 {
		t.Errorf("%d rows, %d were committed before T", shown, committed)
	}
	if err := r.Recover(t.Context(), before.Token()); !errors.Is(err, dbrepl.ErrCaptureGone) || hint.Of(err) == "" {
		t.Errorf("an old publish: %v", err)
	}
	if n := ticks(); n != shown {
		t.Errorf("after it %d rows, before %d", n, shown)
	}
}
