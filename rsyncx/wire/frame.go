package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
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
	size := binary.BigEndian.Uint32(b[1:])
	if size > maxFrame {
		return header{}, hostile("a frame of type %q with %d bytes", b[0], size)
	}
	return header{b[0], int(size)}, nil
}

// readPayload reads h.size bytes into buf, which grows in steps, so that a length alone takes
// no memory that the peer has not paid for in bytes.
func readPayload(r io.Reader, h header, buf []byte) ([]byte, error) {
	buf = buf[:0]
	for len(buf) < h.size {
		step := min(h.size-len(buf), 64<<10)
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

// frameWriter writes whole frames; several goroutines may use it.
type frameWriter struct {
	mu    sync.Mutex
	w     *bufio.Writer
	dirty bool // something was written since the last idle call
}

func newFrameWriter(w io.Writer) *frameWriter {
	return &frameWriter{w: bufio.NewWriterSize(w, 128<<10)}
}

func (f *frameWriter) write(kind byte, payload []byte) error {
	if len(payload) > maxFrame {
		return fmt.Errorf("internal error: a frame of type %q with %d bytes", kind, len(payload))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirty = true
	var b [headerSize]byte
	if _, err := f.w.Write(appendHeader(b[:0], kind, len(payload))); err != nil {
		return err
	}
	_, err := f.w.Write(payload)
	return err
}

func (f *frameWriter) flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.w.Flush()
}

// alive makes the peer hear something, unless it did since the last call.
func (f *frameWriter) alive() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dirty {
		if _, err := f.w.Write(appendHeader(nil, frameAlive, 0)); err != nil {
			return err
		}
	}
	f.dirty = false
	return f.w.Flush()
}
