package bench

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// options are the sizes. Their defaults make a smoke test.
type options struct {
	files   int
	large   int
	changes int
	rows    int
	repeats int
	drsync  string
	dir     string
}

var opts options

func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == peakOf {
		os.Exit(runForPeak(os.Args[2], os.Args[3:]))
	}
	flag.IntVar(&opts.files, "files", 300, "how many small files")
	flag.IntVar(&opts.large, "large", 4, "how long the large file is, in MiB")
	flag.IntVar(&opts.changes, "changes", 100, "how many files are new in a later run")
	flag.IntVar(&opts.rows, "rows", 3000, "how many rows the database table has")
	flag.IntVar(&opts.repeats, "repeats", 2, "how often each figure is measured")
	flag.StringVar(&opts.drsync, "drsync", "", "the drsync `program`; without one only its peers run")
	flag.StringVar(&opts.dir, "dir", "", "a `directory` with room for four copies of the files (default: the temporary one)")
	flag.Parse()
	os.Exit(m.Run())
}

// TestSuite prints one table for each comparison.
func TestSuite(t *testing.T) {
	var report strings.Builder
	fmt.Fprintf(&report, "\n## drsync beside its peers\n\n%s. Medians of %d (fastest–slowest).\n", machine(t), opts.repeats)
	var rsync []line
	t.Run("program", func(t *testing.T) { program(t).write(&report) })
	t.Run("files", func(t *testing.T) {
		result := files(t)
		rsync = result.lines
		result.write(&report)
	})
	t.Run("filestore", func(t *testing.T) { filestore(t, rsync).write(&report) })
	t.Run("database", func(t *testing.T) { database(t).write(&report) })
	t.Run("postgres", func(t *testing.T) { postgres(t).write(&report) })
	if opts.drsync != "" {
		t.Run("replication", func(t *testing.T) { replication(t).write(&report) })
		t.Run("postgres-replication", func(t *testing.T) { postgresReplication(t).write(&report) })
	}
	fmt.Println(report.String())
}

// machine says what the figures depend on.
func machine(t *testing.T) string {
	t.Helper()
	about := []string{fmt.Sprintf("%d cores, %s/%s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)}
	for _, program := range [][]string{{"rsync", "--version"}, {"mariadbd", "--version"}, {opts.drsync, "version"}} {
		if program[0] == "" {
			continue
		}
		out, err := exec.CommandContext(t.Context(), program[0], program[1:]...).Output()
		must(t, err)
		first, _, _ := strings.Cut(string(out), "\n")
		about = append(about, strings.Join(strings.Fields(first), " "))
	}
	return strings.Join(about, "; ")
}

// contestant is one way to do a task.
type contestant struct {
	prepare func() // not timed; may be nil
	run     func()
	failed  func() bool // that the run was lost by a fault of the program's own, and counts for nothing; may be nil
	verify  func()      // not timed; ends the test when the copy is wrong
}

// race runs peer and ours in turns and returns their times. ours has no run
// when there is no drsync program.
func race(task string, before func(), peer, ours contestant) line {
	l := line{task: task}
	for i := range opts.repeats {
		if before != nil {
			before()
		}
		turns := []func(){
			func() { l.peer = timed(l.peer, peer) },
			func() { l.drsync = timed(l.drsync, ours) },
		}
		if i%2 == 1 {
			turns[0], turns[1] = turns[1], turns[0]
		}
		for _, turn := range turns {
			turn()
		}
	}
	return l
}

func timed(times []time.Duration, c contestant) []time.Duration {
	if c.run == nil {
		return times
	}
	for {
		if c.prepare != nil {
			c.prepare()
		}
		unix.Sync()
		begin := time.Now()
		c.run()
		took := time.Since(begin)
		if c.failed != nil && c.failed() {
			continue
		}
		c.verify()
		return append(times, took)
	}
}

// command runs a program to its end and shows what it said if that is not 0.
func command(t *testing.T, ctx context.Context, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(ctx, name, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		text := said.String()
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, text[max(0, len(text)-4000):])
	}
}

// now returns how drsync runs with a configuration, or nil without drsync.
func now(t *testing.T, config string) func() {
	if opts.drsync == "" {
		return nil
	}
	return func() {
		t.Helper()
		command(t, t.Context(), opts.drsync, "now", "--config", config)
	}
}

// workspace makes an empty directory with room for the files.
func workspace(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(opts.dir, "drsbench")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// empty removes a directory's content, and makes it if it is not there.
func empty(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		must(t, os.RemoveAll(dir))
		must(t, os.MkdirAll(dir, 0o755))
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
