package role

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/hint"
)

// Holder says who holds the lock.
type Holder struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

// LockedError is returned by Acquire when another process holds the lock.
// Holder is zero when the holder has not written its name yet.
type LockedError struct{ Holder Holder }

func (e *LockedError) Error() string {
	if e.Holder.PID == 0 {
		return "locked: another drsync is running"
	}
	return fmt.Sprintf("locked: %q (pid %d) is running since %s", e.Holder.Command, e.Holder.PID, e.Holder.Since.Format(time.RFC3339))
}

// Lock is the host-wide lock: one per state directory, held by every command
// that changes anything. The kernel drops it when the process dies.
type Lock struct{ f *os.File }

// Acquire takes the lock of the state directory dir, which it creates if need
// be. It never waits: a held lock is a *LockedError.
func Acquire(dir, command string, now time.Time) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, hint.With(fmt.Errorf("lock: %w", err), "run drsync as the user who owns "+dir)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, wholeFile()); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		return nil, &LockedError{Holder: readHolder(f)}
	}
	data, err := json.Marshal(Holder{PID: os.Getpid(), Command: command, Since: now.UTC().Truncate(time.Second)})
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(append(data, '\n'), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock: %w", err)
	}
	return &Lock{f: f}, nil
}

// Held returns who holds the lock of dir, and false if nobody does. It changes nothing.
func Held(dir string) (Holder, bool, error) {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if errors.Is(err, os.ErrNotExist) {
		return Holder{}, false, nil
	}
	if err != nil {
		return Holder{}, false, fmt.Errorf("lock: %w", err)
	}
	defer f.Close()
	probe := wholeFile()
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, probe); err != nil {
		return Holder{}, false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	if probe.Type == unix.F_UNLCK {
		return Holder{}, false, nil
	}
	return readHolder(f), true, nil
}

// wholeFile describes an exclusive open-file-description lock: unlike flock it
// can be probed without being taken, unlike a POSIX lock it is not lost when
// another descriptor of the process is closed.
func wholeFile() *unix.Flock_t {
	return &unix.Flock_t{Type: unix.F_WRLCK, Whence: 0}
}

func readHolder(f *os.File) Holder {
	var h Holder
	buf := make([]byte, 4096)
	n, _ := f.ReadAt(buf, 0)
	_ = json.Unmarshal(buf[:n], &h) // a half-written line leaves the zero Holder, which Error handles
	return h
}

// Release gives the lock up. The file stays: removing it would let two
// processes lock two files of the same name.
func (l *Lock) Release() error { return l.f.Close() }
