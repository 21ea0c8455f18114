package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// stateDir is drsync's own directory at the root of a tree: never listed,
// never transferred, never deleted.
const stateDir = ".drsync"

// maxMergeFile bounds a per-directory filter file, in bytes.
const maxMergeFile = 16 << 20

type local struct {
	path     string
	root     int
	view     View
	confined bool  // links lead no further than the root and allowed
	allowed  []int // directories
	long     int   // in tests, in place of longDir
	owners   ownerNames
	close    sync.Once
}

var _ Source = (*local)(nil)

// Local returns the directory path of this host as a Source. path itself may
// be or pass through a symbolic link; below it none is followed. It must be
// closed, and not before every iterator has ended.
func Local(path string) (Source, error) { return LocalView(path, View{}) }

// LocalView is Local with links followed as v says, wherever they lead.
func LocalView(path string, v View) (Source, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the directory %s: %w", path, err)
	}
	return &local{path: path, root: fd, view: v}, nil
}

// LocalWithin is LocalView with links that lead no further than path itself and
// the directories allowed; one that does is a *PathError.
func LocalWithin(path string, v View, allowed []string) (Source, error) {
	src, err := LocalView(path, v)
	if err != nil {
		return nil, err
	}
	l := src.(*local)
	l.confined = true
	if err := l.within(allowed); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *local) Abilities() Abilities {
	return Abilities{Nanoseconds: true, OwnerNames: true, HardLinks: true, Devices: true, Sums: true, Views: true, Xattrs: true, Holes: true}
}

func (l *local) Close() (err error) {
	l.close.Do(func() {
		err = unix.Close(l.root)
		for _, fd := range l.allowed {
			unix.Close(fd)
		}
	})
	return err
}

func (l *local) Lstat(ctx context.Context, path string) (Entry, error) {
	if ctx.Err() != nil {
		return Entry{}, context.Cause(ctx)
	}
	e, err := l.lstat(path)
	if err != nil {
		return Entry{}, &PathError{Path: path, Err: err}
	}
	return e, nil
}

func (l *local) lstat(path string) (Entry, error) {
	if err := CheckPath(path); err != nil {
		return Entry{}, err
	}
	if path == "" {
		st, err := statFd(l.root)
		st.User, st.Group = l.owners.of(st.UID, st.GID)
		return st.Entry, err
	}
	if l.view != (View{}) {
		fd, st, err := l.reach(path)
		if err == nil {
			unix.Close(fd)
		}
		return st.Entry, err
	}
	d := descent{root: l.root}
	defer d.close()
	dir, name, err := d.parent(path)
	if err != nil {
		return Entry{}, gone(err)
	}
	return l.entry(dir, name, make([]byte, 4096))
}

// entry describes one name. buf takes the target of a symbolic link.
func (l *local) entry(dir int, name string, buf []byte) (Entry, error) {
	for try := 0; ; try++ {
		st, err := statAt(dir, name)
		if err != nil {
			return Entry{}, err
		}
		st.User, st.Group = l.owners.of(st.UID, st.GID)
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			return st.Entry, nil
		}
		st.Target, err = readLinkAt(dir, name, buf)
		if errors.Is(err, unix.EINVAL) && try < 3 {
			continue // it became something else in between
		}
		return st.Entry, err
	}
}

func isDir(e *Entry) bool { return e.Mode&unix.S_IFMT == unix.S_IFDIR }

func isRegular(e *Entry) bool { return e.Mode&unix.S_IFMT == unix.S_IFREG }

func isSymlink(e *Entry) bool { return e.Mode&unix.S_IFMT == unix.S_IFLNK }
