package postgres

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/drsync/drsync/internal/hint"
)

// programs are PostgreSQL's own pg_dump and pg_restore.
type programs struct {
	dump, restore string // paths
	major         int
}

// places are where packages put the programs of a major version.
var places = []string{"/usr/lib/postgresql/%d/bin", "/usr/pgsql-%d/bin", "/usr/local/pgsql-%d/bin", "/opt/postgresql/%d/bin"}

// findPrograms returns the client programs for servers of a major version:
// those of the same version, else newer ones. Older ones refuse such a server.
func findPrograms(ctx context.Context, major int) (programs, error) {
	var seen []string
	var newer programs
	for _, dir := range programDirs(major) {
		p := programs{dump: filepath.Join(dir, "pg_dump"), restore: filepath.Join(dir, "pg_restore")}
		if _, err := os.Stat(p.restore); err != nil {
			continue
		}
		var err error
		if p.major, err = programMajor(ctx, p.dump); err != nil {
			continue
		}
		switch {
		case p.major == major:
			return p, nil
		case p.major > major && newer.dump == "":
			newer = p
		}
		seen = append(seen, fmt.Sprintf("%s is of version %d", p.dump, p.major))
	}
	if err := interrupted(ctx); err != nil {
		return programs{}, err
	}
	if newer.dump != "" {
		return newer, nil
	}
	return programs{}, hint.With(fmt.Errorf("pg_dump and pg_restore of PostgreSQL %d are not on this host (%s)", major, some(seen, "none were found")),
		fmt.Sprintf("install PostgreSQL %d's client programs here (Debian: postgresql-client-%d)", major, major))
}

func programDirs(major int) []string {
	var dirs []string
	for _, pattern := range places {
		dirs = append(dirs, fmt.Sprintf(pattern, major))
	}
	if path, err := exec.LookPath("pg_dump"); err == nil {
		if path, err = filepath.Abs(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	return dirs
}

var versionLine = regexp.MustCompile(`^pg_dump \(PostgreSQL\) ([0-9]+)`)

func programMajor(ctx context.Context, path string) (int, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("%s --version: %w", path, err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("%s --version says %.100q", path, out)
	}
	return strconv.Atoi(string(m[1]))
}

// maxSaid bounds what is kept of what a program writes to standard error.
const maxSaid = 16 << 10 // bytes

// run runs one of the client programs to its end with the environment of env
// and returns its output. A program that the context ends takes its own
// children with it, and none outlives this process.
func run(ctx context.Context, env []string, path string, args ...string) ([]byte, error) {
	return runAs(ctx, nil, env, path, args...)
}

// runAs is run under another account; nil is this process's.
func runAs(ctx context.Context, who *syscall.Credential, env []string, path string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = env
	cmd.Dir = "/"
	var out bytes.Buffer
	said := &tail{}
	cmd.Stdout, cmd.Stderr = &out, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: who}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = farewell
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // a child dies with the thread that started it
		defer runtime.UnlockOSThread()
		result <- cmd.Run()
	}()
	err := <-result
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, &programError{program: filepath.Base(path), said: said.String(), err: err}
	}
	return out.Bytes(), nil
}

// tail keeps the first half and the last of what is written to it.
type tail struct{ first, last []byte }

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if room := maxSaid/2 - len(t.first); room > 0 {
		k := min(room, len(p))
		t.first = append(t.first, p[:k]...)
		p = p[k:]
	}
	t.last = append(t.last, p...)
	if over := len(t.last) - maxSaid/2; over > 0 {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	return n, nil
}

func (t *tail) String() string { return string(t.first) + string(t.last) }

// programError is a program that ended in error, with what it said.
type programError struct {
	program, said string
	err           error
}

func (e *programError) Unwrap() error { return e.err }

// Error is on one line: the errors that the program named.
func (e *programError) Error() string {
	var errs, all []string
	for line := range strings.Lines(e.said) {
		line = strings.TrimSpace(line)
		if _, what, ok := strings.Cut(line, "error: "); ok {
			errs = append(errs, what)
		} else if what, ok := strings.CutPrefix(line, "ERROR:  "); ok && errs == nil {
			errs = append(errs, what)
		}
		if line != "" {
			all = append(all, line)
		}
	}
	switch {
	case errs != nil:
		return e.program + ": " + strings.Join(errs[:min(3, len(errs))], "; ")
	case all != nil:
		return e.program + ": " + all[0]
	}
	return e.program + ": " + e.err.Error()
}

// some joins texts, the first of them if there are many, or returns otherwise.
func some(all []string, otherwise string) string {
	const most = 8
	switch {
	case len(all) == 0:
		return otherwise
	case len(all) > most:
		return strings.Join(all[:most], ", ") + fmt.Sprintf(" and %d more", len(all)-most)
	}
	return strings.Join(all, ", ")
}
