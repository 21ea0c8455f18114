package role

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/hint"
)

var at = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func TestMissingRoleIsAStandby(t *testing.T) {
	s, err := Load(t.TempDir())
	if err != nil || s.Role != Standby || s.Epoch != 0 || s.Format != 1 {
		t.Fatal(s, err)
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir := t.TempDir()
	for _, want := range []State{
		{Role: Promoting, Epoch: 1, Since: at, Reason: "fire"},
		{Role: Active, Epoch: 1, Since: at},
		{Role: Standby, Epoch: 5, Since: at},
	} {
		if err := Save(dir, want); err != nil {
			t.Fatal(err)
		}
		want.Format = 1
		if got, err := Load(dir); err != nil || got != want {
			t.Fatal(got, err)
		}
	}
}

func TestEpochNeverFalls(t *testing.T) {
	dir := t.TempDir()
	if err := Save(dir, State{Role: Active, Epoch: 7, Since: at}); err != nil {
		t.Fatal(err)
	}
	for epoch := range uint64(7) {
		if err := Save(dir, State{Role: Standby, Epoch: epoch}); err == nil {
			t.Fatalf("epoch fell to %d", epoch)
		}
	}
	if s, err := Load(dir); err != nil || s.Epoch != 7 || s.Role != Active {
		t.Fatal(s, err)
	}
	// A file that cannot be read says nothing about its epoch, so it is not replaced either.
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Save(dir, State{Role: Active, Epoch: 100}); err == nil {
		t.Fatal("a damaged role file was replaced")
	}
}

var damaged = []string{"", "{", "null", "[]", `""`, "{}", `{"format":1}`, `{"format":1,"role":"boss"}`, `{"format":2,"role":"active"}`, `{"format":1,"role":"active"} x`,
	`{"format":1,"role":"active","epoch":-1}`, `{"format":1,"role":"active","epoch":1e30}`, `{"format":1,"role":"Active"}`}

func TestDamagedRoleIsAnError(t *testing.T) {
	for _, content := range damaged {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if s, err := Load(dir); err == nil {
			t.Errorf("%q: %+v", content, s)
		}
		if s, err := ReadMarker([]byte(content)); err == nil {
			t.Errorf("marker %q: %+v", content, s)
		}
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, fileName), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a directory: no error")
	}
}

func TestRequireStandby(t *testing.T) {
	if err := RequireStandby(State{Role: Standby, Epoch: 9}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []Role{Promoting, Active} {
		err := RequireStandby(State{Role: r, Epoch: 9, Since: at})
		if !errors.Is(err, ErrWrongRole) || hint.Of(err) == "" || !strings.Contains(err.Error(), string(r)) {
			t.Errorf("%s: %v", r, err)
		}
	}
}

func TestMarker(t *testing.T) {
	home := t.TempDir()
	if s, ok, err := LoadMarker(home); ok || err != nil {
		t.Fatal(s, ok, err)
	}
	want := State{Format: 1, Role: Active, Epoch: 3, Since: at, Reason: "fire", Host: "b"}
	for range 2 {
		if err := SaveMarker(home, "b", State{Role: Active, Epoch: 3, Since: at, Reason: "fire"}); err != nil {
			t.Fatal(err)
		}
		if s, ok, err := LoadMarker(home); !ok || err != nil || s != want {
			t.Fatal(s, ok, err)
		}
	}
	data, err := os.ReadFile(filepath.Join(home, MarkerPath))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := ReadMarker(data); err != nil || s != want {
		t.Fatal(s, err)
	}
	if err := SaveMarker(home, "c", State{Role: Standby, Epoch: 2}); err == nil {
		t.Fatal("the epoch fell")
	}
	if _, err := ReadMarker(append(data, make([]byte, maxMarker)...)); err == nil {
		t.Fatal("an endless marker was read")
	}
	if err := os.WriteFile(filepath.Join(home, MarkerPath), append(data, strings.Repeat(" ", maxMarker)...), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadMarker(home); err == nil {
		t.Fatal("an endless marker was read")
	}
}

func TestMarkerStaysInItsHome(t *testing.T) {
	home, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(home, ".drsync")); err != nil {
		t.Fatal(err)
	}
	if err := SaveMarker(home, "b", State{Role: Active, Epoch: 1}); err == nil {
		t.Fatal("written through a link")
	}
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Fatal(left)
	}
	if err := SaveMarker(filepath.Join(home, "none"), "b", State{Role: Active, Epoch: 1}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func FuzzReadMarker(f *testing.F) {
	for _, s := range damaged {
		f.Add([]byte(s))
	}
	f.Add([]byte(`{"format":1,"role":"active","epoch":3,"since":"2026-03-04T05:06:07Z","host":"b"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ReadMarker(data)
		if err == nil && (s.Format != 1 || s.Role != Standby && s.Role != Promoting && s.Role != Active) {
			t.Fatalf("%+v", s)
		}
	})
}

// TestMain lets the test binary play the other process that holds the lock.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DRSYNC_TEST_HOLD"); dir != "" {
		if _, err := Acquire(dir, "other command", at); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("held")
		select {}
	}
	os.Exit(m.Run())
}

// hold starts a process that holds the lock of dir.
func hold(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "DRSYNC_TEST_HOLD="+dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("%q %v", line, err)
	}
	return cmd
}

func TestLockOfAnotherProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if h, held, err := Held(dir); held || err != nil {
		t.Fatal(h, held, err)
	}
	other := hold(t, dir)
	for range 3 { // asking must not take, keep or break it
		h, held, err := Held(dir)
		if err != nil || !held || h.PID != other.Process.Pid || h.Command != "other command" || !h.Since.Equal(at) {
			t.Fatal(h, held, err)
		}
		_, err = Acquire(dir, "mine", at)
		var locked *LockedError
		if !errors.As(err, &locked) || locked.Holder != h {
			t.Fatal(err)
		}
		if text := err.Error(); !strings.Contains(text, "other command") || !strings.Contains(text, fmt.Sprint(h.PID)) || !strings.Contains(text, "2026-03-04T05:06:07Z") {
			t.Fatal(text)
		}
	}
	// SIGKILL: the kernel drops the lock, the file with its old holder stays.
	other.Process.Kill()
	other.Wait()
	if h, held, err := Held(dir); held || err != nil {
		t.Fatal(h, held, err)
	}
	l, err := Acquire(dir, "mine", at)
	if err != nil {
		t.Fatal(err)
	}
	if h, held, err := Held(dir); !held || err != nil || h.PID != os.Getpid() || h.Command != "mine" {
		t.Fatal(h, held, err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if h, held, err := Held(dir); held || err != nil {
		t.Fatal(h, held, err)
	}
}

func TestLockWithinOneProcess(t *testing.T) {
	dir := t.TempDir()
	l, err := Acquire(dir, strings.Repeat("long ", 100), at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Acquire(dir, "second", at); err == nil {
		t.Fatal("taken twice")
	}
	// Closing another descriptor of the file must not drop it.
	if _, held, err := Held(dir); !held || err != nil {
		t.Fatal(err)
	}
	if _, err := Acquire(dir, "third", at); err == nil {
		t.Fatal("taken twice")
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	// A shorter holder leaves nothing of the longer one before it.
	l, err = Acquire(dir, "s", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if h, _, err := Held(dir); err != nil || h.Command != "s" {
		t.Fatal(h, err)
	}
}

func TestLockWhoseHolderIsNotWrittenYet(t *testing.T) {
	dir := t.TempDir()
	l, err := Acquire(dir, "x", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if err := os.Truncate(filepath.Join(dir, "lock"), 5); err != nil {
		t.Fatal(err)
	}
	var locked *LockedError
	if _, err := Acquire(dir, "y", at); !errors.As(err, &locked) || locked.Holder.PID != 0 || err.Error() == "" {
		t.Fatal(err)
	}
}

func TestAcquireWhereItCannot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Acquire(file, "x", at); err == nil {
		t.Fatal("no error")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "lock"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Acquire(dir, "x", at); err == nil || hint.Of(err) == "" {
		t.Fatal(err)
	}
}
