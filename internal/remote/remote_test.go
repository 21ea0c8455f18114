package remote

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/sourcetest"
	"github.com/drsync/drsync/rsyncx/wire"
)

// TestMain makes this program the agent that the tests start through sshd.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		os.Exit(runAgent(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "version" {
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == "client" {
		os.Exit(runClient(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func runAgent(args []string) int {
	var roots []string
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	flags.Func("root", "", func(dir string) error { roots = append(roots, dir); return nil })
	if err := flags.Parse(args); err != nil {
		return 2
	}
	err := wire.Serve(context.Background(), os.Stdin, os.Stdout, wire.Server{Roots: roots, Version: "1.2.3-test", Streams: testStreams})
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

var testStreams = map[string]wire.StreamFunc{
	"echo": func(_ context.Context, arg string, w io.Writer) error { _, err := io.WriteString(w, arg); return err },
	"pid": func(_ context.Context, _ string, w io.Writer) error {
		_, err := fmt.Fprint(w, os.Getpid())
		return err
	},
	"fail": func(_ context.Context, _ string, w io.Writer) error {
		io.WriteString(w, "half")
		return errors.New("no snapshot\x1b[2J today")
	},
	"hang": func(ctx context.Context, _ string, w io.Writer) error {
		<-ctx.Done()
		return context.Cause(ctx)
	},
	"endless": func(ctx context.Context, _ string, w io.Writer) error {
		for {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return err
			}
		}
	},
}

// config returns a Config for the test server.
func config(t testing.TB, s *testenv.SSHServer, transport string) Config {
	t.Helper()
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Config{Host: s.Host, Port: s.Port, User: s.User, Identity: s.Identity, KnownHosts: s.KnownHosts, SSHConfig: "none",
		Transport: transport, AgentCommand: []string{me}, Roots: []string{"/"}, Version: "1.2.3-test"}
}

func dial(t testing.TB, c Config) Host {
	t.Helper()
	h, err := Dial(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func TestSourceContract(t *testing.T) {
	s := testenv.SSHD(t)
	for _, transport := range []string{TransportAgent, TransportExec, TransportSFTP} {
		t.Run(transport, func(t *testing.T) {
			h := dial(t, config(t, s, transport))
			sourcetest.TestSource(t, func(t *testing.T, dir string) rsyncx.Source {
				src, err := h.Source(t.Context(), dir, rsyncx.View{})
				if err != nil {
					t.Fatal(err)
				}
				return src
			})
		})
	}
	if e, err := source(t, LocalHost(nil), "/").Lstat(t.Context(), "etc"); err != nil || e.Name != "etc" {
		t.Errorf("local: %+v, %v", e, err)
	}
}

func TestClock(t *testing.T) {
	s := testenv.SSHD(t)
	p := testenv.Proxy(t, s.Addr)
	c := config(t, s, TransportAgent)
	c.KnownHosts = knownAs(t, s, p)
	c.Port = p.Port
	h := dial(t, c)
	p.SetDelay(20 * time.Millisecond)
	skew, bound, err := h.Clock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The same clock is on both sides.
	if skew < -bound || skew > bound || bound < 20*time.Millisecond || bound > 2*time.Second {
		t.Errorf("skew %v ± %v, want 0 ± about 20ms", skew, bound)
	}
	if _, _, err := dial(t, config(t, s, TransportSFTP)).Clock(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("by sftp: %v, want ErrUnsupported", err)
	}
	if skew, bound, err := LocalHost(nil).Clock(t.Context()); skew != 0 || bound != 0 || err != nil {
		t.Errorf("of this host: %v, %v, %v", skew, bound, err)
	}
}

// knownAs writes the host key of s as that of the proxy.
func knownAs(t testing.TB, s *testenv.SSHServer, p *testenv.TCPProxy) string {
	t.Helper()
	text, err := os.ReadFile(s.KnownHosts)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "known_hosts")
	line := strings.Replace(string(text), fmt.Sprintf("]:%d ", s.Port), fmt.Sprintf("]:%d ", p.Port), 1)
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStream(t *testing.T) {
	s := testenv.SSHD(t)
	for name, h := range map[string]Host{"agent": dial(t, config(t, s, TransportAgent)), "local": LocalHost(testStreams)} {
		t.Run(name, func(t *testing.T) {
			long := strings.Repeat("x", 3000)
			got, err := readStream(t, h, "echo", long)
			if got != long || err != nil {
				t.Errorf("echo: %d bytes, %v", len(got), err)
			}
			got, err = readStream(t, h, "fail", "")
			if got != "half" || err == nil || strings.Contains(err.Error(), "\x1b") && name == "agent" || !strings.Contains(err.Error(), "no snapshot") {
				t.Errorf("a stream that fails: %q, %v", got, err)
			}
			if _, err := h.Stream(t.Context(), "nonesuch", ""); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("an unknown stream: %v", err)
			}
			r, err := h.Stream(t.Context(), "endless", "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(r, make([]byte, 1<<20)); err != nil {
				t.Error(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if _, err := r.Read(make([]byte, 1)); err == nil {
				t.Error("read after Close")
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			if r, err = h.Stream(ctx, "hang", ""); err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			mine := errors.New("mine")
			time.AfterFunc(20*time.Millisecond, func() { cancel(mine) })
			within(t, 2*time.Second, func() {
				if _, err := r.Read(make([]byte, 1)); !errors.Is(err, mine) {
					t.Errorf("cancelled: %v", err)
				}
			})
		})
	}
	if _, err := dial(t, config(t, s, TransportSFTP)).Stream(t.Context(), "echo", ""); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("by sftp: %v", err)
	}
}

func readStream(t *testing.T, h Host, name, arg string) (string, error) {
	t.Helper()
	r, err := h.Stream(t.Context(), name, arg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

func within(t *testing.T, d time.Duration, do func()) {
	t.Helper()
	start := time.Now()
	do()
	if took := time.Since(start); took > d {
		t.Errorf("took %v, want less than %v", took, d)
	}
}

func TestTunnel(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	dir, err := os.MkdirTemp("", "drs")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	unix, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	go func() {
		c, err := unix.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.Copy(c, c)
	}()
	s := testenv.SSHD(t)
	h := dial(t, config(t, s, TransportSFTP))
	for _, at := range []net.Addr{l.Addr(), unix.Addr()} {
		c, err := h.DialContext(t.Context(), at.Network(), at.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		if c.RemoteAddr().String() != at.String() {
			t.Errorf("it says it is connected to %v", c.RemoteAddr())
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := c.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a read with a deadline: %v", err)
		}
		c.Close()
	}
	l.Close()
	if _, err := h.DialContext(t.Context(), "tcp", l.Addr().String()); err == nil {
		t.Error("a tunnel to a closed port was opened")
	}
	done, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrNoProgress)
	if _, err := h.DialContext(done, "tcp", l.Addr().String()); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestNoStrayAgents: no agent outlives its host, however it ends.
func TestNoStrayAgents(t *testing.T) {
	s := testenv.SSHD(t)
	for _, how := range []struct {
		name string
		end  func(h Host)
	}{
		{"closed", func(h Host) { h.Close() }},
		{"cut", func(Host) { s.Cut() }},
	} {
		t.Run(how.name, func(t *testing.T) {
			h := dial(t, config(t, s, TransportAgent))
			pid, err := readStream(t, h, "pid", "")
			if err != nil {
				t.Fatal(err)
			}
			// One is idle, one waits, one writes without end.
			var pids []string
			for _, name := range []string{"hang", "endless"} {
				r, err := h.Stream(t.Context(), name, "")
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
			}
			if pids = agentsOf(s); len(pids) < 2 {
				t.Fatalf("agents: %v, one of them %s", pids, pid)
			}
			how.end(h)
			gone(t, pids)
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		h := dial(t, config(t, s, TransportAgent))
		ctx, cancel := context.WithCancel(t.Context())
		for _, name := range []string{"hang", "endless"} {
			r, err := h.Stream(ctx, name, "")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
		}
		pids := agentsOf(s)
		cancel()
		gone(t, pids)
	})
}

// agentsOf returns the pids of the agents that s runs.
func agentsOf(s *testenv.SSHServer) []string {
	var pids []string
	for _, pid := range s.Descendants() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(line), "\x00agent\x00") {
			pids = append(pids, fmt.Sprint(pid))
		}
	}
	return pids
}

func gone(t *testing.T, pids []string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for _, text := range pids {
		for alive(text) {
			if time.Now().After(deadline) {
				t.Fatalf("the agent %s is still there", text)
			}
			time.Sleep(5 * time.Millisecond) // nothing tells when another's child ends
		}
	}
}

// alive reports whether a process runs; one that only waits to be reaped does not.
func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
