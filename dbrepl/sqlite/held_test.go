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
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// held asks for sums and returns them with the copy still held; done lets it go.
func (l *lab) held(s *server) (h header, sums []digest, done func()) {
	l.t.Helper()
	r, err := Local(s.serve)(l.t.Context(), sumsPrefix+l.active)
	if err != nil {
		l.t.Fatal(err)
	}
	h, sums, _, err = readSums(l.t.Context(), r, func(header) error { return nil })
	if err != nil {
		l.t.Fatal(err)
	}
	done = sync.OnceFunc(func() { r.Close() })
	l.t.Cleanup(done)
	return h, sums, done
}

func (l *lab) server() *server {
	return &server{roots: []string{filepath.Dir(l.active)}, idle: time.Hour, most: time.Hour}
}

// What a standby may ask of a held copy is bounded, and nobody without its token gets any of it.
func TestRangesAreBounded(t *testing.T) {
	l := newLab(t, "wal", 500)
	s := l.server()
	h, sums, done := l.held(s)
	n := int64(len(sums))
	ask := func(s *server, request string) (string, error) {
		var got bytes.Buffer
		err := s.serve(t.Context(), rangesPrefix+request, &got)
		return got.String(), err
	}
	good := h.Token + ":" + encodeSpans([]span{{0, n}})
	if got, err := ask(s, good); err != nil || int64(len(got)) != h.Length {
		t.Fatal(len(got), err)
	}
	if got, err := ask(s, h.Token+":"+encodeSpans([]span{{1, 1}, {n - 1, 1}})); err != nil || len(got) != 2*h.Group {
		t.Fatal(len(got), err)
	}
	other := "A" + h.Token[1:]
	if other == h.Token {
		other = "B" + h.Token[1:]
	}
	for name, request := range map[string]string{
		"empty":         "",
		"no ranges":     h.Token,
		"none":          h.Token + ":",
		"after the end": h.Token + ":" + encodeSpans([]span{{0, n + 1}}),
		"far away":      h.Token + ":" + encodeSpans([]span{{n, 1}}),
		"overflow":      h.Token + ":" + encodeSpans([]span{{1<<62 + 1, 1 << 62}}),
		"empty range":   h.Token + ":" + encodeSpans([]span{{0, 0}}),
		"half":          h.Token + ":AA",
		"no base64":     h.Token + ":!!",
		"another":       other + ":" + encodeSpans([]span{{0, 1}}),
		"a path":        "../" + h.Token + ":AAE",
		"short":         h.Token[:25] + ":AAE",
		"lower case":    strings.ToLower(h.Token) + ":AAE",
		"long":          h.Token + ":" + strings.Repeat("AAE", 2000),
	} {
		if got, err := ask(s, request); err == nil || got != "" {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	elsewhere := &server{roots: []string{t.TempDir()}, idle: time.Hour, most: time.Hour}
	if got, err := ask(elsewhere, good); err == nil || got != "" {
		t.Errorf("an agent with other roots: %d bytes, %v", len(got), err)
	}
	done()
	wantFiles(t, os.Getenv("TMPDIR"))
	if _, err := ask(s, good); !errors.Is(err, errGone) {
		t.Errorf("after it was let go: %v", err)
	}
	// A directory that nobody holds is none, whatever it is called.
	dir := filepath.Join(os.Getenv("TMPDIR"), privatePrefix+h.Token)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	copyFile(t, l.active, filepath.Join(dir, copyName))
	if err := os.WriteFile(filepath.Join(dir, originName), []byte(l.active), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(s, good); !errors.Is(err, errGone) {
		t.Errorf("held by nobody: %v", err)
	}
}

func TestOnlySoManyCopies(t *testing.T) {
	l := newLab(t, "wal", 50)
	s := l.server()
	for range maxCopies {
		l.held(s)
	}
	for _, arg := range []string{l.active, sumsPrefix + l.active} {
		if err := s.serve(t.Context(), arg, io.Discard); err == nil || !strings.Contains(err.Error(), "already") || hint.Of(err) == "" {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

// A copy that nobody reads from is let go; each reading puts that off.
func TestHeldCopyExpires(t *testing.T) {
	l := newLab(t, "wal", 50)
	for name, s := range map[string]*server{
		"idle": {roots: []string{filepath.Dir(l.active)}, idle: 20 * time.Millisecond, most: time.Hour},
		"long": {roots: []string{filepath.Dir(l.active)}, idle: time.Hour, most: time.Nanosecond},
	} {
		if name == "long" {
			s.idle = 20 * time.Millisecond // how often it looks
		}
		err := s.serve(t.Context(), sumsPrefix+l.active, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "held for") {
			t.Errorf("%s: %v", name, err)
		}
		wantFiles(t, os.Getenv("TMPDIR"))
	}
	h, _, _ := l.held(l.server())
	dir := filepath.Join(os.Getenv("TMPDIR"), privatePrefix+h.Token)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(dir, old, old); err != nil {
		t.Fatal(err)
	}
	if err := l.server().serve(t.Context(), rangesPrefix+h.Token+":"+encodeSpans([]span{{0, 1}}), io.Discard); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(dir); err != nil || time.Since(fi.ModTime()) > time.Minute {
		t.Fatalf("reading is not noticed: %v %v", fi, err)
	}
}

// The active is not trusted: whatever it answers, what becomes staged has the hash that
// it stated, and nothing is written or taken beyond what it announced.
func TestHostileSums(t *testing.T) {
	l := newLab(t, "wal", 0)
	l.fill(2000)
	l.publish(l.engine())
	l.exec("UPDATE nodes SET node_name = 'y' WHERE rowid % 50 = 0")
	answer := func(change func(h *header, sums []byte, ranges []byte) ([]byte, []byte)) (map[string][]byte, error) {
		p, err := newPrivate()
		if err != nil {
			return nil, err
		}
		defer p.remove()
		f, h, err := p.copyOf(t.Context(), l.active)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		h.Group, h.Token = groupSize(h.Length, h.PageSize), strings.Repeat("A", tokenSize)
		var sums, all bytes.Buffer
		if err := sendSums(t.Context(), &sums, h, f); err != nil {
			return nil, err
		}
		if _, err := io.Copy(&all, io.NewSectionReader(f, 0, h.Length)); err != nil {
			return nil, err
		}
		s, r := change(&h, sums.Bytes(), all.Bytes())
		return map[string][]byte{"sums": s, "ranges": r}, nil
	}
	zeros := make([]byte, 10<<20)
	for name, change := range map[string]func(h *header, sums, ranges []byte) ([]byte, []byte){
		"too much":        func(_ *header, s, r []byte) ([]byte, []byte) { return s, append(bytes.Clone(r), zeros...) },
		"nothing":         func(_ *header, s, r []byte) ([]byte, []byte) { return s, nil },
		"other content":   func(_ *header, s, r []byte) ([]byte, []byte) { return s, zeros[:len(r)] },
		"a changed sum":   func(_ *header, s, r []byte) ([]byte, []byte) { s[400] ^= 1; return s, r },
		"a changed hash":  func(_ *header, s, r []byte) ([]byte, []byte) { s[len(s)-100] ^= 1; return s, r },
		"an endless line": func(_ *header, s, r []byte) ([]byte, []byte) { return zeros, r },
	} {
		answers, err := answer(change)
		if err != nil {
			t.Fatal(err)
		}
		o := l.options()
		honest := o.Snapshot
		whole := 0
		o.Snapshot = func(ctx context.Context, arg string) (io.ReadCloser, error) {
			kind, rest, _ := strings.Cut(arg, ":")
			switch body, ok := answers[kind]; {
			case kind == "ranges" && name != "too much":
				// As many bytes as were asked for, of something.
				spans, err := parseSpans(rest[tokenSize+1:], 1<<30, 4096)
				if err != nil {
					t.Fatal(err)
				}
				var n int64
				for _, s := range spans {
					n += s.count * 4096
				}
				return io.NopCloser(bytes.NewReader(body[:min(n, int64(len(body)))])), nil
			case ok:
				return io.NopCloser(bytes.NewReader(body)), nil
			case kind != "check":
				whole++
			}
			return honest(ctx, arg)
		}
		e, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		e.least = 0
		c := l.capture(e)
		if whole != 1 {
			t.Errorf("%s: the whole was asked for %d times", name, whole)
		}
		l.wantSame(l.engine())
		c.Close()
		if err := c.Discard(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// Many small differences are asked for in few requests, each of which is short enough.
func TestRequestsAreShort(t *testing.T) {
	for _, c := range []struct {
		groups int64
		group  int
		keep   func(i int64) bool
	}{
		{1 << 20, 4096, func(i int64) bool { return i%2 == 0 }},
		{1 << 20, 4096, func(int64) bool { return false }},
		{1 << 20, maxGroup, func(i int64) bool { return i%1000 != 0 }},
		{300_000, 4096, func(i int64) bool { return i%100 != 7 }},
		{100, 65536, func(i int64) bool { return true }},
	} {
		w := &wanted{have: make([]bool, c.groups)}
		for i := range w.have {
			w.have[i] = c.keep(int64(i))
		}
		asked := make([]bool, c.groups)
		all := requests(coalesce(w.missing(), maxSpans), c.group)
		for _, spans := range all {
			text := encodeSpans(spans)
			if len(rangesPrefix)+tokenSize+1+len(text) > maxText {
				t.Fatalf("a request of %d bytes", len(text))
			}
			back, err := parseSpans(text, c.groups, c.group)
			if err != nil || !slices.Equal(back, spans) {
				t.Fatalf("%v: %v", spans, err)
			}
			for _, s := range spans {
				for i := range s.count {
					asked[s.first+i] = true
				}
			}
		}
		for i, have := range w.have {
			if !have && !asked[i] {
				t.Fatalf("group %d is not asked for", i)
			}
		}
		if most := 200 + int(c.groups*int64(c.group)/maxAsked); len(all) > most {
			t.Errorf("%d requests", len(all))
		}
	}
}

func FuzzParseSpans(f *testing.F) {
	f.Add(encodeSpans([]span{{0, 3}, {7, 1}}), int64(8), 4096)
	f.Add("AA", int64(1), maxGroup)
	f.Fuzz(func(t *testing.T, text string, n int64, group int) {
		if n < 1 || n > maxSums || group < leastSize || group > maxGroup {
			return
		}
		spans, err := parseSpans(text, n, group)
		if err != nil {
			return
		}
		var at, asked int64
		for _, s := range spans {
			if s.first < at || s.count < 1 || s.first+s.count > n {
				t.Fatalf("accepted %v of %d", spans, n)
			}
			at = s.first + s.count
			asked += s.count
		}
		if asked*int64(group) > maxAsked {
			t.Fatalf("%d groups of %d", asked, group)
		}
		if back, err := parseSpans(encodeSpans(spans), n, group); err != nil || !slices.Equal(back, spans) {
			t.Fatalf("%v became %v: %v", spans, back, err)
		}
	})
}

func FuzzReadSums(f *testing.F) {
	body := make([]byte, 5*512)
	var b bytes.Buffer
	h := header{Format: 1, Time: time.Now().UTC(), SQLite: "3.50.0", PageSize: 512, JournalMode: "wal", Length: int64(len(body)), Token: strings.Repeat("A", tokenSize), Group: 1024}
	if err := sendSums(context.Background(), &b, h, bytes.NewReader(body)); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	for n := range b.Len() { // every damage is noticed
		bad := bytes.Clone(b.Bytes())
		bad[n] ^= 1
		for _, data := range [][]byte{bad, b.Bytes()[:n]} {
			if _, _, _, err := readSums(context.Background(), bytes.NewReader(data), func(header) error { return nil }); err == nil {
				f.Fatalf("byte %d: no error", n)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, sums, hash, err := readSums(t.Context(), bytes.NewReader(data), func(header) error { return nil })
		if err != nil {
			return
		}
		if h.valid() != nil || int64(len(sums)) != count(h.Length, h.Group) || len(hash) != 64 || len(sums)*sumSize > len(data) {
			t.Fatalf("accepted %+v", h)
		}
	})
}

// The sum of a group is the same wherever it lies.
func TestSumsDoNotDependOnThePlace(t *testing.T) {
	for _, pages := range []int{1, 2, 8, 64} {
		h := header{PageSize: 512, Group: 512 * pages}
		content := make([]byte, h.Group*7+512*(pages/2))
		rand.New(rand.NewSource(1)).Read(content)
		h.Length = int64(len(content))
		var sums []digest
		if err := eachGroup(bytes.NewReader(content), h, func(s digest) error { sums = append(sums, s); return nil }); err != nil {
			t.Fatal(err)
		}
		if int64(len(sums)) != count(h.Length, h.Group) {
			t.Fatalf("%d sums", len(sums))
		}
		// All whole groups are found, in another order and after some other pages.
		var old []byte
		old = append(old, make([]byte, 512*3)...)
		for i := 6; i >= 0; i-- {
			old = append(old, content[i*h.Group:(i+1)*h.Group]...)
		}
		old = append(old, 1, 2, 3)
		got := make([]byte, len(content))
		w := newWanted(sums)
		err := reuse(t.Context(), bytes.NewReader(old), h, w, func(p []byte, at int64) error { copy(got[at:], p); return nil })
		if err != nil || w.left != len(sums)-7 || !bytes.Equal(got[:7*h.Group], content[:7*h.Group]) {
			t.Fatalf("%d pages: %d groups are missing: %v", pages, w.left, err)
		}
	}
}

// A writer that moves money between accounts, and makes the database grow, during every
// copy, which takes several steps: the sum is always exact.
func TestWriterDuringCopies(t *testing.T) {
	l := newLab(t, "delete", 0)
	l.exec("PRAGMA page_size = 512")
	l.exec("VACUUM")
	l.exec("PRAGMA journal_mode = WAL")
	l.fill(14_000)
	l.exec("CREATE TABLE accounts (id INTEGER PRIMARY KEY, money INT, note BLOB)")
	l.exec("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i < 2000) INSERT INTO accounts SELECT i, 1000, randomblob(300) FROM c")
	stop, ended := make(chan struct{}), make(chan error, 1)
	writes := 0
	go func() {
		for r := rand.New(rand.NewSource(1)); ; writes++ {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			tx, err := l.app.Begin()
			if err == nil {
				n := r.Intn(500)
				_, err = tx.Exec("UPDATE accounts SET money = money - ? WHERE id = ?", n, 1+r.Intn(2000))
				if err == nil {
					_, err = tx.Exec("UPDATE accounts SET money = money + ?, note = randomblob(?) WHERE id = ?", n, r.Intn(900), 1+r.Intn(2000))
				}
				err = errors.Join(err, tx.Commit())
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	e := l.engine()
	for range 4 {
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		lines, err := askStandby(e.f.staged, "SELECT sum(money), (SELECT page_count > "+fmt.Sprint(stepPages)+" FROM pragma_page_count) FROM accounts")
		if err != nil || !slices.Equal(lines, []string{"2000000|1"}) {
			t.Fatalf("%q %v", lines, err)
		}
		if lines, err = askStandby(e.f.staged, "PRAGMA integrity_check"); err != nil || !slices.Equal(lines, []string{"ok"}) {
			t.Fatalf("%q %v", lines, err)
		}
		if err := c.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	close(stop)
	if err := <-ended; err != nil || writes < 100 {
		t.Fatal(writes, err)
	}
}
