package wire

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
)

// confine opens root if it is, by its name and also by where links lead, one of
// the allowed directories or beneath one.
func confine(allowed []string, root string, open func(string) (rsyncx.Source, error)) (rsyncx.Source, error) {
	root, err := filepath.Abs(root) // what is relative begins where the agent was started: at the login's home
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	refused := func(why string) error {
		return hint.With(fmt.Errorf("%w: %s %s", ErrRefused, root, why),
			fmt.Sprintf("start the agent with --root %s, or with a directory above it; with a forced command that is in the active's authorized_keys", root))
	}
	var lexical []string
	for _, a := range allowed {
		if a, err = filepath.Abs(a); err == nil && beneath(a, root) {
			lexical = append(lexical, a)
		}
	}
	if len(lexical) == 0 {
		if len(allowed) == 0 {
			return nil, refused("is not allowed: no directory is")
		}
		return nil, refused("is not beneath " + strings.Join(allowed, " or "))
	}
	real, err := filepath.EvalSymlinks(root)
	if number := syscall.Errno(0); err != nil && !errors.As(err, &number) {
		err = unix.ELOOP // the one error that it has words of its own for
	}
	if err != nil {
		if _, why := os.Stat(root); why != nil { // which tells of a loop of links what it is
			err = why
		}
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	for _, a := range lexical {
		top, err := filepath.EvalSymlinks(a)
		if err == nil && beneath(top, real) {
			return openResolved(real, open)
		}
	}
	return nil, refused("leads to " + real + ", which is not beneath the allowed directory")
}

// beneath reports whether path is dir or lies in it. Both are clean.
func beneath(dir, path string) bool {
	return path == dir || dir == "/" && filepath.IsAbs(path) || strings.HasPrefix(path, dir+"/")
}

// openResolved opens a path in which no link was left, and refuses if there is
// one by now: someone who may write in the allowed directory may swap a part of
// the path for a link after it was looked at.
func openResolved(path string, open func(string) (rsyncx.Source, error)) (rsyncx.Source, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return open(path) // a kernel before 5.6, or a sandbox that hides the call
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	src, err := open(fmt.Sprintf("/proc/self/fd/%d/.", fd))
	if number := syscall.Errno(0); errors.As(err, &number) { // by the name that was asked for
		return nil, &os.PathError{Op: "open", Path: path, Err: number}
	}
	return src, err
}
