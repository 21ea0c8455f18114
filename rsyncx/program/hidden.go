package program

import (
	"context"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/cli"
	"github.com/drsync/drsync/rsyncx/filter"
)

// telling is a directory of this host that tells which of its names the rules
// hide. It lists every directory once more; of another host's only that host knows.
type telling struct {
	rsyncx.Source
	path  string
	rules *filter.Rules
	only  []string // nil is all
	tell  event.Sink
}

var _ rsyncx.Source = (*telling)(nil)

// maxMergeFile bounds a per-directory filter file, in bytes.
const maxMergeFile = 16 << 20

// tellHidden makes the sources of this host tell.
func (r *run) tellHidden(t *tree, rules *filter.Rules) {
	if t.host != nil || r.c.Debug("FILTER") == 0 || rules.Len() == 0 {
		return
	}
	if m, several := t.source.(*merged); several {
		for i := range m.parts {
			m.parts[i].Source = &telling{m.parts[i].Source, m.parts[i].path, rules, m.parts[i].only, r.sink}
		}
		return
	}
	t.source = &telling{t.source, t.path, rules, t.only, r.sink}
}

func (h *telling) Walk(ctx context.Context, o rsyncx.WalkOptions) iter.Seq2[rsyncx.Dir, error] {
	return func(yield func(rsyncx.Dir, error) bool) {
		var way []level
		for d, err := range h.Source.Walk(ctx, o) {
			if err == nil {
				for len(way) > 0 && !isBelow(d.Path, way[len(way)-1].path) {
					way = way[:len(way)-1]
				}
				scope := h.rules.Root()
				if len(way) > 0 {
					scope = way[len(way)-1].scope
				}
				scope, err := scope.Enter(d.Path, func(name string) ([]byte, error) {
					return rsyncx.ReadFile(ctx, h.Source, below(d.Path, name), maxMergeFile)
				})
				if err == nil { // otherwise the walk has met it too
					way = append(way, level{d.Path, scope})
					h.hidden(&d, scope)
				}
			}
			if !yield(d, err) {
				return
			}
		}
	}
}

// level is a directory on the way to the one looked at.
type level struct {
	path  string
	scope *filter.Scope
}

func isBelow(path, dir string) bool { return dir == "" || strings.HasPrefix(path, dir+"/") }

// hidden tells of the names of one directory that are not in its listing.
func (h *telling) hidden(d *rsyncx.Dir, scope *filter.Scope) {
	names, err := os.ReadDir(filepath.Join(h.path, d.Path))
	if err != nil {
		return
	}
	for _, n := range names {
		path := below(d.Path, n.Name())
		if _, listed := slices.BinarySearchFunc(d.Entries, n.Name(), func(e rsyncx.Entry, name string) int { return strings.Compare(e.Name, name) }); listed || !h.asked(path) {
			continue
		}
		if gone, rule := scope.Excluded(path, n.IsDir(), filter.Sender); gone {
			if n.Type()&fs.ModeDir != 0 {
				path += "/"
			}
			h.tell.Emit(event.Event{Kind: event.Skip, Name: path, Text: cli.Hidden + rsyncx.Printable(rule)})
		}
	}
}

// asked reports whether a path is one of those that are sent, or below one.
func (h *telling) asked(path string) bool {
	return h.only == nil || slices.ContainsFunc(h.only, func(o string) bool { return o == path || strings.HasPrefix(path, o+"/") })
}
