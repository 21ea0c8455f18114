package filestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/filestore"
	"github.com/drsync/drsync/internal/filestore/storetest"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
)

// world is an active and a standby in every combination of what can be wrong,
// with what a simple model says must come out.
type world struct {
	active           *memory
	want             []blob.Ref
	root             string
	store            filestore.Local
	damaged          map[blob.Sum][]byte // what the standby has under a name it does not deserve
	report           filestore.Report
	content          map[blob.Sum][]byte // of every good blob the standby must end up with
	lost             map[blob.Sum]filestore.Reason
	deserveUntouched map[string][]byte // files that must stay as they are
}

func newWorld(t *testing.T, rnd *rand.Rand, n int) *world {
	w := &world{
		active: &memory{blobs: map[blob.Sum][]byte{}, batch: rnd.IntN(7)}, root: t.TempDir(),
		damaged: map[blob.Sum][]byte{}, content: map[blob.Sum][]byte{}, lost: map[blob.Sum]filestore.Reason{},
		deserveUntouched: map[string][]byte{},
	}
	w.store = openDir(t, w.root)
	seen := map[blob.Sum]bool{}
	for i := range n {
		size := []int{0, 1, 100, 4096, filestore.SmallBlob, filestore.SmallBlob + 1, filestore.SmallBlob + 50_000}[rnd.IntN(7)]
		ref, data := storetest.Content(fmt.Sprint("blob ", i, rnd.Uint64()), size)
		if seen[ref.Sum] { // short contents repeat
			continue
		}
		seen[ref.Sum] = true
		rotten := append(slices.Clone(data), 'x')
		path := filepath.Join(w.root, filestore.Fanned(ref.Sum))

		standby, quarantine, active, wanted := rnd.IntN(3), rnd.IntN(4), rnd.IntN(3), rnd.IntN(5) > 0
		if quarantine < 2 { // 0: good, 1: rotten, more: none
			put(t, w.store, ref, data)
			if err := w.store.Quarantine(t.Context(), ref.Sum); err != nil {
				t.Fatal(err)
			}
			if quarantine == 1 {
				q := filepath.Join(w.root, "_drsync/quarantine", filestore.Fanned(ref.Sum))
				if err := os.WriteFile(q, rotten, 0o644); err != nil {
					t.Fatal(err)
				}
				w.damaged[ref.Sum] = rotten
			}
		}
		switch standby { // 0: good, 1: wrong length, 2: none
		case 0:
			put(t, w.store, ref, data)
		case 1:
			write(t, path, string(rotten))
			w.damaged[ref.Sum] = rotten
		}
		switch active { // 0: good, 1: rotten, 2: none
		case 0:
			w.active.blobs[ref.Sum] = data
		case 1:
			bad := slices.Clone(data)
			if len(bad) > 0 {
				bad[0] ^= 1
			} else {
				bad = rotten
			}
			w.active.blobs[ref.Sum] = bad
		}
		if !wanted {
			if standby != 2 {
				w.deserveUntouched[path], _ = os.ReadFile(path)
			}
			continue
		}
		w.want = append(w.want, ref)
		w.report.Named++
		w.report.NamedBytes += ref.Size
		w.content[ref.Sum] = data
		switch {
		case standby == 0:
			w.report.Present++
		case quarantine == 0:
			w.report.Restored++
			w.report.RestoredBytes += ref.Size
		case active == 0:
			w.report.Copied++
			w.report.CopiedBytes += ref.Size
		default:
			w.report.MissingCount++
			w.lost[ref.Sum] = filestore.NotFound
			if active == 1 {
				w.lost[ref.Sum] = filestore.Corrupt
			}
			delete(w.content, ref.Sum)
			if standby == 1 {
				w.deserveUntouched[path] = rotten
			}
		}
	}
	for _, bad := range []blob.Ref{{Sum: "../../etc/passwd", Size: 3}, {Sum: "", Size: 0}, {Sum: blob.Sum(strings.Repeat("f", 40)), Size: -1}} {
		w.want = append(w.want, bad)
		w.lost[bad.Sum] = filestore.Misnamed
		w.report.Named++
		w.report.MissingCount++
	}
	return w
}

// check compares the outcome with the model.
func (w *world) check(t *testing.T, got filestore.Report, told []filestore.MissingBlob) {
	t.Helper()
	missing := map[blob.Sum]filestore.Reason{}
	for _, m := range got.Missing {
		missing[m.Ref.Sum] = m.Reason
	}
	if !slices.Equal(got.Missing, told) || int64(len(told)) != got.MissingCount {
		t.Errorf("%d in the report, %d told, %d counted", len(got.Missing), len(told), got.MissingCount)
	}
	for sum, reason := range w.lost {
		if missing[sum] != reason {
			t.Errorf("%q is missing because %q, want %q", sum, missing[sum], reason)
		}
	}
	got.Missing = nil
	if fmt.Sprint(got) != fmt.Sprint(w.report) {
		t.Errorf("report %+v\nwant   %+v", got, w.report)
	}
	for sum, data := range w.content {
		if got, err := os.ReadFile(filepath.Join(w.root, filestore.Fanned(sum))); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", sum, len(got), err)
		}
	}
	for path, data := range w.deserveUntouched {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s was touched: %d bytes, %v", path, len(got), err)
		}
	}
	everyNameHolds(t, w.root, w.damaged)
}

func TestFillAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t, rnd, rnd.IntN(60))
		for _, planned := range []int{rnd.IntN(10) + 1, 0} { // compare twice, and from memory
			if planned == 0 { // the second run finds nothing more to do
				w.report.Present += w.report.Copied + w.report.Restored
				w.report.Copied, w.report.CopiedBytes, w.report.Restored, w.report.RestoredBytes = 0, 0, 0, 0
			}
			need, err := filestore.Plan(t.Context(), refs(w.want...), w.store)
			if err != nil {
				t.Fatal(err)
			}
			if lacking := w.report.Named - w.report.Present - need.Malformed; need.Lacking != lacking || need.Present != w.report.Present {
				t.Errorf("seed %d: plan %+v, want %d lacking", seed, need, lacking)
			}
			var told []filestore.MissingBlob
			o := filestore.FillOptions{Missing: func(m filestore.MissingBlob) error { told = append(told, m); return nil }}.WithPlanned(planned)
			got, err := filestore.Fill(t.Context(), refs(w.want...), w.active, w.store, o)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			w.check(t, got, told)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestFillFromUnionToUnion(t *testing.T) {
	root := t.TempDir()
	active := []*directory{{root: filepath.Join(root, "active/one")}, {root: filepath.Join(root, "active/two")}, {root: filepath.Join(root, "active/queue")}}
	one, two := openDir(t, active[0].root), openDir(t, active[1].root)
	to := filestore.NewUnion(openDir(t, filepath.Join(root, "a")), openDir(t, filepath.Join(root, "b")))
	var want []blob.Ref
	content := map[blob.Sum][]byte{}
	const batch = 100
	for i := range 2*batch + 10 {
		ref, data := storetest.Content(fmt.Sprint("sharded ", i), 10)
		switch i % 3 {
		case 0:
			put(t, one, ref, data)
		case 1:
			put(t, two, ref, data)
			if i < 50 {
				write(t, filepath.Join(active[0].root, filestore.Fanned(ref.Sum)), "damaged")
			}
		case 2:
			write(t, filepath.Join(active[2].root, string(ref.Sum)), string(data))
		}
		want = append(want, ref)
		content[ref.Sum] = data
	}
	nowhere, _ := storetest.Content("nowhere", 10)
	damaged, _ := storetest.Content("damaged everywhere", 10)
	write(t, filepath.Join(active[0].root, filestore.Fanned(damaged.Sum)), "damaged")
	want = append(want, nowhere, damaged)
	from := filestore.NewSourceBatch([]filestore.Place{
		{Src: active[0], Path: filestore.Fanned}, {Src: active[1], Path: filestore.Fanned},
		{Src: active[2], Path: func(s blob.Sum) string { return string(s) }},
	}, batch)
	got, err := filestore.Fill(t.Context(), refs(want...), from, to, filestore.FillOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Copied != int64(len(content)) || got.MissingCount != 2 {
		t.Errorf("%+v", got)
	}
	for _, m := range got.Missing {
		if want := map[blob.Sum]filestore.Reason{nowhere.Sum: filestore.NotFound, damaged.Sum: filestore.Corrupt}[m.Ref.Sum]; m.Reason != want {
			t.Errorf("%s: %s, want %s", m.Ref.Sum, m.Reason, want)
		}
	}
	for p, err := range filestore.Verify(t.Context(), refs(want...), to, true) {
		if err != nil || p.Ref != nowhere && p.Ref != damaged || p.Kind != filestore.Absent {
			t.Errorf("%v, %v", p, err)
		}
	}
	if n := active[0].reads.Load(); n != 3 {
		t.Errorf("%d streams for three batches", n)
	}
}

// Whatever fails, and at whichever call: Fill says so, no name holds anything
// but its content, and the next Fill completes.
func TestFillFaults(t *testing.T) {
	for _, method := range []string{"Put", "Read", "Restore", "Free", "List", "Fetch", "FetchedErr", "Missing"} {
		for n := int64(1); ; n++ {
			rnd := rand.New(rand.NewPCG(42, 7))
			w := newWorld(t, rnd, 14)
			store := &faulty{Local: w.store, method: method, n: n}
			calls := int64(0)
			o := filestore.FillOptions{Missing: func(filestore.MissingBlob) error {
				if calls++; method == "Missing" && calls == n {
					return errFault
				}
				return nil
			}}.WithPlanned(4)
			if method == "Fetch" {
				w.active.failAt = int(n)
			}
			if method == "FetchedErr" {
				refs(w.want...)
				if int(n) <= len(w.want) {
					w.active.errs = map[blob.Sum]error{w.want[n-1].Sum: errFault}
				}
			}
			_, err := filestore.Fill(t.Context(), refs(w.want...), w.active, store, o)
			everyNameHolds(t, w.root, w.damaged)
			if err != nil && !errors.Is(err, errFault) {
				t.Fatalf("%s %d: %v", method, n, err)
			}
			hit := store.calls.Load() >= n || method == "Fetch" && w.active.given >= int(n) ||
				method == "Missing" && calls >= n || method == "FetchedErr" && int(n) <= len(w.want) && slices.Contains(w.active.asked, w.want[n-1].Sum)
			if hit != (err != nil) {
				t.Fatalf("%s %d: fault injected %v, error %v", method, n, hit, err)
			}
			w.active.failAt, w.active.errs = 0, nil
			if _, err := filestore.Fill(t.Context(), refs(w.want...), w.active, w.store, filestore.FillOptions{}); err != nil {
				t.Fatalf("%s %d: the next run: %v", method, n, err)
			}
			for p, err := range filestore.Verify(t.Context(), refs(w.want...), w.store, true) {
				if _, lost := w.lost[p.Ref.Sum]; err != nil || !lost {
					t.Fatalf("%s %d: after the next run: %v, %v", method, n, p, err)
				}
			}
			if !hit && (method != "FetchedErr" || int(n) > len(w.want)) {
				break
			}
		}
	}
}

// sourceFunc is a Source made of a function.
type sourceFunc func(ctx context.Context, want iter.Seq[blob.Ref]) iter.Seq2[filestore.Fetched, error]

func (f sourceFunc) Fetch(ctx context.Context, want iter.Seq[blob.Ref]) iter.Seq2[filestore.Fetched, error] {
	return f(ctx, want)
}

func answering(how func(blob.Ref) []filestore.Fetched) filestore.Source {
	return sourceFunc(func(_ context.Context, want iter.Seq[blob.Ref]) iter.Seq2[filestore.Fetched, error] {
		return func(yield func(filestore.Fetched, error) bool) {
			for ref := range want {
				for _, f := range how(ref) {
					if !yield(f, nil) {
						return
					}
				}
			}
		}
	})
}

// endlessBody never ends, and counts.
type endlessBody struct{ given int64 }

func (e *endlessBody) Read(p []byte) (int, error) {
	e.given += int64(len(p))
	return len(p), nil
}

func TestFillHostileSource(t *testing.T) {
	small, smallData := storetest.Content("hostile small", 1000)
	large, largeData := storetest.Content("hostile large", 2*filestore.SmallBlob)
	other, otherData := storetest.Content("never asked for", 10)
	all := map[blob.Sum][]byte{small.Sum: smallData, large.Sum: largeData}
	good := func(r blob.Ref) filestore.Fetched {
		return filestore.Fetched{Ref: r, Body: bytes.NewReader(all[r.Sum])}
	}
	var bodies []*endlessBody
	for _, c := range []struct {
		name    string
		how     func(blob.Ref) []filestore.Fetched
		wantErr string
		corrupt int64
	}{
		{"longer", func(r blob.Ref) []filestore.Fetched {
			return []filestore.Fetched{{Ref: r, Body: io.MultiReader(bytes.NewReader(all[r.Sum]), strings.NewReader("x"))}}
		}, "", 2},
		{"shorter", func(r blob.Ref) []filestore.Fetched {
			return []filestore.Fetched{{Ref: r, Body: bytes.NewReader(all[r.Sum][1:])}}
		}, "", 2},
		{"other content", func(r blob.Ref) []filestore.Fetched {
			return []filestore.Fetched{{Ref: r, Body: io.LimitReader(&endlessBody{}, r.Size)}}
		}, "", 2},
		{"endless", func(r blob.Ref) []filestore.Fetched {
			b := &endlessBody{}
			bodies = append(bodies, b)
			return []filestore.Fetched{{Ref: r, Body: b}}
		}, "", 2},
		{"announces another length", func(r blob.Ref) []filestore.Fetched {
			f := good(r)
			f.Ref.Size = 1 << 60
			return []filestore.Fetched{f}
		}, "", 0},
		{"answers twice", func(r blob.Ref) []filestore.Fetched { return []filestore.Fetched{good(r), good(r)} }, "not asked for", 0},
		{"answers what was not asked", func(blob.Ref) []filestore.Fetched {
			return []filestore.Fetched{{Ref: other, Body: bytes.NewReader(otherData)}}
		}, "not asked for", 0},
		{"answers a path", func(blob.Ref) []filestore.Fetched {
			return []filestore.Fetched{{Ref: blob.Ref{Sum: "../../x"}, Body: bytes.NewReader(otherData)}}
		}, "not asked for", 0},
		{"answers nothing", func(blob.Ref) []filestore.Fetched { return nil }, "2 blobs unanswered", 0},
		{"permission", func(r blob.Ref) []filestore.Fetched {
			return []filestore.Fetched{{Ref: r, Err: os.ErrPermission}}
		}, "permission", 0},
		{"cut", func(r blob.Ref) []filestore.Fetched {
			return []filestore.Fetched{{Ref: r, Body: io.MultiReader(bytes.NewReader(all[r.Sum][:500]), iotestErr{io.ErrUnexpectedEOF})}}
		}, "unexpected EOF", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			got, err := filestore.Fill(t.Context(), refs(small, large), answering(c.how), openDir(t, root), filestore.FillOptions{})
			if c.wantErr == "" && err != nil || c.wantErr != "" && (err == nil || !strings.Contains(err.Error(), c.wantErr)) {
				t.Errorf("%v, want %q", err, c.wantErr)
			}
			for _, m := range got.Missing {
				if m.Reason != filestore.Corrupt {
					t.Errorf("%+v", m)
				}
			}
			if got.MissingCount != c.corrupt {
				t.Errorf("%d corrupt, want %d", got.MissingCount, c.corrupt)
			}
			everyNameHolds(t, root, nil)
		})
	}
	for _, b := range bodies {
		if b.given > large.Size+1 {
			t.Errorf("%d bytes were taken from an endless body", b.given)
		}
	}
}

type iotestErr struct{ err error }

func (e iotestErr) Read([]byte) (int, error) { return 0, e.err }

// filesSource is an rsyncx.Source whose Read is a function.
type filesSource struct {
	rsyncx.Source
	read func(path string) rsyncx.File
}

func (s filesSource) Read(_ context.Context, want iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] {
	return func(yield func(rsyncx.File, error) bool) {
		for w := range want {
			if f := s.read(w.Path); f.Path != "stop" && !yield(f, nil) {
				return
			}
		}
	}
}

func TestPlaceSource(t *testing.T) {
	ref, data := storetest.Content("one place", 100)
	path := filestore.Fanned(ref.Sum)
	file := func(body io.Reader) rsyncx.File {
		return rsyncx.File{Path: path, Entry: rsyncx.Entry{Size: ref.Size}, Body: body}
	}
	for _, c := range []struct {
		name   string
		file   rsyncx.File
		err    string // of Fill
		reason filestore.Reason
	}{
		{name: "good", file: file(bytes.NewReader(data))},
		{name: "touched while read, content right", file: file(io.MultiReader(bytes.NewReader(data), iotestErr{rsyncx.ErrTorn}))},
		{name: "torn", file: file(io.MultiReader(bytes.NewReader(data[:50]), iotestErr{rsyncx.ErrTorn})), reason: filestore.Corrupt},
		{name: "absent", file: rsyncx.File{Path: path, Err: &rsyncx.PathError{Path: path, Err: os.ErrNotExist}}, reason: filestore.NotFound},
		{name: "unreadable", file: rsyncx.File{Path: path, Err: &rsyncx.PathError{Path: path, Err: os.ErrPermission}}, err: "permission denied"},
		{name: "length", file: rsyncx.File{Path: path, Entry: rsyncx.Entry{Size: 99}, Body: bytes.NewReader(data)}, reason: filestore.Corrupt},
		{name: "other path", file: rsyncx.File{Path: "etc/passwd\n", Body: bytes.NewReader(data)}, err: `etc/passwd\#012 was not what was asked for`},
		{name: "neither", file: rsyncx.File{Path: path}, err: "neither content nor an error"},
		{name: "no answer", file: rsyncx.File{Path: "stop"}, err: "ended before it answered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			from := filestore.NewSource([]filestore.Place{{Src: filesSource{read: func(string) rsyncx.File { return c.file }}, Path: filestore.Fanned}})
			got, err := filestore.Fill(t.Context(), refs(ref), from, openDir(t, root), filestore.FillOptions{})
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%v, want %q", err, c.err)
			}
			if c.reason != "" && (len(got.Missing) != 1 || got.Missing[0].Reason != c.reason) {
				t.Errorf("%+v, want %s", got, c.reason)
			}
			if c.err == "" && c.reason == "" && got.Copied != 1 {
				t.Errorf("%+v", got)
			}
			everyNameHolds(t, root, nil)
		})
	}
}

func TestFillCancel(t *testing.T) {
	cause := errors.New("enough")
	for n := 0; n < 24; n += 3 {
		w := newWorld(t, rand.New(rand.NewPCG(3, 3)), 20)
		ctx, cancel := context.WithCancelCause(t.Context())
		left := n
		want := func(yield func(blob.Ref, error) bool) {
			for r := range refs(w.want...) {
				if left--; left < 0 {
					cancel(cause)
				}
				if !yield(r, nil) {
					return
				}
			}
		}
		_, err := filestore.Fill(ctx, want, w.active, w.store, filestore.FillOptions{}.WithPlanned(1))
		if !errors.Is(err, cause) {
			t.Fatalf("%d: %v", n, err)
		}
		everyNameHolds(t, w.root, w.damaged)
		for _, err := range filestore.Verify(ctx, refs(w.want...), w.store, false) {
			if err != nil && !errors.Is(err, cause) {
				t.Fatal(err)
			}
		}
		if _, err := filestore.Plan(ctx, refs(w.want...), w.store); !errors.Is(err, cause) {
			t.Fatal(err)
		}
	}
}

func TestFillRefusesDisorder(t *testing.T) {
	a, _ := storetest.Content("a", 1)
	b, _ := storetest.Content("b", 1)
	sorted := []blob.Ref{a, b}
	refs(sorted...)
	errWant := errors.New("no list")
	for name, want := range map[string]iter.Seq2[blob.Ref, error]{
		"descending": func(yield func(blob.Ref, error) bool) { _ = yield(sorted[1], nil) && yield(sorted[0], nil) },
		"twice": func(yield func(blob.Ref, error) bool) {
			if yield(a, nil) {
				yield(a, nil)
			}
		},
		"broken": func(yield func(blob.Ref, error) bool) { yield(blob.Ref{}, errWant) },
	} {
		from := &memory{}
		_, err := filestore.Fill(t.Context(), want, from, openDir(t, t.TempDir()), filestore.FillOptions{})
		if err == nil || !strings.Contains(err.Error(), "not in order") && !errors.Is(err, errWant) {
			t.Errorf("%s: %v", name, err)
		}
		if len(from.asked) > 0 {
			t.Errorf("%s: the active was asked", name)
		}
	}
}

func TestFillChecksSpaceFirst(t *testing.T) {
	d := openDir(t, t.TempDir())
	ref, _ := storetest.Content("space", 10)
	free, err := d.Free()
	if err != nil {
		t.Fatal(err)
	}
	from := &memory{}
	for _, c := range []struct {
		size, reserve int64
	}{{1 << 50, 0}, {10, free}} {
		ref.Size = c.size
		_, err := filestore.Fill(t.Context(), refs(ref), from, d, filestore.FillOptions{Reserve: c.reserve})
		if !errors.Is(err, unix.ENOSPC) || hint.Of(err) == "" || !strings.Contains(err.Error(), fmt.Sprint(c.size)) {
			t.Errorf("%v", err)
		}
	}
	if len(from.asked) > 0 {
		t.Error("the active was asked")
	}
}

// A source that draws without answering is stopped before it fills the memory.
func TestFillBoundsLookAhead(t *testing.T) {
	want := func(yield func(blob.Ref, error) bool) {
		for i := range filestore.MaxOutstanding * 2 {
			if !yield(blob.Ref{Sum: blob.Sum(fmt.Sprintf("%040x", i)), Size: 1}, nil) {
				return
			}
		}
	}
	from := sourceFunc(func(_ context.Context, want iter.Seq[blob.Ref]) iter.Seq2[filestore.Fetched, error] {
		return func(func(filestore.Fetched, error) bool) {
			n := 0
			for range want {
				n++
			}
			if n > filestore.MaxOutstanding {
				t.Errorf("%d were drawn", n)
			}
		}
	})
	_, err := filestore.Fill(t.Context(), want, from, openDir(t, t.TempDir()), filestore.FillOptions{})
	if err == nil || !strings.Contains(err.Error(), "before it answers") {
		t.Error(err)
	}
}

func TestFillEvents(t *testing.T) {
	d := openDir(t, t.TempDir())
	restored, restoredData := storetest.Content("restored", 10)
	put(t, d, restored, restoredData)
	if err := d.Quarantine(t.Context(), restored.Sum); err != nil {
		t.Fatal(err)
	}
	fresh, freshData := storetest.Content("new", 20)
	gone, _ := storetest.Content("gone", 30)
	var mu sync.Mutex
	seen := map[string]event.Event{}
	var last event.Event
	sink := func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == event.Progress {
			last = e
			return
		}
		seen[e.Name] = e
	}
	o := filestore.FillOptions{Event: sink, Step: "copy blobs", Prefix: "data/filestore/"}
	if _, err := filestore.Fill(t.Context(), refs(restored, fresh, gone), &memory{blobs: map[blob.Sum][]byte{fresh.Sum: freshData}}, d, o); err != nil {
		t.Fatal(err)
	}
	if e := seen["data/filestore/"+filestore.Fanned(fresh.Sum)]; e.Itemize != ">f+++++++++" || e.Bytes != 20 || e.Kind != event.Change || e.Step != "copy blobs" {
		t.Errorf("%+v", e)
	}
	if e := seen["data/filestore/"+filestore.Fanned(restored.Sum)]; e.Itemize != "cf+++++++++" || e.Text != "from quarantine" {
		t.Errorf("%+v", e)
	}
	if last.Total != 2 || last.Size != 50 || last.Bytes != 20 || last.Step != "copy blobs" {
		t.Errorf("%+v", last)
	}
}

func TestVerify(t *testing.T) {
	root := t.TempDir()
	d := openDir(t, root)
	var want []blob.Ref
	for i := range 4 {
		ref, data := storetest.Content(fmt.Sprint("verify ", i), 100)
		put(t, d, ref, data)
		want = append(want, ref)
	}
	want = append(want, blob.Ref{Sum: "../x", Size: 1})
	if err := os.Remove(filepath.Join(root, filestore.Fanned(want[0].Sum))); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, filestore.Fanned(want[1].Sum)), "short")
	write(t, filepath.Join(root, filestore.Fanned(want[2].Sum)), strings.Repeat("x", 100))
	kinds := map[blob.Sum]filestore.ProblemKind{want[0].Sum: filestore.Absent, want[1].Sum: filestore.WrongLength, "../x": filestore.Malformed}
	for _, deep := range []bool{false, true} {
		if deep {
			kinds[want[2].Sum] = filestore.WrongHash
		}
		got := map[blob.Sum]filestore.ProblemKind{}
		for p, err := range filestore.Verify(t.Context(), refs(slices.Clone(want)...), d, deep) {
			if err != nil {
				t.Fatal(err)
			}
			got[p.Ref.Sum] = p.Kind
			if p.Kind == filestore.WrongLength && !strings.Contains(p.String(), "5 bytes instead of 100") {
				t.Errorf("%s", p)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(kinds) {
			t.Errorf("deep %v: %v, want %v", deep, got, kinds)
		}
	}
}

// A union's copies are all looked at.
func TestVerifyUnion(t *testing.T) {
	root := t.TempDir()
	a, b := openDir(t, filepath.Join(root, "a")), openDir(t, filepath.Join(root, "b"))
	u := filestore.NewUnion(a, b)
	ref, data := storetest.Content("two copies", 100)
	put(t, a, ref, data)
	put(t, b, ref, data)
	check := func(want filestore.ProblemKind) {
		t.Helper()
		var got filestore.ProblemKind
		for p, err := range filestore.Verify(t.Context(), refs(ref), u, true) {
			if err != nil {
				t.Fatal(err)
			}
			got = p.Kind
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	check("")
	write(t, filepath.Join(root, "b", filestore.Fanned(ref.Sum)), strings.Repeat("x", 100))
	check(filestore.WrongHash)
	write(t, filepath.Join(root, "b", filestore.Fanned(ref.Sum)), "x")
	check(filestore.WrongLength)
	if _, err := filestore.Fill(t.Context(), refs(ref), &memory{blobs: map[blob.Sum][]byte{ref.Sum: data}}, u, filestore.FillOptions{}); err != nil {
		t.Fatal(err)
	}
	check("")
}
