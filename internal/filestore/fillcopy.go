package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/rsyncx"
)

// filler is one run of Fill.
type filler struct {
	o          FillOptions
	from       Source
	to         Store
	quarantine Quarantiner // nil when the store has none
	want       iter.Seq2[blob.Ref, error]

	lacking  []compared
	overflow bool

	mu          sync.Mutex
	report      Report
	need        Need
	handled     int64                 // of need.Lacking: copied or missing
	outstanding map[blob.Sum]compared // asked for, not answered
	stop        context.CancelCauseFunc
}

const (
	// smallBlob is the length in bytes up to which a blob is read into memory
	// and written by a worker while the next one is received.
	smallBlob = 256 << 10
	// writers is how many blobs are written at the same time.
	writers = 2
	// maxOutstanding bounds how far a source may draw ahead of what it answers.
	maxOutstanding = 1 << 16
)

// arrived is a small blob to be written.
type arrived struct {
	c    compared
	data *[]byte
}

// copy is the second pass: it fetches what is lacking.
func (f *filler) copy(ctx context.Context, need Need) error {
	parent := ctx
	ctx, f.stop = context.WithCancelCause(ctx)
	defer f.stop(nil)
	f.need = need
	f.outstanding = map[blob.Sum]compared{}

	small := make(chan arrived, writers)
	pool := sync.Pool{New: func() any { b := make([]byte, 0, smallBlob+1); return &b }}
	var working sync.WaitGroup
	for range writers {
		working.Go(func() {
			for a := range small {
				if ctx.Err() == nil {
					f.store(ctx, a.c, bytes.NewReader(*a.data))
				}
				pool.Put(a.data)
			}
		})
	}
	f.receive(ctx, small, &pool)
	close(small)
	working.Wait()

	if err := context.Cause(parent); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for sum := range f.outstanding {
		return fmt.Errorf("the source left %d blobs unanswered, among them %s", len(f.outstanding), sum)
	}
	return nil
}

// receive takes the answers of the source until its end or the first error,
// which it leaves in ctx.
func (f *filler) receive(ctx context.Context, small chan<- arrived, pool *sync.Pool) {
	for got, err := range f.from.Fetch(ctx, f.ask(ctx)) {
		if err != nil {
			f.stop(err)
			return
		}
		c, ok := f.answered(got.Ref.Sum)
		switch {
		case ctx.Err() != nil:
			return
		case !ok:
			f.stop(fmt.Errorf("%w: a blob that was not asked for", rsyncx.ErrHostile))
			return
		case errors.Is(got.Err, ErrNotFound):
			f.lost(c.ref, NotFound)
		case errors.Is(got.Err, ErrCorrupt):
			f.lost(c.ref, Corrupt)
		case got.Err != nil:
			f.stop(fmt.Errorf("fetch %s: %w", c.ref.Sum, got.Err))
			return
		case c.ref.Size > smallBlob:
			f.store(ctx, c, got.Body)
		default:
			data := pool.Get().(*[]byte)
			if *data, err = readAtMost(got.Body, (*data)[:c.ref.Size+1]); err != nil {
				f.stop(fmt.Errorf("fetch %s: %w", c.ref.Sum, err))
				return
			}
			small <- arrived{c, data}
		}
	}
}

// readAtMost fills p from r, or to r's end.
func readAtMost(r io.Reader, p []byte) ([]byte, error) {
	n := 0
	for idle := 0; n < len(p); {
		m, err := r.Read(p[n:])
		n += m
		switch {
		case err == io.EOF:
			return p[:n], nil
		case err != nil:
			return nil, err
		case m > 0:
			idle = 0
		default:
			if idle++; idle == 100 {
				return nil, io.ErrNoProgress
			}
		}
	}
	return p, nil
}

// ask yields what is to be fetched and notes that it was asked for. The source
// may draw it from a goroutine of its own.
func (f *filler) ask(ctx context.Context) iter.Seq[blob.Ref] {
	return func(yield func(blob.Ref) bool) {
		for c, err := range f.again(ctx) {
			if err != nil {
				f.stop(fmt.Errorf("compare blobs: %w", err))
				return
			}
			f.mu.Lock()
			f.outstanding[c.ref.Sum] = c
			n := len(f.outstanding)
			f.mu.Unlock()
			if n > maxOutstanding {
				f.stop(fmt.Errorf("internal error: the source asks for %d blobs before it answers one", n))
				return
			}
			if !yield(c.ref) {
				return
			}
		}
	}
}

func (f *filler) answered(sum blob.Sum) (compared, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.outstanding[sum]
	delete(f.outstanding, sum)
	return c, ok
}

// store puts one blob and counts it. Bad content is the active's problem, any
// other error ends the copy.
func (f *filler) store(ctx context.Context, c compared, body io.Reader) {
	err := f.to.Put(ctx, c.ref, body)
	if errors.Is(err, ErrCorrupt) {
		f.lost(c.ref, Corrupt)
		return
	}
	if err != nil {
		f.stop(err)
		return
	}
	f.mu.Lock()
	f.report.Copied++
	f.report.CopiedBytes += c.ref.Size
	f.handled++
	done := event.Event{Kind: event.Progress, Step: f.o.Step, Items: f.handled, Total: f.need.Lacking, Bytes: f.report.CopiedBytes, Size: f.need.LackingBytes}
	f.mu.Unlock()
	itemize := ">f+++++++++"
	if c.state == wrongLength {
		itemize = ">f.s......."
	}
	f.o.Event.Emit(event.Event{Kind: event.Change, Step: f.o.Step, Itemize: itemize, Name: f.o.Prefix + Fanned(c.ref.Sum), Bytes: c.ref.Size})
	f.o.Event.Emit(done)
}

// lost counts a blob that the active cannot serve.
func (f *filler) lost(ref blob.Ref, why Reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handled++
	if err := f.missing(ref, why); err != nil {
		f.stop(err)
	}
}

// missing notes a missing blob, with a warning for the first MaxMissing; during the copy the caller holds f.mu.
func (f *filler) missing(ref blob.Ref, why Reason) error {
	m := MissingBlob{Ref: ref, Reason: why}
	f.report.MissingCount++
	if len(f.report.Missing) < MaxMissing {
		f.report.Missing = append(f.report.Missing, m)
	}
	if f.o.Missing == nil {
		return nil
	}
	if err := f.o.Missing(m); err != nil {
		return fmt.Errorf("note missing blob %s: %w", ref.Sum, err)
	}
	return nil
}
