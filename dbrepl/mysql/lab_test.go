package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/enginetest"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/testenv"
)

// lab is a pair of servers with an empty database on the active.
type lab struct {
	t               testing.TB
	active, standby *testenv.MariaDBServer
	name            string
}

// product starts servers of MariaDB or MySQL.
type product struct {
	name  string
	start func(t testing.TB, opts ...string) *testenv.MySQLServer
}

var (
	mariaDB = product{"MariaDB", testenv.MariaDB}
	mySQL   = product{"MySQL", testenv.MySQL}
)

// withoutGTID starts a server that knows positions of its binary log only.
func (p product) withoutGTID(t testing.TB) *testenv.MySQLServer {
	t.Helper()
	if p.name == mariaDB.name {
		return p.start(t)
	}
	return p.start(t, "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF", "--skip-log-slave-updates")
}

// unlogged starts a server without a binary log.
func (p product) unlogged(t testing.TB) *testenv.MySQLServer {
	t.Helper()
	if p.name == mariaDB.name {
		return p.start(t, "--skip-log-bin")
	}
	return p.start(t, "--skip-log-bin", "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF", "--skip-log-slave-updates")
}

// everywhere runs a test with servers of either product.
func everywhere(t *testing.T, test func(t *testing.T, p product)) {
	t.Parallel()
	for _, p := range []product{mariaDB, mySQL} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

var labs atomic.Int64

// newLab makes a database on running servers.
func newLab(t testing.TB, active, standby *testenv.MariaDBServer) *lab {
	t.Helper()
	l := &lab{t: t, active: active, standby: standby, name: fmt.Sprintf("art_%d", labs.Add(1))}
	active.Exec(t, "", "CREATE DATABASE "+l.name+" CHARACTER SET utf8mb3 COLLATE utf8mb3_bin")
	return l
}

func startLab(t testing.TB, p product) *lab {
	t.Helper()
	return newLab(t, p.start(t), p.start(t))
}

func killPID(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }

func (l *lab) options() Options {
	return Options{
		Name:    l.name,
		Active:  Server{Address: l.active.Addr, User: "root"},
		Standby: Server{Address: l.standby.Socket, User: "root"},
		// One after the other they are runs of one standby.
		Instance: strings.ReplaceAll(l.name, "_", ""),
		Timeouts: Timeouts{Lock: time.Second},
	}
}

// engine makes an engine that changes adjust.
func (l *lab) engine(t testing.TB, adjust ...func(*Options)) *Engine {
	t.Helper()
	o := l.options()
	for _, a := range adjust {
		a(&o)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	e.anyRename = !l.standby.IsMariaDB()
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

// another makes an engine that of another standby.
func another(o *Options) { o.Instance += "x" }

// end closes an engine, so that one of another account or standby can follow.
func (l *lab) end(t testing.TB, e *Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// onActive executes statements in the active's database.
func (l *lab) onActive(t testing.TB, statements string) {
	t.Helper()
	l.active.Exec(t, l.name, statements)
}

func (l *lab) onStandby(t testing.TB, statements string) {
	t.Helper()
	l.standby.Exec(t, l.name, statements)
}

// sync captures and publishes.
func (l *lab) sync(t testing.TB, e *Engine) dbrepl.Captured {
	t.Helper()
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// query returns the rows of a query, columns joined by "|".
func query(db *sql.DB, q string) ([]string, error) {
	c, err := db.Conn(context.Background())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	rows, err := c.QueryContext(context.Background(), q)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var lines []string
	for rows.Next() {
		values := make([]sql.NullString, len(names))
		dest := make([]any, len(names))
		for i := range values {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		parts := make([]string, len(names))
		for i, v := range values {
			parts[i] = "NULL"
			if v.Valid {
				parts[i] = v.String
			}
		}
		lines = append(lines, strings.Join(parts, "|"))
	}
	return lines, rows.Err()
}

// mustQuery is query on one of the servers, in the lab's database.
func (l *lab) mustQuery(t testing.TB, m *testenv.MariaDBServer, q string) []string {
	t.Helper()
	rows, err := query(m.DB(t, l.name), q)
	if err != nil {
		t.Fatalf("%v\nin: %s", err, q)
	}
	return rows
}

// gtid is what the active has committed.
func (l *lab) gtid(t testing.TB) string {
	t.Helper()
	if l.active.IsMariaDB() {
		return l.mustQuery(t, l.active, "SELECT @@gtid_binlog_pos")[0]
	}
	return l.mustQuery(t, l.active, "SELECT @@GLOBAL.gtid_executed")[0]
}

// events collects the warnings of an engine.
type events struct{ warnings chan string }

func collect() (*events, func(*Options)) {
	c := &events{make(chan string, 1000)}
	return c, func(o *Options) {
		o.Event = func(e event.Event) {
			if e.Kind == event.Warning {
				c.warnings <- e.Text
			}
		}
	}
}

func (c *events) all() string {
	var all []string
	for {
		select {
		case w := <-c.warnings:
			all = append(all, w)
		default:
			return strings.Join(all, "\n")
		}
	}
}

var errCrash = errors.New("crashed on purpose")

// crashAt lets the engine fail from its n-th changing statement on.
func crashAt(e *Engine, n int) (reached func() bool) {
	var seen atomic.Int64
	e.before = func(string) error {
		if seen.Add(1) >= int64(n) {
			return errCrash
		}
		return nil
	}
	return func() bool { return seen.Load() >= int64(n) }
}

func TestContract(t *testing.T) { everywhere(t, contract) }

func contract(t *testing.T, p product) {
	active, standby := p.start(t), p.start(t)
	enginetest.Run(t, func(t testing.TB) enginetest.Fixture {
		l := newLab(t, active, standby)
		l.onActive(t, "ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci") // which sorts a before B
		return enginetest.Fixture{
			Engine:  l.engine(t),
			Active:  func(t testing.TB, s string) { t.Helper(); l.onActive(t, s) },
			Standby: func(q string) ([]string, error) { return query(standby.DB(t, l.name), q) },
			Write: func(s string) error {
				_, err := standby.DB(t, l.name).Exec(s)
				return err
			},
			Beside: func(testing.TB) string { return l.name + "_beside" },
			Look:   func(name, q string) ([]string, error) { return query(standby.DB(t, name), q) },
			Open:   func(t testing.TB) dbrepl.Engine { return l.engine(t) },
			Crash: func(t testing.TB, n int) (dbrepl.Engine, func() bool) {
				e := l.engine(t)
				return e, crashAt(e, n)
			},
			Watched: func(t testing.TB, at func()) dbrepl.Engine {
				e := l.engine(t)
				e.before = func(string) error { at(); return nil }
				return e
			},
		}
	})
}

// TestOnSharedServers runs the tests that leave the servers themselves as they are.
func TestOnSharedServers(t *testing.T) { everywhere(t, onSharedServers) }

func onSharedServers(t *testing.T, p product) {
	active, standby := p.start(t), p.start(t)
	// MySQL 5.7 closes the connection of whom it kills before that has noticed. When
	// another gets its file descriptor, the one that was killed waits for what that
	// one says and stays for as long. So these have the servers for themselves there.
	kill := []string{"LostSession", "BrokenRestores", "SessionsThatAreKilled", "LostSessionsAreEnded", "OneConfigurationAtATime", "OwnLostSession", "KeptInParts", "FailedCapturesKeepNothing"}
	for name, run := range map[string]func(t *testing.T, l *lab){
		"ValuesThatDoNotFitStopTheCapture":    valuesThatDoNotFitStopTheCapture,
		"GreatBlob":                           greatBlob,
		"RowsSentBeforeAnErrorDoNotStay":      rowsSentBeforeAnErrorDoNotStay,
		"TornTransfers":                       tornTransfers,
		"DefinitionsThatNeverRest":            definitionsThatNeverRest,
		"CopiedTablesAreFree":                 copiedTablesAreFree,
		"PublishNamesWhoIsInTheWay":           publishNamesWhoIsInTheWay,
		"OneServerForBothIsRefused":           oneServerForBothIsRefused,
		"ConnectionErrorsAreOneClearLine":     connectionErrorsAreOneClearLine,
		"ThroughATunnel":                      throughATunnel,
		"QuietServer":                         quietServer,
		"LostSession":                         lostSession,
		"EveryTypeArrivesUnchanged":           everyTypeArrivesUnchanged,
		"DefinitionsThatChangeDuringACapture": definitionsThatChangeDuringACapture,
		"EveryTypeIsKept":                     everyTypeIsKept,
		"DividedTablesAreFree":                dividedTablesAreFree,
		"KeptInParts":                         keptInParts,
		"FailedCapturesKeepNothing":           failedCapturesKeepNothing,
		"CrashedRestores":                     crashedRestores,
		"BrokenRestores":                      brokenRestores,
		"RefusedDumps":                        refusedDumps,
		"SessionsThatAreKilled":               sessionsThatAreKilled,
		"LostSessionsAreEnded":                lostSessionsAreEnded,
		"OneConfigurationAtATime":             oneConfigurationAtATime,
		"OwnLostSession":                      ownLostSession,
	} {
		if name == "CrashedRestores" && p.name != mariaDB.name {
			continue // every statement of a restore, with the same statements
		}
		t.Run(name, func(t *testing.T) {
			if p.name == mariaDB.name || !slices.Contains(kill, name) {
				t.Parallel()
			}
			run(t, newLab(t, active, standby))
		})
	}
}
