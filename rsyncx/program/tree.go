package program

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// tree is what the sources of the line are together.
type tree struct {
	source rsyncx.Source // nil when nothing is left to send
	host   Host          // nil for this one
	path   string        // absolute path of the root of the first of several
	lead   string        // stands before names when they are shown

	only     []string // what is sent; nil is all
	named    []string // see part
	flat     bool
	shallow  bool // flat, which only and flat cannot say
	keepRoot bool // no source is a directory's content

	// single is the only thing that is sent, unless that is a directory's content.
	single *rsyncx.Entry
	failed bool // a source could not be looked at: nothing may be deleted
}

func (t *tree) close() {
	if t.source != nil {
		_ = t.source.Close()
	}
	if t.host != nil {
		_ = t.host.Close()
	}
}

// open opens the sources and looks at what the line names of them.
func (r *run) open(ctx context.Context, sources []operand) (_ *tree, err error) {
	t := &tree{keepRoot: true}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	groups, err := r.groups(ctx, t, sources)
	if err != nil {
		return nil, err
	}
	var parts []part
	for _, items := range groups {
		p, err := r.part(ctx, t, items)
		if err != nil {
			return nil, err
		}
		if p.Source == nil {
			t.failed = t.failed || !p.hidden
			continue
		}
		parts = append(parts, p)
	}
	t.combine(parts, r.c.ShowsSums())
	t.failed = t.failed || r.io == Partial
	if r.c.From = shownFrom(groups); t.host != nil {
		r.c.From = "" // as with rsync, which is not told
	}
	if r.c.Relative && t.host == nil && len(groups) > 0 && groups[0][0].base == "/" && strings.HasPrefix(groups[0][0].arg, "/") {
		t.lead = "/"
	}
	return t, nil
}

// groups returns what the sources name, of one base each, and connects to their host.
func (r *run) groups(ctx context.Context, t *tree, sources []operand) ([][]item, error) {
	r.c.Remote = sources[0].remote
	wild := slices.ContainsFunc(sources, operand.isPattern)
	if !wild {
		items, err := r.items(sources)
		if err != nil {
			return nil, err
		}
		groups := group(items)
		if r.c.Remote {
			var bases []string
			for _, items := range groups {
				bases = append(bases, items[0].base)
			}
			t.host, err = r.dial(ctx, sources[0], bases)
		}
		return groups, err
	}
	bases, err := r.bases(sources)
	if err != nil {
		return nil, err
	}
	if t.host, err = r.dial(ctx, sources[0], bases); err != nil {
		return nil, err
	}
	if sources, err = r.expand(ctx, t.host, sources); err != nil {
		return nil, err
	}
	items, err := r.items(sources)
	return group(items), err
}

// bases returns the directories that patterns are looked for below: the whole
// host when one of them is to be found itself, since it may be a link.
func (r *run) bases(sources []operand) ([]string, error) {
	var bases []string
	for _, s := range sources {
		it, err := r.itemOf(s.path)
		if err != nil {
			return nil, usage(err)
		}
		if strings.ContainsAny(it.base, wildcards) || r.c.FilesFrom != "" {
			return []string{"/"}, nil
		}
		bases = append(bases, it.base)
	}
	return bases, nil
}

// shownFrom is what the escape %f puts before a name.
func shownFrom(groups [][]item) string {
	if len(groups) != 1 || groups[0][0].base == "." {
		return ""
	}
	return strings.TrimSuffix(groups[0][0].base, "/") + "/"
}

// hideImplied keeps the attributes of the directories on the way from dest.
func (r *run) hideImplied(t *tree, dest string) {
	hide := func(src rsyncx.Source, only []string) rsyncx.Source {
		if only == nil {
			return src
		}
		u := &unimplied{src, only, dest, r.newDirectory()}
		r.implied = append(r.implied, u)
		return u
	}
	if m, several := t.source.(*merged); several {
		for i := range m.parts {
			m.parts[i].Source = hide(m.parts[i].Source, m.parts[i].only)
		}
		return
	}
	t.source = hide(t.source, t.only)
}

// maxWalks is how many walks at a time leave connections of a host for what else is asked of it.
const maxWalks = 3

func (t *tree) combine(parts []part, sums bool) {
	switch len(parts) {
	case 0:
	case 1:
		t.source, t.only, t.named, t.flat = parts[0].Source, parts[0].only, parts[0].named, parts[0].flat
	default:
		m := newMerged(parts)
		if t.host != nil && (len(parts) > maxWalks || sums) {
			m.walks = 1
		}
		t.source = m
		t.single = nil
		t.only, t.flat = union(parts)
		t.shallow = t.only == nil && parts[0].flat
	}
}

// union returns what several parts send together. That of a flat one without
// paths, the content of its root, is nothing that paths can say: then all is asked for.
func union(parts []part) (paths []string, flat bool) {
	for _, p := range parts {
		switch {
		case p.only != nil:
			paths = append(paths, p.only...)
		case p.flat:
			return nil, false
		default:
			paths = append(paths, "")
		}
	}
	slices.SortFunc(paths, inWalk)
	return slices.Compact(paths), parts[0].flat
}

// items returns what the sources name.
func (r *run) items(sources []operand) ([]item, error) {
	if r.c.FilesFrom != "" {
		if len(sources) != 1 {
			return nil, usage(errors.New("--files-from takes one source"))
		}
		return r.listed(orDot(sources[0].path))
	}
	var items []item
	var errs []error
	for _, s := range sources {
		it, err := r.itemOf(s.path)
		if err != nil {
			errs = append(errs, err)
		}
		it.entry = s.entry
		items = append(items, it)
	}
	if len(errs) > 0 {
		return nil, usage(errors.Join(errs...))
	}
	return items, nil
}

func orDot(path string) string {
	if path == "" {
		return "."
	}
	return path
}

// part opens the base of some items and settles what of it is sent. A base that
// cannot be opened is told of, and leaves Source nil.
func (r *run) part(ctx context.Context, t *tree, items []item) (part, error) {
	base := items[0].base
	src, err := r.openBase(ctx, t, base)
	if err != nil {
		if lost(err) && t.host != nil && !noDirectory(err) {
			return part{}, err
		}
		r.sourceError("change_dir", base, err) // with --ignore-missing-args, too: that is about names in it
		return part{}, nil
	}
	var paths []string
	var first rsyncx.Entry
	known := true
	content := !r.c.Recursive && slices.ContainsFunc(items, func(it item) bool { return it.path == "" })
	if r.c.FilesFrom != "" && !r.c.IgnoreMissing && !content && r.sendsDirs() {
		if paths, err = r.unlooked(ctx, src, items); len(paths) == 1 && err == nil {
			var gone error
			first, gone = src.Lstat(ctx, paths[0])
			known = gone == nil // otherwise the walk tells of it
		}
	} else {
		paths, first, err = r.inspect(ctx, src, items)
	}
	named := len(paths)
	if err == nil {
		paths, err = r.unhidden(ctx, src, base, paths)
	}
	dot := err == nil && r.sendsDot(items)
	if err == nil && dot {
		dot, err = r.shows(base)
	}
	if err != nil || len(paths) == 0 && !dot {
		return part{hidden: named > 0}, errors.Join(err, src.Close())
	}
	if t.path == "" {
		t.path = base
		if t.host == nil {
			t.path, _ = filepath.Abs(r.here(base))
		}
	}
	p := part{Source: src, flat: !r.c.Recursive, path: r.here(base), places: placesOf(items)}
	if r.c.Info("STATS") > 0 {
		p.named = slices.Clone(paths)
	}
	if slices.Contains(paths, "") {
		t.keepRoot, p.root = false, true
		// What is named below comes with what the walk of the root lists.
		below := slices.DeleteFunc(paths, func(path string) bool { return path != "" && !strings.Contains(path, "/") })
		if p.flat && len(below) > 1 {
			p.only = only(below, true)
		}
		return p, nil
	}
	if len(paths) == 1 && !strings.Contains(paths[0], "/") && known {
		t.single = &first
	}
	p.only = only(paths, p.flat)
	if r.c.Relative {
		// Rules do not apply to what leads to a name of the line, and what is missing in a
		// directory that is sent as well is missing all the same.
		p.only = slices.Compact(paths) // only has sorted them
	}
	if dot {
		t.keepRoot, t.single, p.root = false, nil, true
		if len(paths) == 0 {
			p.only = []string{}
		}
	}
	return p, nil
}

// maxHidden is how many names that rules leave out are looked at: each is a round trip.
const maxHidden = 1000

// unhidden takes out of the paths of -R what the rules of the line leave out: as in
// rsync nothing leads to that. What is missing stays, so that the walk tells of it.
func (r *run) unhidden(ctx context.Context, src rsyncx.Source, base string, paths []string) ([]string, error) {
	if !r.c.Relative || len(r.c.Rules) == 0 {
		return paths, nil
	}
	set, err := r.rulesAt(base)
	if err != nil {
		return nil, err
	}
	rules, looked := set.Root(), 0
	return slices.DeleteFunc(paths, func(path string) bool {
		file, _ := rules.Excluded(path, false, filter.Sender)
		dir, _ := rules.Excluded(path, true, filter.Sender)
		if !file && !dir || looked == maxHidden {
			return false
		}
		looked++
		e, err := src.Lstat(ctx, path)
		if err != nil {
			return false
		}
		hidden, rule := rules.Excluded(path, isDir(&e), filter.Sender)
		if hidden && r.c.Explains() {
			if isDir(&e) {
				path += "/"
			}
			r.left = append(r.left, event.Event{Kind: event.Skip, Time: r.Now(), Name: path, Text: rsyncx.SkipHidden + rsyncx.Printable(rule)})
		}
		return hidden
	}), nil
}

// sendsDirs reports whether directories are sent. rsync does not tell the other side
// that those of a list are not.
func (r *run) sendsDirs() bool {
	return r.c.Recursive || r.c.Dirs || r.c.Remote && r.c.FilesFrom != ""
}

// sendsDot reports whether the "." of an argument is sent as well. Where directories
// are not, that is said once.
func (r *run) sendsDot(items []item) bool {
	if !r.c.Relative || !slices.ContainsFunc(items, func(it item) bool { return beginsWithDot(it.arg) }) {
		return false
	}
	if !r.sendsDirs() {
		if !r.skippedDot {
			r.skippedDot = true
			r.out.line("skipping directory .")
		}
		return false
	}
	return !r.c.NoImplied
}

// shows reports whether no rule hides the "." below base, by that name.
func (r *run) shows(base string) (bool, error) {
	rules, err := r.rulesAt(base)
	if err != nil {
		return false, err
	}
	hidden, _ := rules.Root().Excluded(".", true, filter.Sender)
	return !hidden, nil
}

// beginsWithDot reports whether the path of -R begins with a "." that is sent: where
// there is a "/./", behind the first.
func beginsWithDot(arg string) bool {
	if _, rest, ok := strings.Cut(arg, "/./"); ok {
		arg = rest
	}
	return strings.HasPrefix(arg, "./")
}

// unlooked returns the paths of items without asking for each: there may be very
// many, and the walk tells of those that are missing.
func (r *run) unlooked(ctx context.Context, src rsyncx.Source, items []item) ([]string, error) {
	var paths []string
	for _, it := range items {
		paths = append(paths, it.path)
		if !it.content || r.c.Recursive || it.path == "" {
			continue
		}
		inside, err := r.content(ctx, src, it)
		if err != nil {
			return nil, err
		}
		paths = append(paths, inside...)
	}
	return paths, nil
}

// noDirectory tells that a base is something else, or a link that leads back to itself. What a host says has lost its number.
func noDirectory(err error) bool {
	return slices.ContainsFunc([]unix.Errno{unix.ENOTDIR, unix.ELOOP}, func(no unix.Errno) bool {
		return errors.Is(err, no) || strings.HasSuffix(err.Error(), ": "+no.Error())
	})
}

func (r *run) openBase(ctx context.Context, t *tree, base string) (rsyncx.Source, error) {
	if t.host != nil {
		return t.host.Source(ctx, remotePath(base), r.c.View)
	}
	return rsyncx.LocalView(r.here(base), r.c.View)
}

// remotePath makes a path of the line one of the host: without a leading slash it
// begins at the login's home.
func remotePath(path string) string {
	switch {
	case path == "~":
		return "."
	case strings.HasPrefix(path, "~/"):
		return filepath.Clean("." + path[1:])
	}
	return filepath.Clean(path)
}

func (r *run) dial(ctx context.Context, s operand, bases []string) (Host, error) {
	if r.Dial == nil {
		return nil, fail(Unsupported, "reach %s: %w", s.host, errors.ErrUnsupported)
	}
	to := Remote{
		Host: s.host, User: s.user, Install: r.c.Install, Compress: r.c.Compress, BytesPerSecond: r.c.BytesPerSecond,
		Silence: seconds(r.c.Timeout), ConnectTimeout: seconds(r.c.ConnectTimeout),
	}
	if to.Shell, to.Program = r.c.Shell, r.c.Program; to.Shell == "" {
		to.Shell = r.env("RSYNC_RSH")
	}
	for _, base := range bases {
		to.Roots = append(to.Roots, remotePath(base))
	}
	if len(bases) == 0 { // a list of files that is empty
		to.Roots = []string{remotePath(orDot(s.path))}
	}
	if r.c.View != (rsyncx.View{}) {
		to.Roots = []string{"/"}
	}
	return r.Dial(ctx, to)
}
