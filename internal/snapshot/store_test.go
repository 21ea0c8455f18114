package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/drsync/drsync/internal/blob"
)

func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func some(n int) (all []blob.Ref) {
	for i := range n {
		digits := 40
		if i%2 == 1 {
			digits = 64
		}
		all = append(all, blob.Ref{Sum: blob.Sum(fmt.Sprintf("%08x%s", i, strings.Repeat("a", digits-8))), Size: int64(i) * 1000})
	}
	return all
}

func seq(all []blob.Ref) iter.Seq2[blob.Ref, error] {
	return func(yield func(blob.Ref, error) bool) {
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func collect(s iter.Seq2[blob.Ref, error]) (all []blob.Ref, err error) {
	for r, err := range s {
		if err != nil {
			return all, err
		}
		all = append(all, r)
	}
	return all, nil
}

func begin(t *testing.T, s *Store, id string) *Draft {
	t.Helper()
	d, err := s.Begin(id)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRefsRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 2, 5000} {
		s := newStore(t)
		d := begin(t, s, "20260304T100000Z")
		want := some(n)
		count, total, err := d.WriteRefs("filestore", seq(want))
		if err != nil || count != int64(n) || total != int64(n*(n-1)/2*1000) {
			t.Fatal(count, total, err)
		}
		if got, err := collect(d.Refs("filestore")); err != nil || !slices.Equal(got, want) {
			t.Fatalf("draft: %d refs, %v", len(got), err)
		}
		if err := errors.Join(d.Sync(), d.Commit(Record{Time: time.Now()})); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := collect(s.Refs(d.ID, "filestore")); err != nil || !slices.Equal(got, want) {
				t.Fatalf("%d refs, %v", len(got), err)
			}
		}
		for range s.Refs(d.ID, "filestore") {
			break // stopping early is no error
		}
		if _, err := collect(s.Refs(d.ID, "other")); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func TestWriteRefsRefuses(t *testing.T) {
	a, b := some(2)[0], some(2)[1]
	broken := errors.New("broken")
	for title, in := range map[string]iter.Seq2[blob.Ref, error]{
		"descending": seq([]blob.Ref{b, a}),
		"duplicate":  seq([]blob.Ref{a, a}),
		"malformed":  seq([]blob.Ref{{Sum: "../../x"}}),
		"empty name": seq([]blob.Ref{{}}),
		"upper case": seq([]blob.Ref{{Sum: blob.Sum(strings.ToUpper(string(b.Sum)))}}),
		"negative":   seq([]blob.Ref{{Sum: a.Sum, Size: -1}}),
		"failing":    func(yield func(blob.Ref, error) bool) { _ = yield(a, nil) && yield(blob.Ref{}, broken) },
	} {
		d := begin(t, newStore(t), "20260304T100000Z")
		_, _, err := d.WriteRefs("x", in)
		if err == nil || title == "failing" && !errors.Is(err, broken) {
			t.Errorf("%s: %v", title, err)
		}
		if _, err := collect(d.Refs("x")); err == nil {
			t.Errorf("%s: what was written reads as a whole list", title)
		}
	}
}

// A list cut at any byte, or with any byte changed, is never taken for a whole one.
func TestDamagedRefs(t *testing.T) {
	d := begin(t, newStore(t), "20260304T100000Z")
	want := some(40)
	if _, _, err := d.WriteRefs("x", seq(want)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.dir(), refsName("x"))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(data []byte) ([]blob.Ref, error) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return collect(d.Refs("x"))
	}
	for n := range whole {
		if _, err := put(whole[:n]); err == nil {
			t.Fatalf("cut to %d of %d bytes: no error", n, len(whole))
		}
		bad := bytes.Clone(whole)
		bad[n] ^= 0x10
		if got, err := put(bad); err == nil && !slices.Equal(got, want) {
			t.Fatalf("byte %d changed: another list and no error", n)
		}
	}
	if _, err := put(append(bytes.Clone(whole), "junk"...)); err == nil {
		t.Fatal("data after the end: no error")
	}
	// A second stream behind the first is data after the end too.
	if _, err := put(append(bytes.Clone(whole), whole...)); err == nil {
		t.Fatal("two lists: no error")
	}
}

func TestParseRefs(t *testing.T) {
	a, b := string(some(2)[0].Sum), string(some(2)[1].Sum)
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{"end 0\n", true},
		{a + " 0\nend 1\n", true},
		{a + " 5\n" + b + " 6\nend 2\n", true},
		{"", false},
		{"\n", false},
		{"end\n", false},
		{"end 0", false},
		{"end 1\n", false},
		{"end -0\nx", false},
		{a + " 5\n", false},
		{a + " 5\nend 2\n", false},
		{a + " 5\nend 0\n", false},
		{b + " 5\n" + a + " 6\nend 2\n", false},
		{a + " 5\n" + a + " 5\nend 2\n", false},
		{a + "\nend 1\n", false},
		{a + " -5\nend 1\n", false},
		{a + " 99999999999999999999\nend 1\n", false},
		{a + " 5 6\nend 1\n", false},
		{strings.ToUpper(b) + " 5\nend 1\n", false},
		{"x 5\nend 1\n", false},
		{"end 0\nend 0\n", false},
		{strings.Repeat("a", 1<<17) + " 1\n", false},
	} {
		err := parseRefs(strings.NewReader(c.text), func(blob.Ref, error) bool { return true })
		if (err == nil) != c.ok {
			t.Errorf("%.60q: %v", c.text, err)
		}
	}
}

func FuzzParseRefs(f *testing.F) {
	var whole strings.Builder
	for _, r := range some(3) {
		fmt.Fprintf(&whole, "%s %d\n", r.Sum, r.Size)
	}
	f.Add(whole.String() + "end 3\n")
	f.Add("end 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		var out strings.Builder
		n := 0
		err := parseRefs(strings.NewReader(text), func(r blob.Ref, _ error) bool {
			if !r.Sum.Valid() || r.Size < 0 {
				t.Fatalf("%+v", r)
			}
			fmt.Fprintf(&out, "%s %d\n", r.Sum, r.Size)
			n++
			return true
		})
		fmt.Fprintf(&out, "end %d\n", n)
		if err == nil && len(out.String()) > len(text) {
			t.Fatalf("%q read as %q", text, out.String())
		}
	})
}

func FuzzReadRefs(f *testing.F) {
	z, _ := zstd.NewWriter(nil)
	f.Add(z.EncodeAll([]byte("end 0\n"), nil))
	f.Add(z.EncodeAll([]byte(string(some(1)[0].Sum)+" 1\nend 1\n"), nil))
	path := filepath.Join(f.TempDir(), "x")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err := range readRefs(path) {
			if n++; err != nil || n > 1000 {
				break
			}
		}
	})
}

func TestCommitMakesItExist(t *testing.T) {
	s := newStore(t)
	d := begin(t, s, "20260304T100000Z")
	if _, _, err := d.WriteRefs("x", seq(some(3))); err != nil {
		t.Fatal(err)
	}
	absent := func() {
		t.Helper()
		if all, err := s.List(); err != nil || len(all) != 0 {
			t.Fatal(all, err)
		}
		if _, err := s.Get(d.ID); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	absent()
	// What a crash left is found again by its id.
	d = s.Draft(d.ID)
	want := Record{Time: time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC), Complete: true, Warnings: []string{"w"},
		Missing: []Missing{{Set: "x", Sum: some(1)[0].Sum, Reason: ReasonLost}}, Epoch: 7}
	if err := d.Commit(want); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second one must not change the first
		got, err := s.Get(d.ID)
		if err != nil || got.ID != d.ID || got.Format != 1 || !got.Complete || got.Epoch != 7 || len(got.Missing) != 1 || !got.Time.Equal(want.Time) {
			t.Fatalf("%+v %v", got, err)
		}
		if refs, err := collect(s.Refs(d.ID, "x")); err != nil || len(refs) != 3 {
			t.Fatal(err)
		}
		if err := d.Commit(Record{Complete: false}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(d.Discard(), s.DiscardDrafts()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(d.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(d.ID); err != nil {
		t.Fatal(err)
	}
	absent()
	if left, _ := os.ReadDir(s.dir); len(left) != 0 {
		t.Fatal(left)
	}
	if err := s.Remove(d.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestCommitThatFailsLeavesADraft(t *testing.T) {
	s := newStore(t)
	d := begin(t, s, "20260304T100000Z")
	if err := os.RemoveAll(d.dir()); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(Record{}); err == nil {
		t.Fatal("no error")
	}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Fatal(all, err)
	}
}

func TestBeginChoosesAFreeID(t *testing.T) {
	s := newStore(t)
	for _, want := range []string{"20260304T100000Z", "20260304T100000Z-2", "20260304T100000Z-3"} {
		d := begin(t, s, "20260304T100000Z")
		if d.ID != want {
			t.Fatalf("%s, want %s", d.ID, want)
		}
		if err := d.Commit(Record{Time: now}); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := s.List(); err != nil || len(all) != 3 || all[0].ID != "20260304T100000Z-3" {
		t.Fatal(all, err)
	}
	// A draft of the same id that a crash left is started afresh.
	d := begin(t, s, "20260305T100000Z")
	if _, _, err := d.WriteRefs("old", seq(some(3))); err != nil {
		t.Fatal(err)
	}
	d = begin(t, s, "20260305T100000Z")
	if _, err := collect(d.Refs("old")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "..", "x", "20260304T100000Z-1", "20260304T100000Z/..", "20261304T100000Z"} {
		if d, err := s.Begin(bad); err == nil {
			t.Errorf("%q: %s", bad, d.ID)
		}
	}
}

func TestListOrder(t *testing.T) {
	s := newStore(t)
	at := time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)
	for _, r := range []struct {
		id        string
		t, public time.Time
	}{
		{"20260304T100001Z", at.Add(time.Second), at},
		{"20260304T100000Z", at, at.Add(time.Hour)}, // published last, by a clock that had been set back
		{"20260304T100000Z-2", at, at},
		{"20260304T090000Z", at.Add(time.Hour), at}, // published together: the time counts, not the name
	} {
		d := s.Draft(r.id)
		if err := os.Mkdir(d.dir(), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := d.Commit(Record{Time: r.t, Published: r.public}); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []string{"lost+found", "20260304T100000Z-1", "20260309T100000Z.draft", ".hidden"} {
		if err := os.Mkdir(filepath.Join(s.dir, other), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range all {
		got = append(got, r.ID)
	}
	if want := []string{"20260304T100000Z", "20260304T090000Z", "20260304T100001Z", "20260304T100000Z-2"}; !slices.Equal(got, want) {
		t.Fatalf("%q", got)
	}
	if err := s.DiscardDrafts(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "20260309T100000Z.draft")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// A record that cannot be read is an error of List, never a shorter list:
// prune would take the blobs of a snapshot that is not listed.
func TestDamagedRecord(t *testing.T) {
	for title, content := range map[string]string{"cut": `{"format":1,`, "newer": `{"format":2}`, "empty": "", "other": "[]"} {
		s := newStore(t)
		d := begin(t, s, "20260304T100000Z")
		if err := d.Commit(Record{}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.dir, d.ID, "record.json"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.List(); err == nil {
			t.Errorf("%s: no error", title)
		}
	}
	s := newStore(t)
	if err := os.Mkdir(filepath.Join(s.dir, "20260304T100000Z"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(); err == nil {
		t.Error("a snapshot without a record: no error")
	}
}

func TestIDs(t *testing.T) {
	for id, ok := range map[string]bool{
		"20260304T100000Z": true, "20260304T100000Z-2": true, "20260304T100000Z-10": true,
		"": false, "..": false, "20260304T100000Z-": false, "20260304T100000Z-0": false, "20260304T100000Z-02": false, "20260304T100000Z-2x": false,
		"20260304T100000Z.draft": false, "20260230T100000Z": false, "20260304T100000": false, "20260304T100000Z/": false,
	} {
		if validID(id) != ok {
			t.Errorf("%q: %v", id, !ok)
		}
	}
	if id := IDFor(time.Date(2026, 3, 4, 1, 2, 3, 4, time.FixedZone("", 3600))); id != "20260304T000203Z" {
		t.Error(id)
	}
}

func FuzzID(f *testing.F) {
	f.Add("20260304T100000Z-2")
	f.Fuzz(func(t *testing.T, id string) {
		if validID(id) && (strings.ContainsAny(id, "/\x00") || len(id) < 16 || filepath.Base(id) != id) {
			t.Fatalf("%q", id)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil {
		t.Fatal("no error")
	}
}
