package rsyncx

import (
	"os"

	"golang.org/x/sys/unix"
)

// createNext makes the next staged file that is not written by a goroutine.
func (c *contentWriter) createNext() (uint64, *os.File, error) {
	l := &c.lanes[0]
	number := l.number()
	f, err := l.create(number)
	return number, f, err
}

// remove removes a file that createNext made last.
func (c *contentWriter) remove(number uint64) error {
	return c.root.unlink(c.lanes[0].dir, contentName(number))
}

// clone makes to share the blocks of from, and reports whether the file system can.
func (c *contentWriter) clone(to, from *os.File) bool {
	if c.cannotClone {
		return false
	}
	err := c.root.do("clone", func() error { return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) })
	c.cannotClone = err != nil
	return err == nil
}

// writeAt writes p at off of a staged file.
func (c *contentWriter) writeAt(f *os.File, p []byte, off int64, cloned bool) error {
	return c.root.do("write", func() error {
		_, err := f.WriteAt(p, off)
		return err
	})
}
