package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"sync"

	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

// stateDir is drsync's own directory at the root of a tree: never listed,
// never transferred, never deleted.
const stateDir = ".drsync"

// maxMergeFile bounds a per-directory filter file, in bytes.
const maxMergeFile = 16 << 20

type local struct {
	path   string
	root   int
	owners ownerNames
	close  sync.Once
}

var _ Source = (*local)(nil)

// Local returns the directory path of this host as a Source. path itself may
// be or pass through a symbolic link; below it none is followed. It must be
// closed, and not before every iterator has ended.
func Local(path string) (Source, error) { return LocalView(path, View{}) }

// LocalView is Local with links followed as v says.
func LocalView(path string, v View) (Source, error) {
	if v != (View{}) {
		return nil, fmt.Errorf("open the directory %s: following links: %w", path, errors.ErrUnsupported)
	}
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the directory %s: %w", path, err)
	}
	return &local{path: path, root: fd}, nil
}

func (l *local) Abilities() Abilities {
	return Abilities{Nanoseconds: true, OwnerNames: true, HardLinks: true, Devices: true, Sums: true}
}

func (l *local) Close() (err error) {
	l.close.Do(func() { err = unix.Close(l.root) })
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

func (l *local) Walk(ctx context.Context, o WalkOptions) iter.Seq2[Dir, error] {
	return func(yield func(Dir, error) bool) {
		w := &localWalk{local: l, ctx: ctx, o: o, yield: yield, names: make([]byte, 64<<10), link: make([]byte, 4096)}
		if w.o.MaxEntries <= 0 {
			w.o.MaxEntries = DefaultMaxEntries
		}
		if err := w.root(); err != nil && !errors.Is(err, errStopped) {
			yield(Dir{}, err)
		}
	}
}

// errStopped unwinds a walk whose consumer wants no more.
var errStopped = errors.New("stopped")

type localWalk struct {
	*local
	ctx    context.Context
	o      WalkOptions
	yield  func(Dir, error) bool
	names  []byte // scratch
	link   []byte // scratch
	listed int64
	device uint64 // of the root
}

func (w *localWalk) root() error {
	self, err := w.lstat("")
	if err != nil {
		return fmt.Errorf("stat %s: %w", w.path, err)
	}
	w.device = self.Dev
	fd, err := openDir(w.local.root, ".")
	if err != nil {
		return fmt.Errorf("open %s: %w", w.path, err)
	}
	defer unix.Close(fd)
	return w.dir(fd, "", self, w.o.Filter.Root())
}

// dir lists the directory open at fd, yields it and goes on below. A directory
// that cannot be read is reported and not yielded.
func (w *localWalk) dir(fd int, path string, self Entry, scope *filter.Scope) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	scope, err := scope.Enter(path, func(name string) ([]byte, error) { return readRegularAt(fd, name, maxMergeFile) })
	if err != nil {
		return err
	}
	names, err := readNames(fd, w.names)
	if err != nil {
		return w.unreadable(path, err)
	}
	w.listed += int64(len(names))
	if w.listed > w.o.MaxEntries {
		return fmt.Errorf("%w: %d names and more", ErrTooMany, w.o.MaxEntries)
	}
	d := Dir{Path: path, Self: self, Entries: make([]Entry, 0, len(names))}
	size := 0
	for i, name := range names {
		if i%1024 == 1023 && w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if path == "" && name == stateDir {
			continue
		}
		var e Entry
		err := error(unix.ENAMETOOLONG)
		if len(path)+1+len(name) <= maxPath {
			e, err = w.entry(fd, name, w.link)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since the names were read
		}
		if err != nil {
			if err := w.unreadable(joinPath(path, name), err); err != nil {
				return err
			}
			continue
		}
		if scope != nil {
			if hidden, _ := scope.Excluded(joinPath(path, name), isDir(&e), filter.Sender); hidden {
				continue
			}
		}
		if size += len(e.Name) + len(e.Target) + len(e.User) + len(e.Group); size > MaxDirBytes {
			return w.unreadable(path, fmt.Errorf("more than %d bytes of names in one directory", MaxDirBytes))
		}
		d.Entries = append(d.Entries, e)
	}
	if !w.yield(d, nil) {
		return errStopped
	}
	for i := range d.Entries {
		if isDir(&d.Entries[i]) {
			if err := w.child(fd, path, &d.Entries[i], scope); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *localWalk) child(parent int, dir string, e *Entry, scope *filter.Scope) error {
	path := joinPath(dir, e.Name)
	if w.o.OneFileSystem && e.Dev != w.device {
		return nil
	}
	fd, err := openDir(parent, e.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil // removed or replaced since it was listed
	case err != nil:
		return w.unreadable(path, err)
	}
	defer unix.Close(fd)
	self, err := statFd(fd)
	if err != nil {
		return w.unreadable(path, err)
	}
	if w.o.OneFileSystem && self.Dev != w.device {
		return nil
	}
	self.Name = e.Name
	self.User, self.Group = w.owners.of(self.UID, self.GID)
	return w.dir(fd, path, self.Entry, scope)
}

func (w *localWalk) unreadable(path string, err error) error {
	if !w.yield(Dir{}, &PathError{Path: path, Err: err}) {
		return errStopped
	}
	return nil
}

func isDir(e *Entry) bool { return e.Mode&unix.S_IFMT == unix.S_IFDIR }

func isRegular(e *Entry) bool { return e.Mode&unix.S_IFMT == unix.S_IFREG }

func isSymlink(e *Entry) bool { return e.Mode&unix.S_IFMT == unix.S_IFLNK }
