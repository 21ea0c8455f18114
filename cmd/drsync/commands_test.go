package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/config"
	"github.com/drsync/drsync/internal/demo"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/internal/testenv"
	drsync "github.com/drsync/drsync/sync"
)

// typedCommand runs drsync as it is typed and wants an exit status.
func typedCommand(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], args...)
	c.Env = append(os.Environ(), testMainEnv+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	if err, exit := c.Run(), (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := c.ProcessState.ExitCode(); got != want {
		t.Fatalf("drsync %s: exit %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), got, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// localLab is a pair without servers.
func localLab(t *testing.T) (lab *demo.Lab, config string) {
	t.Helper()
	lab, err := demo.NewLab(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	if config, err = lab.WriteConfig("local", demo.SSH{}); err != nil {
		t.Fatal(err)
	}
	return lab, config
}

func writeFile(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
		t.Fatal(err)
	}
}

func TestMistypedCommands(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"nwo", `unknown command "nwo" for "drsync"`},
		{"stats", "status"},
		{"nwo --json", `unknown command "nwo"`},
		{"config chek", "check"},
		{"config nosuch --json", `unknown command "nosuch" for "drsync config"`},
		{"help nosuch", `unknown command "nosuch" for "drsync"`},
		{"help config chek", "check"},
		{"completion bsh", "bash"},
		{"now extra", "extra"},
		{"now --nosuch", "--nosuch"},
		{"now --quiet --progress", "--quiet"},
		{"agent", "--root"},
	} {
		stdout, stderr := typedCommand(t, exitUsage, strings.Fields(c.args)...)
		if !strings.Contains(stderr, c.want) || !strings.HasPrefix(stderr, "error: ") {
			t.Errorf("drsync %s said\n%s", c.args, stderr)
		}
		if strings.Contains(c.args, "--json") == (stdout == "") {
			t.Errorf("drsync %s printed %q", c.args, stdout)
		}
	}
	for _, good := range []string{"", "help", "help now", "help config check", "now --help", "config", "--help"} {
		if out, stderr := typedCommand(t, exitDone, strings.Fields(good)...); !strings.Contains(out, "Usage:") || stderr != "" {
			t.Errorf("drsync %s printed\n%s%s", good, out, stderr)
		}
	}
}

const mysqlConfig = `active: {host: active.example.com, home: /var/opt/jfrog/artifactory, identity: DIR/id, known_hosts: DIR/known}
standby: {home: DIR/home, state: DIR/state}
application: artifactory
database:
  engine: mysql
  name: artdb
  active: {address: "127.0.0.1:3306", user: drsync, password: "file:DIR/active.pw"}
  standby: {address: DIR/sock, user: drsync, password: "env:DRSYNC_TEST_UNSET"}
files:
  rsync: "-a --nosuch"
  exclude_from: DIR/excludes
  log_file: DIR/file/log
`

// TestConfigCheck: everything at once, each with its line, and exit 2.
// TestConfigOfNoEngine: what an engine refuses is an error with its line like any other.
func TestConfigOfNoEngine(t *testing.T) {
	t.Setenv("DRSYNC_TEST_WORD", "x")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "home"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "drsync.yaml")
	for _, name := range []string{
		"mysql",
		"postgres",
		"mysql, mode: replication, replication: {address: \"127.0.0.1:3306\", user: r, password: \"env:DRSYNC_TEST_WORD\"}",
		"postgres, mode: replication, replication: {data_directory: /nowhere/at/all, account: root, start: [\"true\"], stop: [\"true\"]}",
	} {
		engine, _, _ := strings.Cut(name, ",")
		writeFile(t, path, "active: {host: h, user: root, home: /srv/home, transport: sftp}\nstandby: {home: "+dir+"/home, state: "+dir+"/state}\napplication: custom\n"+
			"database: {name: "+engine+", engine: "+name+", active: {address: \"127.0.0.1:1\", user: u}, standby: {address: \"127.0.0.1:2\", user: u}}\n", 0o600)
		for _, command := range [][]string{{"config", "check"}, {"check"}, {"now"}, {"verify", "--db"}, {"failover"}} {
			_, stderr := typedCommand(t, exitUsage, append(command, "--config", path)...)
			if !strings.Contains(stderr, "drsync.yaml:4: database: ") || !strings.Contains(stderr, "belongs to the server itself") {
				t.Errorf("%s of %s:\n%s", command, name, stderr)
			}
		}
	}
}

func TestConfigCheck(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "drsync.yaml")
	writeFile(t, path, strings.ReplaceAll(mysqlConfig, "DIR", dir), 0o600)
	writeFile(t, filepath.Join(dir, "file"), "", 0o600)
	writeFile(t, filepath.Join(dir, "active.pw"), "hunter2\n", 0o644)
	_, stderr := typedCommand(t, exitUsage, "config", "check", "--config", path)
	for _, want := range []string{
		"drsync.yaml:1: active.identity: ", "drsync.yaml:1: active.known_hosts: ", "drsync.yaml:2: standby.home: ",
		"drsync.yaml:7: database.active.password: ", "chmod 600 ", "drsync.yaml:8: database.standby.password: ", "DRSYNC_TEST_UNSET",
		"drsync.yaml:10: files.rsync: ", "drsync.yaml:11: files.exclude_from: ", "drsync.yaml:12: files.log_file: ", dir + "/file",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("config check lacks %q:\n%s", want, stderr)
		}
	}
	if strings.Contains(stderr, "hunter2") {
		t.Error("config check shows a secret")
	}
	out, _ := typedCommand(t, exitUsage, "now", "--json", "--config", path)
	var failed struct {
		Error, Hint string
		Exit        int
	}
	if err := json.Unmarshal([]byte(out), &failed); err != nil || failed.Exit != exitUsage || failed.Error == "" || !strings.Contains(failed.Hint, "chmod") {
		t.Errorf("now --json: %v\n%s", err, out)
	}
	// Mended one after the other, it is good in the end.
	text := strings.NewReplacer(" --nosuch", "", "env:DRSYNC_TEST_UNSET", "file:"+dir+"/active.pw", "DIR/file/log", dir+"/logs/log", "DIR", dir).Replace(mysqlConfig)
	writeFile(t, path, text, 0o600)
	for _, name := range []string{"id", "known", "excludes", "home/x"} {
		writeFile(t, filepath.Join(dir, name), "", 0o600)
	}
	if err := os.Chmod(filepath.Join(dir, "active.pw"), 0o600); err != nil {
		t.Fatal(err)
	}
	typedCommand(t, exitDone, "config", "check", "--config", path)
	if _, err := os.Stat(filepath.Join(dir, "logs")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("config check made the log's directory: %v", err)
	}
	for _, args := range []string{"run", "run --config /nonexistent", "now --config /nonexistent", "now --config /", "plan --config /nonexistent"} {
		if !strings.Contains(args, "--config") {
			args += " --config " + path
		}
		typedCommand(t, exitUsage, strings.Fields(args)...)
	}
	if out, _ := typedCommand(t, 3, "status", "--check", "--config", "/nonexistent"); !strings.HasPrefix(out, "UNKNOWN") {
		t.Errorf("status --check: %s", out)
	}
}

// TestLogFileOnlyOfRuns: what changes nothing neither makes nor needs a log file.
func TestLogFileOnlyOfRuns(t *testing.T) {
	lab, config := localLab(t)
	dir := filepath.Join(lab.Dir, "log")
	path := filepath.Join(dir, "replication.log")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, config, strings.Replace(string(text), "files:\n", "files:\n  log_file: "+path+"\n", 1), 0o600)
	for _, args := range []string{"config check", "plan", "chain", "chain --json", "check", "now --dry-run", "status", "snapshots"} {
		typedCommand(t, exitDone, append(strings.Fields(args), "--config", config)...)
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s made %s: %v", args, dir, err)
		}
	}
	writeFile(t, dir, "in the way", 0o600)
	for _, args := range []string{"plan", "chain", "now --dry-run", "failover --dry-run"} {
		typedCommand(t, exitDone, append(strings.Fields(args), "--config", config)...)
	}
	_, stderr := typedCommand(t, exitUsage, "now", "--config", config)
	if !strings.Contains(stderr, "files.log_file: ") || !strings.Contains(stderr, dir) {
		t.Errorf("now without a place for its log:\n%s", stderr)
	}
	_, stderr = typedCommand(t, exitUsage, "now", "--config", config, "--log-file", dir+"/x")
	if !strings.Contains(stderr, "--log-file: ") {
		t.Errorf("now --log-file:\n%s", stderr)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := typedCommand(t, exitDone, "now", "--quiet", "--config", config)
	if stdout != "" || stderr != "" {
		t.Errorf("now --quiet said\n%s%s", stdout, stderr)
	}
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{">f+++++++++ ", "because of pattern /etc/db.properties", "publish   "} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	_, stderr = typedCommand(t, exitFailed, "snapshots", "nosuch", "--config", config)
	if !strings.Contains(stderr, "drsync snapshots lists them") {
		t.Errorf("snapshots nosuch:\n%s", stderr)
	}
}

// TestErrorReport: one object, with what the run found before it failed.
func TestErrorReport(t *testing.T) {
	lab, config := localLab(t)
	typedCommand(t, exitDone, "now", "--config", config)
	writeFile(t, filepath.Join(lab.StandbyState, "role.json"), `{"format":1,"role":"active","epoch":3,"since":"2026-01-01T00:00:00Z"}`, 0o600)
	out, _ := typedCommand(t, exitWrongRole, "now", "--json", "--config", config)
	var failed struct {
		Error     string
		Exit      int
		Published *bool
	}
	if err := json.Unmarshal([]byte(out), &failed); err != nil || failed.Exit != exitWrongRole || !strings.Contains(failed.Error, "active") || failed.Published == nil {
		t.Errorf("now --json: %v\n%s", err, out)
	}
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, config, string(text)+"schedule: \"0 0 1 1 *\"\n", 0o600)
	typedCommand(t, exitWrongRole, "run", "--config", config)
}

// TestKeptDemo runs what the demo tells a person to type.
func TestKeptDemo(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "drs ync") // a name that has to be quoted
	if err := os.Link(os.Args[0], program); err != nil {
		data, err := os.ReadFile(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, program, string(data), 0o755)
	}
	sh := func(command string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
		c.Dir = dir
		c.Env = append(os.Environ(), testMainEnv+"=1")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return string(out)
	}
	out := sh("'" + program + "' demo --keep 'the lab'")
	typed := 0
	for line := range strings.Lines(out) {
		if command := strings.TrimSpace(line); strings.HasPrefix(command, "'"+dir) {
			sh(command)
			typed++
		}
	}
	if typed < 5 {
		t.Errorf("%d commands to try in\n%s", typed, out)
	}
}

func TestTyped(t *testing.T) {
	for program, want := range map[string]string{
		"/tmp/go-build123/b001/exe/drsync": "go run ./cmd/drsync",
		"/var/t/go-build9/b1/drsync.test":  "go run ./cmd/drsync",
		"/usr/bin/drsync":                  "/usr/bin/drsync",
		"/tmp/drsync":                      "/tmp/drsync",
		"/srv/it's/drsync":                 `'/srv/it'\''s/drsync'`,
	} {
		if got := typed(program); got != want {
			t.Errorf("%s: %s", program, got)
		}
	}
}

// TestUnreachable: each way not to reach the active comes with what to do.
func TestUnreachable(t *testing.T) {
	testenv.Require(t, "ssh-keygen")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close() // nobody listens there now
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "known"), "", 0o600)
	writeFile(t, filepath.Join(dir, "home/x"), "", 0o600)
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "id")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct{ host, identity, want string }{
		{"127.0.0.1", "id", "sshd runs on the active"},
		{"nowhere.invalid", "id", "active.host"},
		{"127.0.0.1", "none", "config check"},
	} {
		path := filepath.Join(dir, "drsync.yaml")
		writeFile(t, path, fmt.Sprintf("active: {host: %s, port: %d, user: nobody, home: /srv/home, identity: %s, known_hosts: known}\n"+
			"standby: {home: %s/home, state: %s/state}\napplication: custom\ndatabase: {engine: none}\n", c.host, port, c.identity, dir, dir), 0o600)
		_, stderr := typedCommand(t, exitFailed, "now", "--config", path)
		if _, advice, _ := strings.Cut(stderr, "\nhint: "); !strings.Contains(advice, c.want) {
			t.Errorf("%s:\n%s", c.host, stderr)
		}
	}
}

func TestClosingLine(t *testing.T) {
	record := func(missing, torn, skipped int64) *snapshot.Record {
		return &snapshot.Record{ID: "20260101T000000Z", BlobSets: []snapshot.BlobSet{{Missing: missing}}, Trees: []snapshot.Tree{{Torn: torn, Skipped: skipped}}}
	}
	const details = "; `drsync snapshots 20260101T000000Z` has the details\n"
	for _, c := range []struct {
		report drsync.Report
		want   string
	}{
		{drsync.Report{Snapshot: record(1, 0, 0)}, "INCOMPLETE: 1 blob is missing on the active" + details},
		{drsync.Report{Snapshot: record(1200, 0, 1)}, "INCOMPLETE: 1,200 blobs are missing on the active; 1 entry of the home could not be carried" + details},
		{drsync.Report{Snapshot: record(0, 2, 0), DryRun: true}, "INCOMPLETE: 2 files changed each time they were read\n"},
		{drsync.Report{Snapshot: &snapshot.Record{Complete: true}, PruneError: "too many"}, "NOT PRUNED: too many\n"},
	} {
		var b strings.Builder
		printShortcomings(&b, c.report)
		if b.String() != c.want {
			t.Errorf("got %q, want %q", b.String(), c.want)
		}
	}
}

// TestReadmeConfiguration: what README tells to copy is a configuration.
func TestReadmeConfiguration(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text2, ok := strings.Cut(string(text), "```yaml\n")
	yaml, _, ok2 := strings.Cut(text2, "```")
	if !ok || !ok2 {
		t.Fatal("README.md has no configuration")
	}
	cfg, err := config.Parse("/etc/drsync/drsync.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{cfg.Files.ExcludeFrom, strings.TrimPrefix(fmt.Sprint(cfg.Database.Active.Password), "file:"),
		strings.TrimPrefix(fmt.Sprint(cfg.Database.Standby.Password), "file:"), cfg.Active.Identity, cfg.Active.KnownHosts} {
		if strings.Count(string(text), path) == 0 || !strings.Contains(strings.Replace(string(text), yaml, "", 1), path) {
			t.Errorf("README.md does not say how %s is made", path)
		}
	}
}
