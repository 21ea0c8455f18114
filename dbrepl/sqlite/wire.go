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
//
// The answer to a request for sums is a header with Token and Group, the sums
// of the groups one after the other, and one line "sha256 <hex> <hex>\n": the hash
// of the copy, and one over the line, the sums and that hash.

const (
	maxHeader   = 4096
	trailerSize = len("sha256 ") + 2*sha256.Size + 1
	sumsTrailer = trailerSize + 1 + 2*sha256.Size
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
	Room        *int64    `json:"room,omitempty"`  // bytes free where copies are made; of a check
	Token       string    `json:"token,omitempty"` // names the copy that is held; of sums
	Group       int       `json:"group,omitempty"` // bytes; of sums
	Held        int64     `json:"held,omitempty"`  // nanoseconds that writers had to wait for the copy at most
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
	case h.Token != "" && (!validToken(h.Token) || h.Check || h.Group == 0):
		return fmt.Errorf("token %q, groups of %d", h.Token, h.Group)
	case h.Group != 0 && (h.Group < h.PageSize || h.Group > maxGroup || bits.OnesCount(uint(h.Group)) != 1 || count(h.Length, h.Group) > maxSums):
		return fmt.Errorf("groups of %d bytes, %d in all", h.Group, h.Length)
	case h.Held < 0:
		return fmt.Errorf("held for %d ns", h.Held)
	case h.Room != nil && *h.Room < 0:
		return fmt.Errorf("room for %d bytes", *h.Room)
	}
	return errors.Join(validVersion(h.SQLite), validMode(h.JournalMode))
}

func validMode(mode string) error {
	if !slices.Contains(journalModes, mode) {
		return fmt.Errorf("journal mode %q", mode)
	}
	return nil
}

func validVersion(version string) error {
	if len(version) > 32 {
		return fmt.Errorf("SQLite version of %d bytes", len(version))
	}
	for _, c := range version {
		if c != '.' && (c < '0' || c > '9') {
			return fmt.Errorf("SQLite version %q", version)
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

// readCheck reads the answer to a check, to its end.
func readCheck(ctx context.Context, r io.Reader) (header, error) {
	br := bufio.NewReaderSize(obedient{ctx, r}, maxHeader)
	h, _, err := readHeader(br)
	switch {
	case err != nil:
		return header{}, err
	case !h.Check:
		return header{}, errors.New("a snapshot instead of the answer to a check")
	}
	if _, err := br.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("data after the answer to a check")
		}
		return header{}, err
	}
	return h, nil
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
	if h.Check || h.Token != "" {
		return header{}, "", errors.New("the answer to a check, or sums, instead of a snapshot")
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
		return header{}, "", fmt.Errorf("the last line is %q, the content gives %q: %w", trailer, want, errOther)
	}
	if _, err := br.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("data after the last line")
		}
		return header{}, "", err
	}
	return h, hex.EncodeToString(body.Sum(nil)), nil
}

// sendSums writes the answer to a request for sums of the copy that body is.
func sendSums(ctx context.Context, w io.Writer, h header, body io.Reader) error {
	line, err := h.line()
	if err != nil {
		return err
	}
	whole, content := sha256.New(), sha256.New()
	bw := bufio.NewWriterSize(w, 64<<10)
	both := io.MultiWriter(bw, whole)
	if _, err := both.Write(line); err != nil {
		return because(ctx, err)
	}
	err = eachGroup(io.TeeReader(obedient{ctx, body}, content), h, func(s digest) error {
		_, err := both.Write(s[:])
		return err
	})
	if err != nil {
		return because(ctx, err)
	}
	own := content.Sum(nil)
	whole.Write(own)
	_, err = fmt.Fprintf(bw, "sha256 %x %x\n", own, whole.Sum(nil))
	return because(ctx, errors.Join(err, bw.Flush()))
}

// readSums reads such an answer, up to its last line and no further: what comes
// after that is the end of the copy. accept may refuse it by the header. The
// returned hash is that of the copy.
func readSums(ctx context.Context, r io.Reader, accept func(header) error) (h header, sums []digest, hash string, err error) {
	br := bufio.NewReaderSize(obedient{ctx, r}, 64<<10)
	h, line, err := readHeader(br)
	if err != nil {
		return header{}, nil, "", err
	}
	if h.Token == "" {
		return header{}, nil, "", errors.New("another answer instead of sums")
	}
	if err := accept(h); err != nil {
		return header{}, nil, "", err
	}
	whole := sha256.New()
	whole.Write(line)
	for range count(h.Length, h.Group) {
		var s digest
		if _, err := io.ReadFull(br, s[:]); err != nil {
			return header{}, nil, "", fmt.Errorf("%d sums of %d: %w", len(sums), count(h.Length, h.Group), noEOF(err))
		}
		whole.Write(s[:])
		sums = append(sums, s)
	}
	trailer := make([]byte, sumsTrailer)
	if _, err := io.ReadFull(br, trailer); err != nil {
		return header{}, nil, "", fmt.Errorf("the last line: %w", noEOF(err))
	}
	own, err := hex.DecodeString(string(trailer[len("sha256 ") : trailerSize-1]))
	whole.Write(own)
	if want := fmt.Sprintf("sha256 %x %x\n", own, whole.Sum(nil)); err != nil || string(trailer) != want {
		return header{}, nil, "", fmt.Errorf("the last line is %q, the content gives %q", trailer, want)
	}
	return h, sums, hex.EncodeToString(own), nil
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
