package program_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// aborted gives up a run while the agent sends: the reason is all that is said.
func aborted(t *testing.T, drsync string) {
	shell := node{path: "sh", kind: 'f', mode: 0o755, content: []segment{{kind: 't', text: "#!/bin/sh\nshift\nexec sh -c \"$*\"\n"}}}
	large := node{path: "from/large", kind: 'f', mode: 0o644, sec: 1_000_000_000, content: []segment{{kind: 'r', seed: 1, len: 20 << 20}}}
	alone := func(t *testing.T, said, reason string) {
		t.Helper()
		for line := range strings.Lines(said) {
			if !strings.HasPrefix(line, "drsync: ") && !strings.HasPrefix(line, "drsync error: ") && !strings.HasPrefix(line, "  hint: ") ||
				strings.Contains(line, "pipe") || strings.Contains(line, "agent") {
				t.Errorf("said beside the reason: %q", line)
			}
		}
		if !strings.Contains(said, reason) {
			t.Errorf("said %q, which has no %q", said, reason)
		}
	}
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 20, syscall.SIGTERM: 20, syscall.SIGHUP: 20, syscall.SIGUSR1: 19, syscall.SIGQUIT: 20} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			dir := world(t, append(pairOfTrees(), shell, large))
			cmd := exec.Command(drsync, "rsync", "-a", "--del", "--info=progress2", "--bwlimit=1000", "-e", dir+"/sh", "--rsync-path="+drsync, "host:"+dir+"/from/", "to/")
			var said bytes.Buffer
			cmd.Dir, cmd.Stderr = dir, &said
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(out).ReadString('%'); err != nil { // content has come
				t.Error(err)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Error(err)
			}
			_ = cmd.Wait()
			if exit := cmd.ProcessState.ExitCode(); exit != want {
				t.Errorf("it ends with %v, want %d", cmd.ProcessState, want)
			}
			alone(t, said.String(), "interrupted")
			extras(t, dir)
		})
	}
	t.Run("full disk", func(t *testing.T) {
		dir := world(t, append(pairOfTrees(), shell, large))
		to := filepath.Join(dir, "small")
		if err := os.Mkdir(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", to, "tmpfs", 0, "size=1m"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := unix.Unmount(to, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}()
		exit, said := run(t, dir, drsync, "rsync", "-a", "-e", dir+"/sh", "--rsync-path="+drsync, "host:"+dir+"/from/", "small/")
		if exit != 11 {
			t.Errorf("exit status %d", exit)
		}
		alone(t, said, "no space left")
	})
}
