package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/wire"
)

// bigTree is a directory whose listing and content cannot be under way whole.
func bigTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := range 100 {
		sub := filepath.Join(dir, fmt.Sprintf("d%03d", d))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			name := fmt.Sprintf("%s/%s%03d", sub, strings.Repeat("n", 200), i)
			if err := os.WriteFile(name, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	f, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	piece := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{1})
	for range 64 { // neither holes nor compression make it small
		random.Read(piece)
		if _, err := f.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func walkAll(ctx context.Context, src rsyncx.Source, first func()) (last error) {
	for _, err := range src.Walk(ctx, rsyncx.WalkOptions{}) {
		if first != nil {
			first()
			first = nil
		}
		last = err
	}
	return last
}

func readBig(ctx context.Context, src rsyncx.Source, first func()) (last error) {
	for f, err := range src.Read(ctx, rsyncx.Wants(slices.Values([]string{"big", "big"}))) {
		if err != nil {
			return err
		}
		if f.Err != nil {
			return f.Err
		}
		if _, err := io.CopyN(io.Discard, f.Body, 1<<20); err != nil {
			return err
		}
		if first != nil {
			first()
			first = nil
		}
		if _, err := io.Copy(io.Discard, f.Body); err != nil {
			last = err
		}
	}
	return last
}

func TestCutAndCancel(t *testing.T) {
	s := testenv.SSHD(t)
	dir := bigTree(t)
	mine := errors.New("mine")
	for _, transport := range []string{TransportAgent, TransportExec, TransportSFTP} {
		for name, op := range map[string]func(context.Context, rsyncx.Source, func()) error{"walk": walkAll, "read": readBig} {
			t.Run(transport+"/"+name+" cut", func(t *testing.T) {
				src := source(t, dial(t, config(t, s, transport)), dir)
				within(t, 5*time.Second, func() {
					err := op(t.Context(), src, s.Cut)
					if transport == TransportExec && name == "walk" && err == nil {
						return // the whole listing is here before anything is yielded
					}
					if err == nil || !strings.Contains(err.Error(), "connection to root@127.0.0.1") {
						t.Errorf("%v", err)
					}
					if transport == TransportAgent && !errors.Is(err, wire.ErrLost) {
						t.Errorf("%v is no lost line", err)
					}
				})
				if _, err := src.Lstat(t.Context(), "big"); err == nil || transport == TransportAgent && !errors.Is(err, wire.ErrLost) {
					t.Errorf("a cut connection says %v", err)
				}
			})
			t.Run(transport+"/"+name+" cancelled", func(t *testing.T) {
				h := dial(t, config(t, s, transport))
				src := source(t, h, dir)
				ctx, cancel := context.WithCancelCause(t.Context())
				within(t, 2*time.Second, func() {
					if err := op(ctx, src, func() { cancel(mine) }); !errors.Is(err, mine) {
						t.Errorf("%v, want the cause", err)
					}
				})
				if _, err := src.Lstat(t.Context(), "big"); err != nil {
					t.Errorf("the next request: %v", err)
				}
			})
		}
	}
}

func source(t testing.TB, h Host, dir string) rsyncx.Source {
	t.Helper()
	src, err := h.Source(t.Context(), dir, rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

// TestKilledClientLeavesNoAgent kills a client with SIGKILL in the middle of a stream.
func TestKilledClientLeavesNoAgent(t *testing.T) {
	s := testenv.SSHD(t)
	c := config(t, s, TransportAgent)
	client := exec.Command(c.AgentCommand[0], "client", c.Host, fmt.Sprint(c.Port), c.User, c.Identity, c.KnownHosts)
	out, err := client.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	client.Stderr = os.Stderr
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	pids := agentsOf(s)
	client.Process.Kill()
	client.Wait()
	if len(pids) != 2 {
		t.Errorf("agents: %v", pids)
	}
	gone(t, pids)
}

// runClient is the client that TestKilledClientLeavesNoAgent kills.
func runClient(args []string) int {
	c := Config{Host: args[0], User: args[2], Identity: args[3], KnownHosts: args[4], SSHConfig: "none", Transport: TransportAgent}
	fmt.Sscan(args[1], &c.Port)
	me, _ := os.Executable()
	c.AgentCommand = []string{me}
	h, err := Dial(context.Background(), c)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, name := range []string{"hang", "endless"} {
		r, err := h.Stream(context.Background(), name, "")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if name == "endless" {
			io.Copy(os.Stdout, r)
		}
	}
	return 0
}

// TestSFTPNoticesAChange: the length is compared at the end too.
func TestSFTPNoticesAChange(t *testing.T) {
	s := testenv.SSHD(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, make([]byte, 4<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	src := source(t, dial(t, config(t, s, TransportSFTP)), dir)
	for f, err := range src.Read(t.Context(), rsyncx.Wants(slices.Values([]string{"f"}))) {
		if err != nil || f.Err != nil {
			t.Fatal(err, f.Err)
		}
		if _, err := io.ReadFull(f.Body, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 5<<20); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, f.Body); n != 4<<20-1 || !errors.Is(err, rsyncx.ErrTorn) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}
