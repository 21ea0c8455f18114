package rsyncx

import "strings"

// similar returns the name of a file in a directory of the destination that
// may resemble e, or "": one of the same length and time, else the one whose name has
// the longest beginning and end in common with that of e, and at least half of it.
func (s *stager) similar(e *Entry, around []info) string {
	best, most := "", len(e.Name)/2
	for i := range around {
		here := &around[i]
		if !isRegular(&here.Entry) || here.mount || here.Name == e.Name || here.Size < deltaLeast {
			continue
		}
		if here.Size == e.Size && s.cmp.sameTime(here.Mtime, e.Mtime) {
			return here.Name
		}
		if n := alike(here.Name, e.Name); n > most {
			best, most = here.Name, n
		}
	}
	return best
}

// alike returns how many bytes two names have in common at their beginning and end.
func alike(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	a, b = a[n:], b[n:]
	for strings.HasSuffix(a, b[max(0, len(b)-1):]) && len(a) > 0 && len(b) > 0 {
		a, b = a[:len(a)-1], b[:len(b)-1]
		n++
	}
	return n
}
