package remote

import (
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
)

// chosen keeps of a directory's entries, which ascend, those that a restricted
// walk looks at, and returns what was asked for and is not there.
func chosen(only rsyncx.Selection, dir string, entries []rsyncx.Entry) ([]rsyncx.Entry, []*rsyncx.PathError) {
	var missing []*rsyncx.PathError
	var kept []rsyncx.Entry
	for _, name := range only.Expected() {
		i, there := slices.BinarySearchFunc(entries, name, func(e rsyncx.Entry, name string) int { return strings.Compare(e.Name, name) })
		there = there && join(dir, name) != stateDir
		isDir := there && entries[i].Mode&unix.S_IFMT == unix.S_IFDIR
		if !isDir {
			for _, path := range only.Missing(name, there) {
				missing = append(missing, &rsyncx.PathError{Path: path, Err: fs.ErrNotExist})
			}
		}
		if isDir || there && only.Asked(name) {
			kept = append(kept, entries[i])
		}
	}
	if only.All() {
		kept = entries
	}
	return kept, missing
}
