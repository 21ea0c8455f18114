package remote

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
)

const (
	// A batch of small files is archived by one tar and held in memory until the
	// second look at them; a larger file has a tar of its own, and is streamed.
	batchFiles = 256
	batchNames = 48 << 10 // bytes; far less than what xargs gives to one command
	batchBytes = 2 << 20  // as listed
	batchMost  = 16 << 20 // as they turn out; above it they are streamed one by one
	// batchWait is how long a batch waits for more.
	batchWait = 2 * time.Millisecond
	// batchesAhead is how many are under way behind the one that is yielded.
	batchesAhead = 3
)

// Read archives the files with tar, many in one command and several commands
// at once. Their content is not summed on the way: each file is looked at before
// and after, and tar says what it met.
func (s *execSource) Read(ctx context.Context, want iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] {
	return func(yield func(rsyncx.File, error) bool) {
		inner, cancel := context.WithCancel(ctx)
		r := &execReads{execSource: s, order: make(chan *batch, batchesAhead-1)}
		wants := make(chan rsyncx.Want)
		r.workers.Go(func() {
			defer close(wants)
			for w := range want {
				select {
				case wants <- w:
				case <-inner.Done():
					return
				}
			}
		})
		r.workers.Go(func() { r.dispatch(inner, wants) })
		err := r.deliver(inner, yield)
		cancel()
		for b := range r.order {
			<-b.ready
			b.close()
		}
		r.workers.Wait()
		if err != nil && !errors.Is(err, errStopped) {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			yield(rsyncx.File{}, err)
		}
	}
}

type execReads struct {
	*execSource
	order   chan *batch // as asked for
	workers sync.WaitGroup
}

// batch is some files under way.
type batch struct {
	files  []fetched
	names  []string // of the files and of the directories on the way to them
	has    map[string]bool
	length int   // of the names
	bytes  int64 // as listed
	alone  bool  // one file, to be streamed

	ready chan struct{}
	run   *tarRun // of a streamed file, at its content
	again bool    // each file must be read by itself
	err   error   // ends the iterator
}

// fetched is one file of a batch.
type fetched struct {
	want    rsyncx.Want
	there   described
	content []byte
	torn    bool
	err     error
}

func newBatch() *batch {
	return &batch{has: map[string]bool{}, ready: make(chan struct{})}
}

func (b *batch) close() {
	if b.run != nil {
		b.run.end()
	}
}

// add takes a file into the batch, unless it must be in another.
func (b *batch) add(w rsyncx.Want) bool {
	err := rsyncx.CheckPath(w.Path)
	if err == nil && w.Path == "" {
		err = rsyncx.ErrNotRegular
	}
	if err != nil {
		b.files = append(b.files, fetched{want: w, err: err})
		return len(b.files) < batchFiles
	}
	var names []string
	length := 0
	for _, n := range withParents(nil, w.Path) {
		if !b.has[n] {
			names = append(names, n)
			length += len(n) + 3
		}
	}
	size := w.Size
	if size < 0 {
		size = batchBytes / batchFiles
	}
	large := size > batchBytes/2 || w.Ranges != nil
	if len(b.files) > 0 && (large || b.alone || b.has[w.Path] || b.length+length > batchNames || b.bytes+size > batchBytes || len(b.files) >= batchFiles) {
		return false
	}
	if length > batchNames {
		err = unix.ENAMETOOLONG
	} else {
		for _, n := range names {
			b.has[n] = true
		}
		b.names = append(b.names, names...)
	}
	b.files = append(b.files, fetched{want: w, err: err})
	b.alone, b.length, b.bytes = large, b.length+length, b.bytes+size
	return true
}

// dispatch makes batches of what is asked for and starts them.
func (r *execReads) dispatch(ctx context.Context, wants <-chan rsyncx.Want) {
	defer close(r.order)
	b := newBatch()
	send := func() bool {
		if len(b.files) == 0 {
			return true
		}
		full := b
		full.alone = len(full.files) == 1
		b = newBatch()
		select {
		case r.order <- full:
		case <-ctx.Done():
			return false
		}
		r.workers.Go(func() {
			defer close(full.ready)
			full.err = r.fetch(ctx, full)
		})
		return true
	}
	timer := time.NewTimer(batchWait)
	defer timer.Stop()
	for {
		timer.Reset(batchWait)
		select {
		case w, more := <-wants:
			if !more {
				send()
				return
			}
			if !b.add(w) {
				if !send() {
					return
				}
				b.add(w)
			}
		case <-timer.C:
			if !send() {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (r *execReads) deliver(ctx context.Context, yield func(rsyncx.File, error) bool) error {
	for b := range r.order {
		<-b.ready
		if err := r.hand(ctx, b, yield); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// hand yields the files of a batch.
func (r *execReads) hand(ctx context.Context, b *batch, yield func(rsyncx.File, error) bool) error {
	defer b.close()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case b.err != nil:
		return b.err
	case b.again:
		for i := range b.files {
			single := newBatch()
			single.add(b.files[i].want)
			single.alone = true
			single.err = r.fetch(ctx, single)
			if err := r.hand(ctx, single, yield); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range b.files {
		f := &b.files[i]
		if f.err != nil {
			if !yield(rsyncx.File{Path: f.want.Path, Err: &rsyncx.PathError{Path: f.want.Path, Err: f.err}}, nil) {
				return errStopped
			}
			continue
		}
		body := &execBody{f: f, run: b.run, left: f.there.Size}
		content := io.Reader(body)
		if f.want.Ranges != nil {
			content = &rangesReader{body: body, ranges: f.want.Ranges}
		}
		more := yield(rsyncx.File{Path: f.want.Path, Entry: f.there.Entry, Body: content}, nil)
		body.end(fs.ErrClosed)
		if !more {
			return errStopped
		}
	}
	return nil
}

// fetch runs one batch: to its end, or up to the content of a streamed file.
func (r *execReads) fetch(ctx context.Context, b *batch) error {
	if len(b.names) == 0 {
		return nil
	}
	select {
	case r.host.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t, err := startTar(ctx, r.execSource, b.names, func() { <-r.host.slots })
	if err != nil {
		return err
	}
	if err := r.collect(b, t); err != nil || b.run == nil {
		t.end()
		return err
	}
	return nil
}

func (r *execReads) collect(b *batch, t *tarRun) error {
	before, _, err := t.look()
	if err != nil {
		return err
	}
	files := map[string]*fetched{}
	total := int64(0)
	for i := range b.files {
		f := &b.files[i]
		if f.err != nil {
			continue
		}
		if f.there, f.err = before.at(f.want.Path); f.err == nil && f.there.Mode&unix.S_IFMT != unix.S_IFREG {
			f.err = rsyncx.ErrNotRegular
		}
		if f.err == nil {
			files[f.want.Path] = f
			total += f.there.Size
		}
	}
	if b.again = !b.alone && total > batchMost; b.again {
		return nil
	}
	seen := map[string]described{}
	held := int64(0)
	for {
		path, size, err := t.next()
		if err != nil {
			return err
		}
		if path == "" {
			break
		}
		f := files[path]
		if f == nil || seen[path].Mode != 0 {
			continue
		}
		f.torn = size != f.there.Size
		f.there.Size = size
		seen[path] = f.there
		switch {
		case b.alone:
			b.run = t
			return nil
		case size > batchMost-held: // it grew, or the archive claims so
			b.again = true
			return nil
		}
		held += size
		f.content = make([]byte, size)
		if _, err := io.ReadFull(t.files, f.content); err != nil {
			return t.fail(err)
		}
	}
	o, err := t.finish()
	if err != nil {
		return err
	}
	wrong, sure := o.verdicts(seen)
	if !sure && len(b.files) > 1 {
		b.again = true
		return nil
	}
	for path, f := range files {
		f.judge(wrong[path], seen[path].Mode != 0, o)
	}
	return nil
}

// judge settles what a file's end is, after the command has ended.
func (f *fetched) judge(wrong error, archived bool, o *outcome) {
	switch {
	case errors.Is(wrong, rsyncx.ErrTorn) && archived:
		f.torn = true
	case wrong != nil:
		f.err = wrong
	case !archived:
		_, f.err = o.after.at(f.want.Path)
		if f.err == nil {
			f.err = withStderr(errors.New("tar left it out"), rsyncx.Printable(strings.Join(o.said, "; ")))
		}
	}
}

// execBody gives the content of one file. It belongs to one goroutine.
type execBody struct {
	f    *fetched
	run  *tarRun // of a streamed file
	left int64   // of that, bytes to come
	err  error
}

func (b *execBody) Read(p []byte) (int, error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case b.err != nil:
		return 0, b.err
	case b.run == nil:
		n := copy(p, b.f.content)
		b.f.content = b.f.content[n:]
		if n > 0 {
			return n, nil
		}
		b.end(b.f.verdict())
		return 0, b.err
	case b.left > 0:
		n, err := b.run.files.Read(p[:min(int64(len(p)), b.left)])
		b.left -= int64(n)
		if err != nil && (err != io.EOF || b.left > 0) {
			b.end(b.run.fail(err))
			return n, b.err
		}
		return n, nil
	}
	b.end(b.settle())
	return 0, b.err
}

// settle reads what comes behind a streamed file.
func (b *execBody) settle() error {
	for {
		path, _, err := b.run.next()
		if err != nil {
			return err
		}
		if path == "" {
			break
		}
	}
	o, err := b.run.finish()
	if err != nil {
		return err
	}
	path := b.f.want.Path
	wrong, sure := o.verdicts(map[string]described{path: b.f.there})
	if !sure && wrong[path] == nil {
		wrong[path] = errors.New(rsyncx.Printable(o.said[0]))
	}
	b.f.judge(wrong[path], true, o)
	return b.f.verdict()
}

// verdict is what a body ends with.
func (f *fetched) verdict() error {
	switch {
	case f.torn:
		return rsyncx.ErrTorn
	case f.err != nil:
		return f.err
	}
	return io.EOF
}

// end makes every further Read return err.
func (b *execBody) end(err error) {
	b.err, b.f.content = err, nil
	if b.run != nil {
		b.run.end()
	}
}

// rangesReader gives parts of a body that is read whole, to its end.
type rangesReader struct {
	body   io.Reader
	ranges []rsyncx.Range
	at     int64 // of the body
	err    error
}

func (r *rangesReader) Read(p []byte) (int, error) {
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	for len(r.ranges) > 0 {
		now := r.ranges[0]
		if r.at < now.Off {
			n, err := io.CopyN(io.Discard, r.body, now.Off-r.at)
			if r.at += n; err != nil {
				return 0, r.short(err)
			}
		}
		if left := now.Off + now.Len - r.at; left > 0 {
			n, err := r.body.Read(p[:min(int64(len(p)), left)])
			if r.at += int64(n); err != nil {
				return n, r.short(err)
			}
			return n, nil
		}
		r.ranges = r.ranges[1:]
	}
	_, err := io.Copy(io.Discard, r.body) // what is wrong with the file is told at its end
	if r.err = err; err == nil {
		r.err = io.EOF
	}
	return 0, r.err
}

// short keeps the error of a body that ends before a range does.
func (r *rangesReader) short(err error) error {
	if r.err = err; err == io.EOF { //nolint:errorlint // a lost connection wraps io.EOF
		r.err = rsyncx.ErrTorn
	}
	return r.err
}
