package testenv

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresServer is a PostgreSQL server of one test, with an own data
// directory. Its superuser postgres needs no password, neither through the
// socket nor through Addr; other roles need theirs at Addr.
type PostgresServer struct {
	Socket  string // path of its unix socket
	Addr    string // host:port on loopback
	Datadir string
	Bin     string // the directory of the server's programs

	t    testing.TB
	dir  string
	opts []string
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// Postgres starts a server for the test and stops it when the test ends. opts
// are settings, "name=value", which win over the ones given here.
func Postgres(t testing.TB, opts ...string) *PostgresServer {
	t.Helper()
	p := PostgresFrom(t, nil, opts...)
	p.Start()
	return p
}

// PostgresFrom prepares a server and does not start it. fill makes its data
// directory, which does not exist yet; nil is a new one.
func PostgresFrom(t testing.TB, fill func(datadir string), opts ...string) *PostgresServer {
	t.Helper()
	bin := RequirePostgres(t)
	dir, err := os.MkdirTemp("", "drs")
	if err != nil {
		t.Fatal(err)
	}
	p := &PostgresServer{Datadir: filepath.Join(dir, "data"), Bin: bin, t: t, dir: dir, opts: opts}
	t.Cleanup(func() {
		p.Kill()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the server's directory: %v", err)
		}
	})
	p.Addr = address(freePort(t))
	p.Socket = filepath.Join(dir, ".s.PGSQL."+p.port())
	if err := giveToServer(dir); err != nil {
		t.Fatal(err)
	}
	if fill != nil {
		fill(p.Datadir)
		return p
	}
	template, err := postgresTemplate(bin)
	if err == nil {
		var out []byte
		if out, err = exec.Command("cp", "-a", template, p.Datadir).CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	if err != nil {
		t.Fatalf("make a data directory: %v", err)
	}
	return p
}

// RequirePostgres returns the directory of the PostgreSQL server's programs,
// and ends the test as Require does if there is none.
func RequirePostgres(t testing.TB) string {
	t.Helper()
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path)
		}
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/postgres", "/usr/pgsql-*/bin/postgres"} {
		if found, err := filepath.Glob(pattern); err == nil && found != nil {
			return filepath.Dir(found[len(found)-1])
		}
	}
	Require(t, "postgres")
	return ""
}

// serverUser is whom the server runs as: it refuses root.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

func giveToServer(path string) error {
	c, err := serverUser()
	if err != nil || c == nil {
		return err
	}
	return os.Chown(path, int(c.Uid), int(c.Gid))
}

// Command prepares one of the server's programs, or any other, to run as the
// server's user in the server's directory.
func (p *PostgresServer) Command(name string, args ...string) *exec.Cmd {
	if path := filepath.Join(p.Bin, name); isFile(path) {
		name = path
	}
	return postgresCommand(p.dir, name, args...)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func postgresCommand(dir, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TZ=UTC")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // never outlives the test
	cmd.SysProcAttr.Credential, _ = serverUser()                       // without one initdb says what is wrong
	return cmd
}

// postgresTemplate returns an initialised data directory that no server uses,
// made once per version of the server and kept for later runs.
func postgresTemplate(bin string) (string, error) {
	version, err := exec.Command(filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("postgres --version: %w", err)
	}
	key := sha256.Sum256(append(version, postgresAccess...))
	path := filepath.Join(os.TempDir(), fmt.Sprintf("drsync-test-postgres-%d-%x", os.Geteuid(), key[:6]))
	owner, err := serverUser()
	if err != nil {
		return "", err
	}
	uid := os.Geteuid()
	if owner != nil {
		uid = int(owner.Uid)
	}
	if info, err := os.Lstat(path); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.IsDir() && int(st.Uid) == uid {
			return path, nil
		}
		return "", fmt.Errorf("%s is not a directory of the server's user", path)
	}
	draft, err := os.MkdirTemp("", "drs")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(draft)
	if err := giveToServer(draft); err != nil {
		return "", err
	}
	data := filepath.Join(draft, "data")
	initdb := postgresCommand(draft, filepath.Join(bin, "initdb"), "--pgdata="+data, "--username=postgres", "--auth=trust",
		"--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--wal-segsize=1")
	if out, err := initdb.CombinedOutput(); err != nil {
		return "", fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(postgresAccess), 0o600); err != nil {
		return "", err
	}
	err = os.Rename(data, path)
	if errors.Is(err, os.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) { // another test process was faster
		err = nil
	}
	return path, err
}

const postgresAccess = `local all all trust
local replication all trust
host all postgres 127.0.0.1/32 trust
host replication postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
`

func (p *PostgresServer) port() string {
	_, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		p.t.Fatal(err)
	}
	return port
}

// Start starts the server on the same socket, address and data as before and
// returns when it answers. It must not run.
func (p *PostgresServer) Start() {
	p.t.Helper()
	p.Launch()
	p.await()
}

// StartAlone starts the server like Start unless somebody else is just starting one on
// the same data, which it says by false.
func (p *PostgresServer) StartAlone() bool {
	p.t.Helper()
	p.Launch()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		holder, _ := os.ReadFile(filepath.Join(p.Datadir, "postmaster.pid")) // of whoever is the first
		if pid, _, _ := strings.Cut(string(holder), "\n"); pid == strconv.Itoa(p.PID()) {
			p.await()
			return true
		}
		select {
		case <-tick.C:
		case <-p.done:
			p.cmd = nil
			return false
		case <-deadline:
			p.t.Fatalf("postgres does not start:\n%s", p.Log())
		}
	}
}

// Launch starts the server and does not wait for it.
func (p *PostgresServer) Launch() {
	p.t.Helper()
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	args := []string{"-D", p.Datadir}
	for _, setting := range append([]string{
		"unix_socket_directories=" + p.dir, "listen_addresses=127.0.0.1", "port=" + p.port(),
		// Nothing is synced to the disk: what a killed process has written stays.
		"fsync=off", "full_page_writes=off", "shared_buffers=32MB", "jit=off", "max_connections=60",
		"timezone=UTC", "log_timezone=UTC",
	}, p.opts...) {
		args = append(args, "-c", setting)
	}
	p.cmd = p.Command("postgres", args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		p.t.Fatalf("start postgres: %v", err)
	}
	cmd, done := p.cmd, make(chan struct{})
	p.done = done
	go func() {
		_ = cmd.Wait() // how a killed server ends does not matter
		close(done)
	}()
}

// await returns when the server answers, and ends the test if it ends or stays silent.
func (p *PostgresServer) await() {
	p.t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := p.Query("postgres", "SELECT 1")
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-p.done:
			p.t.Fatalf("postgres ended while starting:\n%s", p.Log())
		case <-deadline:
			p.t.Fatalf("postgres does not answer: %v\n%s", err, p.Log())
		}
	}
}

// Log returns what the server has written to its log.
func (p *PostgresServer) Log() string {
	data, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data))
}

// PID returns the process id of the running server.
func (p *PostgresServer) PID() int { return p.cmd.Process.Pid }

// Kill ends the server and all its processes with SIGKILL, as a power failure
// would. It does nothing if the server does not run.
func (p *PostgresServer) Kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGSTOP) // it starts no further process
	pid := strconv.Itoa(p.PID())
	children, _ := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children") // none if it is gone
	p.end(syscall.SIGKILL)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, child := range strings.Fields(string(children)) {
		for n, err := strconv.Atoi(child); err == nil && lives(n); <-tick.C { // and holds the shared memory
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	}
}

// lives says whether a process has not ended, be it waited for or not.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	end := strings.LastIndexByte(string(stat), ')')
	return err == nil && end+2 < len(stat) && !strings.ContainsRune("ZX", rune(stat[end+2]))
}

// Stop shuts the server down in good order, and ends whatever is connected.
func (p *PostgresServer) Stop() { p.end(syscall.SIGINT) }

func (p *PostgresServer) end(sig syscall.Signal) {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig) // it may have ended already
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		_ = p.cmd.Process.Kill()
		<-p.done
		p.t.Errorf("postgres did not end within a minute after %v:\n%s", sig, p.Log())
	}
	p.cmd = nil
}

// Exec runs statements (separated by ";") in a database as its superuser.
func (p *PostgresServer) Exec(t testing.TB, database, statements string) {
	t.Helper()
	if _, err := p.Query(database, statements); err != nil {
		t.Fatalf("%v\nin: %.200s", err, statements)
	}
}

// Query runs statements in a database as its superuser and returns the rows of
// the last, their columns joined by "|".
func (p *PostgresServer) Query(database, statements string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := p.Conn(ctx, database)
	if err != nil {
		return nil, err
	}
	defer c.Close(ctx)
	results, err := c.PgConn().Exec(ctx, statements).ReadAll()
	if err != nil || len(results) == 0 {
		return nil, err
	}
	var lines []string
	for _, row := range results[len(results)-1].Rows {
		parts := make([]string, len(row))
		for i, v := range row {
			parts[i] = "NULL"
			if v != nil {
				parts[i] = string(v)
			}
		}
		lines = append(lines, strings.Join(parts, "|"))
	}
	return lines, nil
}

// Conn connects to a database as the server's superuser.
func (p *PostgresServer) Conn(ctx context.Context, database string) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig("host=" + filepath.Dir(p.Socket) + " port=" + p.port() + " user=postgres sslmode=disable connect_timeout=10")
	if err != nil {
		return nil, err
	}
	c.Database = database
	return pgx.ConnectConfig(ctx, c)
}
