package filestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/hint"
)

// Put implements Store: a temporary file in the temp directory of the same file
// system, checked while it is written, gets its name by one rename.
func (d *Dir) Put(ctx context.Context, ref blob.Ref, r io.Reader) error {
	if err := d.beginWrite(ctx, ref.Sum); err != nil {
		return err
	}
	if ref.Size < 0 {
		return fmt.Errorf("store %s: a length of %d is impossible", ref.Sum, ref.Size)
	}
	err := d.put(ctx, ref, r)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("store %s (%d bytes) in %s: %w", ref.Sum, ref.Size, d.path, err)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		advice := "make room on the file system of " + d.path + " and run again; what arrived is kept"
		if free, ferr := d.Free(); ferr == nil {
			err = fmt.Errorf("%w (%d bytes are free)", err, free)
		}
		err = hint.With(err, advice)
	}
	return err
}

func (d *Dir) put(ctx context.Context, ref blob.Ref, r io.Reader) (err error) {
	temp, err := d.openTemp()
	if err != nil {
		return err
	}
	name := tempPrefix + rand.Text() + tempSuffix
	fd, err := unix.Openat(temp, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("create a temporary file: %w", err)
	}
	defer func() {
		if err != nil {
			if uerr := unix.Unlinkat(temp, name, 0); uerr != nil {
				err = errors.Join(err, fmt.Errorf("remove the temporary file: %w", uerr))
			}
		}
	}()
	err = receive(ctx, fd, ref, r)
	if err == nil {
		err = d.own.give(fd, d.own.fileMode)
	}
	if cerr := unix.Close(fd); err == nil && cerr != nil {
		err = fmt.Errorf("write: %w", cerr)
	}
	if err != nil {
		return err
	}
	return d.publish(temp, name, ref.Sum)
}

// publish gives the temporary file its final name. The application removes
// empty directories when it prunes, so the directory may go away just now.
func (d *Dir) publish(temp int, name string, sum blob.Sum) error {
	for try := 0; ; try++ {
		dir, err := d.makePrefix(d.root, sum)
		if err != nil {
			return err
		}
		err = unix.Renameat(temp, name, dir, string(sum))
		if cerr := unix.Close(dir); err == nil {
			err = cerr
		}
		if err == nil {
			return nil
		}
		if try == 2 || !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rename into place: %w", err)
		}
	}
}

// openTemp returns the descriptor of the temp directory, which it creates at first use.
func (d *Dir) openTemp() (int, error) {
	d.tempOnce.Lock()
	defer d.tempOnce.Unlock()
	if d.temp >= 0 {
		return d.temp, nil
	}
	fd, err := d.makeDir(d.root, d.tempDir)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", d.tempDir, err)
	}
	d.temp = fd
	return fd, nil
}

const copyBuffer = 128 << 10 // bytes

// receive writes r to fd and returns ErrCorrupt unless it is what ref says. It
// reads at most one byte more than announced.
func receive(ctx context.Context, fd int, ref blob.Ref, r io.Reader) error {
	return verified(ctx, ref, r, func(p []byte) error {
		for len(p) > 0 {
			n, err := unix.Write(fd, p)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return fmt.Errorf("write: %w", err)
			}
			p = p[n:]
		}
		return nil
	})
}

// verified reads r to its end, passes what it reads to write (which may be
// nil), and returns an error that wraps ErrCorrupt unless length and hash are
// those of ref. It stops one byte after the length.
func verified(ctx context.Context, ref blob.Ref, r io.Reader, write func([]byte) error) error {
	buffer := make([]byte, min(ref.Size+1, copyBuffer))
	var h hash.Hash = ref.Sum.NewHash()
	var total int64
	for idle := 0; ; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := r.Read(buffer[:min(int64(len(buffer)), ref.Size-total+1)])
		if total += int64(n); total > ref.Size {
			return fmt.Errorf("%w: longer than %d bytes", ErrCorrupt, ref.Size)
		}
		if n > 0 {
			idle = 0
			h.Write(buffer[:n])
			if write != nil {
				if err := write(buffer[:n]); err != nil {
					return err
				}
			}
		}
		switch {
		case err == io.EOF:
			return matches(ref, total, h)
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		case n == 0:
			if idle++; idle == 100 {
				return fmt.Errorf("receive: %w", io.ErrNoProgress)
			}
		}
	}
}

func matches(ref blob.Ref, total int64, h hash.Hash) error {
	if total != ref.Size {
		return fmt.Errorf("%w: %d bytes instead of %d", ErrCorrupt, total, ref.Size)
	}
	if got := blob.Of(h.Sum(nil)); got != ref.Sum {
		return fmt.Errorf("%w: its hash is %s", ErrCorrupt, got)
	}
	return nil
}
