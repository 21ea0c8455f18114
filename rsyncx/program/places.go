package program

import "strings"

// places says where on the line the paths of one base are named, or come from: of
// two sources that have one path the earlier gives it.
type places struct {
	named map[string]int // the paths themselves
	leads map[string]int // what stands above them
}

// placesOf takes the items of one base in the order of the line.
func placesOf(items []item) places {
	p := places{named: make(map[string]int, len(items)), leads: map[string]int{}}
	for _, it := range items {
		least(p.named, it.path, it.at)
		for path := above(it.path); path != ""; path = above(path) {
			least(p.leads, path, it.at)
		}
	}
	return p
}

// of returns the place of path; what is not named at all comes last.
func (p places) of(path string) int {
	first, found := p.leads[path]
	for {
		if at, ok := p.named[path]; ok && (!found || at < first) {
			first, found = at, true
		}
		if path == "" {
			break
		}
		path = above(path)
	}
	if !found {
		return int(^uint(0) >> 1)
	}
	return first
}

func least(at map[string]int, path string, n int) {
	if before, ok := at[path]; !ok || n < before {
		at[path] = n
	}
}

// above is the path of the directory that path is in.
func above(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }
