package rsyncx

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A file that is to keep its inode is not replaced: what is staged for it is
// what differs, and Publish writes that into the file. Writing it again does no
// harm, so what a crash interrupts the next Publish finishes.
//
// What differs is staged as a patch or as the whole new content. A patch is a list of
// parts: a kind, an offset and a length of 8 bytes each, and behind those of
// data the bytes. The last one has the new length of the file for its offset.
type partKind uint64

const (
	partData partKind = iota + 1
	partHole
	partEnd
)

const (
	patchHead   = 24         // bytes of a part before its data
	maxFileSize = 1<<63 - 1  // bytes
	wholeFile   = uint32(0)  // op.kindOf: the staged file is the new content
	patchFile   = uint32(1)  // it is a patch
	patchCopy   = copyBuffer // bytes written at once
)

func appendPart(b []byte, kind partKind, off, length int64) []byte {
	for _, v := range []uint64{uint64(kind), uint64(off), uint64(length)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// addToPatch appends a part of the new content to a patch.
func (c *contentWriter) addToPatch(to io.Writer, p []byte, off int64) error {
	for len(p) > 0 {
		hole, data := 0, len(p)
		if c.sparse {
			hole, data = zeroRun(p, off)
		}
		kind := partData
		if hole > 0 {
			kind = partHole
		}
		n := int64(hole + data)
		if _, err := to.Write(appendPart(nil, kind, off, n)); err != nil {
			return err
		}
		if _, err := to.Write(p[:data]); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// readPatch gives the parts of a patch to data and hole and returns the length
// that the file has then. from behind a part is what data has not read of it.
func readPatch(from io.Reader, data func(r io.Reader, off, length int64) error, hole func(off, length int64) error) (int64, error) {
	var head [patchHead]byte
	for {
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return 0, fmt.Errorf("%w: a patch ends early", errFormat)
		}
		kind := partKind(binary.LittleEndian.Uint64(head[:]))
		off, length := int64(binary.LittleEndian.Uint64(head[8:])), int64(binary.LittleEndian.Uint64(head[16:]))
		if off < 0 || length < 0 || off > maxFileSize-length {
			return 0, fmt.Errorf("%w: a patch of %d bytes at %d", errFormat, length, off)
		}
		var err error
		switch kind {
		case partData:
			err = data(io.LimitReader(from, length), off, length)
		case partHole:
			err = hole(off, length)
		case partEnd:
			return off, nil
		default:
			err = fmt.Errorf("%w: part %d of a patch", errFormat, kind)
		}
		if err != nil {
			return 0, err
		}
	}
}

// inPlace reports whether the destination's file is patched. With HardLinks one that has other
// names, while the source's has none, is replaced: its other names are other files. Without,
// so is one of whose names that are known by now two are different files at the source.
func (s *stager) inPlace(w *wish) bool {
	return s.o.Inplace && w.hasOld && w.tree.none() && !(s.o.HardLinks && w.group < 0 && w.old.Nlink > 1) && !s.sharing.parts(&w.old)
}

// put notes what Publish does with what was staged for a file.
func (s *stager) put(w *wish, e *Entry, at place, size int64, form uint32) error {
	inPlace := s.inPlace(w)
	if w.hasOld {
		keep := s.keepOld
		if inPlace {
			keep = s.keepCopy
		}
		if err := keep(w.path, &w.old); err != nil {
			return err
		}
	}
	if !inPlace || s.pretends() {
		s.replaced(w)
		return s.placed(w.path, at, unix.S_IFREG, size)
	}
	s.groupKept(w.group, &w.old)
	if s.sharing.write(&w.old) {
		return nil // under another name, with the same content
	}
	return s.op(partFiles, op{kind: opPatch, path: w.path, number: at.number, size: size, kindOf: form, target: stateOf(&w.old),
		dev: w.old.Dev, ino: w.old.Ino, attr: s.attrs(e, &w.old)})
}

// stateOf tells states of a file apart.
func stateOf(st *info) string { return fmt.Sprintf("%d %d.%09d", st.Size, st.Mtime.Sec, st.Mtime.Nsec) }

// patch writes what was staged into the file that is there.
func (p *publisher) patch(dir int, name string, o *op) error {
	at, err := p.content[o.number%lanes].dir(contentDir + "/" + contentDirName(o.number))
	if err != nil {
		return fmt.Errorf("open the staged content: %w", asLost(err))
	}
	from, err := p.openOurs(at, contentName(o.number), unix.O_RDONLY)
	if err != nil {
		return asLost(err)
	}
	defer from.Close()
	to, err := p.openOurs(dir, name, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer to.Close()
	st, err := statFd(int(to.Fd()))
	switch {
	case err != nil:
		return err
	case !isRegular(&st.Entry) || st.Dev != o.dev || st.Ino != o.ino, !p.again && stateOf(&st) != o.target:
		return errMoved
	}
	w := patchWriter{p: p, to: int(to.Fd()), buf: make([]byte, patchCopy)}
	size := o.size
	if o.kindOf == patchFile {
		size, err = readPatch(bufio.NewReader(from), w.data, w.hole)
	} else {
		w.holes, err = hasHoles(from)
		if err == nil {
			err = w.data(from, 0, o.size)
		}
	}
	if err != nil {
		return err
	}
	if err := p.root.do("truncate", func() error { return unix.Ftruncate(w.to, size) }); err != nil {
		return err
	}
	return p.root.apply(w.to, o.attr)
}

// openOurs opens a regular file; one that is ours is opened though its mode forbids it.
func (p *publisher) openOurs(dir int, name string, flags int) (*os.File, error) {
	flags |= unix.O_NOFOLLOW | unix.O_NONBLOCK
	fd, err := openat(dir, name, flags, 0)
	if errors.Is(err, unix.EACCES) {
		fd, err = p.openLocked(dir, name, flags)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (p *publisher) openLocked(dir int, name string, flags int) (int, error) {
	at, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	st, err := statFd(at)
	if err == nil && !isRegular(&st.Entry) {
		err = errMoved
	}
	if err == nil {
		err = p.root.setMode(at, st.Mode&0o7777|0o600)
	}
	if err != nil {
		return -1, err
	}
	return openat(dir, name, flags, 0)
}

func hasHoles(f *os.File) (bool, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(int(f.Fd()), &st) })
	return st.Blocks*512 < st.Size, err
}

// patchWriter writes into a file of the destination.
type patchWriter struct {
	p     *publisher
	to    int
	buf   []byte
	holes bool // zeros become holes
}

func (w *patchWriter) data(from io.Reader, off, length int64) error {
	for end := off + length; off < end; {
		n, err := io.ReadFull(from, w.buf[:min(int64(len(w.buf)), end-off)])
		if err != nil {
			return fmt.Errorf("%w: the staged content is too short", errFormat)
		}
		err = w.p.root.do("write", func() error {
			if w.holes {
				return writeSparse(w.to, w.buf[:n], off, true)
			}
			return pwriteAll(w.to, w.buf[:n], off)
		})
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

func (w *patchWriter) hole(off, length int64) error {
	return w.p.root.do("write", func() error {
		err := retry(func() error {
			return unix.Fallocate(w.to, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
		})
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
			return err
		}
		for end := off + length; off < end; off += holeBlock {
			if e := pwriteAll(w.to, zeros[:min(holeBlock, end-off)], off); e != nil {
				return e
			}
		}
		return nil
	})
}
