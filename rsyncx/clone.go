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

// clone makes to share the blocks of from, and reports whether the file system can.
func (c *contentWriter) clone(to, from *os.File) bool {
	if c.cannotClone {
		return false
	}
	err := c.root.do("clone", func() error { return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) })
	c.cannotClone = err != nil
	return err == nil
}
