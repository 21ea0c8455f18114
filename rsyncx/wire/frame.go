package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/drsync/drsync/rsyncx"
)

const headerSize = 5

// hostile is an error about a peer that breaks the protocol.
func hostile(format string, args ...any) error {
	return fmt.Errorf("%w: %s", rsyncx.ErrHostile, fmt.Sprintf(format, args...))
}

// header is the type of a frame and how many bytes follow.
type header struct {
	kind byte
	size int
}

func readHeader(r io.Reader) (header, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return header{}, err
	}
	return parseHeader(b)
}

func parseHeader(b [headerSize]byte) (header, error) {
	size := binary.BigEndian.Uint32(b[1:])
	if size > maxFrame {
		return header{}, hostile("a frame of type %q with %d bytes", b[0], size)
	}
	return header{b[0], int(size)}, nil
}

// readMore appends to buf until it has size bytes. It grows in steps, so that a length alone takes
// no memory that the peer has not paid for in bytes.
func readMore(r io.Reader, buf []byte, size int) ([]byte, error) {
	for len(buf) < size {
		step := min(size-len(buf), 64<<10)
		if cap(buf)-len(buf) < step {
			buf = append(make([]byte, 0, max(2*cap(buf), len(buf)+step)), buf...)
		}
		n, err := io.ReadFull(r, buf[len(buf):len(buf)+step])
		buf = buf[:len(buf)+n]
		if err != nil {
			return nil, unexpected(err)
		}
	}
	return buf, nil
}

// unexpected turns an end in the middle of something into the error it is.
func unexpected(err error) error {
	if err == io.EOF { //nolint:errorlint // a lost connection wraps io.EOF
		return io.ErrUnexpectedEOF
	}
	return err
}

func appendHeader(b []byte, kind byte, size int) []byte {
	return binary.BigEndian.AppendUint32(append(b, kind), uint32(size))
}

// appendFrame appends a whole frame.
func appendFrame(b []byte, kind byte, payload []byte) []byte {
	return append(appendHeader(b, kind, len(payload)), payload...)
}

// frameWriter writes whole frames, many at a time; several goroutines may use it.
type frameWriter struct {
	mu    sync.Mutex
	w     io.Writer
	buf   []byte // whole frames that were not written yet
	dirty bool   // something was added since the last idle call
	press press
}

func newFrameWriter(w io.Writer) *frameWriter { return &frameWriter{w: w} }

func (f *frameWriter) write(kind byte, payload []byte) error {
	if len(payload) > maxFrame {
		return fmt.Errorf("internal error: a frame of type %q with %d bytes", kind, len(payload))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirty = true
	f.buf = append(appendHeader(f.buf, kind, len(payload)), payload...)
	return f.emitFull()
}

// fill adds one frame of at most limit bytes that a single Read of r puts where they
// are sent from. It returns how many they were, what r said, and whether writing failed.
func (f *frameWriter) fill(kind byte, limit int, r io.Reader) (n int, readErr, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirty = true
	begin := len(f.buf)
	f.buf = slices.Grow(f.buf, headerSize+limit)
	room := f.buf[:begin+headerSize+limit]
	n, readErr = r.Read(room[begin+headerSize:])
	if n > 0 {
		appendHeader(room[:begin], kind, n)
		f.buf = room[:begin+headerSize+n]
	}
	return n, readErr, f.emitFull()
}

func (f *frameWriter) emitFull() error {
	if len(f.buf) < recordSize {
		return nil
	}
	return f.emit()
}

// emit writes what was gathered.
func (f *frameWriter) emit() error {
	if len(f.buf) == 0 {
		return nil
	}
	err := f.press.write(f.w, f.buf)
	if f.buf = f.buf[:0]; cap(f.buf) > 2*maxRecord {
		f.buf = nil // it held something out of the ordinary
	}
	return err
}

func (f *frameWriter) flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.emit()
}

// alive makes the peer hear something, unless it did since the last call.
func (f *frameWriter) alive() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dirty {
		f.buf = appendHeader(f.buf, frameAlive, 0)
	}
	f.dirty = false
	return f.emit()
}

// compress says how what is written from now on is compressed.
func (f *frameWriter) compress(c Compress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.press.mode = c
}
