package app_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/app"
)

const holdLock = "DRSYNC_TEST_HOLD_LOCK"

// TestMain lets the test program be its own child that holds a lock.
func TestMain(m *testing.M) {
	path := os.Getenv(holdLock)
	if path == "" {
		os.Exit(m.Run())
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err == nil {
		// As java.nio.channels.FileLock takes it: a POSIX record lock on the whole file.
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
	}
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString("held\n")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent lets go
	os.Exit(0)
}

func TestLockHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".lock")
	expect := func(want bool, when string) {
		t.Helper()
		if got, err := app.LockHeld(path); got != want || err != nil {
			t.Fatalf("%s: %v, %v", when, got, err)
		}
	}
	expect(false, "without a file")

	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), holdLock+"="+path)
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "held\n" {
		t.Fatalf("%q, %v", line, err)
	}
	expect(true, "while another process holds it")
	expect(true, "asked again")
	stdin.Close()
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	expect(false, "after that process is gone")

	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	expect(true, "while this process holds it")

	if err := os.Symlink(path, path+"link"); err != nil {
		t.Fatal(err)
	}
	if _, err := app.LockHeld(path + "link"); err == nil {
		t.Error("a symbolic link was followed")
	}
}
