package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
)

// line counts what travels, and cuts the connection where it is told to.
type line struct {
	open  func(ctx context.Context, arg string) (io.ReadCloser, error)
	moved atomic.Int64 // bytes
	asked []string     // what each request is for
	held  int          // streams that were not closed
	cut   int64        // bytes after which nothing more comes of streams of kind only; -1 is never
	only  string
}

var errCut = errors.New("the connection was cut")

func (l *line) snapshot(ctx context.Context, arg string) (io.ReadCloser, error) {
	kind, _, found := strings.Cut(arg, ":")
	if !found {
		kind = "whole"
	}
	l.asked = append(l.asked, kind)
	r, err := l.open(ctx, arg)
	if err != nil {
		return nil, err
	}
	l.held++
	return &lineEnd{r, l, kind == l.only && l.cut >= 0, l.cut}, nil
}

type lineEnd struct {
	io.ReadCloser
	l    *line
	cuts bool
	left int64
}

func (e *lineEnd) Read(p []byte) (int, error) {
	if e.cuts && e.left == 0 {
		return 0, errCut
	}
	if e.cuts {
		p = p[:min(int64(len(p)), e.left)]
	}
	n, err := e.ReadCloser.Read(p)
	e.left -= int64(n)
	e.l.moved.Add(int64(n))
	return n, err
}

func (e *lineEnd) Close() error {
	e.l.held--
	return e.ReadCloser.Close()
}

// on returns an engine whose streams go over l.
func (l *lab) on(line *line) *Engine {
	l.t.Helper()
	line.open = Local(l.handler)
	o := l.options()
	o.Snapshot = line.snapshot
	e, err := New(o)
	if err != nil {
		l.t.Fatal(err)
	}
	e.least = 0
	return e
}

// fill inserts n rows with keys in no order.
func (l *lab) fill(n int) {
	l.t.Helper()
	l.exec(`WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i < ?)
		INSERT INTO binaries SELECT lower(hex(randomblob(20))), abs(random()) % 1000000000 FROM c`, n)
	l.exec(`INSERT INTO nodes SELECT 'libs', 'org/example/' || (bin_length % 1000), 'name-' || bin_length || '.jar', sha1
		FROM binaries ORDER BY rowid DESC LIMIT ?`, n)
}

// wantSame asserts that the captured file is, byte by byte, what a whole transfer brings.
func (l *lab) wantSame(e *Engine) {
	l.t.Helper()
	whole := filepath.Join(l.t.TempDir(), "whole.db")
	if _, err := e.fetch(l.t.Context(), whole, "/nowhere"); err != nil {
		l.t.Fatal(err)
	}
	a, err := os.ReadFile(e.f.staged)
	b, berr := os.ReadFile(whole)
	if err != nil || berr != nil || !bytes.Equal(a, b) {
		l.t.Fatalf("what was put together has %d bytes and is not the whole one of %d: %v %v", len(a), len(b), err, berr)
	}
	os.Remove(whole)
}

// A hundred changed rows of a large database cost little, wherever they lie.
func TestChangesCostLittle(t *testing.T) {
	if underRace {
		t.Skip("it counts bytes, which takes minutes with the race detector in SQLite itself")
	}
	l := newLab(t, "wal", 0)
	l.exec("CREATE INDEX by_path ON nodes (repo, node_path, node_name)")
	l.exec("CREATE INDEX by_sum ON nodes (sha1_actual)")
	l.fill(20_000)
	l.exec("CREATE TABLE documents (id INTEGER PRIMARY KEY, body BLOB)")
	l.exec("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i < 14000) INSERT INTO documents SELECT i, randomblob(2500 + i % 1000) FROM c")
	line := &line{cut: -1}
	e := l.on(line)
	l.publish(e)
	size := line.moved.Load()
	if size < 55<<20 {
		t.Fatalf("the database has only %d bytes", size)
	}
	for name, change := range map[string]func(){
		"nothing": func() {},
		"insert":  func() { l.fill(100) },
		"update": func() {
			l.exec("UPDATE nodes SET node_name = node_name || 'x' WHERE rowid IN (SELECT abs(random()) % 20000 FROM nodes LIMIT 100)")
		},
		"other documents": func() {
			l.exec("UPDATE documents SET body = randomblob(length(body) + 100) WHERE id % 180 = 0")
		},
		"delete": func() {
			l.exec("DELETE FROM binaries WHERE rowid IN (SELECT abs(random()) % 20000 FROM nodes LIMIT 100)")
		},
	} {
		change()
		line.moved.Store(0)
		line.asked = nil
		c := l.capture(e)
		moved := line.moved.Load()
		t.Logf("%s: %.2f %% of %d bytes, %d requests", name, 100*float64(moved)/float64(size), size, len(line.asked))
		if moved > size/20 || line.held != 0 {
			t.Errorf("%s: %d bytes of %d travelled, %d streams are open", name, moved, size, line.held)
		}
		if n := c.Counts().Bytes; n > moved || n < moved-4096 {
			t.Errorf("%s: counted %d bytes, %d travelled", name, n, moved)
		}
		if err := c.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, os.Getenv("TMPDIR"))
	}
}

// Whatever happens to the active's database, what is put together is what a whole transfer brings.
func TestChangesAreTheWhole(t *testing.T) {
	for _, page := range []int{512, 4096, 65536} {
		t.Run(fmt.Sprint(page), func(t *testing.T) {
			l := newLab(t, "delete", 0)
			l.exec(fmt.Sprintf("PRAGMA page_size = %d", page))
			l.exec("VACUUM")
			l.fill(3000)
			seed := rand.Int63()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewSource(seed))
			changes := []func(){
				func() {},
				func() { l.fill(1 + r.Intn(300)) },
				func() { l.exec("DELETE FROM binaries WHERE bin_length % 97 = ?", r.Intn(97)) },
				func() {
					l.exec("UPDATE nodes SET node_name = ? WHERE rowid % 211 = ?", strings.Repeat("n", r.Intn(2000)), r.Intn(211))
				},
				func() {
					l.exec("CREATE TABLE IF NOT EXISTS big (x BLOB)")
					l.exec("INSERT INTO big VALUES (randomblob(?))", r.Intn(400_000))
				},
				func() { l.exec("INSERT INTO nodes (repo) VALUES (zeroblob(200000))") },
				func() { l.exec("DROP TABLE IF EXISTS big") },
				func() { l.exec("VACUUM") },
				func() { l.exec("CREATE INDEX IF NOT EXISTS extra ON nodes (node_name)") },
				func() { l.exec("DROP INDEX IF EXISTS extra") },
				func() { l.exec("DELETE FROM nodes") },
			}
			line := &line{cut: -1}
			e := l.on(line)
			l.publish(e)
			for i := range 30 {
				changes[r.Intn(len(changes))]()
				line.asked = nil
				c := l.capture(e)
				if strings.Contains(strings.Join(line.asked, " "), "whole") {
					t.Fatalf("step %d fell back: %q", i, line.asked)
				}
				l.wantSame(e)
				if err := c.Publish(t.Context()); err != nil {
					t.Fatal(err)
				}
				c.Close()
			}
			wantFiles(t, os.Getenv("TMPDIR"))
		})
	}
}

// A connection that is cut in any of the requests, at any byte, leaves nothing on either
// side: the whole is fetched instead, or the capture fails.
func TestCutAnywhere(t *testing.T) {
	l := newLab(t, "wal", 0)
	l.fill(1000)
	whole := &line{cut: -1}
	e := l.on(whole)
	l.publish(e)
	l.exec("UPDATE nodes SET node_name = 'y' WHERE rowid % 50 = 0")
	for _, kind := range []string{"check", "sums", "ranges"} {
		for done, at := false, int64(0); !done; at = at*2 + rand.Int63n(50) {
			cut := &line{cut: at, only: kind}
			e := l.on(cut)
			var told []string
			e.o.Event = func(ev event.Event) {
				if ev.Kind == event.Info && ev.Step == "" {
					told = append(told, ev.Text)
				}
			}
			c := l.capture(e)
			done = !strings.HasSuffix(strings.Join(cut.asked, " "), "whole")
			if cut.held != 0 || done == (len(told) == 1) {
				t.Fatalf("%s cut after %d bytes: asked %q, told %q, %d streams open", kind, at, cut.asked, told, cut.held)
			}
			l.wantSame(e)
			wantFiles(t, os.Getenv("TMPDIR"))
			c.Close()
			if err := c.Discard(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	// All requests are cut: no capture, and nothing is left of it.
	e = l.on(&line{})
	e.o.Snapshot = func(ctx context.Context, arg string) (io.ReadCloser, error) {
		r, err := Local(l.handler)(ctx, arg)
		return &lineEnd{r, &line{}, true, rand.Int63n(10_000)}, err
	}
	for range 10 {
		if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		wantFiles(t, os.Getenv("TMPDIR"))
		wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
	}
}

func TestCancelledWhileChangesAreFetched(t *testing.T) {
	l := newLab(t, "wal", 0)
	l.fill(2000)
	l.publish(l.engine())
	l.exec("UPDATE nodes SET node_name = 'y' WHERE rowid % 50 = 0")
	why := errors.New("why")
	for _, kind := range []string{"check", "sums", "ranges"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		e := l.engine()
		open := e.o.Snapshot
		e.o.Snapshot = func(ctx context.Context, arg string) (io.ReadCloser, error) {
			if strings.HasPrefix(arg, kind) {
				defer cancel(why)
			}
			return open(ctx, arg)
		}
		if _, err := e.Capture(ctx, dbrepl.CaptureOptions{}); !errors.Is(err, why) {
			t.Fatalf("%s: %v", kind, err)
		}
		wantFiles(t, os.Getenv("TMPDIR"))
		wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
	}
}
