package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// workClaim is what claim is in dump mode. Servers come and go here, so it is a
// lock of the file system, on a file in the engine's own directory.
type workClaim struct {
	mu   sync.Mutex
	file *os.File // that has the lock; nil if none has
}

func (r *Replica) claimFile() string { return filepath.Join(r.work, "lock") }

// claim takes the lock for this engine, if it does not hold it any more. Whatever
// changes the standby calls it first. Without the engine's directory there is
// nothing to change. It wraps dbrepl.ErrBusy when another holds it.
func (r *Replica) claim(ctx context.Context) error {
	if r.e.claiming != nil {
		r.e.claiming()
	}
	r.held.mu.Lock()
	defer r.held.mu.Unlock()
	if r.held.file != nil {
		if r.inPlace(r.held.file) {
			return nil
		}
		r.held.file.Close() // somebody removed the directory, and with it the lock
		r.held.file = nil
	}
	if _, err := os.Lstat(r.work); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	f, err := os.OpenFile(r.claimFile(), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	taken, err := until(ctx, r.e.opt.Lock, func() (bool, error) {
		// It belongs to this open file alone: not even to another one of this process.
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return false, nil
		}
		return err == nil, err
	})
	switch {
	case err != nil:
		err = fmt.Errorf("lock %s: %w", r.claimFile(), err)
	case !taken:
		err = busyWork(f)
	case !r.inPlace(f):
		err = fmt.Errorf("%s was replaced meanwhile", r.claimFile())
	default:
		err = sign(f)
	}
	if err != nil {
		f.Close()
		return err
	}
	r.held.file = f
	return nil
}

func busyWork(f *os.File) error {
	who := "another process"
	if text, err := io.ReadAll(io.LimitReader(f, 100)); err == nil && strings.TrimSpace(string(text)) != "" {
		who = "process " + strings.TrimSpace(string(text))
	}
	return hint.With(fmt.Errorf("%w: %s has locked %s", dbrepl.ErrBusy, who, f.Name()),
		"another configuration, with a state directory of its own, has the same data directory; let only one of them have it, or wait until the other's run is over")
}

// sign tells who has the lock.
func sign(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(fmt.Sprintln(os.Getpid())), 0)
	return err
}

// inPlace says whether f is what others would lock.
func (r *Replica) inPlace(f *os.File) bool {
	mine, err := f.Stat()
	there, terr := os.Lstat(r.claimFile())
	return err == nil && terr == nil && os.SameFile(mine, there)
}

// claimed says whether this engine has taken the lock.
func (r *Replica) claimed() bool {
	r.held.mu.Lock()
	defer r.held.mu.Unlock()
	return r.held.file != nil
}

// release gives the lock back.
func (r *Replica) release() {
	r.held.mu.Lock()
	defer r.held.mu.Unlock()
	if r.held.file != nil {
		r.held.file.Close()
		r.held.file = nil
	}
}
