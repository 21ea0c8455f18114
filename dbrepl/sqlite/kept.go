package sqlite

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/dump"
	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/hint"
)

// engineName is whose dumps these are.
const engineName = "sqlite"

var _ dbrepl.Restorer = (*Engine)(nil)

// keep writes the captured database into a dump: one chunk, which is the file.
func (e *Engine) keep(ctx context.Context, dir string, c *captured) (err error) {
	w, err := dump.Create(dir)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("keep a dump: %w", err), w.Discard())
		}
	}()
	f, err := os.Open(e.f.staged)
	if err != nil {
		return err
	}
	defer f.Close()
	chunk, err := w.Chunk("")
	if err != nil {
		return err
	}
	defer chunk.Abort()
	if _, err := io.Copy(chunk, obedient{ctx, f}); err != nil {
		return because(ctx, err)
	}
	if err := chunk.Close(c.counts.Rows); err != nil {
		return err
	}
	definition, err := json.Marshal(c.g)
	if err != nil {
		return err
	}
	return w.Seal(dump.Manifest{Engine: engineName, Name: e.o.ActivePath, Point: c.g.point(), Definition: definition})
}

// readKept returns what a dump of this engine says of itself.
func readKept(dir string) (g generation, chunk dump.Chunk, err error) {
	m, err := dump.Read(dir)
	if err != nil {
		return g, chunk, err
	}
	if m.Engine != engineName || len(m.Chunks) != 1 {
		return g, chunk, fmt.Errorf("read dump %s: it is not one of a SQLite database", dir)
	}
	if g, err = parseGeneration(m.Definition); err != nil {
		return g, chunk, fmt.Errorf("read dump %s: %w", dir, err)
	}
	return g, m.Chunks[0], nil
}

// unpack writes the database of a dump to a file that must not exist. On an
// error there is none.
func (e *Engine) unpack(ctx context.Context, dir, into string) (g generation, err error) {
	g, chunk, err := readKept(dir)
	if err != nil {
		return g, err
	}
	if err := e.enoughSpace(g.Length); err != nil {
		return g, err
	}
	r, err := dump.Open(dir, chunk)
	if err != nil {
		return g, err
	}
	defer r.Close()
	f, err := os.OpenFile(into, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return g, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			os.Remove(into)
		}
	}()
	hash := sha256.New()
	// One byte more tells that there is more; all of it might fill the disk.
	n, err := io.Copy(io.MultiWriter(f, hash), io.LimitReader(obedient{ctx, r}, g.Length+1))
	if err != nil {
		return g, because(ctx, err)
	}
	if n != g.Length || hex.EncodeToString(hash.Sum(nil)) != g.SHA256 {
		return g, fmt.Errorf("%w: its database is another than it says", dump.ErrDamaged)
	}
	return g, f.Sync()
}

// Restore implements dbrepl.Restorer.
func (e *Engine) Restore(ctx context.Context, dir string) (_ dbrepl.Captured, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("restore %s: %w", e.f.live, err)
		}
	}()
	g, err := e.unpack(ctx, dir, e.f.staged)
	if err != nil {
		return nil, err
	}
	g.Generation = e.token()
	c, err := e.inspect(ctx, g)
	if err != nil {
		os.Remove(e.f.staged)
		return nil, err
	}
	return c, nil
}

// RestoreAs implements dbrepl.Restorer. name is an absolute path.
func (e *Engine) RestoreAs(ctx context.Context, dir, name string) (_ dbrepl.Counts, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("restore into %s: %w", name, err)
		}
	}()
	if !filepath.IsAbs(name) {
		return dbrepl.Counts{}, hint.New("a SQLite database is restored into a file", "name it by its absolute path")
	}
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return dbrepl.Counts{}, errors.Join(err, hint.New("it exists", "name a file that does not exist"))
	}
	part := name + ".drsync-part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a restore that was killed
		return dbrepl.Counts{}, err
	}
	if _, err := e.unpack(ctx, dir, part); err != nil {
		return dbrepl.Counts{}, err
	}
	defer os.Remove(part)
	if err := e.dressLike(part); err != nil {
		return dbrepl.Counts{}, err
	}
	if err := refuseLog(part); err != nil {
		return dbrepl.Counts{}, err
	}
	v, err := openView(ctx, candidate{part, readStaged})
	if err != nil {
		return dbrepl.Counts{}, err
	}
	c := &captured{view: v, e: e}
	if err = c.quickCheck(ctx); err == nil {
		c.counts.Tables, c.counts.Rows, err = c.count(ctx)
	}
	if err = errors.Join(err, v.Close()); err != nil {
		return dbrepl.Counts{}, err
	}
	if err := os.Link(part, name); err != nil { // unlike a rename it replaces nothing
		return dbrepl.Counts{}, err
	}
	return c.counts, durable.SyncDir(filepath.Dir(name))
}
