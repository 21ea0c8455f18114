package mysql

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// position is a set of transactions as either product words it: MariaDB names
// the last of each domain ("0-1-57,3-1-2"), MySQL ranges of each server's
// ("3E11FA47-…:1-5:7").
type position map[string][]span

// span is a range of sequence numbers, both ends included. last is the server
// that wrote the last of them, which only MariaDB tells.
type span struct {
	from, to uint64
	last     string
}

// parsePosition reads a position; "" is the empty set.
func parsePosition(mariaDB bool, text string) (position, error) {
	p := make(position)
	for item := range strings.SplitSeq(strings.ReplaceAll(text, "\n", ""), ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		read := p.addRanges
		if mariaDB {
			read = p.addLast
		}
		if err := read(item); err != nil {
			return nil, fmt.Errorf("the GTID position %q is not understood", text)
		}
	}
	return p, nil
}

func (p position) addLast(item string) error {
	parts := strings.Split(item, "-")
	if len(parts) != 3 || p[parts[0]] != nil {
		return strconv.ErrSyntax
	}
	for _, part := range parts[:2] {
		if _, err := strconv.ParseUint(part, 10, 32); err != nil {
			return err
		}
	}
	n, err := strconv.ParseUint(parts[2], 10, 64)
	p[parts[0]] = []span{{0, n, parts[1]}}
	return err
}

// addRanges reads the ranges of one server, or of one of its tags.
func (p position) addRanges(item string) error {
	parts := strings.Split(item, ":")
	key := strings.ToLower(parts[0])
	ranges := 0
	for _, part := range parts[1:] {
		part = strings.TrimSpace(part)
		if part == "" || part[0] < '0' || part[0] > '9' { // a tag, to which what follows belongs
			key = strings.ToLower(parts[0]) + ":" + part
			continue
		}
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err := strconv.ParseUint(low, 10, 63)
		if err != nil {
			return err
		}
		to, err := strconv.ParseUint(high, 10, 63)
		if err != nil || to < from {
			return strconv.ErrSyntax
		}
		p[key] = append(p[key], span{from: from, to: to})
		ranges++
	}
	if ranges == 0 || len(parts[0]) != len("3e11fa47-71ca-11e1-9e33-c80aa9429562") {
		return strconv.ErrSyntax
	}
	p[key] = joinSpans(p[key])
	return nil
}

func joinSpans(all []span) []span {
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	joined := all[:0]
	for _, s := range all {
		if n := len(joined); n > 0 && s.from <= joined[n-1].to+1 {
			joined[n-1].to = max(joined[n-1].to, s.to)
			continue
		}
		joined = append(joined, s)
	}
	return joined
}

// without leaves out what one server wrote, by whichever tags.
func (p position) without(server string) position {
	server = strings.ToLower(server)
	for key := range p {
		if server != "" && (key == server || strings.HasPrefix(key, server+":")) {
			delete(p, key)
		}
	}
	return p
}

// covers says whether every transaction of q is in p.
func (p position) covers(q position) bool {
	for key, want := range q {
		for _, w := range want {
			if !slices.ContainsFunc(p[key], func(have span) bool { return have.from <= w.from && w.to <= have.to }) {
				return false
			}
		}
	}
	return true
}

// equal says whether both are the same position. In MariaDB the same number
// by another server is another transaction.
func (p position) equal(q position) bool {
	if !p.covers(q) || !q.covers(p) {
		return false
	}
	for key := range p {
		if p[key][0].last != q[key][0].last {
			return false
		}
	}
	return true
}

// gtidOf returns the GTID part of a point's position, which follows the place
// in the binary log: "binlog.000003:7421 0-1-57".
func gtidOf(position string) string {
	_, gtid, _ := strings.Cut(position, " ")
	return strings.TrimSpace(gtid)
}
