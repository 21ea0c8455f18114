package sqlite

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/dump"
)

// A dump whose sums are right but which is not what it says restores nothing and leaves nothing.
func TestHostileDumps(t *testing.T) {
	l := newLab(t, "wal", 300)
	e := l.engine()
	l.publish(e)
	honest := filepath.Join(t.TempDir(), "honest")
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Dump: honest})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Discard(t.Context()), c.Close()); err != nil {
		t.Fatal(err)
	}
	manifest, err := dump.Read(honest)
	if err != nil {
		t.Fatal(err)
	}
	r, err := dump.Open(honest, manifest.Chunks[0])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	g, err := parseGeneration(manifest.Definition)
	if err != nil {
		t.Fatal(err)
	}
	build := func(change func(m *dump.Manifest, g *generation, chunks *[][]byte)) string {
		dir := filepath.Join(t.TempDir(), "dump")
		m, g, chunks := manifest, g, [][]byte{append([]byte(nil), content...)}
		change(&m, &g, &chunks)
		if m.Definition == nil {
			if m.Definition, err = json.Marshal(g); err != nil {
				t.Fatal(err)
			}
		}
		w, err := dump.Create(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, chunk := range chunks {
			cw, err := w.Chunk("")
			if err == nil {
				_, err = cw.Write(chunk)
			}
			if err == nil {
				err = cw.Close(1)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Seal(dump.Manifest{Engine: m.Engine, Name: m.Name, Point: m.Point, Definition: m.Definition}); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	manifest.Definition = nil
	rehash := func(g *generation, b []byte) {
		g.Length, g.SHA256 = int64(len(b)), fmt.Sprintf("%x", sha256.Sum256(b))
	}
	for name, change := range map[string]func(m *dump.Manifest, g *generation, chunks *[][]byte){
		"another engine": func(m *dump.Manifest, _ *generation, _ *[][]byte) { m.Engine = "mysql" },
		"two chunks":     func(_ *dump.Manifest, _ *generation, c *[][]byte) { *c = append(*c, content) },
		"no chunk":       func(_ *dump.Manifest, _ *generation, c *[][]byte) { *c = nil },
		"no definition":  func(m *dump.Manifest, _ *generation, _ *[][]byte) { m.Definition = json.RawMessage(`{}`) },
		"another kind":   func(m *dump.Manifest, _ *generation, _ *[][]byte) { m.Definition = json.RawMessage(`[1]`) },
		"shorter": func(_ *dump.Manifest, g *generation, _ *[][]byte) {
			g.Length -= 4096
		},
		"a bomb": func(_ *dump.Manifest, g *generation, c *[][]byte) {
			*c = [][]byte{append(append([]byte(nil), content...), make([]byte, 100<<20)...)}
		},
		"other hash":  func(_ *dump.Manifest, g *generation, _ *[][]byte) { g.SHA256 = strings.Repeat("0", 64) },
		"no hash":     func(_ *dump.Manifest, g *generation, _ *[][]byte) { g.SHA256 = strings.Repeat("g", 64) },
		"escape":      func(_ *dump.Manifest, g *generation, _ *[][]byte) { g.SQLite = "\x1b[2J" },
		"odd mode":    func(_ *dump.Manifest, g *generation, _ *[][]byte) { g.JournalMode = "\x1b[2J" },
		"endless":     func(_ *dump.Manifest, g *generation, _ *[][]byte) { g.Length = 1 << 60 },
		"no database": func(_ *dump.Manifest, g *generation, c *[][]byte) { (*c)[0] = []byte("junk"); rehash(g, (*c)[0]) },
		"a log": func(_ *dump.Manifest, g *generation, c *[][]byte) {
			(*c)[0][18], (*c)[0][19] = 2, 2
			rehash(g, (*c)[0])
		},
		"a page of it": func(_ *dump.Manifest, g *generation, c *[][]byte) { (*c)[0] = (*c)[0][:4096]; rehash(g, (*c)[0]) },
		"damaged": func(_ *dump.Manifest, g *generation, c *[][]byte) {
			clear((*c)[0][3*4096 : 4*4096])
			(*c)[0][3*4096] = 0xA5
			rehash(g, (*c)[0])
		},
	} {
		dir := build(change)
		if _, err := e.Restore(t.Context(), dir); err == nil {
			t.Errorf("%s: restored", name)
		}
		beside := t.TempDir()
		if _, err := e.RestoreAs(t.Context(), dir, filepath.Join(beside, "beside.db")); err == nil {
			t.Errorf("%s: restored beside", name)
		}
		wantFiles(t, beside)
		wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
		os.RemoveAll(dir)
	}
	// The same, unchanged, is restored.
	restored, err := e.Restore(t.Context(), build(func(*dump.Manifest, *generation, *[][]byte) {}))
	if err != nil {
		t.Fatal(err)
	}
	restored.Close()
}

func FuzzParseGeneration(f *testing.F) {
	f.Add([]byte(`{"format":1,"generation":"A","sqlite":"3.50.0","journal_mode":"wal","length":4096,"sha256":"` + strings.Repeat("0", 64) + `"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := parseGeneration(data)
		if err != nil {
			return
		}
		back, err := json.Marshal(g)
		if err != nil {
			return // a time that JSON cannot hold
		}
		if again, err := parseGeneration(back); err != nil || again.SHA256 != g.SHA256 || again.Length != g.Length {
			t.Fatalf("%s became %+v: %v", data, again, err)
		}
	})
}

// A restore into a file that was killed leaves a part of it under another name,
// and the next one takes its place.
func TestKilledRestoreIsNotInTheWay(t *testing.T) {
	l := newLab(t, "wal", 300)
	e := l.engine()
	dir := filepath.Join(t.TempDir(), "dump")
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Dump: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Discard(t.Context()), c.Close()); err != nil {
		t.Fatal(err)
	}
	in := t.TempDir()
	into := filepath.Join(in, "beside.db")
	if err := os.WriteFile(into+".drsync-part", []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.RestoreAs(t.Context(), dir, into); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, in, "beside.db")
}
