package testenv

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

const mariadbd = "mariadbd"

// MySQLServer is a MySQL or MariaDB server of one test, with an own data
// directory. Its root account has no password and may connect through Socket
// and Addr.
type MySQLServer struct {
	Socket  string // path of its unix socket
	Addr    string // host:port on loopback
	Datadir string

	t       testing.TB
	dir     string
	program string
	opts    []string
	cmd     *exec.Cmd
	done    chan struct{} // closed when cmd has ended
	made    sync.Mutex    // while a table of numbers is made
}

// MariaDBServer is a MySQLServer that MariaDB started.
type MariaDBServer = MySQLServer

// MariaDB starts a server for the test, with its binary log on, and stops it
// when the test ends. opts are further arguments of mariadbd, which win over
// the ones given here: "--skip-log-bin" switches the binary log off.
func MariaDB(t testing.TB, opts ...string) *MariaDBServer {
	t.Helper()
	Require(t, mariadbd, "mariadb-install-db")
	template, err := mariadbTemplate()
	if err != nil {
		t.Fatal(err)
	}
	return startMySQL(t, mariadbd, template, append([]string{
		// Nothing is synced to the disk: what a killed process has written stays.
		"--debug-no-sync", "--aria-pagecache-buffer-size=1M"}, opts...))
}

// startMySQL starts a server with a copy of an initialised data directory.
func startMySQL(t testing.TB, program, template string, opts []string) *MySQLServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "drs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	m := &MySQLServer{
		Socket:  filepath.Join(dir, "sock"),
		Datadir: filepath.Join(dir, "data"),
		t:       t,
		dir:     dir,
		program: program,
		opts:    opts,
	}
	t.Cleanup(func() {
		m.Kill()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the server's directory: %v", err)
		}
	})
	if err := os.CopyFS(m.Datadir, os.DirFS(template)); err != nil {
		t.Fatalf("copy an initialised data directory: %v", err)
	}
	m.Addr = address(freePort(t))
	m.Start()
	return m
}

// mysqlLogSize is the same for the template and the servers, so that no
// server resizes its log when it starts.
const mysqlLogSize = "--innodb-log-file-size=8M"

// mariadbTemplate returns an initialised data directory that no server uses. It
// is made once per version of the server and kept for later runs.
func mariadbTemplate() (string, error) {
	version, err := exec.Command(mariadbd, "--no-defaults", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("mariadbd --version: %w", err)
	}
	key := sha256.Sum256(version)
	path := filepath.Join(os.TempDir(), fmt.Sprintf("drsync-test-mariadb-%d-%x", os.Geteuid(), key[:6]))
	return path, dataTemplate(path, func(datadir string) error {
		args := []string{"--no-defaults", "--datadir=" + datadir, mysqlLogSize,
			"--auth-root-authentication-method=normal", "--skip-test-db"}
		if os.Geteuid() == 0 {
			args = append(args, "--user=root")
		}
		if out, err := exec.Command("mariadb-install-db", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
		}
		return nil
	})
}

// dataTemplate makes the data directory path, unless it is there.
func dataTemplate(path string, initialise func(datadir string) error) error {
	if info, err := os.Lstat(path); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.IsDir() && int(st.Uid) == os.Geteuid() {
			return nil
		}
		return fmt.Errorf("%s is not a directory of this user", path)
	}
	draft, err := os.MkdirTemp("", "drs")
	if err != nil {
		return err
	}
	defer os.RemoveAll(draft)
	datadir := filepath.Join(draft, "data")
	if err := initialise(datadir); err != nil {
		return err
	}
	err = os.Rename(datadir, path)
	if errors.Is(err, os.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) { // another test process was faster
		err = nil
	}
	return err
}

// Start starts the server on the same socket, address and data as before and
// returns when it answers. It must not run.
func (m *MySQLServer) Start() {
	m.t.Helper()
	_, port, err := net.SplitHostPort(m.Addr)
	if err != nil {
		m.t.Fatal(err)
	}
	args := []string{"--no-defaults", "--datadir=" + m.Datadir, "--socket=" + m.Socket,
		"--bind-address=127.0.0.1", "--port=" + port, "--pid-file=" + filepath.Join(m.dir, "pid"),
		"--tmpdir=" + filepath.Join(m.dir, "tmp"), // a server that starts empties it
		"--log-error=" + filepath.Join(m.dir, "log.err"), "--skip-name-resolve", "--server-id=" + port,
		"--log-bin=" + filepath.Join(m.Datadir, "binlog"), "--binlog-format=ROW",
		"--innodb-flush-method=nosync", mysqlLogSize, "--innodb-buffer-pool-size=32M", "--innodb-buffer-pool-dump-at-shutdown=0",
		// A server that starts removes the temporary files of all others in the same directory.
		"--tmpdir=" + m.dir,
		"--key-buffer-size=1M", "--performance-schema=0",
		"--secure-file-priv=", "--lower-case-table-names=0"}
	if os.Geteuid() == 0 {
		args = append(args, "--user=root")
	}
	m.cmd = mysqldCommand(m.program, append(args, m.opts...)...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // never outlives the test
	if err := m.cmd.Start(); err != nil {
		m.cmd = nil
		m.t.Fatalf("start %s: %v", m.program, err)
	}
	cmd, done := m.cmd, make(chan struct{})
	m.done = done
	go func() {
		_ = cmd.Wait() // how a killed server ends does not matter
		close(done)
	}()
	m.await()
}

// await returns when the server answers, and ends the test if it ends or stays silent.
func (m *MySQLServer) await() {
	m.t.Helper()
	db := m.open("")
	defer db.Close()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := db.PingContext(ctx)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-m.done:
			m.t.Fatalf("%s ended while starting:\n%s", m.program, m.Log())
		case <-deadline:
			m.t.Fatalf("%s does not answer: %v\n%s", m.program, err, m.Log())
		}
	}
}

// PID returns the process id of the running server.
func (m *MySQLServer) PID() int { return m.cmd.Process.Pid }

// Log returns what the server has written to its error log.
func (m *MySQLServer) Log() string {
	data, err := os.ReadFile(filepath.Join(m.dir, "log.err"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data))
}

// Kill ends the server with SIGKILL, as a power failure would. It does nothing
// if the server does not run.
func (m *MySQLServer) Kill() { m.end(syscall.SIGKILL) }

// Stop shuts the server down in good order.
func (m *MySQLServer) Stop() { m.end(syscall.SIGTERM) }

func (m *MySQLServer) end(sig syscall.Signal) {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Signal(sig) // it may have ended already
	select {
	case <-m.done:
	case <-time.After(time.Minute):
		_ = m.cmd.Process.Kill()
		<-m.done
		m.t.Errorf("%s did not end within a minute after %v:\n%s", m.program, sig, m.Log())
	}
	m.cmd = nil
}

// DB opens the schema as root; "" selects none. The handle is closed when the
// test ends. It may run several statements separated by ";" at once.
func (m *MySQLServer) DB(t testing.TB, schema string) *sql.DB {
	t.Helper()
	db := m.open(schema)
	t.Cleanup(func() { db.Close() })
	return db
}

// IsMariaDB says whether it is a server of MariaDB.
func (m *MySQLServer) IsMariaDB() bool { return m.program == mariadbd }

// Exec runs statements (separated by ";") in schema as root. Some of MariaDB's
// own mean the same on MySQL: see translate.
func (m *MySQLServer) Exec(t testing.TB, schema, statements string) {
	t.Helper()
	if !m.IsMariaDB() {
		statements = m.translate(t, statements)
	}
	db := m.open(schema)
	defer db.Close()
	if _, err := db.Exec(statements); err != nil {
		t.Fatalf("%v\nin: %.200s", err, statements)
	}
}

func (m *MySQLServer) open(schema string) *sql.DB {
	c := mysql.NewConfig()
	c.User, c.Net, c.Addr, c.DBName = "root", "unix", m.Socket, schema
	c.MultiStatements = true
	c.Collation = "utf8mb4_general_ci"
	c.Logger = quiet{} // a server that is killed or starting is no news
	connector, err := mysql.NewConnector(c)
	if err != nil {
		m.t.Fatal(err)
	}
	return sql.OpenDB(connector)
}

type quiet struct{}

func (quiet) Print(...any) {}
