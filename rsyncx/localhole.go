package rsyncx

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// Holes is implemented by a File.Body that knows where its content is zeros that
// nobody stored.
type Holes interface {
	// Hole skips the zeros that come next, as far as they are known, and returns how many
	// bytes they are; 0 says that Read goes on with data, or to the end. Its errors
	// are those of Read.
	Hole() (int64, error)
}

// Versioned is implemented by a File.Body whose source can tell states of a file
// apart that look the same in an Entry.
type Versioned interface {
	// Version is that of the state as of opening.
	Version() uint64
}

var (
	_ Holes     = (*localBody)(nil)
	_ Versioned = (*localBody)(nil)
)

// smallestHole is what is asked for holes, in bytes: below it they are not worth the question.
const smallestHole = 64 << 10

// Version is made of the time of the last change, which nobody can set back.
func (b *localBody) Version() uint64 {
	return uint64(b.before.ctime.Sec)*1_000_000_000 + uint64(b.before.ctime.Nsec)
}

// Hole asks the file system, where it can tell, and else says that all is data.
func (b *localBody) Hole() (int64, error) {
	if b.done || b.err != nil || b.noHoles || b.data > 0 {
		return 0, nil
	}
	if b.left == 0 && len(b.more) > 0 {
		if b.err = b.advance(); b.err != nil {
			return 0, b.err
		}
	}
	if b.left < smallestHole {
		return 0, nil
	}
	at, err := unix.Seek(b.fd, 0, io.SeekCurrent)
	if err != nil {
		return 0, b.fail(err)
	}
	data, err := unix.Seek(b.fd, at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // nothing but a hole up to the end
		data = at + b.left
	case err != nil:
		b.noHoles = true
		return 0, nil
	}
	if data == at {
		hole, err := unix.Seek(b.fd, at, unix.SEEK_HOLE)
		b.noHoles = err != nil || hole <= at
		b.data = max(0, hole-at)
	}
	data = min(data, at+b.left)
	if _, err := unix.Seek(b.fd, data, io.SeekStart); err != nil {
		return 0, b.fail(err)
	}
	b.left -= data - at
	return data - at, nil
}

func (b *localBody) fail(err error) error {
	b.err = err
	return err
}
