package rsyncx

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	filesPerDir  = 1 << 12  // of the staging directory
	spaceEvery   = 64 << 20 // bytes written between two looks at the free space
	filesCounted = 4096     // bytes that a file takes beside its content, for the free space

	// Files are staged in lanes: in the first the stager makes the large ones as
	// they come and all that is no file, in the others goroutines write those that were read into memory.
	// Most of what a small file costs is its inode, and the kernel makes one at a
	// time in a directory; so each lane has directories of its own.
	lanes     = 3
	laneQueue = 64 // files that wait for a lane
)

// place is where something staged lies until Publish: in a new tree under its
// own name, or under a number.
type place struct {
	tree   tree
	number uint64 // without tree
}

// Staged files have numbers; those of lane i are i, lanes+i, 2*lanes+i and so on.
func contentDirNumber(number uint64) uint64 {
	return number/lanes/filesPerDir*lanes + number%lanes
}

func contentDirName(number uint64) string { return strconv.FormatUint(contentDirNumber(number), 16) }

func contentName(number uint64) string { return strconv.FormatUint(number, 16) }

// contentWriter puts fetched files into the staging directory. Its methods are
// for one goroutine.
type contentWriter struct {
	root    *Root
	reserve int64
	fresh   freshAttr
	sparse  bool  // zeros become holes
	unseen  int64 // bytes written since the free space was looked at
	buf     []byte
	other   []byte
	// cannotClone says that the file system has refused to share blocks.
	cannotClone bool

	lanes   [lanes]lane
	turn    int    // the lane of the last small file
	dir     string // of the last small file in a new tree
	from    descent
	buffers contentBuffers
	failed  chan error // holds the first error of a lane
}

// lane makes staged files, one at a time.
type lane struct {
	root   *Root
	fresh  freshAttr
	sparse bool
	at     descent
	// fd is that of the directory used last: of dir in tree, or of numbers.
	fd    int
	tree  tree
	dir   string
	dirNo uint64

	next  uint64            // number
	queue chan smallContent // nil while no goroutine works for the lane
	ended chan struct{}
}

// smallContent is a file that has arrived.
type smallContent struct {
	path string
	at   place
	data *[]byte
	size int
	set  attr
}

func newContentWriter(root *Root, stage int, fresh freshAttr, o *Options) *contentWriter {
	c := &contentWriter{root: root, reserve: o.Reserve, fresh: fresh, sparse: o.Sparse, failed: make(chan error, 1)}
	c.buffers.back.L = &c.buffers.mu
	for i := range c.lanes {
		c.lanes[i] = lane{root: root, fresh: fresh, sparse: o.Sparse, at: descent{root: stage}, fd: -1, next: uint64(i)}
	}
	return c
}

// space ends the writing before the reserve is touched.
func (c *contentWriter) space(n int64) error {
	if c.unseen += n; c.unseen < spaceEvery {
		return nil
	}
	c.unseen = 0
	free, err := c.root.free()
	if err == nil && free < c.reserve {
		err = tooFull(c.root.path, free, 0, c.reserve)
	}
	return err
}

// put stages a file whose content is in memory, from c.buffers, and takes that
// over. Its errors, and those of earlier files, may come later; finish has the
// rest. All files of a new directory go through one lane.
func (c *contentWriter) put(f smallContent) (place, error) {
	dir, _ := splitPath(f.path)
	if f.at.tree.none() || dir != c.dir {
		c.turn = c.turn%(lanes-1) + 1
		c.dir = dir
	}
	l := &c.lanes[c.turn]
	if l.queue == nil {
		l.queue, l.ended = make(chan smallContent, laneQueue), make(chan struct{})
		go c.work(l)
	}
	f.at = l.place(f.at.tree)
	select {
	case l.queue <- f:
		return f.at, nil
	case err := <-c.failed:
		c.buffers.give(f.data)
		return place{}, err
	}
}

// work writes the files of a lane. After an error, of any lane, there is no use
// in the rest.
func (c *contentWriter) work(l *lane) {
	defer close(l.ended)
	for f := range l.queue {
		err := l.write(&f)
		c.buffers.give(f.data)
		if err == nil {
			continue
		}
		select {
		case c.failed <- stagingError(f.path, err):
		default:
		}
	}
}

// finish waits until every file that was put is written.
func (c *contentWriter) finish() error {
	for i := range c.lanes {
		if l := &c.lanes[i]; l.queue != nil {
			close(l.queue)
			<-l.ended
			l.queue = nil
		}
	}
	select {
	case err := <-c.failed:
		return err
	default:
		return nil
	}
}

func (c *contentWriter) close() {
	_ = c.finish() // what Stage needs to know it has asked for before
	for i := range c.lanes {
		c.lanes[i].close()
	}
	c.from.close()
}

// node makes what is no regular file, with its attributes.
func (c *contentWriter) node(t tree, path string, e *Entry, set attr, dry bool) (place, error) {
	l := &c.lanes[0]
	at := l.place(t)
	if dry {
		return at, nil
	}
	dir, name, err := l.open(at, path)
	if err == nil {
		err = c.root.do("create", func() error {
			if isSymlink(e) {
				return unix.Symlinkat(e.Target, dir, name)
			}
			rdev := 0
			if isDevice(e.Mode) {
				rdev = int(e.Rdev)
			}
			return unix.Mknodat(dir, name, e.Mode&unix.S_IFMT|0o600, rdev)
		})
	}
	if err != nil {
		return place{}, stagingError(path, err)
	}
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err == nil {
		err = c.root.apply(fd, c.fresh.without(set))
		unix.Close(fd)
	}
	if err != nil {
		return place{}, stagingError(path, err)
	}
	return at, nil
}

// linkStaged makes path, which is in a new tree, another name of what was staged for g.
func (c *contentWriter) linkStaged(t tree, path string, g *linkGroup) error {
	c.from.start(c.lanes[0].at.root)
	from := contentDir + "/" + contentDirName(g.at.number) + "/" + contentName(g.at.number)
	if !g.at.tree.none() {
		from = g.at.tree.path(g.path)
	}
	return c.link(from, t, path)
}

// linkKept does so with the destination's own file.
func (c *contentWriter) linkKept(t tree, path string, g *linkGroup) error {
	c.from.start(c.root.fd)
	if err := c.link(g.path, t, path); err != nil {
		return err
	}
	l := &c.lanes[0]
	dir, name, err := l.open(place{tree: t}, path)
	if err != nil {
		return err
	}
	st, err := statAt(dir, name)
	if err == nil && (st.Ino != g.ino || st.Dev != g.dev) {
		err = errors.Join(errMoved, c.root.unlink(dir, name))
	}
	return err
}

func (c *contentWriter) link(from string, t tree, path string) error {
	fromDir, fromName, err := c.from.parent(from)
	if err != nil {
		return stagingError(path, err)
	}
	dir, name, err := c.lanes[0].open(place{tree: t}, path)
	if err == nil {
		err = c.root.do("link", func() error { return unix.Linkat(fromDir, fromName, dir, name, 0) })
	}
	if err != nil {
		return stagingError(path, err)
	}
	return nil
}

func (l *lane) close() {
	l.at.close()
	l.fd = -1
}

// place gives the next file of the lane its place.
func (l *lane) place(t tree) place {
	if !t.none() {
		return place{tree: t}
	}
	n := l.next
	l.next += lanes
	return place{number: n}
}

// open returns the directory that holds, at p, what will be path, and its name there.
func (l *lane) open(p place, path string) (fd int, name string, err error) {
	if p.tree.none() {
		err = l.numbers(p.number)
		return l.fd, contentName(p.number), err
	}
	dir, name := splitPath(path)
	if l.fd < 0 || l.tree != p.tree || l.dir != dir {
		l.fd = -1
		fd, err := l.at.dir(p.tree.path(dir))
		if err != nil {
			return -1, "", err
		}
		l.fd, l.tree, l.dir = fd, p.tree, dir
	}
	return l.fd, name, nil
}

// numbers goes to the directory of a number, and makes it if need be.
func (l *lane) numbers(number uint64) error {
	dirNo := contentDirNumber(number)
	if l.fd >= 0 && l.tree.none() && l.dirNo == dirNo {
		return nil
	}
	l.fd = -1
	all, err := l.at.dir(contentDir)
	if err != nil {
		return err
	}
	name := contentDirName(number)
	if err := l.root.mkdir(all, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	fd, err := l.at.dir(contentDir + "/" + name)
	if err != nil {
		return err
	}
	l.fd, l.tree, l.dirNo = fd, tree{}, dirNo
	return nil
}

// create makes the file at p.
func (l *lane) create(p place, path string, mode uint32) (*os.File, error) {
	dir, name, err := l.open(p, path)
	if err != nil {
		return nil, err
	}
	fd, err := l.root.create(dir, name, mode)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (l *lane) remove(p place, path string) error {
	dir, name, err := l.open(p, path)
	if err != nil {
		return err
	}
	return l.root.unlink(dir, name)
}

func (l *lane) write(f *smallContent) error {
	dir, name, err := l.open(f.at, f.path)
	if err != nil {
		return err
	}
	mode, left := l.fresh.create(f.set)
	fd, err := l.root.create(dir, name, mode)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if l.sparse {
		err = errors.Join(writeSparse(fd, (*f.data)[:f.size], 0, false), setLength(fd, int64(f.size)))
	} else {
		err = writeAll(fd, (*f.data)[:f.size])
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return l.root.apply(fd, left)
}

func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		n := 0
		err := retry(func() (err error) { n, err = unix.Write(fd, data); return err })
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
