package wire

import (
	"fmt"

	"github.com/drsync/drsync/rsyncx/filter"
)

// encodeFilter encodes rules for a request. No rules are no bytes.
func encodeFilter(r *filter.Rules) []byte {
	if r == nil {
		return nil
	}
	return r.Encode()
}

func decodeFilter(b []byte) (*filter.Rules, error) {
	if len(b) == 0 {
		return nil, nil
	}
	r, err := filter.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("read the filter rules: %w", err)
	}
	return r, nil
}
