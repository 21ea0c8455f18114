package mysql

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/drsync/drsync/dbrepl/dump"
)

// keptRows is a dump as an origin.
type keptRows struct {
	dir    string
	chunks map[string][]dump.Chunk // by table
	states map[string][]int64      // of sequences
	atOnce int
}

var _ origin = (*keptRows)(nil)

func (k *keptRows) workers() int { return k.atOnce }

func (k *keptRows) state(_ context.Context, t table) ([]int64, error) { return k.states[t.name], nil }

func (k *keptRows) divide(_ context.Context, t table, _ int) ([]part, error) {
	if len(k.chunks[t.name]) == 0 {
		return []part{{}}, nil
	}
	var parts []part
	for _, c := range k.chunks[t.name] {
		parts = append(parts, part{chunk: &c})
	}
	return parts, nil
}

func (k *keptRows) read(ctx context.Context, _ int, p part, load func(rowReader) error) error {
	if p.chunk == nil {
		return load(newKeptLines(bytes.NewReader(nil), p.plan.send, 0))
	}
	f, err := dump.Open(k.dir, *p.chunk)
	if err != nil {
		return err
	}
	defer f.Close()
	err = load(newKeptLines(f, p.plan.send, p.chunk.Rows))
	var read *readError
	if errors.As(err, &read) && ctx.Err() == nil {
		return read.err
	}
	return err
}

// keptLines reads the rows of a chunk, which are lines of LOAD DATA.
type keptLines struct {
	r    *bufio.Reader
	send []encoding
	rows int64 // that are still to come
	long []byte
	raw  []sql.RawBytes
}

func newKeptLines(r io.Reader, send []encoding, rows int64) *keptLines {
	return &keptLines{r: bufio.NewReaderSize(r, 128<<10), send: send, rows: rows, raw: make([]sql.RawBytes, len(send))}
}

func (k *keptLines) next() ([]sql.RawBytes, error) {
	line, err := k.line()
	switch {
	case errors.Is(err, io.EOF) && len(line) == 0 && k.rows == 0:
		return nil, io.EOF
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: a chunk ends %d rows too early", dump.ErrDamaged, k.rows)
	case err != nil:
		return nil, err
	case k.rows == 0:
		return nil, fmt.Errorf("%w: a chunk has more rows than its manifest says", dump.ErrDamaged)
	}
	k.rows--
	if err := k.split(line[:len(line)-1]); err != nil {
		return nil, fmt.Errorf("%w: a row %w", dump.ErrDamaged, err)
	}
	return k.raw, nil
}

// line returns the next line, which is valid, and may be written to, until the
// next call.
func (k *keptLines) line() ([]byte, error) {
	line, err := k.r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	k.long = append(k.long[:0], line...)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = k.r.ReadSlice('\n')
		k.long = append(k.long, line...)
	}
	return k.long, err
}

// split turns a line into the values of raw, within the line's own memory.
func (k *keptLines) split(line []byte) (err error) {
	if n := bytes.Count(line, []byte{'\t'}) + 1; n != len(k.send) {
		return fmt.Errorf("has %d fields, not %d", n, len(k.send))
	}
	for i, send := range k.send {
		var field []byte
		field, line, _ = bytes.Cut(line, []byte{'\t'})
		if k.raw[i], err = readField(field, send); err != nil {
			return err
		}
	}
	return nil
}

// readField is the inverse of appendField. The value takes the field's place.
func readField(field []byte, send encoding) (sql.RawBytes, error) {
	if len(field) == 2 && field[0] == '\\' && field[1] == 'N' {
		return nil, nil
	}
	if send == hexed {
		n, err := hex.Decode(field, field)
		if err != nil {
			return nil, fmt.Errorf("has a field that is not hexadecimal")
		}
		return field[:n:n], nil
	}
	n := 0
	for i := 0; i < len(field); i++ {
		b := field[i]
		if b == '\\' {
			i++
			if i == len(field) {
				return nil, fmt.Errorf("has a field that ends in the middle of an escape")
			}
			switch field[i] {
			case 't':
				b = '\t'
			case 'n':
				b = '\n'
			case '\\':
				b = '\\'
			case '0':
				b = 0
			default:
				return nil, fmt.Errorf("has the unknown escape %q", field[i-1:i+1])
			}
		}
		field[n] = b
		n++
	}
	return field[:n:n], nil
}
