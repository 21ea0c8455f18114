package sqlite

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/zeebo/xxh3"
)

// A copy is compared in groups of pages, all of the same number but the last one.
// The sum of a group is the XXH3-128 of its page, or, of several, of their sums one
// after the other. So the standby, which looks for a group at every page of what it
// has, makes the sum of each page once.

const (
	sumSize   = 16
	leastSize = 4096    // bytes of a group: smaller ones would cost too much in sums
	maxGroup  = 4 << 20 // bytes of a group
	maxSums   = 1 << 20 // groups of a copy

	maxText  = 4096     // bytes of a request for ranges, which the agent's protocol bounds
	maxAsked = 64 << 20 // bytes that one request may ask for
	maxSpans = 1 << 16  // what is missing is asked for in so many ranges at most
)

type digest [sumSize]byte

// groupSize returns how many bytes the groups of a copy have, or 0 for one that is too large for sums.
func groupSize(length int64, page int) int {
	size := max(page, leastSize)
	for count(length, size) > maxSums {
		if size *= 2; size > maxGroup {
			return 0
		}
	}
	return size
}

// count returns how many groups of the given size there are.
func count(length int64, group int) int64 { return (length-1)/int64(group) + 1 }

// summer makes the sums of groups from those of their pages, which it is given in order.
type summer struct {
	pages  int    // of a group
	recent []byte // sums of the last pages, the newest at the end
}

// add takes the next page. The sum of the last pages is returned once there are enough of them.
func (s *summer) add(page []byte) (digest, bool) {
	own := xxh3.Hash128(page).Bytes()
	if s.pages == 1 {
		return own, true
	}
	if len(s.recent) >= 4*s.pages*sumSize {
		s.recent = s.recent[:copy(s.recent, s.recent[len(s.recent)-(s.pages-1)*sumSize:])]
	}
	s.recent = append(s.recent, own[:]...)
	if len(s.recent) < s.pages*sumSize {
		return digest{}, false
	}
	return xxh3.Hash128(s.recent[len(s.recent)-s.pages*sumSize:]).Bytes(), true
}

// rest returns the sum of the n newest pages and forgets all of them.
func (s *summer) rest(n int) digest {
	last := s.recent[len(s.recent)-n*sumSize:]
	s.recent = s.recent[:0]
	return xxh3.Hash128(last).Bytes()
}

// eachGroup reads a copy and calls yield with the sum of each of its groups.
func eachGroup(r io.Reader, h header, yield func(digest) error) error {
	s := summer{pages: h.Group / h.PageSize}
	buf := make([]byte, max(256<<10, h.PageSize))
	pending := 0 // pages since the last group
	for left := h.Length; left > 0; {
		part := buf[:min(int64(len(buf)), left)]
		if _, err := io.ReadFull(r, part); err != nil {
			return noEOF(err)
		}
		left -= int64(len(part))
		for ; len(part) > 0; part = part[h.PageSize:] {
			whole, _ := s.add(part[:h.PageSize])
			if pending++; pending < s.pages {
				continue
			}
			pending = 0
			if err := yield(whole); err != nil {
				return err
			}
		}
	}
	if pending > 0 {
		return yield(s.rest(pending))
	}
	return nil
}

// span is some groups that follow each other.
type span struct{ first, count int64 }

// coalesce makes at most most spans of them, by taking what lies in between as well
// where little does.
func coalesce(spans []span, most int) []span {
	for gap := int64(1); len(spans) > most; gap *= 2 {
		fewer := spans[:1]
		for _, s := range spans[1:] {
			last := &fewer[len(fewer)-1]
			if s.first-(last.first+last.count) <= gap {
				last.count = s.first + s.count - last.first
			} else {
				fewer = append(fewer, s)
			}
		}
		spans = fewer
	}
	return spans
}

// requests divides spans into requests that are not too long.
func requests(spans []span, group int) [][]span {
	// base64 makes four bytes of three.
	room := (maxText - len(rangesPrefix) - tokenSize - 1) / 4 * 3
	most := max(1, int64(maxAsked/group))
	var all [][]span
	var now []span
	var asked, at int64
	text := 0
	for _, s := range spans {
		for s.count > 0 {
			if asked == most || text+2*binary.MaxVarintLen64 > room {
				all = append(all, now)
				now, asked, at, text = nil, 0, 0, 0
			}
			part := span{s.first, min(s.count, most-asked)}
			now = append(now, part)
			text += len(appendSpan(nil, part, at))
			asked += part.count
			at = part.first + part.count
			s = span{at, s.count - part.count}
		}
	}
	if len(now) > 0 {
		all = append(all, now)
	}
	return all
}

// appendSpan appends how far s is from at, the end of the one before, and its count.
func appendSpan(b []byte, s span, at int64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(s.first-at)), uint64(s.count))
}

// encodeSpans encodes ascending spans.
func encodeSpans(spans []span) string {
	var b []byte
	var at int64
	for _, s := range spans {
		b = appendSpan(b, s, at)
		at = s.first + s.count
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseSpans decodes what encodeSpans made, and judges it for a copy of n groups.
func parseSpans(text string, n int64, group int) ([]span, error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("ranges: %w", err)
	}
	var spans []span
	var at, asked int64
	for len(b) > 0 {
		var numbers [2]int64
		for i := range numbers {
			v, used := binary.Uvarint(b)
			if used <= 0 || v > uint64(n) {
				return nil, errors.New("ranges: a number is out of bounds")
			}
			numbers[i], b = int64(v), b[used:]
		}
		s := span{at + numbers[0], numbers[1]}
		at = s.first + s.count
		asked += s.count
		switch {
		case s.count == 0 || at > n:
			return nil, errors.New("ranges: one is empty or ends after the copy")
		case asked > max(1, int64(maxAsked/group)):
			return nil, fmt.Errorf("ranges: more than %d bytes are asked for at once", maxAsked)
		}
		spans = append(spans, s)
	}
	if len(spans) == 0 {
		return nil, errors.New("ranges: there is none")
	}
	return spans, nil
}

// wanted is the groups of a copy, found by their sums.
type wanted struct {
	sums  []digest
	order []int32 // of sums, ascending
	have  []bool
	left  int // that it has not
}

func newWanted(sums []digest) *wanted {
	w := &wanted{sums: sums, order: make([]int32, len(sums)), have: make([]bool, len(sums)), left: len(sums)}
	for i := range w.order {
		w.order[i] = int32(i)
	}
	sort.Slice(w.order, func(a, b int) bool { return w.before(w.order[a], sums[w.order[b]]) })
	return w
}

func (w *wanted) before(i int32, s digest) bool { return string(w.sums[i][:]) < string(s[:]) }

// take calls use with each group of sum s that it has not yet, which it has then.
func (w *wanted) take(s digest, use func(group int64) error) error {
	for at := sort.Search(len(w.order), func(i int) bool { return !w.before(w.order[i], s) }); at < len(w.order); at++ {
		i := w.order[at]
		if w.sums[i] != s || w.have[i] {
			return nil // those that are had come together: all of one sum are taken at once
		}
		if err := use(int64(i)); err != nil {
			return err
		}
		w.have[i] = true
		w.left--
	}
	return nil
}

// missing returns the groups that it has not.
func (w *wanted) missing() []span {
	var spans []span
	for i, have := range w.have {
		switch last := len(spans) - 1; {
		case have:
		case last >= 0 && spans[last].first+spans[last].count == int64(i):
			spans[last].count++
		default:
			spans = append(spans, span{int64(i), 1})
		}
	}
	return spans
}
