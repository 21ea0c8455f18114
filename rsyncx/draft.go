package rsyncx

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/drsync/drsync/rsyncx/delta"
)

// draft is a wish that the destination can help with, on its way through the
// phases that find out how far.
type draft struct {
	wish  wish
	how   how
	basis string // path in the destination of the file that may have the content, or some of it

	// What the first sums told.
	entry     Entry    // the source's
	whole     [16]byte // XXH3-128 of its content
	basisSize int64    // bytes
	plan      delta.Plan
	// block and weak say which sums of what the plan misses are asked for next; block 0 none.
	block int64
	weak  bool
	// copied is the number, plus one, of the staged file that is a copy of the basis, when
	// that was made ahead; 0 is none. checks are then the blocks that it may not have as the source has them,
	// leaves the sums of all blocks, as far as they are those of the copy.
	copied uint64
	checks []delta.Span
	leaves []byte
	kind   SumKind // by which it is compared; it is not kept with the draft
	// left is the number of the leftover that is the basis, or 0; mine says that the
	// staged file may become another name of that.
	left int32
	mine bool
}

// how says what the basis is looked at for.
type how uint8

const (
	byDelta   how = iota // parts of the content
	byCompare            // whether it is the content: the destination's own file, nothing else helps
	byAppend             // the beginning, unseen
	byMove               // whether it is the content: a leftover, or "" while none is likely
)

const (
	// deltaLeast is the length in bytes from which on a file is worth a delta: the
	// sums of a shorter one, and what they cost both sides, spare too little.
	deltaLeast = 16 << 10
	// rangesAtOnce bounds the ranges of one want; a file with more of them has several wants.
	rangesAtOnce = 1024
	// planChunk is how much of a plan fits into one record of a spool, in bytes.
	planChunk = 12 << 10
)

// addDraft appends d to list: a record, and as many more as its plan is long.
func addDraft(list *spool, d *draft) error {
	var plan []byte
	if d.plan.Size > 0 {
		plan = d.plan.Append(nil)
	}
	checks := len(plan)
	if d.copied > 0 {
		plan = append(appendChecks(plan, d.checks), d.leaves...)
	}
	err := list.add(func(b []byte) []byte {
		b = append(b, byte(d.how), 0)
		for i, on := range []bool{d.weak, d.mine} {
			if on {
				b[len(b)-1] |= 1 << i
			}
		}
		b = append(b, d.whole[:]...)
		b = binary.AppendUvarint(b, uint64(len(plan)))
		b = binary.AppendUvarint(b, uint64(checks))
		b = binary.AppendUvarint(b, d.copied)
		b = binary.AppendUvarint(b, uint64(d.left))
		b = binary.AppendUvarint(b, uint64(d.basisSize))
		b = binary.AppendUvarint(b, uint64(d.block))
		b = appendText(b, d.basis)
		e := d.entry
		e.Xattrs = "" // those of wish count
		b = appendEntry(b, &e)
		return d.wish.append(b)
	})
	for len(plan) > 0 && err == nil {
		chunk := plan[:min(len(plan), planChunk)]
		plan = plan[len(chunk):]
		err = list.add(func(b []byte) []byte { return append(b, chunk...) })
	}
	return err
}

// nextDraft reads what addDraft wrote, or io.EOF.
func nextDraft(r *records) (*draft, error) {
	record, err := r.next()
	if err != nil {
		return nil, err
	}
	in := decoder{b: record}
	d := &draft{how: how(in.byte())}
	flags := in.byte()
	d.weak, d.mine = flags&1 != 0, flags&2 != 0
	copy(d.whole[:], in.take(len(d.whole)))
	left, checks := in.uint(), in.uint()
	d.copied, d.left = in.uint(), int32(in.uint())
	d.basisSize, d.block = int64(in.uint()), int64(in.uint())
	d.basis = in.text()
	d.entry = in.entry()
	if in.bad || checks > left || d.how > byMove || d.basisSize < 0 || d.block < 0 {
		return nil, errFormat
	}
	if d.wish, err = parseWish(in.b); err != nil {
		return nil, err
	}
	d.entry.Name, d.entry.Xattrs = d.wish.entry.Name, d.wish.entry.Xattrs
	var plan []byte
	for left > uint64(len(plan)) {
		chunk, err := r.next()
		if err != nil || len(chunk) == 0 || uint64(len(plan)+len(chunk)) > left {
			return nil, errFormat
		}
		plan = append(plan, chunk...)
	}
	if checks > 0 {
		if d.plan, err = delta.ParsePlan(plan[:checks], d.basisSize); err != nil {
			return nil, errors.Join(errFormat, err)
		}
	}
	if d.copied > 0 {
		d.checks, d.leaves, err = parseChecks(plan[checks:])
	}
	return d, err
}

// eachDraft goes through list until do returns an error or wants no more.
func eachDraft(list *spool, do func(*draft) (more bool, err error)) error {
	for r := list.records(); ; {
		d, err := nextDraft(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if more, err := do(d); err != nil || !more {
			return err
		}
	}
}

// asked returns the parts that the plan misses, split for several wants.
func (d *draft) asked() [][]Range {
	var all [][]Range
	for i, m := range d.plan.Missing() {
		if i%rangesAtOnce == 0 {
			all = append(all, nil)
		}
		last := &all[len(all)-1]
		*last = append(*last, Range{Off: m.Off, Len: m.Len})
	}
	return all
}

// sameState reports whether two looks at a file of the source met the same state of it.
func sameState(a, b *Entry) bool {
	return a.Size == b.Size && a.Mtime == b.Mtime && a.Dev == b.Dev && a.Ino == b.Ino
}
