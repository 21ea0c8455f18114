package rsyncx

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	filesPerDir  = 1 << 12  // of the staging directory
	spaceEvery   = 64 << 20 // bytes written between two looks at the free space
	filesCounted = 4096     // bytes that a file takes beside its content, for the free space

	// Files are staged in lanes: in the first the stager writes the large ones as
	// they come, in the others goroutines write those that were read into memory.
	// Most of what a small file costs is its inode, and the kernel makes one at a
	// time in a directory; so each lane has directories of its own.
	lanes     = 3
	laneQueue = 8 // files that wait for a lane
)

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
	unseen  int64 // bytes written since the free space was looked at
	buf     []byte
	other   []byte
	// cannotClone says that the file system has refused to share blocks.
	cannotClone bool

	lanes   [lanes]lane
	turn    int        // the lane of the last small file
	buffers sync.Pool  // of *[]byte, smallFile and one long
	failed  chan error // holds the first error of a lane
}

// lane makes staged files, one at a time.
type lane struct {
	root   *Root
	stage  int
	dir    int // open directory of dirNum, or -1
	dirNum uint64
	next   uint64            // number
	queue  chan smallContent // nil while no goroutine works for the lane
	ended  chan struct{}
}

// smallContent is a file that has arrived.
type smallContent struct {
	path   string // for errors
	number uint64
	data   *[]byte
	size   int
	set    attr
}

func newContentWriter(root *Root, stage int, reserve int64) *contentWriter {
	c := &contentWriter{root: root, reserve: reserve, failed: make(chan error, 1)}
	c.buffers.New = func() any { b := make([]byte, smallFile+1); return &b }
	for i := range c.lanes {
		c.lanes[i] = lane{root: root, stage: stage, dir: -1, next: uint64(i)}
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
// over. Its errors, and those of earlier files, may come later; finish has the rest.
func (c *contentWriter) put(f smallContent) (number uint64, err error) {
	c.turn = c.turn%(lanes-1) + 1
	l := &c.lanes[c.turn]
	if l.queue == nil {
		l.queue, l.ended = make(chan smallContent, laneQueue), make(chan struct{})
		go c.work(l)
	}
	f.number = l.number()
	select {
	case l.queue <- f:
		return f.number, nil
	case err := <-c.failed:
		return 0, err
	}
}

// work writes the files of a lane. After an error, of any lane, there is no use
// in the rest.
func (c *contentWriter) work(l *lane) {
	defer close(l.ended)
	for f := range l.queue {
		err := l.write(&f)
		c.buffers.Put(f.data)
		if err == nil {
			continue
		}
		select {
		case c.failed <- fmt.Errorf("stage %s: %w", Printable(f.path), err):
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
}

func (l *lane) close() {
	if l.dir >= 0 {
		unix.Close(l.dir)
		l.dir = -1
	}
}

func (l *lane) number() uint64 {
	n := l.next
	l.next += lanes
	return n
}

// create makes the file with the given number.
func (l *lane) create(number uint64) (*os.File, error) {
	if num := contentDirNumber(number); l.dir < 0 || num != l.dirNum {
		l.close()
		all, err := openDir(l.stage, contentDir)
		if err != nil {
			return nil, err
		}
		defer unix.Close(all)
		name := contentDirName(number)
		if err := l.root.mkdir(all, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, err
		}
		if l.dir, err = openDir(all, name); err != nil {
			return nil, err
		}
		l.dirNum = num
	}
	return l.root.create(l.dir, contentName(number))
}

func (l *lane) write(f *smallContent) error {
	out, err := l.create(f.number)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := out.Write((*f.data)[:f.size]); err != nil {
		return err
	}
	return l.root.apply(int(out.Fd()), f.set)
}
