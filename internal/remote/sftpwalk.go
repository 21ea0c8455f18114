package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

const (
	// dirsAhead is how many directories are listed at once: each costs four
	// round trips, one after the other.
	dirsAhead = 24
	// linksAhead is how many targets of links are asked for at once in one directory.
	linksAhead = 16
	// maxListing bounds what may arrive while one directory is listed, in bytes.
	maxListing = 256 << 20
	// maxMergeFile bounds a per-directory filter file, in bytes.
	maxMergeFile = 16 << 20
	// stateDir is drsync's own directory at the root of a tree.
	stateDir = ".drsync"
)

// Walk lists several directories ahead of the one that is yielded.
func (s *sftpSource) Walk(ctx context.Context, o rsyncx.WalkOptions) iter.Seq2[rsyncx.Dir, error] {
	return func(yield func(rsyncx.Dir, error) bool) {
		if o.MaxEntries <= 0 {
			o.MaxEntries = rsyncx.DefaultMaxEntries
		}
		inner, cancel := context.WithCancel(ctx)
		w := &sftpWalk{sftpSource: s, o: o}
		err := w.run(inner, yield)
		cancel()
		w.fetchers.Wait()
		if err != nil && !errors.Is(err, errStopped) {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			yield(rsyncx.Dir{}, err)
		}
	}
}

// errStopped unwinds an iterator whose consumer wants no more.
var errStopped = errors.New("stopped by its reader")

type sftpWalk struct {
	*sftpSource
	o        rsyncx.WalkOptions
	device   uint64   // of the root, if OneFileSystem
	stack    []*below // directories to come, the next one last
	ahead    int      // of those, how many are being listed
	listed   int64
	fetchers sync.WaitGroup
}

// below is a directory that will be yielded.
type below struct {
	path  string
	self  rsyncx.Entry
	scope *filter.Scope // of the parent; of itself once fetched
	only  rsyncx.Selection

	ready   chan struct{} // made when the listing begins, closed when it is there
	entries []rsyncx.Entry
	odd     []*rsyncx.PathError // entries that could not be described
	names   int64               // before filtering
	foreign bool                // on another file system
	err     error
}

func (w *sftpWalk) run(ctx context.Context, yield func(rsyncx.Dir, error) bool) error {
	self, err := w.lstat(ctx, "", nil)
	if err != nil {
		return fmt.Errorf("look at %s: %w", rsyncx.Printable(w.root), err)
	}
	if w.o.OneFileSystem {
		if w.device, err = w.fileSystem(ctx, ""); err != nil {
			return fmt.Errorf("which file system %s is on: %w", rsyncx.Printable(w.root), err)
		}
	}
	only, err := w.o.Select()
	if err != nil {
		return err
	}
	w.stack = []*below{{self: self, scope: w.o.Filter.Root().For(filter.Sender), only: only}}
	for len(w.stack) > 0 {
		w.prefetch(ctx)
		d := w.stack[len(w.stack)-1]
		w.stack = w.stack[:len(w.stack)-1]
		w.ahead--
		select {
		case <-d.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := w.deliver(ctx, d, yield); err != nil {
			return err
		}
	}
	return nil
}

// prefetch begins to list the next directories.
func (w *sftpWalk) prefetch(ctx context.Context) {
	top := len(w.stack) - 1
	for i := top; i >= 0 && top-i < dirsAhead; i-- {
		d := w.stack[i]
		if d.ready != nil || w.ahead >= 2*dirsAhead && i != top {
			continue
		}
		d.ready = make(chan struct{})
		w.ahead++
		w.fetchers.Go(func() {
			defer close(d.ready)
			d.err = w.fetch(ctx, d)
		})
	}
}

func (w *sftpWalk) deliver(ctx context.Context, d *below, yield func(rsyncx.Dir, error) bool) error {
	if final := w.final(ctx); final != nil {
		return final
	}
	switch {
	case d.foreign:
		return nil
	case errors.Is(d.err, rsyncx.ErrHostile), errors.Is(d.err, errFilter), d.err != nil && d.path == "":
		return fmt.Errorf("list %s: %w", rsyncx.Printable(w.at(d.path)), d.err)
	case d.err != nil:
		d.odd = append(d.odd, &rsyncx.PathError{Path: d.path, Err: d.err})
	}
	if w.listed += d.names; w.listed > w.o.MaxEntries {
		return fmt.Errorf("%w: more than %d names", rsyncx.ErrTooMany, w.o.MaxEntries)
	}
	for _, odd := range d.odd {
		if !yield(rsyncx.Dir{}, odd) {
			return errStopped
		}
	}
	if d.err != nil {
		return nil
	}
	if !yield(rsyncx.Dir{Path: d.path, Self: d.self, Entries: d.entries, Partial: !d.only.All()}, nil) {
		return errStopped
	}
	for _, e := range slices.Backward(d.entries) {
		if e.Mode&unix.S_IFMT == unix.S_IFDIR {
			if only, into := d.only.Enter(e.Name); into {
				w.stack = append(w.stack, &below{path: join(d.path, e.Name), self: e, scope: d.scope, only: only})
			}
		}
	}
	return nil
}

// fetch lists d: its entries, filtered, with the targets of links.
func (w *sftpWalk) fetch(ctx context.Context, d *below) error {
	if err := rsyncx.CheckPath(d.path); err != nil {
		return err
	}
	if w.o.OneFileSystem && d.path != "" {
		device, err := w.fileSystem(ctx, d.path)
		if err != nil {
			return err
		}
		if d.foreign = device != w.device; d.foreign {
			return nil
		}
	}
	if d.only.Rules() {
		var err error
		d.scope, err = d.scope.Enter(d.path, func(name string) ([]byte, error) { return readWhole(ctx, w.sftpSource, join(d.path, name)) })
		if err != nil {
			return fmt.Errorf("%w: %w", errFilter, err)
		}
	}
	all, err := w.list(ctx, d.path)
	if err != nil {
		return err
	}
	d.names = int64(len(all))
	for _, info := range all {
		if err := rsyncx.CheckName(info.Name()); err != nil {
			return err
		}
		path := join(d.path, info.Name())
		if path == stateDir {
			continue
		}
		st, err := statOf(info, nil)
		if err != nil {
			return err
		}
		e, err := entryOf(info.Name(), st)
		if err != nil {
			d.odd = append(d.odd, &rsyncx.PathError{Path: path, Err: err})
			continue
		}
		d.entries = append(d.entries, e)
	}
	slices.SortFunc(d.entries, func(a, b rsyncx.Entry) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(d.entries); i++ {
		if d.entries[i].Name == d.entries[i-1].Name {
			return fmt.Errorf("%w: the name %s twice", rsyncx.ErrHostile, rsyncx.Printable(d.entries[i].Name))
		}
	}
	var missing []*rsyncx.PathError
	d.entries, missing = chosen(d.only, d.path, d.entries)
	d.odd = append(d.odd, missing...)
	d.entries = slices.DeleteFunc(d.entries, func(e rsyncx.Entry) bool {
		isDir := e.Mode&unix.S_IFMT == unix.S_IFDIR
		if d.scope == nil || isDir && d.only.Leads(e.Name) {
			return false
		}
		hidden, _ := d.scope.Excluded(join(d.path, e.Name), isDir, filter.Sender)
		return hidden
	})
	if w.o.OneFileSystem && w.o.OmitMounts {
		if err := w.omitMounts(ctx, d); err != nil {
			return err
		}
	}
	return w.targets(ctx, d)
}

// omitMounts leaves out the directories that other file systems are mounted on.
func (w *sftpWalk) omitMounts(ctx context.Context, d *below) error {
	kept := d.entries[:0]
	for _, e := range d.entries {
		if e.Mode&unix.S_IFMT == unix.S_IFDIR {
			device, err := w.fileSystem(ctx, join(d.path, e.Name))
			if err != nil && w.final(ctx) != nil {
				return err
			}
			if err == nil && device != w.device {
				continue
			}
		}
		kept = append(kept, e)
	}
	d.entries = kept
	return nil
}

// errFilter says that a per-directory filter could not be used. Without it the
// listing would be wrong, so it ends the walk.
var errFilter = errors.New("read the filter rules of a directory")

// targets asks where the links of d lead.
func (w *sftpWalk) targets(ctx context.Context, d *below) error {
	var group errgroup.Group
	group.SetLimit(linksAhead)
	failed := make([]error, len(d.entries))
	for i := range d.entries {
		if e := &d.entries[i]; e.Mode&unix.S_IFMT == unix.S_IFLNK {
			group.Go(func() error {
				e.Target, failed[i] = w.readLink(ctx, join(d.path, e.Name))
				return nil
			})
		}
	}
	_ = group.Wait()
	kept := d.entries[:0]
	for i, e := range d.entries {
		switch {
		case failed[i] == nil:
			kept = append(kept, e)
		case errors.Is(failed[i], rsyncx.ErrHostile):
			return failed[i]
		case !errors.Is(failed[i], fs.ErrNotExist):
			d.odd = append(d.odd, &rsyncx.PathError{Path: join(d.path, e.Name), Err: failed[i]})
		}
	}
	d.entries = kept
	return nil
}

// list reads one directory. The library gathers whatever the server sends, so
// what arrives meanwhile is watched.
func (w *sftpWalk) list(ctx context.Context, path string) ([]fs.FileInfo, error) {
	before := w.link.arrived.Load()
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(50 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if w.link.arrived.Load()-before > maxListing {
					w.link.close(fmt.Errorf("%w: the listing of %s does not end", rsyncx.ErrHostile, rsyncx.Printable(w.at(path))))
					return
				}
			case <-quit:
				return
			}
		}
	}()
	defer func() { close(quit); <-ended }()
	return call(ctx, w.link, func() ([]fs.FileInfo, error) { return w.link.client.ReadDirContext(ctx, w.at(path)) })
}

// fileSystem returns the id of the file system that a directory is on.
func (w *sftpWalk) fileSystem(ctx context.Context, path string) (uint64, error) {
	if _, ok := w.link.client.HasExtension("statvfs@openssh.com"); !ok {
		return 0, fmt.Errorf("the sftp server cannot tell: %w", errors.ErrUnsupported)
	}
	vfs, err := call(ctx, w.link, func() (*sftp.StatVFS, error) { return w.link.client.StatVFS(w.at(path)) })
	if err != nil {
		return 0, err
	}
	return vfs.Fsid, nil
}

// readWhole returns the content of a per-directory filter file.
func readWhole(ctx context.Context, s rsyncx.Source, path string) ([]byte, error) {
	for f, err := range s.Read(ctx, rsyncx.Wants(slices.Values([]string{path}))) {
		switch {
		case err != nil:
			return nil, err
		case f.Err != nil:
			return nil, f.Err
		case f.Entry.Size > maxMergeFile:
			return nil, fmt.Errorf("%s: larger than %d bytes", rsyncx.Printable(path), maxMergeFile)
		}
		return io.ReadAll(f.Body)
	}
	return nil, errors.New("internal error: a read without an answer")
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
