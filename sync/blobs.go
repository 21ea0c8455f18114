package sync

import (
	"context"
	"errors"
	"fmt"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/app"
	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/filestore"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/rsyncx"
)

// writeRefs writes down which blobs of one set the captured database names. A
// name that is no hash, or with a negative length, cannot be a file of the
// filestore: it is counted as missing and left out of the list.
func (p *pass) writeRefs(ctx context.Context, set app.BlobSet) error {
	var malformed int64
	wellFormed := func(yield func(blob.Ref, error) bool) {
		for ref, err := range p.captured.Refs(ctx, set.Refs) {
			if err == nil && (!ref.Sum.Valid() || ref.Size < 0) {
				malformed++
				p.addMissing(snapshot.Missing{Set: set.Name, Sum: blob.Sum(rsyncx.Printable(string(ref.Sum))), Size: ref.Size, Reason: snapshot.ReasonMalformed})
				continue
			}
			if !yield(ref, err) {
				return
			}
		}
	}
	count, bytes, err := p.draft.WriteRefs(set.Name, wellFormed)
	if err != nil {
		return fmt.Errorf("list the blobs of %s: %w", set.Name, err)
	}
	sum, err := p.draft.ListSum(set.Name)
	if err != nil {
		return err
	}
	p.record.BlobSets = append(p.record.BlobSets, snapshot.BlobSet{Name: set.Name, Named: count, NamedBytes: bytes, Missing: malformed, ListSum: sum})
	p.malformed = append(p.malformed, malformed)
	return nil
}

func (p *pass) addMissing(m snapshot.Missing) {
	if len(p.record.Missing) < snapshot.MaxMissing {
		p.record.Missing = append(p.record.Missing, m)
	}
}

// copyBlobs brings every named blob that this host lacks.
func (p *pass) copyBlobs(ctx context.Context) (string, error) {
	if p.blobs == nil {
		return "no blobs live in files", nil
	}
	if err := p.requireBlobs(); err != nil {
		return "", err
	}
	var copied, bytes, missing int64
	for i, set := range p.profile.BlobSets {
		rec := &p.record.BlobSets[i]
		if err := p.fill(ctx, set, rec); err != nil {
			return "", fmt.Errorf("%s: %w", set.Name, err)
		}
		copied, bytes, missing = copied+rec.Copied, bytes+rec.CopiedBytes, missing+rec.Missing
	}
	text := fmt.Sprintf("%d blobs, %d bytes", copied, bytes)
	if missing > 0 {
		text += fmt.Sprintf("; %d MISSING on the active", missing)
	}
	return text, nil
}

// fill copies the blobs of one set; in a dry run it counts them.
func (p *pass) fill(ctx context.Context, set app.BlobSet, rec *snapshot.BlobSet) error {
	if p.dryRun {
		need, err := filestore.Plan(ctx, p.draft.Refs(set.Name), p.blobs.store)
		rec.Copied, rec.CopiedBytes = need.Lacking, need.LackingBytes
		return err
	}
	rep, err := filestore.Fill(ctx, p.draft.Refs(set.Name), p.blobs.source, p.blobs.store, filestore.FillOptions{
		Event: p.Event, Step: "copy", Prefix: p.blobs.prefix(p.Home), Reserve: p.Reserve,
	})
	if err != nil {
		return err
	}
	rec.Copied, rec.CopiedBytes = rep.Copied, rep.CopiedBytes
	rec.Missing += rep.MissingCount
	return p.explainMissing(ctx, set, rep.Missing)
}

// explainMissing says why blobs are missing and which artifacts need them.
func (p *pass) explainMissing(ctx context.Context, set app.BlobSet, missing []filestore.MissingBlob) error {
	if len(missing) == 0 {
		return nil
	}
	named, err := p.stillNamed(ctx, set, missing)
	if err != nil {
		return err
	}
	for _, m := range missing {
		item := snapshot.Missing{Set: set.Name, Sum: m.Ref.Sum, Size: m.Ref.Size, Reason: reason(m, named)}
		for path, err := range p.captured.Strings(ctx, set.Paths, string(m.Ref.Sum)) {
			if err != nil {
				return fmt.Errorf("find the artifacts that need %s: %w", m.Ref.Sum, err)
			}
			if len(item.Paths) == snapshot.MaxPaths {
				item.MorePaths++
				continue
			}
			item.Paths = append(item.Paths, path)
		}
		p.addMissing(item)
		p.Event.Emit(event.Event{Kind: event.Warning, Step: "copy", Name: string(m.Ref.Sum), Text: describeMissing(item)})
	}
	return nil
}

func describeMissing(m snapshot.Missing) string {
	text := "missing on the active (" + m.Reason + ")"
	switch {
	case len(m.Paths) == 1:
		text += ", needed by " + m.Paths[0]
	case len(m.Paths) > 1:
		text += fmt.Sprintf(", needed by %s and %d more", m.Paths[0], int64(len(m.Paths))-1+m.MorePaths)
	default:
		text += ", needed by no artifact"
	}
	return text
}

// stillNamed asks the active's database of now; nil when it cannot be asked.
func (p *pass) stillNamed(ctx context.Context, set app.BlobSet, missing []filestore.MissingBlob) (map[blob.Sum]bool, error) {
	asker, ok := p.Engine.(dbrepl.ActiveAsker)
	if !ok || set.Named == "" {
		return nil, nil
	}
	var sums []blob.Sum
	for _, m := range missing {
		sums = append(sums, m.Ref.Sum)
	}
	named, err := asker.StillNamed(ctx, set.Named, sums)
	if err != nil {
		return nil, fmt.Errorf("ask the active which missing blobs it still names: %w", err)
	}
	return named, nil
}

// reason classifies one missing blob. named is nil when the active could not be asked.
func reason(m filestore.MissingBlob, named map[blob.Sum]bool) string {
	switch {
	case m.Reason == filestore.Corrupt:
		return snapshot.ReasonCorrupt
	case named == nil:
		return snapshot.ReasonUnknown
	case named[m.Ref.Sum]:
		return snapshot.ReasonLost
	}
	return snapshot.ReasonCollected
}

// verify asks the disk, not the copy's memory, whether every named blob is
// there with its length. Only blobs that were reported missing may be absent.
func (p *pass) verify(ctx context.Context) (string, error) {
	switch {
	case p.blobs == nil:
		return "no blobs live in files", nil
	case p.dryRun:
		return "left out: a dry run has copied nothing", nil
	}
	var present int64
	for i, set := range p.profile.BlobSets {
		var absent int64
		var first error
		for problem, err := range filestore.Verify(ctx, p.draft.Refs(set.Name), p.blobs.store, false) {
			if err != nil {
				return "", err
			}
			absent++
			if first == nil {
				first = errors.New(problem.String())
			}
		}
		rec := p.record.BlobSets[i]
		if absent > rec.Missing-p.malformed[i] {
			return "", fmt.Errorf("%d blobs are absent, %d of them were reported missing; the first is %w", absent, rec.Missing, first)
		}
		present += rec.Named - absent
	}
	return fmt.Sprintf("%d blobs present", present), nil
}
