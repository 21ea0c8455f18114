package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
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
	active, standby *testenv.PostgresServer
	name            string
	scratch         string
	private         string // with a short path, since there are sockets in it
	processes
}

// processes are the engines of a lab. Each stands for a process of its own, of
// which one is at work at a time: whoever begins, the others have ended.
type processes struct {
	mu  sync.Mutex
	all []interface{ release() }
}

func (p *processes) claiming(e interface{ release() }) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, e)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, other := range p.all {
			if other != e {
				other.release()
			}
		}
	}
}

var labs atomic.Int64

// newLab makes a database on running servers.
func newLab(t testing.TB, active, standby *testenv.PostgresServer) *lab {
	t.Helper()
	l := &lab{t: t, active: active, standby: standby, name: fmt.Sprintf("art_%d", labs.Add(1)), scratch: filepath.Join(t.TempDir(), "scratch")}
	var err error
	if l.private, err = os.MkdirTemp("", "drs"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(l.private) })
	active.Exec(t, "postgres", "CREATE DATABASE "+l.name)
	t.Cleanup(func() {
		for _, name := range []string{l.name, l.name + newSuffix, l.name + prevSuffix} {
			_, _ = standby.Query("postgres", "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") // which may be gone
		}
		_, _ = active.Query("postgres", "DROP DATABASE IF EXISTS "+l.name+" WITH (FORCE)")
	})
	return l
}

func startLab(t testing.TB) *lab {
	t.Helper()
	return newLab(t, testenv.Postgres(t), testenv.Postgres(t))
}

func (l *lab) options() Options {
	return Options{
		Name:     l.name,
		Active:   Server{Address: l.active.Addr, User: "postgres"},
		Standby:  Server{Address: l.standby.Socket, User: "postgres"},
		Scratch:  l.scratch,
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
	e.active.private, e.standby.private = l.private, l.private
	e.claiming = l.claiming(e)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

func (l *lab) onActive(t testing.TB, statements string) {
	t.Helper()
	l.active.Exec(t, l.name, statements)
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

// mustQuery runs a query on one of the servers, in the lab's database.
func (l *lab) mustQuery(t testing.TB, p *testenv.PostgresServer, q string) []string {
	t.Helper()
	rows, err := p.Query(l.name, q)
	if err != nil {
		t.Fatalf("%v\nin: %s", err, q)
	}
	return rows
}

// collect gathers the warnings of an engine.
func collect() (warnings chan string, adjust func(*Options)) {
	warnings = make(chan string, 1000)
	return warnings, func(o *Options) {
		o.Event = func(e event.Event) {
			if e.Kind == event.Warning {
				warnings <- e.Text
			}
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

func TestContract(t *testing.T) {
	t.Parallel()
	active, standby := testenv.Postgres(t), testenv.Postgres(t)
	var beside atomic.Int64
	enginetest.Run(t, func(t testing.TB) enginetest.Fixture {
		l := newLab(t, active, standby)
		return enginetest.Fixture{
			Engine:  l.engine(t),
			Active:  func(t testing.TB, s string) { t.Helper(); l.onActive(t, s) },
			Standby: func(q string) ([]string, error) { return standby.Query(l.name, q) },
			Write: func(s string) error {
				_, err := standby.Query(l.name, s)
				return err
			},
			Open: func(t testing.TB) dbrepl.Engine { return l.engine(t) },
			Crash: func(t testing.TB, n int) (dbrepl.Engine, func() bool) {
				e := l.engine(t)
				return e, crashAt(e, n)
			},
			Watched: func(t testing.TB, at func()) dbrepl.Engine {
				e := l.engine(t)
				e.before = func(string) error { at(); return nil }
				return e
			},
			Beside: func(testing.TB) string { return fmt.Sprintf("%s_beside_%d", l.name, beside.Add(1)) },
			Look:   func(name, q string) ([]string, error) { return standby.Query(name, q) },
		}
	})
}

// TestOnSharedServers runs the tests that leave the servers themselves as they are.
func TestOnSharedServers(t *testing.T) {
	active, standby := testenv.Postgres(t), testenv.Postgres(t)
	for _, test := range []struct {
		name string
		run  func(t *testing.T, l *lab)
	}{
		{"EveryTypeArrivesUnchanged", everyTypeArrivesUnchanged},
		{"EveryObjectArrives", everyObjectArrives},
		{"ArtifactoryGenerations", artifactoryGenerations},
		{"SumsAreExact", sumsAreExact},
		{"TheTimeIsBeforeTheSnapshot", theTimeIsBeforeTheSnapshot},
		{"WhatIsNotTheSameStopsTheCapture", whatIsNotTheSameStopsTheCapture},
		{"CompareNamesTheTable", compareNamesTheTable},
		{"CompareNamesTheDefinition", compareNamesTheDefinition},
		{"CaptureVerifiesDefinitions", captureVerifiesDefinitions},
		{"ADatabaseWithoutPublic", aDatabaseWithoutPublic},
		{"AFunctionWithoutSchemaIsNamed", aFunctionWithoutSchemaIsNamed},
		{"CaptureMakesWay", captureMakesWay},
		{"DefinitionsThatChange", definitionsThatChange},
		{"LockedTableStopsTheCapture", lockedTableStopsTheCapture},
		{"SessionsThatAreKilled", sessionsThatAreKilled},
		{"CancelledInTheMiddle", cancelledInTheMiddle},
		{"CaptureGone", captureGone},
		{"PublishNamesWhoIsInTheWay", publishNamesWhoIsInTheWay},
		{"PromotionOpensTheDatabase", promotionOpensTheDatabase},
		{"ForeignDatabaseIsPutAside", foreignDatabaseIsPutAside},
		{"ConnectionErrorsAreOneClearLine", connectionErrorsAreOneClearLine},
		{"WhatCheckNames", whatCheckNames},
		{"AnOrdinaryAccountSuffices", anOrdinaryAccountSuffices},
		{"ALimitOfTwo", aLimitOfTwo},
		{"ThroughATunnel", throughATunnel},
		{"ScratchIsFull", scratchIsFull},
		{"OneConfigurationHasTheDatabase", oneConfigurationHasTheDatabase},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, newLab(t, active, standby)) })
	}
}
