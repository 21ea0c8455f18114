package filter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// The encoded form: the magic bytes with the version, the options, which have the
// sides whose attributes the rules name in the bits above the lowest, the number
// of rules, and each rule as its flags, its sides and its text. Numbers
// are unsigned varints, strings have their length in front.
const (
	magic      = "drf1"
	maxEncoded = 32 << 20 // bytes
	maxRoot    = 4096     // bytes of a tree's path
)

// Encode returns the rules in a form that Decode reads. A nil list encodes as
// one without rules.
func (r *Rules) Encode() []byte {
	if r == nil {
		r = &Rules{}
	}
	b := append([]byte{}, magic...)
	del := uint64(0)
	if r.opts.DeleteExcluded {
		del = 1
	}
	b = binary.AppendUvarint(b, del|uint64(r.xattrs)<<1)
	b = appendString(b, r.opts.SourceRoot)
	b = appendString(b, r.opts.DestRoot)
	b = binary.AppendUvarint(b, uint64(len(r.list)))
	for _, one := range r.list {
		b = binary.AppendUvarint(b, uint64(one.flags))
		b = binary.AppendUvarint(b, uint64(one.sides))
		b = appendString(b, one.text)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

var errEncoding = errors.New("not an encoded list of filter rules")

// Decode returns the rules that Encode wrote. It accepts nothing that a Builder
// could not have made, and allocates in proportion to the length of data.
func Decode(data []byte) (*Rules, error) {
	if len(data) > maxEncoded {
		return nil, fmt.Errorf("%w: longer than %d bytes", errEncoding, maxEncoded)
	}
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: unknown version", errEncoding)
	}
	d := decoder{left: data[len(magic):]}
	var o Options
	bits := d.number(1 | uint64(Sender|Receiver)<<1)
	o.DeleteExcluded = bits&1 == 1
	xattrs := Side(bits >> 1)
	o.SourceRoot = d.string(maxRoot)
	o.DestRoot = d.string(maxRoot)
	n := d.number(maxRules)
	var list []*rule
	for i := uint64(0); i < n && d.err == nil; i++ {
		if one := d.rule(); one != nil {
			list = append(list, one)
		}
	}
	switch {
	case d.err != nil:
		return nil, d.err
	case len(d.left) > 0:
		return nil, fmt.Errorf("%w: %d bytes too many", errEncoding, len(d.left))
	}
	r, err := newRules(list, o)
	if err == nil {
		r.xattrs = xattrs
		err = r.checkXattrs()
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// checkXattrs looks that the sides told fit the rules.
func (r *Rules) checkXattrs() error {
	named := slices.ContainsFunc(r.list, func(one *rule) bool { return one.flags&xattr != 0 })
	if r.xattrs == Sender || named && r.xattrs == 0 || r.sendsXattr() && r.xattrs&Sender == 0 {
		return fmt.Errorf("%w: the rules name attributes of another side", errEncoding)
	}
	return nil
}

type decoder struct {
	left []byte
	err  error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", errEncoding, what)
	}
}

func (d *decoder) number(limit uint64) uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.left)
	if n <= 0 || v > limit {
		d.fail("a number is out of range")
		return 0
	}
	d.left = d.left[n:]
	return v
}

func (d *decoder) string(limit uint64) string {
	n := d.number(limit)
	if d.err != nil {
		return ""
	}
	if n > uint64(len(d.left)) {
		d.fail("a string is cut off")
		return ""
	}
	s := string(d.left[:n])
	d.left = d.left[n:]
	return s
}

func (d *decoder) rule() *rule {
	r := rule{
		flags: flags(d.number(uint64(kept))),
		sides: Side(d.number(uint64(Sender | Receiver))),
	}
	text := d.string(maxPattern + 1)
	if d.err != nil {
		return nil
	}
	one, err := compile(text, r)
	switch {
	case err != nil:
		d.fail(err.Error())
	case one.flags != r.flags || one.text != text || r.flags&^kept != 0:
		d.fail("the flags of a rule do not fit it")
	case r.sides == 0 && r.flags&perDir == 0:
		d.fail("a rule has no side")
	default:
		return one
	}
	return nil
}
