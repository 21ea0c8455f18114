package postgres

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/testenv"
)

// ours lists the processes on the active whose sessions have names that begin so.
func ours(t testing.TB, active *testenv.PostgresServer, prefix, and string) []string {
	t.Helper()
	rows, err := active.Query("postgres", "SELECT pid FROM pg_stat_activity WHERE starts_with(application_name, '"+prefix+"') "+and+" ORDER BY 1")
	must(t, err)
	return rows
}

// eventually waits until done says yes.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	ok, err := until(t.Context(), time.Minute, func() (bool, error) { return done(), nil })
	if err != nil || !ok {
		t.Errorf("%s: never, %v", what, err)
	}
}

// impostors opens sessions on the active that are none of instance's, and returns
// what says whether they still live.
func impostors(t *testing.T, active *testenv.PostgresServer, instance string) (check func()) {
	t.Helper()
	active.Exec(t, "postgres", "CREATE ROLE somebody_"+instance+" LOGIN SUPERUSER")
	mine, right := Server{Address: active.Socket, User: "postgres"}, "drsync "+instance+" X"
	stranger := mine
	stranger.User = "somebody_" + instance
	var pings []func() error
	for _, session := range []struct {
		as   Server
		name string
	}{{mine, "drsync " + instance + "0 X"}, {mine, "drsync other X"}, {mine, "drsync X"}, {mine, "artifactory"}, {mine, instance}, {stranger, right}} {
		s := newServer("active", session.as, Timeouts{Connect: time.Minute})
		s.name = session.name
		c, err := s.connect(t.Context(), "postgres")
		must(t, err)
		t.Cleanup(func() { end(c) })
		pings = append(pings, func() error { return c.Ping(context.Background()) })
	}
	return func() {
		t.Helper()
		for i, ping := range pings {
			if err := ping(); err != nil {
				t.Errorf("session %d of somebody else was ended: %v", i, err)
			}
		}
	}
}

// TestSessionsOfAVanishedStandby cuts the line in the middle of a dump, without a
// word to the active: what the run has left there locks the tables until the next
// run of this standby has ended it.
func TestSessionsOfAVanishedStandby(t *testing.T) {
	t.Parallel()
	l := startLab(t)
	l.onActive(t, "CREATE TABLE t (n int, x text); INSERT INTO t SELECT g, repeat(md5(g::text), 100) FROM generate_series(1, 5000) g; ALTER TABLE t ALTER x SET STORAGE EXTERNAL")
	const instance, mine = "00112233aabbccdd", "drsync 00112233aabbccdd "
	proxy := testenv.Proxy(t, l.active.Addr)
	e := l.engine(t, func(o *Options) {
		o.Instance, o.Active.Address, o.Connect, o.Quiet = instance, proxy.Addr, 3*time.Second, 200*time.Millisecond
	})
	watched := make(chan struct{})
	e.during = func(what string) {
		if what != "snapshot" {
			return
		}
		proxy.SetRate(1 << 20)
		go func() {
			defer close(watched)
			eventually(t, "a dump under way", func() bool { return ours(t, l.active, mine, "AND query LIKE 'COPY %'") != nil })
			proxy.Vanish()
		}()
	}
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("%v", err)
	}
	<-watched
	lost := ours(t, l.active, mine, "")
	if len(lost) < 3 { // the leader, and two of pg_dump's
		t.Fatalf("left are %q", lost)
	}
	const alter = "SET lock_timeout = '300ms'; ALTER TABLE t ADD COLUMN y int"
	if _, err := l.active.Query(l.name, alter); err == nil {
		t.Error("nothing of a run whose line was cut holds the table")
	}
	check := impostors(t, l.active, instance)
	// Where they may not be ended, a capture warns and goes on.
	l.active.Exec(t, "postgres", "CREATE ROLE reader LOGIN PASSWORD 'x' IN ROLE pg_read_all_data")
	for _, database := range []string{l.name, "postgres"} {
		l.active.Exec(t, database, "REVOKE EXECUTE ON FUNCTION pg_terminate_backend(int, bigint) FROM PUBLIC")
	}
	left := newServer("active", Server{Address: l.active.Addr, User: "reader", Password: "x"}, Timeouts{Connect: time.Minute})
	left.name = mine + "LEFT"
	session, err := left.connect(t.Context(), l.name)
	must(t, err)
	defer end(session)
	warned, adjust := collect()
	l.sync(t, l.engine(t, adjust, func(o *Options) { o.Instance, o.Active.User, o.Active.Password = instance, "reader", "x" }))
	if len(warned) != 1 || !strings.Contains(<-warned, "permission denied for function pg_terminate_backend") {
		t.Errorf("%d warnings", len(warned))
	}

	// Neither another standby's nor one without a name ends them.
	for _, other := range []string{"", "00112233"} {
		o := l.engine(t, func(o *Options) { o.Instance = other })
		_, err := o.StillNamed(t.Context(), "SELECT 1 WHERE 'x' = ?", []blob.Sum{"x"})
		must(t, err)
	}
	now := ours(t, l.active, mine, "")
	for _, pid := range lost {
		if !slices.Contains(now, pid) {
			t.Errorf("left are %q, before %q", now, lost)
		}
	}
	next := l.engine(t, func(o *Options) { o.Instance = instance })
	next.during = func(what string) {
		if what != "tables" { // before the snapshot
			return
		}
		for _, pid := range ours(t, l.active, mine, "") {
			if slices.Contains(lost, pid) {
				t.Errorf("process %s is still there", pid)
			}
		}
		if _, err := l.active.Query(l.name, alter); err != nil {
			t.Errorf("a table cannot be altered: %v", err)
		}
	}
	l.sync(t, next)
	check()
	l.sameDatabases(t)
	looks := l.engine(t, func(o *Options) { o.Instance = instance })
	looks.alter = func(*pair) { // in the middle of a check, beside which another command may be at work
		_, err := l.engine(t, func(o *Options) { o.Instance = instance }).StillNamed(t.Context(), "SELECT 1 WHERE 'x' = ?", []blob.Sum{"x"})
		must(t, err)
	}
	if _, err := looks.Check(t.Context()); err != nil {
		t.Errorf("a check was disturbed: %v", err)
	}
	for _, look := range []func(e *Engine) error{
		func(e *Engine) error { _, err := e.Compare(t.Context()); return err },
		func(e *Engine) error {
			_, err := e.StillNamed(t.Context(), "SELECT 1 WHERE 'x' = ?", []blob.Sum{"x"})
			return err
		},
	} {
		c, err := l.active.Conn(t.Context(), l.name)
		must(t, err)
		_, err = c.Exec(t.Context(), "SET application_name = '"+mine+"LOST'")
		must(t, err)
		must(t, look(l.engine(t, func(o *Options) { o.Instance = instance })))
		if c.Ping(t.Context()) == nil {
			t.Error("a lost session outlives a comparison or question")
		}
		c.Close(context.Background())
	}
	check()
}

// TestReplicaOfAVanishedStandby cuts the line while the log arrives: the slot is
// free again for the next run at once.
func TestReplicaOfAVanishedStandby(t *testing.T) {
	t.Parallel()
	l := newReplicaLab(t, testenv.Postgres(t))
	l.onActive(t, "CREATE TABLE t (n int, x text)")
	const mine = "drsync replica1 "
	proxy := testenv.Proxy(t, l.active.Addr)
	named := func(o *ReplicaOptions) { o.Instance = "replica1" }
	l.sync(t, l.engine(t, named))
	l.onActive(t, "INSERT INTO t SELECT g, repeat('x', 900) FROM generate_series(1, 10000) g")
	r := l.engine(t, named, func(o *ReplicaOptions) {
		o.Active.Address, o.Connect, o.Quiet = proxy.Addr, 3*time.Second, 200*time.Millisecond
	})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		proxy.SetRate(1 << 20)
		eventually(t, "a log that arrives", func() bool {
			return ours(t, l.active, mine, "AND backend_type = 'walsender' AND query LIKE 'START_%'") != nil
		})
		proxy.Vanish()
	}()
	if _, err := r.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil {
		t.Error("captured over a line that was cut")
	}
	<-watched
	lost := ours(t, l.active, mine, "AND backend_type = 'walsender'")
	if lost == nil {
		t.Fatal("nothing is left")
	}
	next := l.engine(t, named)
	next.e.during = func(what string) {
		if what == "replay" {
			for _, pid := range ours(t, l.active, mine, "") {
				if slices.Contains(lost, pid) {
					t.Errorf("process %s is still there", pid)
				}
			}
		}
	}
	l.sync(t, next)
	if rows, err := l.standby.Query(l.name, "SELECT count(*) FROM t"); err != nil || rows[0] != "10000" {
		t.Errorf("%q, %v", rows, err)
	}
}

// TestServersAskWhoIsGone looks at the timers of the active's sockets: each of
// drsync's sessions, and of its programs', is asked after 15 s whether it lives.
func TestServersAskWhoIsGone(t *testing.T) {
	t.Parallel()
	active := testenv.Postgres(t)
	l := newLab(t, active, testenv.Postgres(t))
	l.onActive(t, "CREATE TABLE t (n int, x text); INSERT INTO t SELECT g, repeat(md5(g::text), 100) FROM generate_series(1, 3000) g; ALTER TABLE t ALTER x SET STORAGE EXTERNAL")
	proxy := testenv.Proxy(t, active.Addr)
	proxy.SetRate(4 << 20)
	seen := make(map[string]bool)
	watch := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				timersOf(t, active, seen)
			}
		}()
		return func() { cancel(); <-done }
	}
	stop := watch()
	l.sync(t, l.engine(t, func(o *Options) { o.Active.Address = proxy.Addr }))
	stop()
	rl := newReplicaLab(t, active)
	r := rl.engine(t, func(o *ReplicaOptions) { o.Active.Address = proxy.Addr })
	stop = watch()
	rl.sync(t, r)
	rl.onActive(t, "CREATE TABLE t AS SELECT g, repeat('x', 900) FROM generate_series(1, 8000) g")
	rl.sync(t, r)
	stop()
	for _, what := range []string{"COPY", "SELECT", "BASE_BACKUP", "START_REPLICATION"} {
		if !seen[what] {
			t.Errorf("no session with %s was looked at: %v", what, seen)
		}
	}
	// What the server says of itself; and on a socket there is nothing to say.
	for _, c := range []struct{ role, address, want string }{
		{"active", active.Addr, "4 15 5 120000"}, {"active", active.Socket, "0 0 0 0"},
		{"standby", active.Addr, "4 15 5 0"}, // whose reader may take its time
	} {
		address, want := c.role+" "+c.address, c.want
		s := newServer(c.role, Server{Address: c.address, User: "postgres"}, l.engine(t).opt.Timeouts)
		session, err := s.connect(t.Context(), l.name)
		must(t, err)
		var got, look string
		must(t, session.QueryRow(t.Context(), "SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN ('tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count', 'tcp_user_timeout')").Scan(&got))
		must(t, session.QueryRow(t.Context(), "SELECT coalesce(current_setting('client_connection_check_interval', true), '10s')").Scan(&look))
		end(session)
		if got != want || c.role == "active" && look != "10s" {
			t.Errorf("%s: %s, %s; want %s", address, got, look, want)
		}
	}
}

// timersOf looks at all sessions of drsync's at one moment, and adds to seen what
// they are at.
func timersOf(t *testing.T, active *testenv.PostgresServer, seen map[string]bool) {
	timers := make(map[string]string) // by the ports of both ends
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Error(err)
		return
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 5 && f[3] == "01" { // established
			timers[port(f[1])+" "+port(f[2])] = f[5]
		}
	}
	rows, err := active.Query("postgres", "SELECT client_port, split_part(query, ' ', 1), left(query, 60) FROM pg_stat_activity WHERE application_name LIKE 'drsync%' AND client_port > 0 AND backend_start < now() - interval '200 ms'")
	if err != nil {
		t.Error(err)
		return
	}
	_, here, _ := net.SplitHostPort(active.Addr)
	for _, row := range rows {
		f := strings.SplitN(row, "|", 3)
		timer, known := timers[here+" "+f[0]]
		kind, when, _ := strings.Cut(timer, ":")
		if !known || kind != "02" { // it is gone, or waits for what was sent to arrive
			continue
		}
		hundredths, err := strconv.ParseInt(when, 16, 64)
		if err != nil || hundredths > 100*int64(deadPeerIdle.Seconds()) {
			t.Errorf("a session at %q is asked in %d s whether it lives", f[2], hundredths/100)
		}
		seen[f[1]] = true
	}
}

// port is that of an address as the kernel writes it.
func port(address string) string {
	_, hex, _ := strings.Cut(address, ":")
	n, _ := strconv.ParseUint(hex, 16, 16)
	return fmt.Sprint(n)
}
