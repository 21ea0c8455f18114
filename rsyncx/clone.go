package rsyncx

import (
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
func (c *contentWriter) clone(to, from *os.File) bool {
	if c.cannotClone {
		return false
	}
	share := unix.IoctlFileClone
	if c.root.share != nil {
		share = c.root.share
	}
	err := c.root.do("clone", func() error { return share(int(to.Fd()), int(from.Fd())) })
	c.cannotClone = err != nil
	return err == nil
}
