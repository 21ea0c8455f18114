package rsyncx

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"

	"golang.org/x/sys/unix"
)

// Read opens each file without following a link and without waiting for a
// named pipe's other end, then looks whether it is a regular file.
func (l *local) Read(ctx context.Context, want iter.Seq[Want]) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		d := &descent{root: l.root}
		defer d.close()
		var soon upcoming
		defer soon.close()
		for w := range want {
			if ctx.Err() != nil {
				yield(File{}, context.Cause(ctx))
				return
			}
			if w.Soon != "" {
				soon.add(l, d, w.Soon)
			}
			if !l.readOne(ctx, d, &soon, &w, yield) {
				return
			}
		}
		if ctx.Err() != nil {
			yield(File{}, context.Cause(ctx))
		}
	}
}

func (l *local) readOne(ctx context.Context, d *descent, soon *upcoming, w *Want, yield func(File, error) bool) bool {
	st, fd, ok := soon.take(w.Path)
	err := error(nil)
	if !ok {
		st, fd, err = l.open(d, w.Path)
	}
	if err != nil {
		return yield(File{Path: w.Path, Err: &PathError{Path: w.Path, Err: err}}, nil)
	}
	defer unix.Close(fd)
	body := &localBody{ctx: ctx, fd: fd, left: st.Size, before: st, more: w.Ranges}
	if w.Ranges != nil {
		body.left = 0
	}
	defer func() { body.done = true }()
	return yield(File{Path: w.Path, Entry: st.Entry, Body: body}, nil)
}

func (l *local) open(d *descent, path string) (info, int, error) {
	if err := CheckPath(path); err != nil {
		return info{}, -1, err
	}
	if l.view != (View{}) {
		return l.openThrough(path)
	}
	dir, name, err := d.parent(path)
	if err != nil {
		return info{}, -1, gone(err)
	}
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		err = ErrNotRegular // a symbolic link, a socket
	}
	if err != nil {
		return info{}, -1, err
	}
	st, err := statFd(fd)
	if err == nil && !isRegular(&st.Entry) {
		err = ErrNotRegular
	}
	if err != nil {
		unix.Close(fd)
		return info{}, -1, err
	}
	st.Name = name
	st.User, st.Group = l.owners.of(st.UID, st.GID)
	return st, fd, nil
}

// upcoming are files that were opened before it is their turn, so that the disk
// reads several at once. One that cannot be opened is tried again in its turn.
type upcoming []upcomingFile

type upcomingFile struct {
	path string
	st   info
	fd   int
}

const (
	// upcomingMost is how many there are: as many as a disk likes to have in its queue.
	upcomingMost = 16
	// upcomingBytes is how much of each is read ahead; the kernel does the rest when it is its turn.
	upcomingBytes = 128 << 10
)

func (u *upcoming) add(l *local, d *descent, path string) {
	if len(*u) == upcomingMost {
		return
	}
	st, fd, err := l.open(d, path)
	if err != nil {
		return
	}
	if st.Size > 0 {
		_ = unix.Fadvise(fd, 0, min(st.Size, upcomingBytes), unix.FADV_WILLNEED)
	}
	*u = append(*u, upcomingFile{path, st, fd})
}

// take gives away the file at path if it is there, with those that came before it closed: they were never asked for.
func (u *upcoming) take(path string) (info, int, bool) {
	i := slices.IndexFunc(*u, func(f upcomingFile) bool { return f.path == path })
	if i < 0 {
		return info{}, -1, false
	}
	f := (*u)[i]
	for _, stray := range (*u)[:i] {
		unix.Close(stray.fd)
	}
	*u = slices.Delete(*u, 0, i+1)
	return f.st, f.fd, true
}

func (u *upcoming) close() {
	for _, f := range *u {
		unix.Close(f.fd)
	}
}

// localBody gives the file's length as of opening, or the ranges that were asked
// for, then looks whether the file stayed the same meanwhile.
type localBody struct {
	ctx    context.Context
	fd     int
	left   int64
	more   []Range // after left
	before info
	done   bool
	err    error

	data    int64 // bytes up to the next hole; 0 is unknown
	noHoles bool  // the file system does not tell
}

func (b *localBody) Read(p []byte) (int, error) {
	switch {
	case b.done:
		return 0, unix.EBADF
	case b.err != nil:
		return 0, b.err
	case b.ctx.Err() != nil:
		return 0, context.Cause(b.ctx)
	}
	if b.left == 0 {
		if b.err = b.advance(); b.err != nil {
			return 0, b.err
		}
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	if b.data > 0 && int64(len(p)) > b.data {
		p = p[:b.data]
	}
	n, err := fdReader(b.fd).Read(p)
	b.left -= int64(n)
	b.data = max(0, b.data-int64(n))
	if errors.Is(err, io.EOF) {
		err = ErrTorn // it shrank
	}
	b.err = err
	return n, err
}

// advance goes to the next range.
func (b *localBody) advance() error {
	if len(b.more) == 0 {
		return b.end()
	}
	r := b.more[0]
	if r.Off < 0 || r.Len <= 0 {
		return unix.EINVAL
	}
	if r.Len > b.before.Size-r.Off {
		return ErrTorn
	}
	if _, err := unix.Seek(b.fd, r.Off, io.SeekStart); err != nil {
		return err
	}
	b.left, b.more, b.data = r.Len, b.more[1:], 0
	return nil
}

func (b *localBody) end() error {
	now, err := statFd(b.fd)
	switch {
	case err != nil:
		return err
	case now.Size != b.before.Size, now.Mtime != b.before.Mtime, now.ctime != b.before.ctime:
		return ErrTorn
	}
	return io.EOF
}
