package program

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/drsync/drsync/rsyncx"
)

// part is one base of a merged source: what of it is sent.
type part struct {
	rsyncx.Source
	only  []string // nil sends all
	named []string // as the line names it, for countAgain
	flat  bool
	root  bool   // the root itself is sent
	path  string // of a directory of this host
	places
	// hidden says that there is no Source since rules leave out all that was named.
	hidden bool
}

// merged shows several directories as one. Where two have a name, the first of the
// line has it; two directories of one name become one that has the content of both, and a
// directory comes before anything else of its name.
type merged struct {
	parts []part
	walks int // how many parts are walked at a time, since each takes a connection; 0 is all

	mu sync.Mutex
	// owner says for the names in directories of several parts whose they are. What
	// lies deeper belongs to the same one.
	owner map[string]int
	// again is what several parts have and only one of them gives.
	again rsyncx.Stats
}

var _ rsyncx.Source = (*merged)(nil)

func newMerged(parts []part) *merged { return &merged{parts: parts, owner: map[string]int{}} }

// Abilities are what all parts have.
func (m *merged) Abilities() rsyncx.Abilities {
	all := m.parts[0].Abilities()
	for _, p := range m.parts[1:] {
		a := p.Abilities()
		all.Nanoseconds = all.Nanoseconds && a.Nanoseconds
		all.OwnerNames = all.OwnerNames && a.OwnerNames
		all.HardLinks = all.HardLinks && a.HardLinks
		all.Devices = all.Devices && a.Devices
		all.Xattrs = all.Xattrs && a.Xattrs
		all.Sums = all.Sums && a.Sums
		all.Views = all.Views && a.Views
		all.Holes = all.Holes && a.Holes
		all.Digests = all.Digests && a.Digests
	}
	return all
}

// alone reports whether the paths are such that part i alone can have path, and
// what lies below it.
func (m *merged) alone(path string, i int) bool {
	for k := range m.parts {
		if k != i && m.parts[k].sends(path) {
			return false
		}
	}
	return true
}

func (m *merged) Close() error {
	var errs []error
	for _, p := range m.parts {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// of returns the part that a path belongs to.
func (m *merged) of(path string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		if i, ok := m.owner[path]; ok {
			return i
		}
		cut := strings.LastIndexByte(path, '/')
		if cut < 0 {
			return -1
		}
		path = path[:cut]
	}
}

// Lstat asks the parts in turn where the walk has not said yet whose a path is.
func (m *merged) Lstat(ctx context.Context, path string) (rsyncx.Entry, error) {
	if i := m.of(path); i >= 0 {
		return m.parts[i].Lstat(ctx, path)
	}
	roots := slices.ContainsFunc(m.parts, func(p part) bool { return p.root })
	for _, p := range m.parts {
		if !p.sends(path) || path == "" && roots && !p.root {
			continue
		}
		e, err := p.Lstat(ctx, path)
		if !errors.Is(err, fs.ErrNotExist) {
			return e, err
		}
	}
	return rsyncx.Entry{}, &rsyncx.PathError{Path: path, Err: fs.ErrNotExist}
}

// sends reports whether a path is, leads to, or lies below what the part sends.
func (p *part) sends(path string) bool {
	return p.only == nil || path == "" || slices.ContainsFunc(p.only, func(o string) bool {
		return o == path || strings.HasPrefix(o, path+"/") || strings.HasPrefix(path, o+"/")
	})
}

// head is the directory that a part's walk has come to.
type head struct {
	next func() (rsyncx.Dir, error, bool)
	dir  rsyncx.Dir
	live bool
}

// advance goes on to the next directory, and yields what is wrong on the way.
func (h *head) advance(yield func(rsyncx.Dir, error) bool) bool {
	for {
		d, err, ok := h.next()
		var one *rsyncx.PathError
		switch {
		case !ok:
			h.live = false
			return true
		case err == nil:
			h.dir, h.live = d, true
			return true
		case !yield(rsyncx.Dir{}, err), !errors.As(err, &one):
			return false
		}
	}
}

// Walk shows what the parts send: their own paths stand for Only, and Flat is for those that are not flat themselves.
func (m *merged) Walk(ctx context.Context, o rsyncx.WalkOptions) iter.Seq2[rsyncx.Dir, error] {
	return func(yield func(rsyncx.Dir, error) bool) {
		m.mu.Lock()
		m.again = rsyncx.Stats{} // of this walk
		m.mu.Unlock()
		heads := make([]head, len(m.parts))
		for i, p := range m.parts {
			mine := o
			mine.Only, mine.Flat = p.only, p.flat || o.Flat
			if o.Same != nil {
				mine.Same = func(p rsyncx.Piece, d rsyncx.DirDigest) bool { return m.alone(p.Path, i) && o.Same(p, d) }
			}
			walk := p.Walk(ctx, mine)
			if m.walks > 0 && i >= m.walks {
				walk = gathered(walk)
			}
			next, stop := iter.Pull2(walk)
			defer stop()
			heads[i].next = next
			if !heads[i].advance(yield) {
				return
			}
		}
		for {
			d, from, more := m.first(heads, yield)
			if !more {
				return
			}
			if d.Path == "" || m.wanted(d.Path, from) {
				if !yield(d, nil) {
					return
				}
			}
			for _, i := range from {
				if !heads[i].advance(yield) {
					return
				}
			}
		}
	}
}

// whole puts the pieces of a directory together, and yields what is wrong on the way.
func (h *head) whole(yield func(rsyncx.Dir, error) bool) bool {
	d := h.dir
	for d.Upto != "" {
		path := d.Path
		if !h.advance(yield) {
			return false
		}
		if !h.live || h.dir.Path != path {
			break // the reader sees that a piece is missing
		}
		d.Entries = append(d.Entries, h.dir.Entries...)
		d.Partial = d.Partial || h.dir.Partial
		d.Upto = h.dir.Upto
	}
	h.dir, h.live = d, true
	return true
}

// gathered is a walk that was done before anything of it is needed.
func gathered(walk iter.Seq2[rsyncx.Dir, error]) iter.Seq2[rsyncx.Dir, error] {
	return func(yield func(rsyncx.Dir, error) bool) {
		var dirs []rsyncx.Dir
		var errs []error
		for d, err := range walk {
			d.Entries = slices.Clone(d.Entries)
			dirs, errs = append(dirs, d), append(errs, err)
		}
		for i := range dirs {
			if !yield(dirs[i], errs[i]) {
				return
			}
		}
	}
}

// first merges the directories of the path that comes first and says whose it is.
// False says that there are no more, or nobody wants them.
func (m *merged) first(heads []head, yield func(rsyncx.Dir, error) bool) (d rsyncx.Dir, from []int, more bool) {
	for i := range heads {
		if !heads[i].live {
			continue
		}
		if len(from) > 0 {
			if c := inWalk(heads[i].dir.Path, d.Path); c > 0 {
				continue
			} else if c < 0 {
				from = nil
			}
		}
		if len(from) == 0 {
			d = heads[i].dir
		}
		from = append(from, i)
	}
	for _, i := range from {
		if len(from) > 1 && !heads[i].whole(yield) {
			return d, from, false
		}
	}
	if len(from) > 1 || len(from) == 1 && d.Path == "" {
		d = m.merge(heads, from)
	}
	return d, from, len(from) > 0
}

// wanted drops a directory whose name a part has and another one owns: that
// happens where a link or file of the one has the name of a directory of the other
// only when both are listed, so the directory is what stays.
func (m *merged) wanted(path string, from []int) bool {
	owner := m.of(path)
	return owner < 0 || len(from) > 1 || slices.Contains(from, owner) || m.shared(path)
}

// shared reports whether a directory was listed by several parts.
func (m *merged) shared(path string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.owner[path]
	return ok
}

// merge makes one directory of those that the parts from have now.
func (m *merged) merge(heads []head, from []int) rsyncx.Dir {
	path := heads[from[0]].dir.Path
	from = m.inLine(from, path)
	d := heads[from[0]].dir
	d.Entries = nil
	m.mu.Lock()
	defer m.mu.Unlock()
	at := make(map[string]int)
	for _, i := range from {
		d.Partial = d.Partial && heads[i].dir.Partial
		for _, e := range heads[i].dir.Entries {
			k, known := at[e.Name]
			name := below(path, e.Name)
			if known && !m.takes(name, &e, i, &d.Entries[k]) {
				count(&m.again, &e)
				continue
			}
			m.owner[name] = i
			if known {
				count(&m.again, &d.Entries[k])
				d.Entries[k] = e
				continue
			}
			at[e.Name] = len(d.Entries)
			d.Entries = append(d.Entries, e)
		}
	}
	// The root's own attributes are those of the first whose root is sent.
	for _, i := range from {
		if d.Path == "" && m.parts[i].root || d.Path != "" && !heads[i].dir.Partial {
			d.Self = heads[i].dir.Self
			break
		}
	}
	slices.SortFunc(d.Entries, func(a, b rsyncx.Entry) int { return strings.Compare(a.Name, b.Name) })
	return d
}

// inLine brings parts into the order in which the line has a path of them.
func (m *merged) inLine(parts []int, path string) []int {
	if len(parts) < 2 {
		return parts
	}
	parts = slices.Clone(parts)
	slices.SortStableFunc(parts, func(a, b int) int { return cmp.Compare(m.parts[a].of(path), m.parts[b].of(path)) })
	return parts
}

// takes reports whether the entry e of part i, and not the one that owns its name
// so far, is what is sent: a directory, or what comes first on the line.
func (m *merged) takes(path string, e *rsyncx.Entry, i int, so *rsyncx.Entry) bool {
	if isDir(so) != isDir(e) {
		return isDir(e)
	}
	return m.parts[i].of(path) < m.parts[m.owner[path]].of(path)
}

func (m *merged) Read(ctx context.Context, want iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] {
	return inRuns(m, want, func(w rsyncx.Want) string { return w.Path },
		func(p part, w iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] { return p.Read(ctx, w) },
		func(path string, err error) rsyncx.File { return rsyncx.File{Path: path, Err: err} })
}

func (m *merged) Sums(ctx context.Context, want iter.Seq[rsyncx.SumWant]) iter.Seq2[rsyncx.FileSums, error] {
	return inRuns(m, want, func(w rsyncx.SumWant) string { return w.Path },
		func(p part, w iter.Seq[rsyncx.SumWant]) iter.Seq2[rsyncx.FileSums, error] { return p.Sums(ctx, w) },
		func(path string, err error) rsyncx.FileSums { return rsyncx.FileSums{Path: path, Err: err} })
}

// inRuns passes what is wanted on to the parts: what follows one another and
// belongs to one part is one stream.
func inRuns[W, A any](m *merged, want iter.Seq[W], path func(W) string, ask func(part, iter.Seq[W]) iter.Seq2[A, error], none func(string, error) A) iter.Seq2[A, error] {
	return func(yield func(A, error) bool) {
		next, stop := iter.Pull(want)
		defer stop()
		w, more := next()
		for more {
			owner := m.of(path(w))
			if owner < 0 {
				if !yield(none(path(w), &rsyncx.PathError{Path: path(w), Err: fs.ErrNotExist}), nil) {
					return
				}
				w, more = next()
				continue
			}
			// A source may draw from another goroutine, but not after its iterator has ended.
			run := func(yield func(W) bool) {
				for more && m.of(path(w)) == owner {
					now := w
					w, more = next()
					if !yield(now) {
						return
					}
				}
			}
			for a, err := range ask(m.parts[owner], run) {
				if !yield(a, err) || err != nil {
					return
				}
			}
		}
	}
}
