package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/demo"
	"github.com/drsync/drsync/internal/testenv"
)

// refusal is a run that the state of the servers, or the way to them, stops.
type refusal struct {
	name  string
	want  []string // in the error or its hint
	setup func(t *testing.T)

	several bool // several things are wrong at once
}

// said counts the lines of the error that ends stderr, and its hints.
func said(stderr string) (problems, hints int) {
	_, all, _ := strings.Cut(stderr, "error: ")
	for line := range strings.Lines(all) {
		if strings.HasPrefix(line, "hint: ") {
			hints++
		} else {
			problems++
		}
	}
	return problems, hints
}

// refuse has each run refused with one line for each thing that is wrong, and
// what to do about it, without a change of what state tells.
func (p *pair) refuse(t *testing.T, state func() string, cases []refusal) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := state()
			c.setup(t)
			_, errs, status := p.drsync("now")
			if problems, hints := said(errs); status != exitFailed || problems == 0 || hints != problems || problems > 1 && !c.several {
				t.Errorf("exit %d with %d problems and %d hints, want 1 with one line and a hint:\n%s", status, problems, hints, errs)
			}
			for _, want := range c.want {
				if !strings.Contains(errs, want) {
					t.Errorf("the error lacks %q:\n%s", want, errs)
				}
			}
			if strings.Contains(errs, "hunter2") {
				t.Errorf("the error shows a secret:\n%s", errs)
			}
			if after := state(); after != before {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
		})
	}
	p.must(exitDone, "now")
}

// lockedOut starts a second run in the middle of another, with the same
// configuration and with another state directory for the same home.
func (p *pair) lockedOut(t *testing.T) {
	t.Helper()
	text := p.mustRead("drsync.yaml", "")
	other := p.path("other.yaml")
	p.write(other, strings.Replace(text, p.path("state"), p.path("other-state"), 1), 0o600)
	_, errs, status := p.during("capture", func() {
		for _, args := range [][]string{
			{"now"}, {"now", "--config", other}, {"restore", "20260101T000000Z", "--into", "x"}, {"restore", "20260101T000000Z", "--yes"}, {"prune"},
		} {
			_, errs, status := p.drsync(args...)
			if status != exitLocked || !strings.Contains(errs, "(pid ") && !strings.Contains(errs, "works on the same home") {
				t.Errorf("%q meanwhile: exit %d\n%s", args, status, errs)
			}
		}
	}, "now")
	if status != exitDone {
		t.Errorf("the first run: exit %d\n%s", status, errs)
	}
}

// TestMySQLRefused is every way in which one of two MariaDB servers can be the
// wrong one.
func TestMySQLRefused(t *testing.T) {
	p := newPair(t, "local")
	if out, errs := p.must(exitDone, "now", "--json"); strings.Contains(out+errs, "locked") || strings.Contains(errs, "waited") {
		t.Errorf("MariaDB was locked: %s%s", out, errs)
	}
	p.lockedOut(t)
	weak := func(server *testenv.MariaDBServer, side string) func(t *testing.T) {
		return func(t *testing.T) {
			server.Exec(t, "", "CREATE OR REPLACE USER weak@'%' IDENTIFIED BY 'weak'; CREATE OR REPLACE USER weak@localhost IDENTIFIED BY 'weak'; GRANT SELECT ON artdb.binaries TO weak@'%'; GRANT SELECT ON artdb.binaries TO weak@localhost")
			p.write(p.path("weak.pw"), "weak\n", 0o600)
			p.edit(t, `user: drsync, password: "file:`+side+`.pw"`, `user: weak, password: "file:weak.pw"`)
		}
	}
	cases := []refusal{
		{"active's password", []string{"active database", "Access denied", "check user and password"}, func(t *testing.T) { p.replace(t, "active.pw", "hunter2\n") }, false},
		{"standby's password", []string{"standby database", "Access denied", "check user and password"}, func(t *testing.T) { p.replace(t, "standby.pw", "hunter2\n") }, false},
		{"active away", []string{"active database", "connection refused", "runs and listens"}, func(t *testing.T) { p.edit(t, p.active.Addr, "127.0.0.1:1") }, false},
		{"standby away", []string{"standby database", "no such file", "runs and listens"}, func(t *testing.T) { p.edit(t, p.standby.Socket, "/nowhere/sock") }, false},
		{"active's rights", []string{"GRANT", "SELECT"}, weak(p.active, "active"), true},
		{"standby's rights", []string{"GRANT", "standby"}, weak(p.standby, "standby"), true},
		{"no such database", []string{"artdbx"}, func(t *testing.T) { p.edit(t, "name: artdb", "name: artdbx") }, true},
	}
	p.refuse(t, p.fingerprint, cases)
	older := testenv.MariaDB(t, "--version=10.6.12-MariaDB")
	older.Exec(t, "", strings.ReplaceAll(readmeSQL(t)[1], "…", standbySecret))
	p.refuse(t, p.fingerprint, []refusal{{"another series", []string{"MariaDB 10.6", "MariaDB 10.11"}, func(t *testing.T) { p.edit(t, p.standby.Socket, older.Socket) }, false}})
}

// postgresPair is a pair of PostgreSQL servers with a home that is one tree.
func postgresPair(t *testing.T) (p *pair, active, standby *testenv.PostgresServer) {
	t.Helper()
	t.Parallel()
	active, standby = testenv.Postgres(t), testenv.Postgres(t)
	p = &pair{t: t, dir: t.TempDir()}
	p.config = p.path("drsync.yaml")
	for _, dir := range []string{"active", "standby", "state"} {
		if err := os.MkdirAll(p.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.write(p.path("active", "VERSION"), "1\n", 0o644)
	p.write(p.path("active.pw"), "x", 0o600)
	p.write(p.path("standby.pw"), "y", 0o600)
	p.write(p.config, fmt.Sprintf(`active: {home: %[1]s/active, transport: local}
standby: {home: %[1]s/standby, state: %[1]s/state}
application: custom
database:
  engine: postgres
  name: artifactory
  active:  {address: "%[2]s", user: drsync, password: "file:active.pw"}
  standby: {address: "%[3]s", user: drsync, password: "file:standby.pw"}
snapshots: {keep_last: 3, dumps: true}
`, p.dir, active.Addr, standby.Addr), 0o600)
	active.Exec(t, "postgres", "CREATE ROLE artifactory; CREATE ROLE drsync LOGIN PASSWORD 'x' IN ROLE pg_read_all_data; CREATE ROLE weak LOGIN PASSWORD 'weak'")
	active.Exec(t, "postgres", "CREATE DATABASE artifactory OWNER artifactory")
	active.Exec(t, "artifactory", "CREATE TABLE t (n int); ALTER TABLE t OWNER TO artifactory; INSERT INTO t VALUES (1)")
	standby.Exec(t, "postgres", "CREATE ROLE artifactory; CREATE ROLE drsync LOGIN CREATEDB PASSWORD 'y' IN ROLE artifactory; CREATE ROLE weak LOGIN PASSWORD 'weak'")
	return p, active, standby
}

func TestPostgresRefused(t *testing.T) {
	p, active, standby := postgresPair(t)
	out, errs := p.must(exitDone, "now", "--json")
	var report struct {
		Snapshot struct {
			Databases []struct {
				Seconds float64 `json:"locked_seconds"`
				Against string  `json:"locked_against"`
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Snapshot.Databases) != 1 ||
		report.Snapshot.Databases[0].Seconds <= 0 || report.Snapshot.Databases[0].Against != "changes of tables' definitions" {
		t.Errorf("%v: the report does not say what was locked: %s", err, out)
	}
	if !strings.Contains(errs, "the active's changes of tables' definitions waited for") {
		t.Errorf("neither do the lines of the run: %s", errs)
	}
	p.lockedOut(t)
	active.Exec(t, "artifactory", "INSERT INTO t VALUES (2)") // which no refused run brings over
	state := func() string {
		rows, err := standby.Query("artifactory", "SELECT n FROM t ORDER BY n")
		all, err2 := standby.Query("postgres", "SELECT datname, oid FROM pg_database ORDER BY 1")
		return fmt.Sprint(rows, err, all, err2, p.snapshotIDs())
	}
	weak := func(side string) func(t *testing.T) {
		return func(t *testing.T) {
			p.write(p.path("weak.pw"), "weak\n", 0o600)
			p.edit(t, `user: drsync, password: "file:`+side+`.pw"`, `user: weak, password: "file:weak.pw"`)
		}
	}
	newer := func(server *testenv.PostgresServer) func(t *testing.T) {
		server.Exec(t, "postgres", "ALTER ROLE drsync SET drsync.version_num = '160001'")
		return func(t *testing.T) {
			p.edit(t, server.Addr, disguised(t, server.Addr, "server_version_num", "drsync.version_num"))
		}
	}
	p.refuse(t, state, []refusal{
		{"active's password", []string{"active database", "password authentication failed", "check user and password"}, func(t *testing.T) { p.replace(t, "active.pw", "hunter2\n") }, false},
		{"standby's password", []string{"standby database", "password authentication failed", "check user and password"}, func(t *testing.T) { p.replace(t, "standby.pw", "hunter2\n") }, false},
		{"active away", []string{"active database", "connection refused", "runs and listens"}, func(t *testing.T) { p.edit(t, active.Addr, "127.0.0.1:1") }, false},
		{"standby away", []string{"standby database", "connection refused", "runs and listens"}, func(t *testing.T) { p.edit(t, standby.Addr, "127.0.0.1:1") }, false},
		{"active's rights", []string{"may not read", "table public.t", "GRANT"}, weak("active"), true},
		{"standby's rights", []string{"may not create databases", "CREATEDB"}, weak("standby"), true},
		{"no such database", []string{"artifactoryx"}, func(t *testing.T) { p.edit(t, "name: artifactory\n", "name: artifactoryx\n") }, false},
		{"another active", []string{"same major version"}, newer(active), false},
		{"another standby", []string{"same major version"}, newer(standby), false},
	})
	if rows, err := standby.Query("artifactory", "SELECT count(*) FROM t"); err != nil || rows[0] != "2" {
		t.Errorf("%q, %v", rows, err)
	}
}

// disguised passes connections on to addr, and replaces a text in what goes
// there by another of the same length.
func disguised(t *testing.T, addr, old, new string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", addr)
			if err != nil {
				here.Close()
				continue
			}
			go func() { _, _ = io.Copy(here, there); here.Close() }()
			go func() {
				defer there.Close()
				buffer := make([]byte, 1<<16)
				for {
					n, err := here.Read(buffer)
					if _, werr := there.Write(bytes.ReplaceAll(buffer[:n], []byte(old), []byte(new))); err != nil || werr != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestSQLiteRefused(t *testing.T) {
	t.Parallel()
	p := &pair{t: t, dir: t.TempDir()}
	lab, err := demo.NewLab(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	if p.config, err = lab.WriteConfig("local", demo.SSH{}); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(p.mustRead("drsync.yaml", ""), p.path("standby/state"), p.path("state"), 1)
	p.write(p.config, text, 0o600)
	p.must(exitDone, "now")
	p.lockedOut(t)
	if _, err := lab.Change(t.Context()); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		db, err := os.ReadFile(p.path("standby/artdb.sqlite"))
		return fmt.Sprintf("%x %v %v", sha256.Sum256(db), err, p.snapshotIDs())
	}
	database := p.path("active/artdb.sqlite")
	p.write(p.path("active/other"), strings.Repeat("no database at all. ", 1000), 0o600)
	p.refuse(t, state, []refusal{
		{"active away", []string{"no such file"}, func(t *testing.T) { p.edit(t, database, p.path("active/none")) }, false},
		{"no database", []string{"active/other"}, func(t *testing.T) { p.edit(t, database, p.path("active/other")) }, false},
		{"standby away", []string{"no such file"}, func(t *testing.T) { p.edit(t, p.path("standby/artdb.sqlite"), p.path("nowhere/artdb.sqlite")) }, false},
		{"standby's place taken", []string{"standby/home: not a regular file"}, func(t *testing.T) {
			p.edit(t, p.path("standby/artdb.sqlite"), p.path("standby/home"))
		}, false},
	})
	if check, err := lab.Check(t.Context()); err != nil || !check.OK() {
		t.Errorf("%v %q %q", err, check.Broken, check.Behind)
	}
}
