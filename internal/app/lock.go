package app

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// LockHeld reports whether a process on this host holds a lock on the file at
// path, as a running Artifactory does on its LockFile. It takes no lock itself.
// A file that is not there, or that a dead process left, is not held.
func LockHeld(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("probe lock: %w", err)
	}
	defer f.Close()
	// Java's FileLock is a POSIX record lock. Asking as an open file description
	// also finds one that this process itself holds.
	probe := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &probe); err != nil {
		return false, fmt.Errorf("probe lock %s: %w", path, err)
	}
	return probe.Type != unix.F_UNLCK, nil
}
