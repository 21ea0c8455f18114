package sqlite

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"time"
)

// A snapshot stream is one line of JSON (header), Length bytes of database, and
// one line "sha256 <hex>\n" over the line and the database. The answer to a
// check is a header with Check set and nothing after it.

const (
	maxHeader   = 4096
	trailerSize = len("sha256 ") + 2*sha256.Size + 1
	magic       = "SQLite format 3\x00"
)

type header struct {
	Format      int       `json:"drsync_sqlite"`
	Time        time.Time `json:"time"` // on the active's clock, just before the copy's read transaction
	SQLite      string    `json:"sqlite"`
	PageSize    int       `json:"page_size"`    // bytes
	JournalMode string    `json:"journal_mode"` // of the active's database
	Length      int64     `json:"length"`       // bytes
	Check       bool      `json:"check,omitempty"`
}

var journalModes = []string{"delete", "truncate", "persist", "memory", "wal", "off"}

func (h header) valid() error {
	switch {
	case h.Format != 1:
		return fmt.Errorf("format %d is not one this drsync knows", h.Format)
	case h.Time.Year() < 2000 || h.Time.Year() > 2200:
		return fmt.Errorf("time %s", h.Time)
	case h.PageSize < 512 || h.PageSize > 65536 || bits.OnesCount(uint(h.PageSize)) != 1:
		return fmt.Errorf("page size %d", h.PageSize)
	case h.Length <= 0 || h.Length%int64(h.PageSize) != 0:
		return fmt.Errorf("length %d with pages of %d", h.Length, h.PageSize)
	case !slices.Contains(journalModes, h.JournalMode):
		return fmt.Errorf("journal mode %q", h.JournalMode)
	case len(h.SQLite) > 32:
		return fmt.Errorf("SQLite version of %d bytes", len(h.SQLite))
	}
	for _, c := range h.SQLite {
		if c != '.' && (c < '0' || c > '9') {
			return fmt.Errorf("SQLite version %q", h.SQLite)
		}
	}
	return nil
}

func (h header) line() ([]byte, error) {
	data, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// send writes a snapshot stream of h.Length bytes of body.
func send(ctx context.Context, w io.Writer, h header, body io.Reader) error {
	line, err := h.line()
	if err != nil {
		return err
	}
	sum := sha256.New()
	both := io.MultiWriter(w, sum)
	if _, err := both.Write(line); err != nil {
		return because(ctx, err)
	}
	n, err := io.CopyBuffer(both, obedient{ctx, io.LimitReader(body, h.Length)}, make([]byte, 256<<10))
	if err != nil {
		return because(ctx, err)
	}
	if n != h.Length {
		return fmt.Errorf("the copy shrank from %d to %d bytes while it was read", h.Length, n)
	}
	_, err = fmt.Fprintf(w, "sha256 %x\n", sum.Sum(nil))
	return because(ctx, err)
}

// readHeader reads and judges the first line.
func readHeader(r *bufio.Reader) (header, []byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || len(line) > maxHeader {
		return header{}, nil, errors.New("the first line is too long")
	}
	if err != nil {
		return header{}, nil, noEOF(err)
	}
	var h header
	if err := json.Unmarshal(line, &h); err != nil {
		return header{}, nil, fmt.Errorf("the first line: %w", err)
	}
	if err := h.valid(); err != nil {
		return header{}, nil, fmt.Errorf("the first line: %w", err)
	}
	return h, bytes.Clone(line), nil
}

// receive reads a snapshot stream to its end, writes the database to the writer
// that accept returns for the header, and verifies length and hash. The
// returned hash is that of the database alone.
func receive(ctx context.Context, r io.Reader, accept func(header) (io.Writer, error)) (header, string, error) {
	br := bufio.NewReaderSize(obedient{ctx, r}, 256<<10)
	h, line, err := readHeader(br)
	if err != nil {
		return header{}, "", err
	}
	if h.Check {
		return header{}, "", errors.New("the answer to a check instead of a snapshot")
	}
	w, err := accept(h)
	if err != nil {
		return header{}, "", err
	}
	whole, body := sha256.New(), sha256.New()
	whole.Write(line)
	n, err := io.CopyBuffer(io.MultiWriter(w, whole, body), io.LimitReader(br, h.Length), make([]byte, 256<<10))
	if err != nil {
		return header{}, "", err
	}
	if n != h.Length {
		return header{}, "", fmt.Errorf("%d of %d bytes: %w", n, h.Length, io.ErrUnexpectedEOF)
	}
	trailer := make([]byte, trailerSize)
	if _, err := io.ReadFull(br, trailer); err != nil {
		return header{}, "", fmt.Errorf("the last line: %w", noEOF(err))
	}
	if want := fmt.Sprintf("sha256 %x\n", whole.Sum(nil)); string(trailer) != want {
		return header{}, "", fmt.Errorf("the last line is %q, the content gives %q", trailer, want)
	}
	if _, err := br.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("data after the last line")
		}
		return header{}, "", err
	}
	return h, hex.EncodeToString(body.Sum(nil)), nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// obedient is a reader that ends with the cause of a cancelled ctx.
type obedient struct {
	ctx context.Context
	r   io.Reader
}

func (o obedient) Read(p []byte) (int, error) {
	if o.ctx.Err() != nil {
		return 0, context.Cause(o.ctx)
	}
	n, err := o.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = because(o.ctx, err)
	}
	return n, err
}
