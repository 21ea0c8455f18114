// Package storetest is the contract of filestore.Local as tests, run over every
// implementation.
package storetest

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/filestore"
)

// Content returns n random bytes, the same for the same seed, and their reference.
func Content(seed string, n int) (blob.Ref, []byte) {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(seed))).Read(data) // it never fails
	digest := sha1.Sum(data)
	return blob.Ref{Sum: blob.Of(digest[:]), Size: int64(n)}, data
}

// Run runs the suite. open returns a new empty store for each call.
func Run(t *testing.T, open func(t *testing.T) filestore.Local) {
	for name, test := range map[string]func(*testing.T, filestore.Local){
		"RoundTrip": roundTrip, "NotFound": notFound, "Malformed": malformed, "Corrupt": corrupt,
		"Endless": endless, "BrokenReader": brokenReader, "List": list, "Cancel": cancelled,
		"Quarantine": quarantine, "Concurrent": concurrent, "Replace": replace,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			test(t, s)
		})
	}
}

func put(t *testing.T, s filestore.Store, ref blob.Ref, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), ref, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
}

// check fails unless s has exactly data under ref.
func check(t *testing.T, s filestore.Local, ref blob.Ref, data []byte) {
	t.Helper()
	size, err := s.Stat(t.Context(), ref.Sum)
	if err != nil || size != ref.Size {
		t.Fatalf("Stat(%s) = %d, %v; want %d", ref.Sum, size, err, ref.Size)
	}
	r, err := s.Open(t.Context(), ref.Sum)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("content of %s: %d bytes, %v", ref.Sum, len(got), err)
	}
	found := false
	for _, path := range s.Paths(ref.Sum) {
		if got, err := os.ReadFile(path); err == nil {
			found = found || bytes.Equal(got, data)
		}
	}
	if !found {
		t.Fatalf("%s is at none of %q", ref.Sum, s.Paths(ref.Sum))
	}
}

func names(t *testing.T, s filestore.Store) []blob.Sum {
	t.Helper()
	var all []blob.Sum
	for i, err := range s.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, i.Sum)
	}
	return all
}

func roundTrip(t *testing.T, s filestore.Local) {
	for _, n := range []int{0, 1, 4096, 128<<10 - 1, 128 << 10, 128<<10 + 1, 1<<20 + 3} {
		ref, data := Content(fmt.Sprint("round trip ", n), n)
		put(t, s, ref, data)
		check(t, s, ref, data)
	}
	data := []byte("named by SHA-256")
	digest := sha256.Sum256(data)
	ref := blob.Ref{Sum: blob.Of(digest[:]), Size: int64(len(data))}
	put(t, s, ref, data)
	check(t, s, ref, data)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if free, err := s.Free(); err != nil || free <= 0 {
		t.Fatalf("Free() = %d, %v", free, err)
	}
	if err := s.Delete(t.Context(), ref.Sum); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(t.Context(), ref.Sum); !errors.Is(err, filestore.ErrNotFound) {
		t.Fatalf("after Delete: %v", err)
	}
}

func notFound(t *testing.T, s filestore.Local) {
	ref, _ := Content("absent", 10)
	for doing, err := range every(t.Context(), s, ref, nil) {
		if doing != "Put" && !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("%s of an absent blob: %v", doing, err)
		}
	}
}

// every calls each method that takes a name.
func every(ctx context.Context, s filestore.Local, ref blob.Ref, data []byte) map[string]error {
	_, statErr := s.Stat(ctx, ref.Sum)
	r, openErr := s.Open(ctx, ref.Sum)
	if openErr == nil {
		r.Close()
	}
	return map[string]error{
		"Stat": statErr, "Open": openErr,
		"Put":        s.Put(ctx, ref, bytes.NewReader(data)),
		"Quarantine": s.Quarantine(ctx, ref.Sum),
		"Restore":    s.Restore(ctx, ref),
		"Delete":     s.Delete(ctx, ref.Sum),
		"Purge":      s.Purge(ctx, ref.Sum),
	}
}

func malformed(t *testing.T, s filestore.Local) {
	ref, data := Content("well-formed", 100)
	put(t, s, ref, data)
	good := string(ref.Sum)
	for _, bad := range []string{
		"", "a", "ab", good[:39], good + "0", strings.ToUpper(good), "../../../../../../../../../../../../etc/pw",
		good[:2] + "/" + good[:37], good[:39] + "/", good[:39] + "\x00", "." + good[:39], strings.Repeat("g", 40), strings.Repeat("a", 1<<20),
	} {
		for doing, err := range every(t.Context(), s, blob.Ref{Sum: blob.Sum(bad), Size: 100}, data) {
			if err == nil || errors.Is(err, filestore.ErrNotFound) || len(err.Error()) > 1000 {
				t.Errorf("%s of the name %.60q: %v", doing, bad, err)
			}
		}
	}
	if err := s.Put(t.Context(), blob.Ref{Sum: ref.Sum, Size: -1}, bytes.NewReader(data)); err == nil {
		t.Error("a negative length was taken")
	}
	if got := names(t, s); !slices.Equal(got, []blob.Sum{ref.Sum}) {
		t.Errorf("the store now holds %q", got)
	}
	check(t, s, ref, data)
}

func corrupt(t *testing.T, s filestore.Local) {
	ref, data := Content("corrupt", 300_000)
	flipped := slices.Clone(data)
	flipped[123_456] ^= 1
	bad := map[string][]byte{"short": data[:len(data)-1], "empty": nil, "long": append(slices.Clone(data), 0), "flipped": flipped}
	for name, content := range bad {
		if err := s.Put(t.Context(), ref, bytes.NewReader(content)); !errors.Is(err, filestore.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if got := names(t, s); len(got) != 0 {
			t.Fatalf("%s: the store holds %q", name, got)
		}
	}
	put(t, s, ref, data)
	for name, content := range bad {
		if err := s.Put(t.Context(), ref, bytes.NewReader(content)); !errors.Is(err, filestore.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		check(t, s, ref, data)
	}
}

// counting gives bytes without end, and counts them.
type counting struct{ given int64 }

func (c *counting) Read(p []byte) (int, error) {
	c.given += int64(len(p))
	return len(p), nil
}

func endless(t *testing.T, s filestore.Local) {
	for _, n := range []int{0, 1, 5000, 1 << 20} {
		ref, _ := Content("endless", n)
		body := &counting{}
		if err := s.Put(t.Context(), ref, body); !errors.Is(err, filestore.ErrCorrupt) {
			t.Errorf("%d: %v", n, err)
		}
		if body.given > ref.Size+1 {
			t.Errorf("%d bytes were taken of an endless body announced as %d", body.given, ref.Size)
		}
	}
	if got := names(t, s); len(got) != 0 {
		t.Fatalf("the store holds %q", got)
	}
}

var errBroken = errors.New("the line is dead")

func brokenReader(t *testing.T, s filestore.Local) {
	ref, data := Content("broken", 200_000)
	body := io.MultiReader(bytes.NewReader(data[:150_000]), readerFunc(func([]byte) (int, error) { return 0, errBroken }))
	if err := s.Put(t.Context(), ref, body); !errors.Is(err, errBroken) || errors.Is(err, filestore.ErrCorrupt) {
		t.Errorf("a broken reader gave %v", err)
	}
	idle := readerFunc(func([]byte) (int, error) { return 0, nil })
	if err := s.Put(t.Context(), ref, idle); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("an idle reader gave %v", err)
	}
	if got := names(t, s); len(got) != 0 {
		t.Fatalf("the store holds %q", got)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func list(t *testing.T, s filestore.Local) {
	var want []blob.Sum
	for i := range 500 {
		ref, data := Content(fmt.Sprint("list ", i), i)
		put(t, s, ref, data)
		want = append(want, ref.Sum)
	}
	slices.Sort(want)
	if got := names(t, s); !slices.Equal(got, want) {
		t.Fatalf("%d names, want %d, or not in order", len(got), len(want))
	}
	now := time.Now().Unix()
	n := 0
	for i, err := range s.List(t.Context()) {
		if err != nil || i.ModTime < now-600 || i.ModTime > now+600 {
			t.Fatalf("%+v, %v", i, err)
		}
		if n++; n == 10 {
			break
		}
	}
}

func cancelled(t *testing.T, s filestore.Local) {
	ref, data := Content("cancel", 100_000)
	put(t, s, ref, data)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for doing, err := range every(ctx, s, ref, data) {
		if !errors.Is(err, cause) {
			t.Errorf("%s: %v", doing, err)
		}
	}
	if err := s.Sync(ctx); !errors.Is(err, cause) {
		t.Errorf("Sync: %v", err)
	}
	var last error
	for _, err := range s.List(ctx) {
		last = err
	}
	if !errors.Is(last, cause) {
		t.Errorf("List: %v", last)
	}
	check(t, s, ref, data)

	ctx, cancel = context.WithCancelCause(t.Context())
	other, otherData := Content("cancelled on its way", 1<<20)
	body := io.MultiReader(bytes.NewReader(otherData[:1<<19]), readerFunc(func(p []byte) (int, error) {
		cancel(cause)
		return copy(p, otherData[1<<19:]), nil
	}))
	if err := s.Put(ctx, other, body); !errors.Is(err, cause) {
		t.Errorf("Put: %v", err)
	}
	if got := names(t, s); !slices.Equal(got, []blob.Sum{ref.Sum}) {
		t.Errorf("the store holds %q", got)
	}
}

func quarantined(t *testing.T, s filestore.Local) []blob.Sum {
	t.Helper()
	var all []blob.Sum
	now := time.Now().Unix()
	for i, err := range s.Quarantined(t.Context()) {
		if err != nil || i.ModTime < now-600 || i.ModTime > now+600 {
			t.Fatalf("%+v, %v", i, err)
		}
		all = append(all, i.Sum)
	}
	return all
}

func quarantine(t *testing.T, s filestore.Local) {
	a, aData := Content("quarantine a", 1000)
	b, bData := Content("quarantine b", 200_000)
	put(t, s, a, aData)
	put(t, s, b, bData)
	if got := quarantined(t, s); len(got) != 0 {
		t.Fatalf("in quarantine: %q", got)
	}
	old := time.Now().Add(-100 * time.Hour)
	for _, path := range s.Paths(a.Sum) {
		if err := os.Chtimes(path, old, old); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	for _, sum := range []blob.Sum{a.Sum, b.Sum} {
		if err := s.Quarantine(t.Context(), sum); err != nil {
			t.Fatal(err)
		}
	}
	want := []blob.Sum{a.Sum, b.Sum}
	slices.Sort(want)
	if got := quarantined(t, s); !slices.Equal(got, want) {
		t.Fatalf("in quarantine: %q, want %q", got, want)
	}
	if got := names(t, s); len(got) != 0 {
		t.Fatalf("still in the store: %q", got)
	}
	if err := s.Restore(t.Context(), blob.Ref{Sum: a.Sum, Size: a.Size + 1}); !errors.Is(err, filestore.ErrCorrupt) {
		t.Fatalf("Restore with another length: %v", err)
	}
	if err := s.Restore(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	check(t, s, a, aData)
	if err := s.Purge(t.Context(), a.Sum); !errors.Is(err, filestore.ErrNotFound) {
		t.Fatalf("Purge of a restored blob: %v", err)
	}
	if err := s.Purge(t.Context(), b.Sum); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(t.Context(), b); !errors.Is(err, filestore.ErrNotFound) {
		t.Fatalf("Restore of a purged blob: %v", err)
	}
	if got := quarantined(t, s); len(got) != 0 {
		t.Fatalf("in quarantine: %q", got)
	}
	check(t, s, a, aData)
}

func concurrent(t *testing.T, s filestore.Local) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 60 {
				ref, data := Content(fmt.Sprint("concurrent ", i), 100+i*1000)
				if err := s.Put(t.Context(), ref, bytes.NewReader(data)); err != nil {
					t.Error(err)
				}
				if size, err := s.Stat(t.Context(), ref.Sum); err != nil || size != ref.Size {
					t.Errorf("%d, %v", size, err)
				}
			}
		})
	}
	all.Go(func() {
		for range 20 {
			for _, err := range s.List(t.Context()) {
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	all.Wait()
	for i := range 60 {
		ref, data := Content(fmt.Sprint("concurrent ", i), 100+i*1000)
		check(t, s, ref, data)
	}
}

// replace: a damaged file of the blob's name gives way to the blob in one step,
// wherever it lies.
func replace(t *testing.T, s filestore.Local) {
	ref, data := Content("replace", 5000)
	put(t, s, ref, data)
	for _, path := range s.Paths(ref.Sum) {
		if err := os.MkdirAll(path[:strings.LastIndexByte(path, '/')], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("damaged"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if size, err := s.Stat(t.Context(), ref.Sum); err != nil || size == ref.Size {
		t.Fatalf("Stat of a damaged blob: %d, %v", size, err)
	}
	put(t, s, ref, data)
	check(t, s, ref, data)
	for _, path := range s.Paths(ref.Sum) {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
	}
}
