package filestore

import (
	"context"
	"fmt"
	"iter"

	"github.com/drsync/drsync/internal/blob"
)

// state is what a store has under the name of a wanted blob.
type state uint8

const (
	present state = iota
	absent
	wrongLength
	misnamed // the reference itself is malformed: no store can have it
)

// compared is one wanted blob beside what the store has.
type compared struct {
	ref   blob.Ref
	state state
	found int64 // bytes; when the length is wrong
}

// compare walks the wanted references and the store's listing side by side.
// Both ascend; want must, strictly, apart from malformed names. It holds one
// element of each.
func compare(ctx context.Context, want iter.Seq2[blob.Ref, error], store Store) iter.Seq2[compared, error] {
	return func(yield func(compared, error) bool) {
		have := newHead(store.List(ctx))
		defer have.stop()
		var last blob.Sum
		count := 0
		for ref, err := range want {
			if count++; err == nil && count%1024 == 0 {
				err = context.Cause(ctx)
			}
			if err != nil {
				yield(compared{}, err)
				return
			}
			c := compared{ref: ref, state: absent}
			if !ref.Sum.Valid() || ref.Size < 0 {
				c.state = misnamed
				if !yield(c, nil) {
					return
				}
				continue
			}
			if ref.Sum <= last {
				yield(compared{}, fmt.Errorf("the list of blobs is not in order: %s comes after %s", ref.Sum, last))
				return
			}
			last = ref.Sum
			for have.err == nil && have.more && have.info.Sum < ref.Sum {
				have.advance()
			}
			if have.err != nil {
				yield(compared{}, have.err)
				return
			}
			if have.more && have.info.Sum == ref.Sum {
				c.state, c.found = present, have.info.Size
				if have.info.Size != ref.Size {
					c.state = wrongLength
				}
			}
			if !yield(c, nil) {
				return
			}
		}
		if err := context.Cause(ctx); err != nil {
			yield(compared{}, err)
		}
	}
}
