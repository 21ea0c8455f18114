package rsyncx

import (
	"bytes"
	"errors"

	"golang.org/x/sys/unix"
)

// holeBlock is the length in bytes from which on zeros become a hole, and what holes are
// aligned to: the block of nearly every file system.
const holeBlock = 4096

var zeros [holeBlock]byte

// zeroRun returns how many bytes at the beginning of p, which lies at off in its
// file, are to be a hole, and if none are, how many come before the next one. What p has
// of a block at its end counts as one.
func zeroRun(p []byte, off int64) (hole, data int) {
	isZero := func(at int) bool {
		block := p[at:min(at+holeBlock, len(p))]
		return bytes.Equal(block, zeros[:len(block)])
	}
	at := int(-off & (holeBlock - 1)) // the next block of the file
	if at == 0 {
		for hole < len(p) && isZero(hole) {
			hole = min(hole+holeBlock, len(p))
		}
		if hole > 0 {
			return hole, 0
		}
	}
	for ; at < len(p); at += holeBlock {
		if isZero(at) {
			return 0, at
		}
	}
	return 0, len(p)
}

// writeSparse writes p at off of a file and leaves holes for zeros. punch says that
// the file may have something else there.
func writeSparse(fd int, p []byte, off int64, punch bool) error {
	for len(p) > 0 {
		hole, data := zeroRun(p, off)
		var err error
		switch {
		case hole == 0:
			err = pwriteAll(fd, p[:data], off)
		case punch:
			err = punchHole(fd, p[:hole], off)
		}
		if err != nil {
			return err
		}
		p, off = p[hole+data:], off+int64(hole+data)
	}
	return nil
}

// punchHole makes a hole where zeros are to be, or writes them where the file
// system knows no holes.
func punchHole(fd int, zeros []byte, off int64) error {
	err := retry(func() error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, int64(len(zeros)))
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return pwriteAll(fd, zeros, off)
	}
	return err
}

func pwriteAll(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n := 0
		err := retry(func() (err error) { n, err = unix.Pwrite(fd, p, off); return err })
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// writeAt writes p at off of a staged file, whose length finish sets. old says that there may be something.
func (c *contentWriter) writeAt(fd int, p []byte, off int64, old bool) error {
	if c.sparse {
		return writeSparse(fd, p, off, old)
	}
	return pwriteAll(fd, p, off)
}

// setLength ends a file whose last bytes may be a hole.
func setLength(fd int, size int64) error {
	return retry(func() error { return unix.Ftruncate(fd, size) })
}
