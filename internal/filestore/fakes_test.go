package filestore_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/filestore"
	"github.com/drsync/drsync/rsyncx"
)

// memory is a filestore.Source that serves what it holds.
type memory struct {
	blobs  map[blob.Sum][]byte
	errs   map[blob.Sum]error
	batch  int // answers come shuffled in batches of this size; 0 is 1
	asked  []blob.Sum
	failAt int // the n-th answer, from 1, is errFault as an error of the iterator
	given  int
}

var errFault = errors.New("injected fault")

func (m *memory) Fetch(ctx context.Context, want iter.Seq[blob.Ref]) iter.Seq2[filestore.Fetched, error] {
	return func(yield func(filestore.Fetched, error) bool) {
		var batch []blob.Ref
		flush := func() bool {
			slices.Reverse(batch)
			for _, r := range batch {
				if err := context.Cause(ctx); err != nil {
					yield(filestore.Fetched{}, err)
					return false
				}
				if m.given++; m.given == m.failAt {
					yield(filestore.Fetched{}, errFault)
					return false
				}
				f := filestore.Fetched{Ref: r, Err: m.errs[r.Sum]}
				if data, ok := m.blobs[r.Sum]; f.Err == nil && !ok {
					f.Err = filestore.ErrNotFound
				} else if f.Err == nil {
					f.Body = bytes.NewReader(data)
				}
				if !yield(f, nil) {
					return false
				}
			}
			batch = batch[:0]
			return true
		}
		for r := range want {
			m.asked = append(m.asked, r.Sum)
			if batch = append(batch, r); len(batch) >= m.batch && !flush() {
				return
			}
		}
		flush()
	}
}

// directory is an rsyncx.Source that can only Read: a directory of this host,
// drawn ahead of from another goroutine as a network source does.
type directory struct {
	rsyncx.Source
	root  string
	reads atomic.Int64 // streams
}

func (d *directory) Read(ctx context.Context, want iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] {
	d.reads.Add(1)
	return func(yield func(rsyncx.File, error) bool) {
		ahead := make(chan string, 64)
		done := make(chan struct{})
		defer close(done)
		go func() {
			defer close(ahead)
			for w := range want {
				select {
				case ahead <- w.Path:
				case <-done:
					return
				}
			}
		}()
		for path := range ahead {
			if err := context.Cause(ctx); err != nil {
				yield(rsyncx.File{}, err)
				return
			}
			if !d.one(path, yield) {
				return
			}
		}
	}
}

func (d *directory) one(path string, yield func(rsyncx.File, error) bool) bool {
	f, err := os.Open(filepath.Join(d.root, path))
	if err != nil {
		return yield(rsyncx.File{Path: path, Err: &rsyncx.PathError{Path: path, Err: err}}, nil)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return yield(rsyncx.File{Path: path, Err: cmp.Or(err, errors.New("not a regular file"))}, nil)
	}
	return yield(rsyncx.File{Path: path, Entry: rsyncx.Entry{Size: st.Size()}, Body: io.LimitReader(f, st.Size())}, nil)
}

// refs is a want list.
func refs(all ...blob.Ref) iter.Seq2[blob.Ref, error] {
	slices.SortFunc(all, func(a, b blob.Ref) int { return cmp.Compare(a.Sum, b.Sum) })
	return func(yield func(blob.Ref, error) bool) {
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// faulty is a Local whose n-th call of one method fails.
type faulty struct {
	filestore.Local
	method string
	n      int64
	calls  atomic.Int64
}

func (f *faulty) hit(method string) error {
	if method == f.method && f.calls.Add(1) == f.n {
		return fmt.Errorf("%s: %w", method, errFault)
	}
	return nil
}

func (f *faulty) Put(ctx context.Context, ref blob.Ref, r io.Reader) error {
	if err := f.hit("Put"); err != nil {
		return err
	}
	return f.Local.Put(ctx, ref, &faultyBody{f, r})
}

type faultyBody struct {
	f *faulty
	r io.Reader
}

func (b *faultyBody) Read(p []byte) (int, error) {
	if err := b.f.hit("Read"); err != nil {
		return 0, err
	}
	return b.r.Read(p)
}

func (f *faulty) Restore(ctx context.Context, ref blob.Ref) error {
	if err := f.hit("Restore"); err != nil {
		return err
	}
	return f.Local.Restore(ctx, ref)
}

func (f *faulty) Free() (int64, error) {
	if err := f.hit("Free"); err != nil {
		return 0, err
	}
	return f.Local.Free()
}

func (f *faulty) List(ctx context.Context) iter.Seq2[filestore.Info, error] {
	return func(yield func(filestore.Info, error) bool) {
		for i, err := range f.Local.List(ctx) {
			if ferr := f.hit("List"); ferr != nil {
				yield(filestore.Info{}, ferr)
				return
			}
			if !yield(i, err) {
				return
			}
		}
	}
}

// everyNameHolds fails if a file with a blob's name has other content than the
// name says, or a temporary file is left.
func everyNameHolds(t testing.TB, root string, except map[blob.Sum][]byte) {
	t.Helper()
	for _, path := range filesBelow(t, root) {
		content, err := os.ReadFile(filepath.Join(root, path))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		sum := blob.Sum(filepath.Base(path))
		if !sum.Valid() {
			t.Errorf("left behind: %s", path)
			continue
		}
		h := sum.NewHash()
		h.Write(content)
		if known, ok := except[sum]; blob.Of(h.Sum(nil)) != sum && (!ok || !bytes.Equal(known, content)) {
			t.Errorf("%s does not have the content of its name", path)
		}
	}
}
