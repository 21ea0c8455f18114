package mysql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

// granted makes accounts with what Check asks for, and nothing more.
func (l *lab) granted(t testing.TB, adjust ...func(*Options)) *Engine {
	t.Helper()
	for _, m := range []*testenv.MariaDBServer{l.active, l.standby} {
		m.Exec(t, "", "CREATE OR REPLACE USER 'drs-ync'@'%' IDENTIFIED BY 'top secret'")
	}
	return l.engine(t, append(adjust, func(o *Options) {
		o.Active.User, o.Active.Password = "drs-ync", "top secret"
		o.Standby.User, o.Standby.Password = "drs-ync", "top secret"
	})...)
}

// follow executes what the findings propose until none is fatal.
func (l *lab) follow(t testing.TB, e *Engine) (fatal []dbrepl.Finding) {
	t.Helper()
	for range 5 {
		findings, err := e.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stuck := true
		for _, f := range findings {
			if !f.Fatal {
				continue
			}
			fatal = append(fatal, f)
			if !strings.HasPrefix(f.Fix, "GRANT ") {
				t.Fatalf("a finding has no statement that mends it: %+v", f)
			}
			m := l.standby
			if strings.HasPrefix(f.Subject, "active") {
				m = l.active
			}
			m.Exec(t, "", f.Fix)
			stuck = false
		}
		if stuck {
			return fatal
		}
		e.standby.db.SetMaxIdleConns(0) // grants hold from the next session on
		e.active.db.SetMaxIdleConns(0)
	}
	t.Fatalf("the proposed grants do not help: %+v", fatal)
	return nil
}

func TestMissingPrivilegesAreNamedAndTheGrantsSuffice(t *testing.T) {
	t.Parallel()
	l := startLab(t, mariaDB)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, u INT UNIQUE, FOREIGN KEY (u) REFERENCES t (id)) ENGINE=InnoDB; INSERT INTO t VALUES (1, NULL)")
	e := l.granted(t)

	_, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err == nil {
		t.Fatal("captured without any privilege")
	}
	for _, want := range []string{"active account drs-ync@%: it lacks SELECT, SHOW VIEW, TRIGGER, EVENT on the database " + l.name,
		"stored procedures", "standby account drs-ync@%: it lacks SELECT, INSERT,"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	escaped := strings.ReplaceAll(l.name, "_", `\_`)
	for _, want := range []string{
		"GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `" + escaped + "`.* TO 'drs-ync'@'%'",
		"GRANT SELECT ON `mysql`.`proc` TO 'drs-ync'@'%'",
		"GRANT ALL PRIVILEGES ON `" + escaped + `\_\_drsync\_new` + "`.* TO 'drs-ync'@'%'",
	} {
		if !strings.Contains(strings.ReplaceAll(hint.Of(err), "mysql.proc", "`mysql`.`proc`"), want) {
			t.Errorf("the hint does not say %q:\n%s", want, hint.Of(err))
		}
	}
	if left := l.mustStandbySchemas(t); len(left) != 0 {
		t.Errorf("a refused capture made %s", left)
	}

	l.follow(t, e)
	l.sync(t, e)
	l.onActive(t, "CREATE VIEW v AS SELECT * FROM t; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.u = NULL; CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO DELETE FROM t; CREATE PROCEDURE p() SELECT 1")
	l.standby.Exec(t, "", "SET GLOBAL log_bin_trust_function_creators=1; SET GLOBAL read_only=1")
	if fatal := l.follow(t, e); !strings.Contains(fmt.Sprint(fatal), "SET USER") || !strings.Contains(fmt.Sprint(fatal), "READ_ONLY ADMIN") {
		t.Errorf("objects of root on a read_only standby need %+v", fatal)
	}
	l.sync(t, e)
	if _, err := e.Promote(t.Context()); err != nil {
		t.Error(err)
	}
	want, got := definitions(t, l, l.active), definitions(t, l, l.standby)
	if fmt.Sprint(want) != fmt.Sprint(got) {
		t.Errorf("the standby has\n%s\nthe active\n%s", got, want)
	}
	// Each right that is taken away again is missed, by name.
	for _, right := range activeRights {
		l.active.Exec(t, "", "REVOKE "+right+" ON `"+escaped+"`.* FROM 'drs-ync'@'%'")
		_, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err == nil || !strings.Contains(err.Error(), "it lacks "+right+" on") {
			t.Errorf("without %s: %v", right, err)
		}
		l.active.Exec(t, "", "GRANT "+right+" ON `"+escaped+"`.* TO 'drs-ync'@'%'")
	}
}

func TestFindings(t *testing.T) {
	t.Parallel()
	l := newLab(t, mariaDB.start(t, "--skip-log-bin"), mariaDB.start(t, "--skip-log-bin", "--local-infile=0"))
	l.onActive(t, "CREATE TABLE old (x INT) ENGINE=MyISAM; CREATE TABLE aria (x INT) ENGINE=Aria; CREATE TABLE ver (x INT) ENGINE=InnoDB WITH SYSTEM VERSIONING")
	l.active.Exec(t, "", "CREATE DATABASE other; CREATE TABLE other.p (id INT PRIMARY KEY) ENGINE=InnoDB")
	l.onActive(t, "CREATE TABLE far (x INT, FOREIGN KEY (x) REFERENCES other.p (id)) ENGINE=InnoDB; CREATE TABLE cut (x INT) ENGINE=InnoDB PARTITION BY HASH (x) PARTITIONS 2")
	l.standby.Exec(t, "", "CREATE DATABASE "+l.name+"; CREATE TABLE "+l.name+".cut (x INT) ENGINE=InnoDB PARTITION BY HASH (x) PARTITIONS 2")
	e := l.engine(t)
	findings, err := e.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		fatal bool
		text  string
	}{
		{true, "aria (Aria), old (MyISAM)"},
		{true, "no server lets another one write: ver"},
		{true, "far → other.p"},
		{true, "standby database " + l.name},
		{false, "no binary log"},
		{false, "one piece: cut"},
	} {
		found := false
		for _, f := range findings {
			found = found || f.Fatal == want.fatal && strings.Contains(f.Subject+f.Problem, want.text)
		}
		if !found {
			t.Errorf("no finding %+v in %+v", want, findings)
		}
	}
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), "old (MyISAM)") {
		t.Errorf("captured what has no snapshot: %v", err)
	}

	// Without binary logs and LOAD DATA LOCAL it still works.
	l.onActive(t, "DROP TABLE old, aria, ver, far, cut; CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t SELECT seq FROM seq_1_to_5000")
	l.standby.Exec(t, l.name, "DROP TABLE cut")
	if c := l.sync(t, e); c.Point().Position != "" {
		t.Errorf("a server without a binary log has the position %q", c.Point().Position)
	}
	l.sameRows(t, "t")
	if got := l.mustQuery(t, l.standby, "SELECT @@global.local_infile"); got[0] != "0" {
		t.Error("local_infile stays on")
	}
	l.end(t, e)
	p := l.granted(t)
	l.follow(t, p)
	if findings, err = p.Check(t.Context()); err != nil || !strings.Contains(fmt.Sprint(findings), "rows are inserted") {
		t.Errorf("findings %+v, %v", findings, err)
	}
	l.sync(t, p)
	l.sameRows(t, "t")
}

func oneServerForBothIsRefused(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB")
	e := l.engine(t, func(o *Options) { o.Standby.Address = l.active.Socket })
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), "the active server itself") {
		t.Errorf("captured onto itself: %v", err)
	}
}

func connectionErrorsAreOneClearLine(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB")
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	for name, test := range map[string]struct {
		adjust func(*Options)
		want   string
	}{
		"password":  {func(o *Options) { o.Active.Password = "hunter2" }, "Access denied for user 'root'"},
		"refused":   {func(o *Options) { o.Active.Address = "127.0.0.1:1" }, "connection refused"},
		"no socket": {func(o *Options) { o.Standby.Address = "/nowhere/sock"; o.Standby.Password = "hunter2" }, "no such file"},
		"no answer": {func(o *Options) { o.Active.Address = deaf.Addr().String(); o.Connect = 200 * time.Millisecond }, errSilent.Error()},
		"no tunnel": {func(o *Options) {
			o.Active.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("the tunnel is shut") }
		}, "the tunnel is shut"},
		"no database": {func(o *Options) { o.Name = "missing" }, "it has no database missing"},
	} {
		t.Run(name, func(t *testing.T) {
			e := l.engine(t, test.adjust)
			_, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("capture: %v, want %q", err, test.want)
			}
			if strings.Contains(err.Error()+hint.Of(err), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has a secret or several lines: %v", err)
			}
			if hint.Of(err) == "" {
				t.Errorf("no hint with: %v", err)
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{Name: "art", Active: Server{Address: "db:3306", User: "u"}, Standby: Server{Address: "/run/s", User: "u"}}
	if e, err := New(good); err != nil || !strings.Contains(e.Describe(), "art") {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Options){
		"no name":     func(o *Options) { o.Name = "" },
		"long name":   func(o *Options) { o.Name = strings.Repeat("é", 52) },
		"system":      func(o *Options) { o.Name = "MySQL" },
		"own":         func(o *Options) { o.Name = "art__drsync_prev" },
		"odd name":    func(o *Options) { o.Name = "a/b" },
		"no user":     func(o *Options) { o.Active.User = "" },
		"no port":     func(o *Options) { o.Active.Address = "db" },
		"no address":  func(o *Options) { o.Standby.Address = "" },
		"a space":     func(o *Options) { o.Name = "art " },
		"not unicode": func(o *Options) { o.Name = "a\xff" },
	} {
		o := good
		spoil(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted %+v", name, o)
		}
	}
}

func sumsOf(names ...string) (sums []blob.Sum) {
	for _, n := range names {
		sums = append(sums, blob.Sum(n))
	}
	return sums
}

// tunnel is a network connection without deadlines, as an SSH channel is.
type tunnel struct{ net.Conn }

func (tunnel) SetDeadline(time.Time) error      { return errors.New("deadline not supported") }
func (tunnel) SetReadDeadline(time.Time) error  { return errors.New("deadline not supported") }
func (tunnel) SetWriteDeadline(time.Time) error { return errors.New("deadline not supported") }

func throughATunnel(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t VALUES (1)")
	var mu sync.Mutex
	dialed := 0
	e := l.engine(t, func(o *Options) {
		o.Active.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			mu.Lock()
			dialed++
			mu.Unlock()
			var d net.Dialer
			c, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return tunnel{c}, nil
		}
	})
	l.sync(t, e)
	l.sameRows(t, "t")
	if dialed == 0 {
		t.Error("the tunnel was not used")
	}
}

// TestSilentServer stops the active's process while it is asked: it keeps its
// connections, so nothing but a question shows that it is gone.
func TestSilentServer(t *testing.T) {
	l := startLab(t, mariaDB)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t VALUES (1)")
	e := l.engine(t, func(o *Options) { o.Quiet, o.Connect = 100*time.Millisecond, 300*time.Millisecond })
	if _, err := e.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid := l.active.PID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil { // all its threads have stopped
		t.Fatal(err)
	}
	_, err := e.StillNamed(t.Context(), "SELECT 1 FROM t WHERE id = ?", sumsOf("1"))
	if err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("asked a stopped server: %v", err)
	}
}

// quietServer asks something that takes many times as long as a server may
// be silent.
func quietServer(t *testing.T, l *lab) {
	e := l.engine(t, func(o *Options) { o.Quiet, o.Connect = 20*time.Millisecond, 5*time.Second })
	began := time.Now()
	got, err := e.StillNamed(t.Context(), "SELECT 1 FROM DUAL WHERE SLEEP(1) = 0 AND 1 <> ?", sumsOf("2"))
	if err != nil || !got["2"] || time.Since(began) < time.Second {
		t.Errorf("a long silence ended with %v, %v", got, err)
	}
}

// lostSession ends a session on the server without any trace of that in the
// connection, as a router that forgets a connection does.
func lostSession(t *testing.T, l *lab) {
	cut := make(chan func(), 100)
	e := l.engine(t, func(o *Options) {
		o.Quiet = 100 * time.Millisecond
		o.Active.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			here, there := net.Pipe()
			go io.Copy(c, there)
			go io.Copy(there, c) // whose end is not passed on
			cut <- func() { c.Close() }
			return here, nil
		}
	})
	lost := make(chan error, 1)
	go func() {
		_, err := e.StillNamed(t.Context(), "SELECT 1 FROM DUAL WHERE SLEEP(30) = 0 AND 1 <> ?", sumsOf("2"))
		lost <- err
	}()
	sleeping := "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE '%EXISTS%SLEEP(30)%' AND ID <> CONNECTION_ID()"
	db := l.active.DB(t, "")
	var ids []string
	for len(ids) == 0 {
		var err error
		if ids, err = query(db, sleeping); err != nil {
			t.Fatal(err)
		}
	}
	first := <-cut
	<-cut
	<-cut // it has been asked after twice, so once in vain
	first()
	l.active.Exec(t, "", "KILL "+ids[0])
	if err := <-lost; err == nil || !strings.Contains(err.Error(), "no longer knows the connection") {
		t.Errorf("a lost session ended with %v", err)
	}
}
