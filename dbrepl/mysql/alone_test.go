package mysql

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// wantBusy expects that another configuration is named as the one at work.
func wantBusy(t testing.TB, what string, err error) {
	t.Helper()
	if !errors.Is(err, dbrepl.ErrBusy) || !strings.Contains(err.Error(), ", connection ") || !strings.Contains(err.Error(), " of root from localhost") ||
		!strings.Contains(hint.Of(err), "another configuration of drsync") {
		t.Errorf("%s: %v (hint: %s)", what, err, hint.Of(err))
	}
}

// oneConfigurationAtATime has two configurations that know nothing of each other and
// name the same database of the standby.
func oneConfigurationAtATime(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t VALUES (1)")
	one, two := l.engine(t), l.engine(t, another)
	dir := filepath.Join(t.TempDir(), "dump")
	c, err := one.Capture(t.Context(), dbrepl.CaptureOptions{Dump: dir})
	if err != nil {
		t.Fatal(err)
	}
	refused := map[string]func() error{
		"capture": func() error { _, err := two.Capture(t.Context(), dbrepl.CaptureOptions{}); return err },
		"recover": func() error { return two.Recover(t.Context(), nil) },
		"finish":  func() error { return two.Recover(t.Context(), c.Token()) },
		"promote": func() error { _, err := two.Promote(t.Context()); return err },
		"publish": func() error { return (&captured{e: two, g: c.(*captured).g}).Publish(t.Context()) },
		"discard": func() error { return (&captured{e: two, g: c.(*captured).g}).Discard(t.Context()) },
		"restore": func() error { _, err := two.Restore(t.Context(), dir); return err },
		"beside":  func() error { _, err := two.RestoreAs(t.Context(), dir, l.name+"_beside"); return err },
	}
	for what, run := range refused {
		wantBusy(t, what, run())
	}
	const want = "another configuration of drsync is at work on it, connection "
	if f, ok := finding(t, two, want); !ok || f.Fatal || !strings.Contains(f.Problem, "of root from localhost") {
		t.Errorf("check finds %+v", f)
	}
	for _, same := range []*Engine{one, l.engine(t)} {
		if f, ok := finding(t, same, want); ok {
			t.Errorf("the configuration that is at work finds itself: %+v", f)
		}
	}
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Who only reads needs nothing.
	if v, err := two.Visible(t.Context()); err != nil {
		t.Error(err)
	} else if err := v.Close(); err != nil {
		t.Error(err)
	}
	if r, err := two.Compare(t.Context()); err != nil || r.Different != 0 {
		t.Errorf("compared %+v, %v", r, err)
	}
	l.end(t, one)
	l.sync(t, two)
	wantBusy(t, "the first again", l.engine(t).Recover(t.Context(), nil))
}

// ownLostSession is of a standby whose line to its own server froze: nobody else may take
// its place, but the next run of the same standby does, at once.
func ownLostSession(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t VALUES (1)")
	frozen := newLine(t)
	e := l.engine(t, func(o *Options) { o.Standby.Dial = frozen.dial })
	l.sync(t, e)
	frozen.freeze()
	l.end(t, e)
	wantBusy(t, "another standby", l.engine(t, another).Recover(t.Context(), nil))
	l.sync(t, l.engine(t))
}

// TestRestartedServerIsTakenAgain: with the server its locks are gone.
func TestRestartedServerIsTakenAgain(t *testing.T) { everywhere(t, restartedServerIsTakenAgain) }

func restartedServerIsTakenAgain(t *testing.T, p product) {
	l := startLab(t, p)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t VALUES (1)")
	e := l.engine(t)
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.standby.Kill()
	l.standby.Start()
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantBusy(t, "after the restart", l.engine(t, another).Recover(t.Context(), nil))
	l.sync(t, e)
}

const childSocket, childName = "DRSYNC_TEST_CHILD_SOCKET", "DRSYNC_TEST_CHILD_NAME"

// TestChildAtWork is not a test but a process that another test kills.
func TestChildAtWork(t *testing.T) {
	socket := os.Getenv(childSocket)
	if socket == "" {
		t.Skip("started by TestKilledProcessStopsNobody")
	}
	e, err := New(Options{Name: os.Getenv(childName), Instance: "child",
		Active: Server{Address: socket, User: "root"}, Standby: Server{Address: socket, User: "root"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Recover(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stdout.WriteString("at work\n"); err != nil {
		t.Fatal(err)
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it is killed
}

func TestKilledProcessStopsNobody(t *testing.T) {
	t.Parallel()
	server := mariaDB.start(t)
	l := newLab(t, server, server)
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildAtWork$")
	child.Env = append(os.Environ(), childSocket+"="+server.Socket, childName+"="+l.name)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "at work" {
	}
	next := l.engine(t)
	wantBusy(t, "beside the child", next.Recover(t.Context(), nil))
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := next.Recover(t.Context(), nil); err != nil {
		t.Errorf("after the child was killed: %v", err)
	}
	t.Logf("taken after %v", time.Since(began))
	_ = child.Wait() // it was killed
}
