package rsyncx

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// maxXattrs bounds the extended attributes of one entry, in bytes.
const maxXattrs = 128 << 10

// AppendXattr appends one extended attribute to an encoded list. Names must
// ascend.
func AppendXattr[V string | []byte](list []byte, name string, value V) []byte {
	list = append(binary.AppendUvarint(list, uint64(len(name))), name...)
	return append(binary.AppendUvarint(list, uint64(len(value))), value...)
}

// Xattrs yields the names and values of an encoded list, which CheckXattrs has
// found right.
func Xattrs(list string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		d := decoder{b: []byte(list)}
		for len(d.b) > 0 && !d.bad {
			name, value := d.text(), d.text()
			if d.bad || !yield(name, value) {
				return
			}
		}
	}
}

// CheckXattrs returns an error that wraps ErrHostile unless list is what
// AppendXattr makes.
func CheckXattrs(list string) error {
	d := decoder{b: []byte(list)}
	last := ""
	for len(d.b) > 0 && !d.bad {
		name := d.text()
		_ = d.text()
		if name <= last || len(name) > 255 {
			d.bad = true
		}
		last = name
	}
	if d.bad || len(list) > maxXattrs {
		return fmt.Errorf("%w: a list of extended attributes of %d bytes", ErrHostile, len(list))
	}
	return nil
}
