package prune

import (
	"context"
	"errors"
	"fmt"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/filestore"
)

// Store is what Do needs of a filestore.Store that has a quarantine.
type Store interface {
	filestore.Quarantiner
	Stat(ctx context.Context, sum blob.Sum) (size int64, err error)
	Delete(ctx context.Context, sum blob.Sum) error
}

// Report is what Do did.
type Report struct {
	Restored    Count `json:"restored"`
	Quarantined Count `json:"quarantined"`
	Deleted     Count `json:"deleted"`
	Purged      Count `json:"purged"`
	// Skipped are blobs that were not as the plan saw them: gone, back, or of another length.
	Skipped Count `json:"skipped"`
	// Unrestored are blobs that a kept snapshot names and that could not be
	// brought back. While there is one, nothing is taken away.
	Unrestored Count `json:"unrestored"`
}

// Do carries a plan out: first what comes back from quarantine, and only when
// all of that came back, what goes. It looks at each blob again right before it
// moves it, and stops at the first error; the report says how far it came. A plan
// that was carried out in part may be carried out again.
func Do(ctx context.Context, p *Plan, store Store, sink event.Sink) (Report, error) {
	w := worker{store: store, sink: sink}
	firstErr := w.each(ctx, p, Restore, w.restore)
	if firstErr == nil && w.failed != nil {
		firstErr = fmt.Errorf("%d blobs that a kept snapshot names could not be restored, so nothing is removed; the first: %w", w.report.Unrestored.Blobs, w.failed)
	}
	for _, then := range []struct {
		action Action
		do     func(context.Context, Item) error
	}{{Quarantine, w.quarantine}, {Delete, w.delete}, {Purge, w.purge}} {
		if firstErr == nil {
			firstErr = w.each(ctx, p, then.action, then.do)
		}
	}
	return w.report, firstErr
}

type worker struct {
	store  Store
	sink   event.Sink
	report Report
	failed error
}

func (w *worker) each(ctx context.Context, p *Plan, action Action, do func(context.Context, Item) error) error {
	for it, err := range p.Items() {
		if err != nil {
			return err
		}
		if it.Action != action {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := do(ctx, it); err != nil {
			return fmt.Errorf("%v %s: %w", action, it.Ref.Sum, err)
		}
	}
	return nil
}

func (w *worker) restore(ctx context.Context, it Item) error {
	size, err := w.store.Stat(ctx, it.Ref.Sum)
	if err == nil && size == it.Ref.Size {
		w.skip(it, "back already")
		return nil
	}
	if err != nil && !errors.Is(err, filestore.ErrNotFound) {
		return err
	}
	err = w.store.Restore(ctx, it.Ref)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		// The others are still worth bringing back.
		w.report.Unrestored.add(it.Ref.Size)
		if w.failed == nil {
			w.failed = fmt.Errorf("%s: %w", it.Ref.Sum, err)
		}
		w.sink.Emit(event.Event{Kind: event.Warning, Name: string(it.Ref.Sum), Text: "restore from quarantine: " + err.Error()})
		return nil
	}
	w.done(&w.report.Restored, it)
	return nil
}

// unchanged says whether a blob of the store is as the plan saw it.
func (w *worker) unchanged(ctx context.Context, it Item) (bool, error) {
	size, err := w.store.Stat(ctx, it.Ref.Sum)
	switch {
	case errors.Is(err, filestore.ErrNotFound):
		w.skip(it, "gone already")
		return false, nil
	case err != nil:
		return false, err
	case size != it.Ref.Size:
		w.skip(it, fmt.Sprintf("has %d bytes now, had %d", size, it.Ref.Size))
		return false, nil
	}
	return true, nil
}

func (w *worker) quarantine(ctx context.Context, it Item) error {
	return w.take(ctx, it, w.store.Quarantine, &w.report.Quarantined)
}

func (w *worker) delete(ctx context.Context, it Item) error {
	return w.take(ctx, it, w.store.Delete, &w.report.Deleted)
}

func (w *worker) take(ctx context.Context, it Item, how func(context.Context, blob.Sum) error, count *Count) error {
	ok, err := w.unchanged(ctx, it)
	if !ok || err != nil {
		return err
	}
	if err := how(ctx, it.Ref.Sum); err != nil {
		return err
	}
	w.done(count, it)
	return nil
}

func (w *worker) purge(ctx context.Context, it Item) error {
	err := w.store.Purge(ctx, it.Ref.Sum)
	if errors.Is(err, filestore.ErrNotFound) {
		w.skip(it, "gone already")
		return nil
	}
	if err != nil {
		return err
	}
	w.done(&w.report.Purged, it)
	return nil
}

func (w *worker) done(count *Count, it Item) {
	count.add(it.Ref.Size)
	itemize := "*deleting  "
	if it.Action == Restore {
		itemize = ">f+++++++++"
	}
	w.sink.Emit(event.Event{Kind: event.Change, Itemize: itemize, Name: string(it.Ref.Sum), Bytes: it.Ref.Size,
		Text: it.Action.String() + ": " + it.Reason})
}

func (w *worker) skip(it Item, why string) {
	w.report.Skipped.add(it.Ref.Size)
	w.sink.Emit(event.Event{Kind: event.Skip, Name: string(it.Ref.Sum), Text: it.Action.String() + ": " + why})
}
