package dump

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"
)

// chunkReader reads one chunk and judges it at its end.
type chunkReader struct {
	chunk Chunk
	f     *os.File
	z     *zstd.Decoder // nil for a file that is stored as it is
	sum   *xxh3.Hasher128
	bytes int64
	err   error
}

// Open opens a chunk of the dump in dir. Reading it ends in an error that wraps
// ErrDamaged instead of io.EOF when it is not as it was written: what was read
// until then must not count.
func Open(dir string, c Chunk) (io.ReadCloser, error) {
	if !chunkName.MatchString(c.File) {
		return nil, fmt.Errorf("%w: it has a chunk %q", ErrDamaged, c.File)
	}
	f, err := os.Open(filepath.Join(dir, c.File))
	if err != nil {
		return nil, fmt.Errorf("read dump: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() != c.Stored {
		err = fmt.Errorf("%w: %s has %d bytes, not %d", ErrDamaged, f.Name(), info.Size(), c.Stored)
	}
	r := &chunkReader{chunk: c, f: f, sum: xxh3.New128()}
	if err == nil && strings.HasSuffix(c.File, packed) {
		r.z, err = zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(chunkWindow))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read dump: %w", err), f.Close())
	}
	return r, nil
}

func (r *chunkReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	from := io.Reader(r.f)
	if r.z != nil {
		from = r.z
	}
	n, err := from.Read(p)
	_, _ = r.sum.Write(p[:n]) // never fails
	r.bytes += int64(n)
	switch {
	case r.bytes > r.chunk.Bytes:
		err = r.damaged("it is longer than it was written")
	case errors.Is(err, io.EOF):
		sum := r.sum.Sum128().Bytes()
		if r.bytes != r.chunk.Bytes || hex.EncodeToString(sum[:]) != r.chunk.Sum {
			err = r.damaged("its sum is another")
		} else {
			err = io.EOF
		}
	case err != nil && r.z != nil:
		err = r.damaged(err.Error())
	}
	r.err = err
	return n, err
}

func (r *chunkReader) damaged(why string) error {
	return fmt.Errorf("%w: %s: %s", ErrDamaged, r.f.Name(), why)
}

func (r *chunkReader) Close() error {
	if r.z != nil {
		r.z.Close()
	}
	return r.f.Close()
}

// Check reads the whole dump in dir and compares it with its manifest. It
// wraps ErrDamaged and names every chunk that is not as it was written.
func Check(ctx context.Context, dir string) (Manifest, error) {
	m, err := Read(dir)
	if err != nil {
		return Manifest{}, err
	}
	var bad []error
	buffer := make([]byte, 256<<10)
	for _, c := range m.Chunks {
		if err := checkChunk(ctx, dir, c, buffer); err != nil {
			if ctx.Err() != nil {
				return Manifest{}, context.Cause(ctx)
			}
			bad = append(bad, err)
		}
	}
	return m, errors.Join(bad...)
}

func checkChunk(ctx context.Context, dir string, c Chunk, buffer []byte) error {
	r, err := Open(dir, c)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	for ctx.Err() == nil {
		if _, err := r.Read(buffer); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}
