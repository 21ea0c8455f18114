package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/sourcetest"
)

// sshConfig returns a CommandConfig that reaches the test server by ssh.
func sshConfig(t testing.TB, s *testenv.SSHServer) CommandConfig {
	t.Helper()
	testenv.Require(t, "ssh")
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return CommandConfig{
		Shell: []string{"ssh", "-F", "none", "-o", "BatchMode=yes", "-i", s.Identity, "-o", "UserKnownHostsFile=" + s.KnownHosts, "-p", fmt.Sprint(s.Port)},
		User:  s.User, Host: s.Host, RemoteCommand: []string{me}, Roots: []string{"/"}, Version: "1.2.3-test",
	}
}

// asShell writes a program that stands for the remote shell.
func asShell(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shell")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// thisHost is a remote shell that leads to this host.
const thisHost = `while [ "${1#-}" != "$1" ]; do shift 2; done; shift; exec sh -c "$*"`

func dialCommand(t testing.TB, c CommandConfig) *agentHost {
	t.Helper()
	h, err := DialCommand(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h.(*agentHost)
}

func TestSourceContractByRemoteShell(t *testing.T) {
	s := testenv.SSHD(t)
	h := dialCommand(t, sshConfig(t, s))
	sourcetest.TestSource(t, func(t *testing.T, dir string) rsyncx.Source { return source(t, h, dir) })
	if skew, bound, err := h.Clock(t.Context()); err != nil || skew < -bound || skew > bound {
		t.Errorf("clock: %v ± %v, %v", skew, bound, err)
	}
	if _, err := h.DialContext(t.Context(), "tcp", "127.0.0.1:1"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a tunnel: %v", err)
	}
	if got, want := h.Describe(), s.User+"@"+s.Host+" (agent)"; got != want {
		t.Errorf("it is %q, want %q", got, want)
	}
}

func TestSplitShell(t *testing.T) {
	for text, want := range map[string][]string{
		"ssh":                         {"ssh"},
		"  ssh  -p 2222 ":             {"ssh", "-p", "2222"},
		`ssh -o "ProxyCommand nc %h"`: {"ssh", "-o", "ProxyCommand nc %h"},
		`ssh -o'A b'c`:                {"ssh", "-oA bc"},
		`a 'it''s' "x""y"`:            {"a", "it's", `x"y`},
		`a\ b`:                        {`a\`, "b"},
		"a\tb":                        {"a\tb"},
	} {
		if got, err := SplitShell(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "   ", "ssh 'x", `"`, "''"} {
		if got, err := SplitShell(text); err == nil {
			t.Errorf("%s: %q, want an error", text, got)
		}
	}
}

// TestShellArguments: what rsync hands to its remote shell is what ours gets.
func TestShellArguments(t *testing.T) {
	testenv.Require(t, "rsync")
	seen := filepath.Join(t.TempDir(), "seen")
	shell := asShell(t, `printf '%s\n' "$@" > `+seen+`; exit 3`)
	for _, text := range []string{"SHELL", "SHELL -p 2222", "SHELL -l other", "SHELL -l -x", `SHELL -o "a  b" -x 'it''s'`, "SHELL -l"} {
		for _, login := range []string{"", "me"} {
			text = strings.Replace(text, "SHELL", shell, 1)
			host := "far"
			if login != "" {
				host = login + "@far"
			}
			_ = exec.Command("rsync", "-e", text, "--rsync-path", "my agent", host+":x", t.TempDir()).Run()
			theirs := readLines(t, seen)
			words, err := SplitShell(text)
			if err != nil {
				t.Fatal(err)
			}
			_, err = DialCommand(t.Context(), CommandConfig{Shell: words, User: login, Host: "far", RemoteCommand: []string{"my agent"}, Roots: []string{"/a b"}})
			if failed := (*ShellError)(nil); !errors.As(err, &failed) || failed.Status != 3 {
				t.Fatalf("it ended with %v", err)
			}
			ours := readLines(t, seen)
			n := slices.Index(theirs, "--server")
			if n < 0 || !slices.Equal(append(theirs[:n:n], "agent", "--root", "'/a b'"), ours) {
				t.Errorf("%s, login %q:\nrsync %q\nours  %q", text, login, theirs, ours)
			}
		}
	}
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func TestRemoteShellFails(t *testing.T) {
	s := testenv.SSHD(t)
	base := sshConfig(t, s)
	for _, c := range []struct {
		name   string
		change func(*CommandConfig)
		status int
		want   string
	}{
		{"no such remote command", func(c *CommandConfig) { c.RemoteCommand = []string{"/nonexistent/drsync"} }, 127, "status 127"},
		{"a remote command that is no program", func(c *CommandConfig) { c.RemoteCommand = []string{"/etc/passwd"} }, 126, "status 126"},
		{"a key that is refused", func(c *CommandConfig) {
			c.Shell = append(slices.Clone(c.Shell), "-i", "/nonexistent", "-o", "PubkeyAuthentication=no")
		}, 255, "Permission denied"},
		{"no such shell", func(c *CommandConfig) { c.Shell = []string{"/nonexistent/ssh"} }, -1, "/nonexistent/ssh"},
		{"a shell that is killed", func(c *CommandConfig) { c.Shell = []string{asShell(t, `kill -9 $$`)} }, -1, "killed"},
		{"a remote command that ends", func(c *CommandConfig) { c.RemoteCommand = []string{"echo out of luck >&2; exit 4;"} }, 4, "out of luck"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := base
			c.change(&conf)
			h, err := DialCommand(t.Context(), conf)
			if err == nil {
				h.Close()
				t.Fatal("it is there")
			}
			var failed *ShellError
			if !errors.As(err, &failed) || failed.Status != c.status || !errors.Is(err, ErrShellFailed) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want status %d and %q", err, c.status, c.want)
			}
			if errors.Is(err, ErrRemoteNotFound) != (c.status == 127) {
				t.Errorf("%v is ErrRemoteNotFound: %t", err, errors.Is(err, ErrRemoteNotFound))
			}
		})
	}
	for _, c := range []CommandConfig{{}, {Host: "-oProxyCommand=x"}, {Host: "a", User: "-x"}, {Host: "a b"}, {Host: "a\n"}} {
		c.Shell = []string{asShell(t, "echo started >&2")}
		if _, err := DialCommand(t.Context(), c); err == nil || strings.Contains(err.Error(), "started") {
			t.Errorf("%q: %v", c.Host, err)
		}
	}
}

func TestRemoteShellTimeouts(t *testing.T) {
	conf := CommandConfig{Shell: []string{asShell(t, "echo waiting >&2; exec sleep 1000")}, Host: "far", DialTimeout: 100 * time.Millisecond}
	within(t, 5*time.Second, func() {
		if _, err := DialCommand(t.Context(), conf); !errors.Is(err, ErrConnectTimeout) || errors.Is(err, ErrTimeout) {
			t.Error(err)
		}
	})
	conf.DialTimeout = time.Minute
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(io.ErrNoProgress) })
	within(t, 5*time.Second, func() {
		if _, err := DialCommand(ctx, conf); !errors.Is(err, io.ErrNoProgress) {
			t.Error(err)
		}
	})
	s := testenv.SSHD(t)
	p := testenv.Proxy(t, s.Addr)
	conf = sshConfig(t, s)
	conf.Shell[len(conf.Shell)-1] = fmt.Sprint(p.Port)
	conf.Shell[slices.Index(conf.Shell, "UserKnownHostsFile="+s.KnownHosts)] = "UserKnownHostsFile=" + knownAs(t, s, p)
	conf.Silence = 200 * time.Millisecond
	h := dialCommand(t, conf)
	p.Freeze()
	within(t, 5*time.Second, func() {
		if _, err := h.Source(t.Context(), "/", rsyncx.View{}); !errors.Is(err, ErrTimeout) {
			t.Error(err)
		}
	})
	within(t, 5*time.Second, func() { h.Close() })
}

// mute is a host on which programs print nothing until they are ended.
type mute struct{ canned }

func (mute) run(context.Context, ...string) (program, error) {
	r, w := io.Pipe()
	return &muted{cannedProgram{r}, w}, nil
}

type muted struct {
	cannedProgram
	end *io.PipeWriter
}

func (m *muted) Close() error { return m.end.Close() }

// TestNoGreetingIsNoConnection: whichever of two clocks is read first, an agent that does not greet in
// time is no connection, which is another status than a silence later on.
func TestNoGreetingIsNoConnection(t *testing.T) {
	for range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for range 200 {
				h := newAgentHost(agentConfig{far: mute{}, command: []string{"drsync"}, channels: 1, dialTimeout: time.Millisecond, silence: time.Millisecond})
				if err := h.first(t.Context()); !errors.Is(err, ErrConnectTimeout) || errors.Is(err, ErrTimeout) {
					t.Fatal(err)
				}
				h.Close()
			}
		})
	}
}

// TestNoStrayShells: no process of the remote shell outlives its host, nor does
// what it started, and all are waited for.
func TestNoStrayShells(t *testing.T) {
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"obedient": thisHost,
		"deaf":     `trap "" TERM HUP; (trap "" TERM HUP; sleep 1000) & while [ "${1#-}" != "$1" ]; do shift 2; done; shift; sh -c "$*"; while :; do sleep 1000; done`,
		"parent":   `sleep 1000 & while [ "${1#-}" != "$1" ]; do shift 2; done; shift; sh -c "$*"`,
	} {
		t.Run(name, func(t *testing.T) {
			before := descendants(os.Getpid())
			h := dialCommand(t, CommandConfig{Shell: []string{asShell(t, text)}, Host: "far", RemoteCommand: []string{me}, Roots: []string{"/"}})
			for _, stream := range []string{"hang", "endless"} {
				r, err := h.Stream(t.Context(), stream, "")
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
			}
			started := descendants(os.Getpid())
			if len(started) < 2 {
				t.Fatalf("processes: %v", started)
			}
			within(t, 5*time.Second, func() { h.Close() })
			if after := descendants(os.Getpid()); len(after) > len(before) {
				t.Errorf("children %v were not waited for", after)
			}
			for _, pid := range started {
				if !slices.Contains(before, pid) {
					gone(t, []string{fmt.Sprint(pid)})
				}
			}
			if _, err := h.Stream(t.Context(), "echo", ""); err == nil {
				t.Error("a stream after Close")
			}
		})
	}
}

// TestRemoteShellEnds: a shell that dies in the middle of a request is noticed.
func TestRemoteShellEnds(t *testing.T) {
	s := testenv.SSHD(t)
	h := dialCommand(t, sshConfig(t, s))
	r, err := h.Stream(t.Context(), "hang", "")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	far := h.far.(*shell)
	far.mu.Lock()
	for c := range far.children {
		c.cmd.Process.Signal(syscall.SIGKILL)
	}
	far.mu.Unlock()
	var failed *ShellError
	if _, err := r.Read(make([]byte, 1)); !errors.As(err, &failed) || failed.Status != -1 {
		t.Errorf("killed: %v", err)
	}
	if r, err = h.Stream(t.Context(), "hang", ""); err != nil {
		t.Fatalf("another process: %v", err)
	}
	defer r.Close()
	s.Cut()
	if _, err := r.Read(make([]byte, 1)); !errors.As(err, &failed) || failed.Status != 255 {
		t.Errorf("cut: %v", err)
	}
}

func TestRemoteShellSpeaks(t *testing.T) {
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var heard bytes.Buffer
	h := dialCommand(t, CommandConfig{
		Shell: []string{asShell(t, "printf 'Welcome\\033[2J\\nto the ' >&2; echo host >&2; "+thisHost)}, Host: "far",
		RemoteCommand: []string{me}, Roots: []string{"/"}, Stderr: &heard,
	})
	h.Close()
	if got := heard.String(); got != "Welcome\\#033[2J\nto the host\n" {
		t.Errorf("passed on %q", got)
	}
}
