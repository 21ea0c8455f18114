package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/blob"
)

// Local is a Store on this host's own file systems with everything that one can do.
type Local interface {
	Store
	Quarantiner
	// Free returns how many bytes the application's user could still write
	// where Put writes.
	Free() (int64, error)
	// Paths returns the paths at which a blob may lie, the one where Put writes
	// first. It does not look.
	Paths(sum blob.Sum) []string
	Close() error
}

// Dir is a directory of blobs on this host, laid out as the application's
// file-system provider does: ab/abcdef…. Every name it touches is one component
// below a directory that it holds open, and no symbolic link is followed below
// the directory itself.
type Dir struct {
	path     string
	root     int // descriptor; -1 for a read-only store whose directory does not exist, or after Close
	tempDir  string
	tempOnce sync.Mutex
	temp     int // descriptor of the temp directory, -1 until the first Put
	readOnly bool
	own      ownership
}

var _ Local = (*Dir)(nil)

// ownership is what new files and directories get.
type ownership struct {
	chown             bool
	uid, gid          int
	fileMode, dirMode uint32
}

// Owner is a user and a group.
type Owner struct{ UID, GID int }

// DirOptions says how a Dir is opened. The zero value is right for a store
// that is written to.
type DirOptions struct {
	// TempDir is the name of the directory below the store for files that are
	// not complete; "" is the application's own, _pre. The application removes
	// what it finds there when it starts.
	TempDir string
	// ReadOnly creates and removes nothing; a store that does not exist is empty.
	ReadOnly bool
	// Owner of new files and directories; nil is the owner of the store's
	// directory, so that the application's user can read and delete what root
	// wrote. Only root can give files away; others keep their own.
	Owner *Owner
	// FileMode and DirMode are permission bits of what is created; 0 derives
	// them from the store's directory.
	FileMode, DirMode fs.FileMode
}

// ErrReadOnly is returned by everything that would change a store that was opened to read.
var ErrReadOnly = errors.New("the store was opened read-only")

const (
	ownDir        = "_drsync"    // below the store: what the application never looks at
	quarantineDir = "quarantine" // below ownDir
	tempPrefix    = "drsync-"
	tempSuffix    = ".bin"

	dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
)

// OpenDir opens the store at path for writing. The caller holds the host-wide
// lock: temporary files of an earlier run are removed.
func OpenDir(path string) (*Dir, error) { return DirOptions{}.Open(path) }

// Open opens the store at path. Unless it is read-only, missing directories are
// created like their nearest existing parent, and leftovers of earlier runs
// removed; the caller must hold the host-wide lock.
func (o DirOptions) Open(path string) (*Dir, error) {
	d := &Dir{path: path, root: -1, temp: -1, tempDir: o.TempDir, readOnly: o.ReadOnly}
	if d.tempDir == "" {
		d.tempDir = defaultTempDir
	}
	if strings.ContainsAny(d.tempDir, "/\x00") || d.tempDir == "." || d.tempDir == ".." || isPrefixName(d.tempDir) {
		return nil, fmt.Errorf("internal error: %q cannot be a temporary directory", d.tempDir)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if o.ReadOnly {
			return d, nil
		}
		if err = makeLikeParent(path); err == nil {
			fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	d.root = fd
	if err := d.setUp(o); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), d.Close())
	}
	return d, nil
}

func (d *Dir) setUp(o DirOptions) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.root, &st); err != nil {
		return err
	}
	d.own = ownership{uid: int(st.Uid), gid: int(st.Gid), dirMode: st.Mode & 0o7777, fileMode: st.Mode&0o666 | 0o600}
	if o.Owner != nil {
		d.own.uid, d.own.gid = o.Owner.UID, o.Owner.GID
	}
	if o.FileMode != 0 {
		d.own.fileMode = uint32(o.FileMode.Perm())
	}
	if o.DirMode != 0 {
		d.own.dirMode = uint32(o.DirMode.Perm())
	}
	d.own.chown = os.Geteuid() == 0 && (d.own.uid != 0 || d.own.gid != os.Getegid())
	if d.readOnly {
		return nil
	}
	return d.removeLeftovers()
}

// removeLeftovers removes the temporary files of a run that was killed. The
// application's own are left to the application.
func (d *Dir) removeLeftovers() error {
	fd, err := unix.Openat(d.root, d.tempDir, dirFlags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", d.tempDir, err)
	}
	defer unix.Close(fd)
	names, err := readNames(fd)
	if err != nil {
		return fmt.Errorf("list %s: %w", d.tempDir, err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, tempPrefix) || !strings.HasSuffix(name, tempSuffix) {
			continue
		}
		if err := unix.Unlinkat(fd, name, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s/%s: %w", d.tempDir, name, err)
		}
	}
	return nil
}

// Close releases the directory. No other method may run at the same time or later.
func (d *Dir) Close() error {
	var err error
	for _, fd := range []*int{&d.temp, &d.root} {
		if *fd >= 0 {
			err = errors.Join(err, unix.Close(*fd))
			*fd = -1
		}
	}
	return err
}

// Path returns the directory of the store, as given to OpenDir.
func (d *Dir) Path() string { return d.path }

// Paths implements Local.
func (d *Dir) Paths(sum blob.Sum) []string {
	if !sum.Valid() {
		return nil
	}
	return []string{d.path + "/" + Fanned(sum)}
}

// Free implements Local.
func (d *Dir) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(d.root, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", d.path, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// Stat implements Store. Something of that name that is no regular file is no blob.
func (d *Dir) Stat(ctx context.Context, sum blob.Sum) (int64, error) {
	if err := d.begin(ctx, sum); err != nil {
		return 0, err
	}
	dir, err := d.openPrefix(d.root, sum)
	if err != nil {
		return 0, d.wrap("look up", sum, err)
	}
	defer unix.Close(dir)
	st, err := statBlob(dir, string(sum))
	if err != nil {
		return 0, d.wrap("look up", sum, err)
	}
	return st.Size, nil
}

// Open implements Store.
func (d *Dir) Open(ctx context.Context, sum blob.Sum) (io.ReadCloser, error) {
	if err := d.begin(ctx, sum); err != nil {
		return nil, err
	}
	f, err := d.openIn(d.root, sum)
	if err != nil {
		return nil, d.wrap("open", sum, err)
	}
	return f, nil
}

// Delete implements Store. An absent blob is ErrNotFound.
func (d *Dir) Delete(ctx context.Context, sum blob.Sum) error {
	if err := d.beginWrite(ctx, sum); err != nil {
		return err
	}
	return d.wrap("delete", sum, d.deleteIn(d.root, sum))
}

// Sync implements Store, at a cost that does not depend on the number of blobs.
func (d *Dir) Sync(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if d.root < 0 {
		return nil
	}
	if err := unix.Syncfs(d.root); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", d.path, err)
	}
	return nil
}

// List implements Store.
func (d *Dir) List(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if d.root < 0 {
			return
		}
		if err := d.listIn(ctx, d.root, func(i Info) bool { return yield(i, nil) }); err != nil {
			yield(Info{}, fmt.Errorf("list %s: %w", d.path, err))
		}
	}
}

// listedAhead is how many of the 256 directories are read at once: to ask after
// each file keeps one processor busy with little else.
const listedAhead = 4

// listIn calls yield for each blob below root until it returns false.
func (d *Dir) listIn(ctx context.Context, root int, yield func(Info) bool) error {
	ctx, stop := context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait() // root is the caller's, who may close it
	defer stop()
	type page struct {
		blobs []Info
		err   error
	}
	var pages [listedAhead]chan page
	begin := func(i int) {
		if i > 255 {
			return
		}
		p := make(chan page, 1)
		pages[i%listedAhead] = p
		reading.Go(func() {
			blobs, err := listPrefix(ctx, root, prefixName(i))
			p <- page{blobs, err}
		})
	}
	for i := range listedAhead {
		begin(i)
	}
	for i := range 256 {
		p := <-pages[i%listedAhead]
		if p.err != nil {
			return fmt.Errorf("%s: %w", prefixName(i), p.err)
		}
		begin(i + listedAhead)
		for _, b := range p.blobs {
			if !yield(b) {
				return nil
			}
		}
	}
	return nil
}

func prefixName(i int) string {
	const hex = "0123456789abcdef"
	return string([]byte{hex[i>>4], hex[i&15]})
}

// listPrefix lists the blobs of one directory, ascending.
func listPrefix(ctx context.Context, root int, prefix string) ([]Info, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	dir, err := unix.Openat(root, prefix, dirFlags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, notADirectory(err)
	}
	defer unix.Close(dir)
	names, err := readNames(dir)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return !strings.HasPrefix(name, prefix) || !blob.Sum(name).Valid()
	})
	slices.Sort(names)
	blobs := make([]Info, 0, len(names))
	for i, name := range names {
		if i%1024 == 1023 {
			if err := context.Cause(ctx); err != nil {
				return nil, err
			}
		}
		st, err := statBlob(dir, name)
		if errors.Is(err, ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		blobs = append(blobs, Info{Ref: blob.Ref{Sum: blob.Sum(name), Size: st.Size}, ModTime: st.Mtim.Sec})
	}
	return blobs, nil
}
