package dump

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/hint"
)

// Writer makes one dump. Several goroutines may begin and write chunks at once.
type Writer struct {
	dir string

	mu     sync.Mutex
	chunks []Chunk
	open   int // chunks that are begun and neither closed nor given up
}

// Create makes the directory of a dump, which must not exist yet.
func Create(dir string) (*Writer, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, (&Writer{dir: dir}).advise(fmt.Errorf("create dump: %w", err))
	}
	return &Writer{dir: dir}, nil
}

// begin gives out the next file name.
func (w *Writer) begin(table, suffix string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chunks = append(w.chunks, Chunk{File: fmt.Sprintf("%04d%s", len(w.chunks)+1, suffix), Table: table})
	w.open++
	return len(w.chunks) - 1
}

func (w *Writer) end(i int, c Chunk) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c.File, c.Table = w.chunks[i].File, w.chunks[i].Table
	w.chunks[i] = c
	w.open--
}

// ChunkWriter takes the content of one chunk. One goroutine uses it.
type ChunkWriter struct {
	w     *Writer
	index int
	f     *os.File
	z     *zstd.Encoder
	sum   *xxh3.Hasher128
	bytes int64
	done  bool
}

// chunkWindow is how far back the compression looks, in bytes: what the memory
// of a chunk that is being written is made of.
const chunkWindow = 1 << 20

// Chunk begins a chunk for a table. It ends with Close or Abort.
func (w *Writer) Chunk(table string) (*ChunkWriter, error) {
	c := &ChunkWriter{w: w, index: w.begin(table, packed), sum: xxh3.New128()}
	var err error
	if c.f, err = os.OpenFile(filepath.Join(w.dir, w.file(c.index)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, w.advise(fmt.Errorf("write dump: %w", err))
	}
	c.z, err = zstd.NewWriter(c.f, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(chunkWindow), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, errors.Join(err, c.f.Close())
	}
	return c, nil
}

func (w *Writer) file(i int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.chunks[i].File
}

func (c *ChunkWriter) Write(p []byte) (int, error) {
	n, err := c.z.Write(p)
	_, _ = c.sum.Write(p[:n]) // never fails
	c.bytes += int64(n)
	if err != nil {
		err = c.w.advise(fmt.Errorf("write dump: %w", err))
	}
	return n, err
}

// advise adds what can be done about an error.
func (w *Writer) advise(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return hint.With(err, "make room in "+filepath.Dir(w.dir)+", or keep fewer dumps, then run drsync again")
	}
	return err
}

// Close ends a chunk that holds the given number of rows. Without it the dump
// cannot be sealed.
func (c *ChunkWriter) Close(rows int64) error {
	if c.done {
		return nil
	}
	c.done = true
	err := c.z.Close()
	var info os.FileInfo
	if err == nil {
		info, err = c.f.Stat()
	}
	if cerr := c.f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return c.w.advise(fmt.Errorf("write dump: %w", err))
	}
	sum := c.sum.Sum128().Bytes()
	c.w.end(c.index, Chunk{Rows: rows, Bytes: c.bytes, Sum: hex.EncodeToString(sum[:]), Stored: info.Size()})
	return nil
}

// Abort gives back what a chunk holds that is not closed. The dump cannot be sealed any more.
func (c *ChunkWriter) Abort() {
	if c.done {
		return
	}
	c.done = true
	_ = c.z.Close()
	_ = c.f.Close()
}

// Adopt takes a file that another program wrote, as it is, by moving it. It
// must lie on the file system of the dump.
func (w *Writer) Adopt(table, path string, rows int64) error {
	fail := func(err error) error { return fmt.Errorf("write dump: %w", err) }
	f, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	sum := xxh3.New128()
	n, err := io.Copy(sum, f)
	if err != nil {
		return fail(err)
	}
	i := w.begin(table, raw)
	if err := os.Rename(path, filepath.Join(w.dir, w.file(i))); err != nil {
		return fail(err)
	}
	b := sum.Sum128().Bytes()
	w.end(i, Chunk{Rows: rows, Bytes: n, Sum: hex.EncodeToString(b[:]), Stored: n})
	return nil
}

// Seal makes the chunks durable and then writes the manifest, of which it
// fills in the chunks: from then on the dump exists.
func (w *Writer) Seal(m Manifest) error {
	w.mu.Lock()
	m.Chunks = append([]Chunk{}, w.chunks...)
	open := w.open
	w.mu.Unlock()
	if open > 0 {
		return fmt.Errorf("seal dump %s: %d chunks are not whole", w.dir, open)
	}
	for _, c := range m.Chunks {
		if err := syncFile(filepath.Join(w.dir, c.File)); err != nil {
			return w.advise(fmt.Errorf("seal dump: %w", err))
		}
	}
	text, err := m.encode()
	if err == nil && len(text) > maxManifest {
		err = fmt.Errorf("its manifest would have %d bytes", len(text))
	}
	if err == nil {
		err = durable.WriteFile(filepath.Join(w.dir, manifestName), text, 0o600)
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(w.dir))
	}
	if err != nil {
		return w.advise(fmt.Errorf("seal dump %s: %w", w.dir, err))
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Discard removes what was written.
func (w *Writer) Discard() error { return os.RemoveAll(w.dir) }
