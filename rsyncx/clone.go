package rsyncx

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// createNext makes the staged file for path, which is in the new tree t if that
// is one, in the lane of those that no goroutine writes.
func (c *contentWriter) createNext(t tree, path string) (place, *os.File, error) {
	l := &c.lanes[0]
	at := l.place(t)
	f, err := l.create(at, path, 0o600)
	return at, f, err
}

// remove removes a file that createNext made.
func (c *contentWriter) remove(at place, path string) error { return c.lanes[0].remove(at, path) }

// statStaged describes what lies at a place.
func (c *contentWriter) statStaged(at place, path string) (info, error) {
	dir, name, err := c.lanes[0].open(at, path)
	if err != nil {
		return info{}, err
	}
	return statAt(dir, name)
}

// scratch returns the buffer of the goroutine that stages.
func (c *contentWriter) scratch() []byte {
	if c.buf == nil {
		c.buf = make([]byte, copyBuffer)
	}
	return c.buf
}

// clone makes to share the blocks of from, and reports whether the file system can.
// After a refusal that is about these two files the next ones are asked about again.
func (c *contentWriter) clone(to, from *os.File) bool {
	if c.cannotClone {
		return false
	}
	err := c.root.clone(int(to.Fd()), int(from.Fd()))
	c.cannotClone = errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOSYS)
	return err == nil
}

// clone makes the new file to share the blocks of from. After an error it is empty:
// a file system that runs full may have given it some of them.
func (r *Root) clone(to, from int) error {
	share := unix.IoctlFileClone
	if r.share != nil {
		share = r.share
	}
	err := r.do("clone", func() error { return share(to, from) })
	if err != nil {
		err = errors.Join(err, setLength(to, 0))
	}
	return err
}
