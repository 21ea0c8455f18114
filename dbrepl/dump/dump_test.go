package dump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sample writes a dump of a few chunks and returns their contents.
func sample(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	w, err := Create(dir)
	must(t, err)
	want := make(map[string][]byte)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			content := make([]byte, random.IntN(3<<20))
			for j := range content {
				content[j] = byte(random.IntN(4)) // it compresses
			}
			name := fmt.Sprintf("table %d", i)
			c, err := w.Chunk(name)
			if err == nil {
				_, err = io.Copy(c, bytes.NewReader(content))
			}
			if err == nil {
				err = c.Close(int64(i))
			}
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			want[name] = content
			mu.Unlock()
		})
	}
	wg.Wait()
	foreign := filepath.Join(filepath.Dir(dir), "toc.dat")
	want["toc.dat"] = []byte("made elsewhere")
	must(t, os.WriteFile(foreign, want["toc.dat"], 0o600))
	must(t, w.Adopt("toc.dat", foreign, 0))
	must(t, w.Seal(Manifest{Engine: "mysql", Name: "artdb", Point: dbrepl.Point{Time: time.Unix(1, 2).UTC(), Position: "bin.1:4"}, Definition: []byte(`{"ddl":"CREATE TABLE <b>"}`)}))
	return want
}

func TestRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dump")
	want := sample(t, dir)
	m, err := Check(t.Context(), dir)
	must(t, err)
	if m.Engine != "mysql" || m.Point.Position != "bin.1:4" || !m.Point.Time.Equal(time.Unix(1, 2)) || string(m.Definition) != `{"ddl":"CREATE TABLE \u003cb\u003e"}` || m.Rows() != 0+1+2+3+4 {
		t.Fatalf("the manifest came back as %+v", m)
	}
	if len(m.Chunks) != len(want) {
		t.Fatalf("%d chunks, want %d", len(m.Chunks), len(want))
	}
	var stored int64
	for _, c := range m.Chunks {
		r, err := Open(dir, c)
		must(t, err)
		got, err := io.ReadAll(r)
		must(t, err)
		must(t, r.Close())
		if !bytes.Equal(got, want[c.Table]) || c.Bytes != int64(len(got)) {
			t.Errorf("chunk of %s differs", c.Table)
		}
		stored += c.Stored
	}
	if m.Stored() != stored || stored == 0 {
		t.Errorf("Stored() = %d", m.Stored())
	}
}

// Whatever happens to any byte of any file is noticed.
func TestDamage(t *testing.T) {
	for _, how := range []struct {
		name string
		do   func([]byte) []byte
	}{
		{"flipped", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
		{"first", func(b []byte) []byte { b[0] ^= 0x20; return b }},
		{"last", func(b []byte) []byte { b[len(b)-2] ^= 1; return b }},
		{"cut", func(b []byte) []byte { return b[:len(b)-3] }},
		{"longer", func(b []byte) []byte { return append(b, "x1"...) }},
		{"empty", func([]byte) []byte { return nil }},
	} {
		t.Run(how.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dump")
			sample(t, dir)
			names, err := filepath.Glob(filepath.Join(dir, "*"))
			must(t, err)
			for _, path := range names {
				was, err := os.ReadFile(path)
				must(t, err)
				must(t, os.WriteFile(path, how.do(bytes.Clone(was)), 0o600))
				_, err = Check(t.Context(), dir)
				if !errors.Is(err, ErrDamaged) {
					t.Errorf("%s: %v", filepath.Base(path), err)
				}
				if filepath.Base(path) != manifestName && !strings.Contains(fmt.Sprint(err), filepath.Base(path)) {
					t.Errorf("%s is not named: %v", filepath.Base(path), err)
				}
				must(t, os.WriteFile(path, was, 0o600))
			}
			must(t, os.Remove(filepath.Join(dir, "0002.zst")))
			if _, err := Check(t.Context(), dir); !errors.Is(err, ErrDamaged) || !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("without a chunk: %v", err)
			}
		})
	}
}

func TestUnfinished(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dump")
	w, err := Create(dir)
	must(t, err)
	c, err := w.Chunk("t")
	must(t, err)
	if err := w.Seal(Manifest{}); err == nil {
		t.Error("sealed with a chunk that is open")
	}
	c.Abort()
	if err := w.Seal(Manifest{}); err == nil {
		t.Error("sealed with a chunk that was given up")
	}
	if _, err := Read(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a manifest: %v", err)
	}
	if there, err := Exists(dir); there || err != nil {
		t.Errorf("Exists = %v, %v", there, err)
	}
	if _, err := Create(dir); err == nil {
		t.Error("two writers have one directory")
	}
	must(t, w.Discard())
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("something is left")
	}
}

func TestCheckObeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dump")
	sample(t, dir)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := Check(ctx, dir); !errors.Is(err, why) {
		t.Error(err)
	}
}

func FuzzManifest(f *testing.F) {
	text, err := Manifest{Engine: "sqlite", Chunks: []Chunk{{File: "0001.zst", Table: "t", Sum: "00"}}}.encode()
	must(f, err)
	f.Add(text)
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := decode(text)
		if err != nil {
			return
		}
		for _, c := range m.Chunks {
			if strings.ContainsAny(c.File, "/\x00") {
				t.Fatalf("chunk %q", c.File)
			}
		}
		again, err := m.encode()
		must(t, err)
		if _, err := decode(again); err != nil {
			t.Fatal(err)
		}
	})
}
