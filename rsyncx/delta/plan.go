package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Plan says how to make the new version: what is not in Copies is missing.
type Plan struct {
	Size   int64  // of the new version, bytes
	Copies []Copy // ascending in New, apart from each other, not empty
}

// Copy is a part of the new version that the old one has.
type Copy struct{ New, Old, Len int64 }

// Reused returns how many bytes the old version has.
func (p *Plan) Reused() int64 {
	var n int64
	for _, c := range p.Copies {
		n += c.Len
	}
	return n
}

// Missing returns the parts that the old version has not: ascending, apart from
// each other, not empty; nil when there are none.
func (p *Plan) Missing() []Span {
	var all []Span
	at := int64(0)
	for _, c := range p.Copies {
		if c.New > at {
			all = append(all, Span{Off: at, Len: c.New - at})
		}
		at = c.New + c.Len
	}
	if at < p.Size {
		all = append(all, Span{Off: at, Len: p.Size - at})
	}
	return all
}

// Identity reports whether the plan is to take the whole old version, of oldSize bytes.
func (p *Plan) Identity(oldSize int64) bool {
	return p.Size == oldSize && p.Reused() == p.Size && (len(p.Copies) == 0 || len(p.Copies) == 1 && p.Copies[0].Old == 0)
}

// Parts goes through the new version from its beginning: either copy gives a
// part of the old version or fetch one that is missing. It ends with the first error.
func (p *Plan) Parts(copyOld func(Copy) error, fetch func(Span) error) error {
	at := int64(0)
	for _, c := range p.Copies {
		if c.New > at {
			if err := fetch(Span{Off: at, Len: c.New - at}); err != nil {
				return err
			}
		}
		if err := copyOld(c); err != nil {
			return err
		}
		at = c.New + c.Len
	}
	if at < p.Size {
		return fetch(Span{Off: at, Len: p.Size - at})
	}
	return nil
}

// Patch writes the new version: the parts of old that p names, and between them
// what missing gives, one missing part behind the other.
func Patch(to io.Writer, old io.ReaderAt, p *Plan, missing io.Reader) error {
	part := func(from io.Reader, n int64, what string, off int64) error {
		if m, err := io.CopyN(to, from, n); err != nil {
			return fmt.Errorf("put together %d bytes of the %s at %d: %w", n, what, off+m, err)
		}
		return nil
	}
	return p.Parts(
		func(c Copy) error { return part(io.NewSectionReader(old, c.Old, c.Len), c.Len, "old version", c.Old) },
		func(s Span) error { return part(missing, s.Len, "new version", s.Off) })
}

var errPlan = errors.New("a plan is damaged")

// Append encodes p behind b.
func (p *Plan) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(p.Size))
	b = binary.AppendUvarint(b, uint64(len(p.Copies)))
	var last Copy
	for _, c := range p.Copies {
		b = binary.AppendUvarint(b, uint64(c.New-last.New-last.Len))
		b = binary.AppendVarint(b, c.Old-last.Old-last.Len)
		b = binary.AppendUvarint(b, uint64(c.Len))
		last = c
	}
	return b
}

// ParsePlan decodes what Append made, of an old version of oldSize bytes. It
// allocates no more than a small multiple of the length of b.
func ParsePlan(b []byte, oldSize int64) (Plan, error) {
	bad := false
	uvarint := func() int64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<62 {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return int64(v)
	}
	varint := func() int64 {
		v, n := binary.Varint(b)
		if n <= 0 || v > 1<<62 || v < -1<<62 {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return v
	}
	p := Plan{Size: uvarint()}
	n := uvarint()
	if n > int64(len(b))/3 { // a copy has three numbers
		return Plan{}, errPlan
	}
	var last Copy
	for range n {
		gap, shift, length := uvarint(), varint(), uvarint()
		c := Copy{New: last.New + last.Len + gap, Old: last.Old + last.Len + shift, Len: length}
		if bad || c.Len <= 0 || c.Len > p.Size || c.New > p.Size-c.Len || c.Len > oldSize || c.Old < 0 || c.Old > oldSize-c.Len {
			return Plan{}, errPlan
		}
		p.Copies, last = append(p.Copies, c), c
	}
	if bad || len(b) > 0 {
		return Plan{}, errPlan
	}
	return p, nil
}
