package sqlite

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
)

func stream(t testing.TB, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	h := header{Format: 1, Time: time.Now().UTC(), SQLite: "3.50.0", PageSize: 512, JournalMode: "wal", Length: int64(len(body))}
	if err := send(context.Background(), &b, h, bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func into(w io.Writer) func(header) (io.Writer, error) {
	return func(header) (io.Writer, error) { return w, nil }
}

func TestStreamRoundTripAndEveryDamage(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 64)
	whole := stream(t, body)
	var got bytes.Buffer
	if h, sum, err := receive(t.Context(), bytes.NewReader(whole), into(&got)); err != nil || len(sum) != 64 || h.Length != 1024 || !bytes.Equal(got.Bytes(), body) {
		t.Fatal(h, sum, err)
	}
	for n := range whole {
		if _, _, err := receive(t.Context(), bytes.NewReader(whole[:n]), into(io.Discard)); err == nil {
			t.Fatalf("truncated to %d of %d bytes: no error", n, len(whole))
		}
		bad := bytes.Clone(whole)
		bad[n] ^= 1
		if _, _, err := receive(t.Context(), bytes.NewReader(bad), into(io.Discard)); err == nil {
			t.Fatalf("byte %d flipped: no error", n)
		}
	}
	if _, _, err := receive(t.Context(), bytes.NewReader(append(bytes.Clone(whole), 'x')), into(io.Discard)); err == nil {
		t.Fatal("data after the end: no error")
	}
	broken := errors.New("broken")
	if _, _, err := receive(t.Context(), io.MultiReader(bytes.NewReader(whole), errReader{broken}), into(io.Discard)); !errors.Is(err, broken) {
		t.Fatalf("a peer that fails at the end: %v", err)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestHeadersThatLie(t *testing.T) {
	for _, line := range []string{
		"", "\n", "null\n", "[]\n", "{}\n", strings.Repeat(" ", maxHeader+10) + "\n", strings.Repeat("x", 1<<20),
		`{"drsync_sqlite":2,"time":"2026-01-02T03:04:05Z","sqlite":"3","page_size":512,"journal_mode":"wal","length":512}` + "\n",
		`{"drsync_sqlite":1,"time":"0001-01-02T03:04:05Z","sqlite":"3","page_size":512,"journal_mode":"wal","length":512}` + "\n",
		`{"drsync_sqlite":1,"time":"2026-01-02T03:04:05Z","sqlite":"3","page_size":513,"journal_mode":"wal","length":513}` + "\n",
		`{"drsync_sqlite":1,"time":"2026-01-02T03:04:05Z","sqlite":"3","page_size":512,"journal_mode":"wal","length":0}` + "\n",
		`{"drsync_sqlite":1,"time":"2026-01-02T03:04:05Z","sqlite":"3","page_size":512,"journal_mode":"wal","length":-512}` + "\n",
		`{"drsync_sqlite":1,"time":"2026-01-02T03:04:05Z","sqlite":"3","page_size":512,"journal_mode":"wal","length":513}` + "\n",
		`{"drsync_sqlite":1,"time":"2026-01-02T03:04:05Z","sqlite":"3","page_size":512,"journal_mode":"\u001b[2J","length":512}` + "\n",
		`{"drsync_sqlite":1,"time":"2026-01-02T03:04:05Z","sqlite":"\u001b[2J","page_size":512,"journal_mode":"wal","length":512}` + "\n",
		`{"drsync_sqlite":1,"time":"2026-01-02T03:04:05Z","sqlite":"3","page_size":512,"journal_mode":"wal","length":512,"check":true}` + "\n",
	} {
		accepted := false
		_, _, err := receive(t.Context(), strings.NewReader(line), func(header) (io.Writer, error) { accepted = true; return io.Discard, nil })
		if err == nil || accepted {
			t.Errorf("%.120q: accepted", line)
		}
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(stream(f, make([]byte, 512)))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var got bytes.Buffer
		h, _, err := receive(t.Context(), bytes.NewReader(data), into(&got))
		if got.Len() > len(data) {
			t.Fatal("more written than received")
		}
		if err != nil {
			return
		}
		if h.valid() != nil || int64(got.Len()) != h.Length {
			t.Fatalf("accepted %+v", h)
		}
	})
}

// What the active sends is not trusted: a stream with right hashes whose content is no sound database is refused.
func TestHostileDatabases(t *testing.T) {
	l := newLab(t, "wal", 200)
	var raw bytes.Buffer
	var honest bytes.Buffer
	if err := l.handler(t.Context(), l.active, &raw); err != nil {
		t.Fatal(err)
	}
	h, _, err := receive(t.Context(), &raw, into(&honest))
	if err != nil {
		t.Fatal(err)
	}
	spoil := func(change func(b []byte) []byte) []byte { return change(bytes.Clone(honest.Bytes())) }
	for name, body := range map[string][]byte{
		"no database":     bytes.Repeat([]byte("x"), 8192),
		"cut in half":     spoil(func(b []byte) []byte { return b[:len(b)/2/h.PageSize*h.PageSize] }),
		"a page of junk":  spoil(func(b []byte) []byte { copy(b[h.PageSize*2:], bytes.Repeat([]byte{0xA5}, h.PageSize)); return b }),
		"a bad free list": spoil(func(b []byte) []byte { b[h.PageSize+1], b[h.PageSize+2] = 0, 3; return b }),
		"other page size": spoil(func(b []byte) []byte { b[16], b[17] = 0x20, 0; return b }),
	} {
		o := l.options()
		o.Snapshot = func(context.Context, string) (io.ReadCloser, error) {
			var s bytes.Buffer
			h := h
			h.Length = int64(len(body))
			if err := send(t.Context(), &s, h, bytes.NewReader(body)); err != nil {
				t.Fatal(err)
			}
			return io.NopCloser(&s), nil
		}
		e, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
		wantFiles(t, e.f.dir)
	}
	o := l.options()
	o.Snapshot = func(context.Context, string) (io.ReadCloser, error) {
		h := h
		h.Length = 1 << 60
		line, err := h.line()
		return io.NopCloser(bytes.NewReader(line)), err
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), "room") {
		t.Errorf("an endless database: %v", err)
	}
	wantFiles(t, filepath.Dir(l.standby))
}

func TestHandlerIsConfined(t *testing.T) {
	l := newLab(t, "wal", 5)
	root := filepath.Dir(l.active)
	outside := filepath.Join(t.TempDir(), "other.db")
	openApp(t, outside, "wal")
	if err := os.Symlink(outside, filepath.Join(root, "link.db")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(l.active, filepath.Join(root, "inside.db")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	linked := filepath.Join(t.TempDir(), "root")
	if err := os.Symlink(root, linked); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		roots []string
		path  string
		ok    bool
	}{
		{[]string{root}, l.active, true},
		{[]string{"/nowhere", root}, l.active, true},
		{[]string{linked}, l.active, true},
		{[]string{linked}, linked + "/app.db", true},
		{[]string{root}, filepath.Join(root, "inside.db"), true},
		{nil, l.active, false},
		{[]string{"relative"}, l.active, false},
		{[]string{root}, outside, false},
		{[]string{root}, filepath.Join(root, "link.db"), false},
		{[]string{root}, filepath.Join(root, "dir"), false},
		{[]string{root}, root, false},
		{[]string{root}, root + "/../" + filepath.Base(root) + "/app.db", false},
		{[]string{root}, "app.db", false},
		{[]string{root}, "", false},
		{[]string{root}, l.active + "\x00", false},
		{[]string{root}, filepath.Join(root, "missing.db"), false},
		{[]string{root + "/app"}, l.active, false},
	} {
		for _, prefix := range []string{"", checkPrefix} {
			err := NewSnapshotHandler(c.roots)(t.Context(), prefix+c.path, io.Discard)
			if (err == nil) != c.ok {
				t.Errorf("roots %q, path %q: %v", c.roots, prefix+c.path, err)
			}
		}
	}
}

// The active is read only, and the copy goes away, however the call ends.
func TestHandlerLeavesNothing(t *testing.T) {
	l := newLab(t, "wal", 500)
	tmp := os.Getenv("TMPDIR")
	var before map[string]string
	look := func() map[string]string {
		all := map[string]string{}
		for _, p := range []string{l.active, l.active + "-wal"} {
			data, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			all[p] = string(data)
		}
		return all
	}
	before = look()
	why := errors.New("why")
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	middle, cancelMiddle := context.WithCancelCause(t.Context())
	for name, c := range map[string]struct {
		ctx  context.Context
		w    io.Writer
		want error
	}{
		"done":                   {t.Context(), io.Discard, nil},
		"writer fails":           {t.Context(), failAfter{new(int), 1, why}, why},
		"cancelled":              {cancelled, io.Discard, why},
		"cancelled while copied": {middle, writerFunc(func(p []byte) (int, error) { cancelMiddle(why); return len(p), nil }), why},
	} {
		if err := l.handler(c.ctx, l.active, c.w); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
		wantFiles(t, tmp)
	}
	for p, content := range look() {
		if before[p] != content {
			t.Errorf("%s changed", p)
		}
	}
	wantFiles(t, filepath.Dir(l.active), "app.db", "app.db-wal", "app.db-shm")
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

type failAfter struct {
	n   *int
	max int
	err error
}

func (f failAfter) Write(p []byte) (int, error) {
	if *f.n++; *f.n > f.max {
		return 0, f.err
	}
	return len(p), nil
}

func TestSweepTakesOnlyDeadCopies(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	p, err := newPrivate()
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(tmp, privatePrefix+"dead")
	fresh := filepath.Join(tmp, privatePrefix+"fresh")
	for _, d := range []string{dead, fresh} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	for _, d := range []string{dead, p.dir} {
		if err := os.Chtimes(d, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if live := sweep(tmp); live != 1 {
		t.Fatalf("%d copies live", live)
	}
	wantFiles(t, tmp, filepath.Base(p.dir), filepath.Base(fresh))
	if err := p.remove(); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, tmp, filepath.Base(fresh))
}

func TestEmptyAndCrashedActive(t *testing.T) {
	l := newLab(t, "wal", 20)
	dir := filepath.Dir(l.active)
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "text.db"), []byte(strings.Repeat("text\n", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"empty.db", "text.db"} {
		for _, prefix := range []string{"", checkPrefix} {
			if err := l.handler(t.Context(), prefix+filepath.Join(dir, name), io.Discard); err == nil {
				t.Errorf("%s%s: no error", prefix, name)
			}
		}
	}
	// A log left by a crash is read without being applied to the active's file.
	crashed := filepath.Join(dir, "crashed.db")
	for _, suffix := range []string{"", "-wal"} {
		copyFile(t, l.active+suffix, crashed+suffix)
	}
	before, _ := os.ReadFile(crashed)
	o := l.options()
	o.ActivePath = crashed
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l.publish(e)
	wantVisible(t, e, 20)
	if after, _ := os.ReadFile(crashed); !bytes.Equal(before, after) {
		t.Error("the active's file changed")
	}
}
