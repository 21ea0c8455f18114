package filestore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
)

// Reason says why a named blob could not be had.
type Reason string

const (
	// NotFound: the active has it nowhere. Whether it was garbage-collected
	// there or lost is for its database to say.
	NotFound Reason = "not-found"
	// Corrupt: the active has a file of that name with other content.
	Corrupt Reason = "corrupt"
	// Misnamed: the name or length in the database is impossible.
	Misnamed Reason = "malformed"
)

// MissingBlob is a named blob that neither side has as it should be.
type MissingBlob struct {
	Ref    blob.Ref
	Reason Reason
}

// FillOptions says how Fill works. The zero value is valid.
type FillOptions struct {
	Event event.Sink
	Step  string // name of the step in progress events
	// Prefix is shown before the names of blobs in events: "data/filestore/".
	Prefix string
	// Reserve is how many bytes must stay free on the store's file system.
	Reserve int64
	// Missing, when set, is told of every missing blob, one call at a time; its
	// error stops Fill. Report.Missing holds only the first MaxMissing.
	Missing func(MissingBlob) error

	planned int // for tests: how many lacking blobs are kept in memory; 0 is maxPlanned
}

// MaxMissing bounds Report.Missing.
const MaxMissing = 1000

// Report counts what Fill found and did. After an error it says how far it came.
type Report struct {
	Named, NamedBytes       int64 // what want holds
	Present                 int64 // were there already with their length
	Restored, RestoredBytes int64 // came back from quarantine
	Copied, CopiedBytes     int64 // fetched from the active
	MissingCount            int64
	Missing                 []MissingBlob // the first MaxMissing
}

// Need is what a Fill would have to do.
type Need struct {
	Named, NamedBytes     int64
	Present               int64
	Lacking, LackingBytes int64 // absent, or there with another length
	Malformed             int64
	space                 int64 // bytes, in whole blocks
}

func (n *Need) add(c compared) {
	n.Named++
	switch c.state {
	case present:
		n.Present++
	case misnamed:
		n.Malformed++
		return
	default:
		n.Lacking++
		n.LackingBytes += c.ref.Size
		n.space += (c.ref.Size + 4095) &^ 4095
	}
	n.NamedBytes += c.ref.Size
}

// Plan compares want, which ascends, with store and changes nothing.
func Plan(ctx context.Context, want iter.Seq2[blob.Ref, error], store Store) (Need, error) {
	var n Need
	for c, err := range compare(ctx, want, store) {
		if err != nil {
			return n, fmt.Errorf("compare blobs: %w", err)
		}
		n.add(c)
	}
	return n, nil
}

// Fill brings every blob of want that to lacks, or has with another length,
// from its quarantine or else from the active. want ascends and yields the same
// each time it is ranged over. Memory does not grow with the number of blobs.
//
// Nothing is ever removed, and only content with the right length and hash gets
// a name. A blob that the active has not, or has with other content, is counted
// as missing; a blob that the active has but that cannot be brought over is an
// error, which ends Fill. What arrived stays; to.Sync is the caller's.
func Fill(ctx context.Context, want iter.Seq2[blob.Ref, error], from Source, to Store, o FillOptions) (Report, error) {
	f := &filler{o: o, from: from, to: to, want: want}
	if f.o.planned == 0 {
		f.o.planned = maxPlanned
	}
	f.quarantine, _ = to.(Quarantiner)
	err := f.run(ctx)
	return f.report, err
}

// maxPlanned is how many lacking references Fill keeps so that it need not
// compare twice, about 100 bytes each.
const maxPlanned = 200_000

func (f *filler) run(ctx context.Context) error {
	need, err := f.plan(ctx)
	if err != nil {
		return fmt.Errorf("compare blobs: %w", err)
	}
	if need.Lacking == 0 {
		return nil
	}
	if err := f.checkSpace(need); err != nil {
		return err
	}
	return f.copy(ctx, need)
}

// plan is the first pass: it counts, brings back what is in quarantine, and
// remembers what is left if that is not too much.
func (f *filler) plan(ctx context.Context) (Need, error) {
	var need Need // of what is still lacking after restoring
	for c, err := range compare(ctx, f.want, f.to) {
		if err != nil {
			return need, err
		}
		if c.state == absent || c.state == wrongLength {
			back, err := f.restore(ctx, c.ref)
			if err != nil {
				return need, err
			}
			if back {
				c.state = present
				need.Present--
			}
		}
		need.add(c)
		f.report.Named, f.report.NamedBytes, f.report.Present = need.Named, need.NamedBytes, need.Present
		switch c.state {
		case present:
			continue
		case misnamed:
			if err := f.missing(c.ref, Misnamed); err != nil {
				return need, err
			}
			continue
		}
		if need.Lacking <= int64(f.o.planned) {
			f.lacking = append(f.lacking, c)
		}
	}
	f.overflow = need.Lacking > int64(f.o.planned)
	return need, nil
}

func (f *filler) restore(ctx context.Context, ref blob.Ref) (bool, error) {
	if f.quarantine == nil {
		return false, nil
	}
	err := f.quarantine.Restore(ctx, ref)
	switch {
	case err == nil:
		f.report.Restored++
		f.report.RestoredBytes += ref.Size
		f.o.Event.Emit(event.Event{Kind: event.Change, Step: f.o.Step, Itemize: "cf+++++++++", Name: f.o.Prefix + Fanned(ref.Sum), Bytes: ref.Size, Text: "from quarantine"})
		return true, nil
	case errors.Is(err, ErrNotFound):
		return false, nil
	case errors.Is(err, ErrCorrupt):
		f.o.Event.Emit(event.Event{Kind: event.Warning, Step: f.o.Step, Name: f.o.Prefix + Fanned(ref.Sum), Text: err.Error()})
		return false, nil
	}
	return false, err
}

func (f *filler) checkSpace(need Need) error {
	s, ok := f.to.(interface{ Free() (int64, error) })
	if !ok {
		return nil
	}
	free, err := s.Free()
	if err != nil {
		return err
	}
	if need.space+f.o.Reserve <= free {
		return nil
	}
	return hint.With(
		fmt.Errorf("%w: %d blobs of together %d bytes are to be copied and %d bytes must stay free, but only %d are", unix.ENOSPC, need.Lacking, need.LackingBytes, f.o.Reserve, free),
		"make room on the filestore's file system, or prune; nothing was copied")
}

// again yields what plan found lacking: from memory, or by comparing once more.
func (f *filler) again(ctx context.Context) iter.Seq2[compared, error] {
	if !f.overflow {
		return func(yield func(compared, error) bool) {
			for c := range slices.Values(f.lacking) {
				if !yield(c, nil) {
					return
				}
			}
		}
	}
	f.lacking = nil
	return func(yield func(compared, error) bool) {
		for c, err := range compare(ctx, f.want, f.to) {
			if err == nil && (c.state == present || c.state == misnamed) {
				continue
			}
			if !yield(c, err) {
				return
			}
		}
	}
}
