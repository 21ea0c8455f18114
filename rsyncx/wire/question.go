package wire

import (
	"encoding/binary"
	"math"

	"github.com/drsync/drsync/rsyncx"
)

// question is one line of what a client asks of the content of files: Wants and
// SumWants as they travel.
type question struct {
	path   string
	kind   byte
	part   rsyncx.Range   // of kindPart
	ranges []rsyncx.Range // of kindRanges
	block  int64          // of sums
	weak   bool           // of sums
	sum    rsyncx.SumKind // of sums: another one of the whole
	soon   string         // asked whole some questions later, or ""; the agent's own
}

const (
	kindWhole  = iota
	kindPart   // what there is between part.Off and part.Off+part.Len of the whole; Len 0 is up to its end
	kindRanges // exactly ranges
)

func (q *question) append(b []byte, sums bool) []byte {
	b = append(appendString(b, q.path), q.kind)
	if sums {
		b = binary.AppendUvarint(b, uint64(q.block))
		b = append(b, bits(q.weak), byte(q.sum))
	}
	switch q.kind {
	case kindPart:
		b = binary.AppendUvarint(b, uint64(q.part.Off))
		b = binary.AppendUvarint(b, uint64(q.part.Len))
	case kindRanges:
		b = binary.AppendUvarint(b, uint64(len(q.ranges)))
		end := int64(0)
		for _, r := range q.ranges {
			b = binary.AppendUvarint(b, uint64(r.Off-end))
			b = binary.AppendUvarint(b, uint64(r.Len))
			end = r.Off + r.Len
		}
	}
	return b
}

// question decodes what append wrote. The ranges it returns ascend, are apart or
// adjacent, and not empty.
func (d *decoder) question(sums bool) question {
	q := question{path: d.string("name", maxPath)}
	if d.err == nil {
		d.err = rsyncx.CheckPath(q.path)
	}
	q.kind = d.flags("kind of question", 3)
	if sums {
		q.block = int64(d.uint("length of a block", math.MaxInt64))
		q.weak = d.flags("kind of sums", 1) != 0
		if q.sum = rsyncx.SumKind(d.flags("kind of sum", 7)); !q.sum.Known() {
			d.fail("kind of sum")
		}
	}
	switch q.kind {
	case kindWhole:
	case kindPart:
		q.part = d.rangeAfter(0, 0)
	case kindRanges:
		n := d.uint("number of ranges", maxRanges)
		q.ranges = make([]rsyncx.Range, 0, min(n, uint64(len(d.b)))) // each takes a byte or more
		end := int64(0)
		for range n {
			r := d.rangeAfter(end, 1)
			if d.err != nil {
				break
			}
			q.ranges = append(q.ranges, r)
			end = r.Off + r.Len
		}
	default:
		d.fail("kind of question")
	}
	if d.err != nil {
		return question{}
	}
	return q
}

func (d *decoder) rangeAfter(end, shortest int64) rsyncx.Range {
	off := end + int64(d.uint("range", uint64(math.MaxInt64-end)))
	length := int64(d.uint("range", uint64(math.MaxInt64-off)))
	if length < shortest {
		d.fail("range")
	}
	return rsyncx.Range{Off: off, Len: length}
}

// validRanges says whether ranges are what a Want may have.
func validRanges(ranges []rsyncx.Range) bool {
	end := int64(0)
	for _, r := range ranges {
		if r.Off < end || r.Len <= 0 || r.Len > math.MaxInt64-r.Off {
			return false
		}
		end = r.Off + r.Len
	}
	return true
}

func total(ranges []rsyncx.Range) (n int64) {
	for _, r := range ranges {
		n += r.Len
	}
	return n
}
