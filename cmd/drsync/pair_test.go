package main

import (
	"context"
	"crypto/sha1"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
)

// pair is a real active and a real standby: two MariaDB servers, a real sshd,
// an Artifactory 6 home on each side.
type pair struct {
	t               *testing.T
	dir             string
	active, standby *testenv.MariaDBServer
	sshd            *testenv.SSHServer
	config          string
	random          *rand.Rand
	serial          int
	pools           map[string]*sql.DB
}

func (p *pair) path(parts ...string) string {
	return filepath.Join(append([]string{p.dir}, parts...)...)
}

// newPair starts the servers and fills the active. settings are lines appended
// to the configuration's sections by name, for example "active: transport: sftp".
func newPair(t *testing.T, transport string) *pair {
	t.Helper()
	t.Parallel() // a pair has everything for itself
	testenv.RequireRoot(t)
	dir, err := os.MkdirTemp("", "drs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &pair{t: t, dir: dir, random: rand.New(rand.NewPCG(1, 2))}
	p.sshd = testenv.SSHD(t)
	p.active, p.standby = testenv.MariaDB(t), testenv.MariaDB(t)
	p.makeActive()
	sql := readmeSQL(t)
	p.active.Exec(t, "", strings.ReplaceAll(sql[0], "…", activeSecret))
	p.standby.Exec(t, "", strings.ReplaceAll(sql[1], "…", standbySecret))
	p.writeConfig(transport)
	return p
}

// readmeSQL returns README's statements for the accounts of the active and of
// the standby, and what they need besides for replication, so that every test
// runs with exactly these.
func readmeSQL(t *testing.T) [4]string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var all [4]string
	blocks := strings.Split(string(text), "```sql\n")
	if len(blocks) < 5 {
		t.Fatalf("README.md has %d blocks of SQL, want at least 4", len(blocks)-1)
	}
	for i, block := range blocks[1:5] {
		block, _, _ = strings.Cut(block, "```")
		all[i] = regexp.MustCompile(`(?m)--.*$`).ReplaceAllString(block, "")
	}
	return all
}

func (p *pair) write(path, text string, mode fs.FileMode) {
	p.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		p.t.Fatal(err)
	}
}

const schema = `
CREATE TABLE binaries (sha1 CHAR(40) NOT NULL, md5 CHAR(32) NOT NULL, bin_length BIGINT NOT NULL, sha256 CHAR(64),
  CONSTRAINT binaries_pk PRIMARY KEY (sha1), INDEX binaries_md5_idx (md5));
CREATE TABLE nodes (node_id BIGINT NOT NULL, node_type TINYINT NOT NULL, repo VARCHAR(64) NOT NULL, node_path VARCHAR(1024) NOT NULL,
  node_name VARCHAR(255) NOT NULL, depth TINYINT NOT NULL, created BIGINT NOT NULL, modified BIGINT NOT NULL, bin_length BIGINT,
  sha1_actual CHAR(40), CONSTRAINT nodes_pk PRIMARY KEY (node_id), CONSTRAINT nodes_binaries_fk FOREIGN KEY (sha1_actual) REFERENCES binaries (sha1));
CREATE VIEW big_nodes AS SELECT repo, node_name FROM nodes WHERE bin_length > 10000;
CREATE TABLE audit (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(255));
CREATE TRIGGER nodes_audit AFTER DELETE ON nodes FOR EACH ROW INSERT INTO audit (what) VALUES (OLD.node_name);
`

func (p *pair) makeActive() {
	home := p.path("active")
	p.write(filepath.Join(home, "etc/binarystore.xml"), `<config version="1"><chain template="file-system"/></config>`, 0o644)
	p.write(filepath.Join(home, "etc/security/master.key"), "0123456789abcdef0123456789abcdef\n", 0o600)
	p.write(filepath.Join(home, "etc/mimetypes.xml"), "<mimetypes/>\n", 0o644)
	p.write(filepath.Join(home, "etc/db.properties"), "url=active\n", 0o600)
	p.write(filepath.Join(home, "logs/artifactory.log"), "noise\n", 0o644)
	p.write(filepath.Join(home, "work/scratch"), "noise\n", 0o644)
	p.write(filepath.Join(home, "data/tmp/upload"), "noise\n", 0o644)
	p.write(filepath.Join(home, "data/cache/ab/cached"), "noise\n", 0o644)
	p.write(p.path("standby/etc/db.properties"), "url=standby\n", 0o600)
	p.exec("CREATE DATABASE artdb CHARACTER SET utf8 COLLATE utf8_bin")
	for statement := range strings.SplitSeq(schema, ";\n") {
		if strings.TrimSpace(statement) != "" {
			p.exec(statement)
		}
	}
	for range 60 {
		p.upload(1 + p.random.IntN(30_000))
	}
}

func (p *pair) db() *sql.DB { return p.open(p.active, "artdb") }

// open keeps one pool of connections for each server and schema.
func (p *pair) open(server *testenv.MariaDBServer, schema string) *sql.DB {
	key := server.Socket + "/" + schema
	if p.pools[key] == nil {
		if p.pools == nil {
			p.pools = map[string]*sql.DB{}
		}
		p.pools[key] = server.DB(p.t, schema)
	}
	return p.pools[key]
}

// exec runs a statement on the active.
func (p *pair) exec(query string, args ...any) {
	p.t.Helper()
	schema := "artdb"
	if strings.HasPrefix(query, "CREATE DATABASE") {
		schema = ""
	}
	if _, err := p.open(p.active, schema).Exec(query, args...); err != nil {
		p.t.Fatalf("%s: %v", query, err)
	}
}

func (p *pair) blobPath(side, sum string) string {
	return p.path(side, "data/filestore", sum[:2], sum)
}

// upload does what the application does: the file, the binary's row, the node's row.
func (p *pair) upload(size int) (sum string) {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(p.random.Uint32())
	}
	p.serial++
	sum = fmt.Sprintf("%x", sha1.Sum(data))
	p.write(p.blobPath("active", sum), string(data), 0o644)
	p.exec("INSERT INTO binaries VALUES (?, REPEAT('0',32), ?, NULL)", sum, size)
	p.exec("INSERT INTO nodes VALUES (?, 1, 'libs-release', 'org/acme', ?, 3, 0, 0, ?, ?)", p.serial, fmt.Sprintf("artifact-%d.jar", p.serial), size, sum)
	return sum
}

// collect does what the garbage collector does: the node's row, the binary's row, the file.
func (p *pair) collect(sum string) {
	p.exec("DELETE FROM nodes WHERE sha1_actual = ?", sum)
	p.exec("DELETE FROM binaries WHERE sha1 = ?", sum)
	if err := os.Remove(p.blobPath("active", sum)); err != nil {
		p.t.Fatal(err)
	}
}

// change makes a few changes of every kind on the active.
func (p *pair) change() {
	var sum string // one that earlier runs have seen
	if err := p.db().QueryRow("SELECT sha1 FROM binaries ORDER BY sha1 LIMIT 1 OFFSET ?", p.random.IntN(30)).Scan(&sum); err != nil {
		p.t.Fatal(err)
	}
	for range 8 {
		p.upload(1 + p.random.IntN(20_000))
	}
	p.collect(sum)
	p.write(p.path("active/etc/mimetypes.xml"), fmt.Sprintf("<mimetypes serial='%d'/>\n", p.serial), 0o644)
	p.write(p.path("active/etc/plugins", fmt.Sprintf("plugin-%d.groovy", p.serial%3)), fmt.Sprint(p.serial), 0o644)
}

func (p *pair) writeConfig(transport string) {
	agent := p.path("drsync-agent")
	p.write(agent, fmt.Sprintf("#!/bin/sh\n%s %s=1 exec %s \"$@\"\n", raceEnv, testMainEnv, os.Args[0]), 0o755)
	p.write(p.path("standby.pw"), standbySecret+"\n", 0o600)
	p.write(p.path("active.pw"), activeSecret+"\n", 0o600)
	p.write(p.path("excludes.txt"), "/work/\n/data/tmp*/\n/data/cache/\n/logs/\n", 0o644)
	reach := fmt.Sprintf("  host: %s\n  port: %d\n  user: %s\n  identity: %s\n  known_hosts: %s\n",
		p.sshd.Host, p.sshd.Port, p.sshd.User, p.sshd.Identity, p.sshd.KnownHosts)
	via := "ssh"
	switch transport {
	case "agent":
		reach += "  agent: " + agent + "\n"
	case "local":
		reach, via = "", "direct"
	}
	p.config = p.path("drsync.yaml")
	p.write(p.config, fmt.Sprintf(`active:
%s  home: %s
  transport: %s
standby:
  home: %s
  state: %s
application: artifactory
database:
  engine: mysql
  mode: dump
  name: artdb
  active: {address: "%s", user: drsync, password: "file:active.pw", via: %s}
  standby: {address: "%s", user: drsync, password: "file:standby.pw"}
files:
  rsync: "-vvah --del"
  exclude_from: excludes.txt
  log_file: %s
schedule: "*/15 * * * *"
rpo: 30m
snapshots: {keep_last: 3}
prune: {min_age: 24h, max_fraction: 50%%, quarantine: 7d}
`, reach, p.path("active"), transport, p.path("standby"), p.path("state"), p.active.Addr, via, p.standby.Socket, p.path("replication.log")), 0o600)
}

const (
	activeSecret  = "secret-of-the-active"
	standbySecret = "secret-of-the-standby"
)

// raceEnv spares each child the second that the race detector waits at its end.
const raceEnv = "GORACE=atexit_sleep_ms=0"

const testMainEnv = "DRSYNC_TEST_MAIN"

// command returns drsync with the pair's configuration, as a process of its own.
func (p *pair) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, os.Args[0], args...)
	if !slices.Contains(args, "--config") {
		c.Args = append(c.Args, "--config", p.config)
	}
	c.Env = append(os.Environ(), testMainEnv+"=1", raceEnv)
	// A command that hangs shows its goroutines.
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGQUIT) }
	c.WaitDelay = 10 * time.Second
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// drsync runs a command to its end and returns its output and exit status.
func (p *pair) drsync(args ...string) (stdout, stderr string, status int) {
	p.t.Helper()
	return p.drsyncEnv(nil, args...)
}

func (p *pair) drsyncEnv(extra []string, args ...string) (stdout, stderr string, status int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	c := p.command(ctx, args...)
	c.Env = append(c.Env, extra...)
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("drsync %v: %v", args, err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// during runs a command, and calls act in this process, once, when the given
// step of it is done, while it waits.
func (p *pair) during(step string, act func(), args ...string) (stdout, stderr string, status int) {
	p.t.Helper()
	reached, go_ := p.path("reached"), p.path("go")
	for _, fifo := range []string{reached, go_} {
		_ = os.Remove(fifo)
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	ended := make(chan struct{})
	acted := make(chan struct{})
	go func() {
		defer close(acted)
		if _, err := os.ReadFile(reached); err != nil { // opens when the command does
			p.t.Error(err)
		}
		select {
		case <-ended:
		default:
			act()
			if err := os.WriteFile(go_, nil, 0o600); err != nil {
				p.t.Error(err)
			}
		}
	}()
	stdout, stderr, status = p.drsyncEnv([]string{fmt.Sprintf("%s=%s : > %s; cat %s", hookEnv, step, reached, go_)}, args...)
	close(ended)
	if f, err := os.OpenFile(reached, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
		f.Close() // the step never came: let the goroutine go
		p.t.Errorf("drsync %v never came to the end of %s: exit %d\n%s", args, step, status, stderr)
	}
	<-acted
	return stdout, stderr, status
}

// must runs a command that has to end with the given status.
func (p *pair) must(status int, args ...string) (stdout, stderr string) {
	p.t.Helper()
	stdout, stderr, got := p.drsync(args...)
	if got != status {
		p.t.Fatalf("drsync %s: exit %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), got, status, stdout, stderr)
	}
	return stdout, stderr
}

// checkPromise is the promise, asked of the servers and the disk alone: every
// blob that the standby's visible database names is there with length and hash.
// It returns how many there are.
func (p *pair) checkPromise() int {
	p.t.Helper()
	db := p.open(p.standby, "")
	var there int
	// A server may still be at the RENAME of a process that was killed. Who reads a table waits for
	// its end; who lists them sees them move.
	_, _ = db.Exec("DO (SELECT COUNT(*) FROM artdb.nodes)") // which need not exist
	if err := db.QueryRow("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'artdb' AND table_name IN ('binaries', 'nodes', 'audit')").Scan(&there); err != nil {
		p.t.Fatal(err)
	}
	switch there {
	case 0:
		return 0
	case 3:
	default:
		p.t.Fatalf("the visible database has %d of 3 tables", there)
	}
	rows, err := db.Query("SELECT sha1, bin_length FROM artdb.binaries")
	if err != nil {
		p.t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var sum string
		var size int64
		if err := rows.Scan(&sum, &size); err != nil {
			p.t.Fatal(err)
		}
		data, err := os.ReadFile(p.blobPath("standby", sum))
		if err != nil {
			p.t.Fatalf("the promise is broken: %v", err)
		}
		if got := fmt.Sprintf("%x", sha1.Sum(data)); got != sum || int64(len(data)) != size {
			p.t.Fatalf("the promise is broken: %s has hash %s and length %d, not %d", sum, got, len(data), size)
		}
		n++
	}
	if err := rows.Err(); err != nil {
		p.t.Fatal(err)
	}
	var orphans int
	if err := db.QueryRow("SELECT COUNT(*) FROM artdb.nodes LEFT JOIN artdb.binaries ON sha1 = sha1_actual WHERE sha1_actual IS NOT NULL AND sha1 IS NULL").Scan(&orphans); err != nil {
		p.t.Fatal(err)
	}
	if orphans > 0 {
		p.t.Fatalf("the visible database is no whole generation: %d nodes without their binary", orphans)
	}
	return n
}

// checkEqual says that the standby is the active, as of now.
func (p *pair) checkEqual() {
	p.t.Helper()
	p.checkPromise()
	for _, table := range []string{"binaries", "nodes", "audit"} {
		query := "CHECKSUM TABLE artdb." + table + " EXTENDED"
		var name string
		var ours, theirs sql.NullInt64
		if err := p.open(p.active, "").QueryRow(query).Scan(&name, &theirs); err != nil {
			p.t.Fatal(err)
		}
		if err := p.open(p.standby, "").QueryRow(query).Scan(&name, &ours); err != nil {
			p.t.Fatal(err)
		}
		if ours != theirs {
			p.t.Fatalf("table %s differs: checksum %v, the active's %v", table, ours, theirs)
		}
	}
	p.mustRead("standby/etc/mimetypes.xml", p.mustRead("active/etc/mimetypes.xml", ""))
	p.mustRead("standby/etc/security/master.key", p.mustRead("active/etc/security/master.key", ""))
	p.mustRead("standby/etc/db.properties", "url=standby\n")
	for _, path := range []string{"logs", "work", "data/tmp", "data/cache"} {
		if _, err := os.Lstat(p.path("standby", path)); !errors.Is(err, fs.ErrNotExist) {
			p.t.Fatalf("%s travelled: %v", path, err)
		}
	}
}

// mustRead reads a file below the pair's directory and compares it with want, unless that is "".
func (p *pair) mustRead(path, want string) string {
	p.t.Helper()
	data, err := os.ReadFile(p.path(path))
	if err != nil {
		p.t.Fatal(err)
	}
	if want != "" && string(data) != want {
		p.t.Fatalf("%s: %q, want %q", path, data, want)
	}
	return string(data)
}
