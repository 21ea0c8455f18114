package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// item is one thing to send: a path below the directory that it is looked for
// in, or with an empty path that directory's content.
type item struct {
	base string
	path string
	// content says that the path ended in a slash: of a directory that is not
	// gone into, what is in it goes along.
	content bool
	arg     string // as the line names it
	at      int    // its place among the sources
	// entry is what is known of it without asking; nil is nothing.
	entry *rsyncx.Entry
}

// itemOf says what one source of the line sends.
func (r *run) itemOf(arg string) (item, error) {
	if !r.c.Relative {
		dir, name := split(arg)
		return item{base: dir, path: name, arg: arg}, nil
	}
	return relativeItem("", arg)
}

// relativeItem is itemOf with -R: the path below base, or below the root or the
// working directory, is what the names at the destination begin with. A "/./"
// in it says where they begin; one "." at its end is nothing but the content.
func relativeItem(base, arg string) (item, error) {
	dir, path := base, arg
	if i := strings.Index(arg, "/./"); i >= 0 {
		dir, path = join(base, arg[:i]), arg[i+2:]
		if i == 0 {
			dir = join(base, "/")
		}
	} else if strings.HasPrefix(arg, "/") && base == "" {
		dir = "/"
	}
	if dir == "" {
		dir = "."
	}
	var parts []string
	for part := range strings.SplitSeq(path, "/") {
		switch part {
		case "", ".":
		case "..":
			return item{}, fmt.Errorf("found \"..\" in the relative path %s", rsyncx.Printable(arg))
		default:
			parts = append(parts, part)
		}
	}
	content := strings.HasSuffix(path, "/") || strings.HasSuffix(path, "/.") || path == "."
	return item{base: dir, path: strings.Join(parts, "/"), content: content, arg: arg}, nil
}

func join(base, path string) string {
	if base == "" {
		return path
	}
	return filepath.Join(base, path)
}

// listed returns the items that --files-from names below the directory base.
func (r *run) listed(base string) ([]item, error) {
	content, err := r.read(r.c.FilesFrom)
	if err != nil {
		return nil, failed{Usage, fmt.Errorf("--files-from=%s: %w", r.c.FilesFrom, err)}
	}
	end := "\n"
	if r.c.NUL {
		end = "\x00"
	} else {
		content = bytes.ReplaceAll(content, []byte("\r"), []byte("\n"))
	}
	var items []item
	for name := range strings.SplitSeq(string(content), end) {
		if name == "" || !r.c.NUL && (name[0] == '#' || name[0] == ';') {
			continue
		}
		if strings.ContainsRune(name, 0) {
			return nil, fail(Usage, "--files-from=%s: %s has a NUL byte", r.c.FilesFrom, rsyncx.Printable(name))
		}
		it, err := relativeItem(base, cleaned(name))
		if err != nil {
			return nil, usage(err)
		}
		it.arg = name
		if !r.c.Relative { // then a name of the list is as one of the line
			full := join(it.base, it.path)
			if it.content || it.path == "" {
				full += "/"
			}
			dir, last := split(full)
			it.base, it.path = filepath.Clean(dir), last
		}
		items = append(items, it)
	}
	return items, nil
}

// cleaned is a name of the list without what says nothing. A "/./" says something.
func cleaned(name string) string {
	if at, rest, ok := strings.Cut(name, "/./"); ok {
		return fromTop(at) + "/./" + fromTop(rest) + trailing(name)
	}
	return fromTop(name) + trailing(name)
}

// fromTop resolves ".." as rsync does: it takes away what is before it, if anything is.
func fromTop(path string) string {
	if path = filepath.Clean("/" + path)[1:]; path == "" {
		return "."
	}
	return path
}

// trailing keeps what of a name's end is of meaning.
func trailing(name string) string {
	if strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.") {
		return "/"
	}
	return ""
}

// group puts the items of one base together, in the order of the line.
func group(items []item) [][]item {
	var groups [][]item
	at := make(map[string]int)
	for n, it := range items {
		it.at = n
		i, ok := at[it.base]
		if !ok {
			i = len(groups)
			at[it.base] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], it)
	}
	return groups
}

// inspect looks at the items of an open base: it tells of those that are missing
// and of directories that nothing was said about, and returns the others.
func (r *run) inspect(ctx context.Context, src rsyncx.Source, items []item) (paths []string, first rsyncx.Entry, err error) {
	for _, it := range items {
		e, err := r.look(ctx, src, &it)
		switch {
		case ctx.Err() != nil:
			return nil, first, context.Cause(ctx)
		case errors.Is(err, fs.ErrNotExist) && r.c.IgnoreMissing:
			if r.throughFile(ctx, src, it.path) { // which is no missing name
				r.sourceError("link_stat", join(it.base, it.path), unix.ENOTDIR)
			}
			continue
		case lost(err):
			return nil, first, err
		case err != nil:
			r.sourceError("link_stat", join(it.base, it.path), err)
			continue
		case isDir(&e) && !r.c.Recursive && !r.c.Dirs:
			name := it.path
			if name == "" {
				name = "."
			}
			r.out.line("skipping directory " + rsyncx.Printable(name))
			continue
		}
		if len(paths) == 0 {
			first = e
		}
		paths = append(paths, it.path)
		if it.content && it.path != "" && isDir(&e) && !r.c.Recursive {
			inside, err := r.content(ctx, src, it)
			if err != nil {
				return nil, first, err
			}
			paths = append(paths, inside...)
		}
	}
	return paths, first, nil
}

// throughFile reports whether the way to path leads through what is no directory.
func (r *run) throughFile(ctx context.Context, src rsyncx.Source, path string) bool {
	for dir := above(path); dir != ""; dir = above(dir) {
		if e, err := src.Lstat(ctx, dir); err == nil {
			return !isDir(&e)
		}
	}
	return false
}

// look describes an item. What matched a pattern was listed just now: asking for
// each of a hundred thousand names again would be as many round trips.
func (r *run) look(ctx context.Context, src rsyncx.Source, it *item) (rsyncx.Entry, error) {
	if it.entry != nil && r.c.View == (rsyncx.View{}) && !it.content {
		return *it.entry, nil
	}
	return src.Lstat(ctx, it.path)
}

// lost tells an error of a whole source from one of a single name.
func lost(err error) bool {
	var one *rsyncx.PathError
	return err != nil && !errors.As(err, &one) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission)
}

// content lists what is in the directory of an item and not left out by a rule:
// of a directory that one leaves out nothing is.
func (r *run) content(ctx context.Context, src rsyncx.Source, it item) ([]string, error) {
	rules, err := r.rulesAt(it.base)
	if err != nil {
		return nil, err
	}
	if hidden, _ := rules.Root().Excluded(it.path, true, filter.Sender); hidden {
		return nil, nil
	}
	return children(ctx, src, it.path, rules)
}

// rulesAt is what the rules of the line say of names below base at the source.
func (r *run) rulesAt(base string) (*filter.Rules, error) {
	base, err := filepath.Abs(r.here(base))
	if err != nil {
		return nil, err
	}
	rules, err := r.line.build(&tree{}, r.c.Options.DeleteExcluded, base, base)
	if err != nil {
		return nil, usage(err)
	}
	return rules, nil
}

// children lists what is in one directory of a source.
func children(ctx context.Context, src rsyncx.Source, dir string, rules *filter.Rules) ([]string, error) {
	var paths []string
	for d, err := range src.Walk(ctx, rsyncx.WalkOptions{Only: []string{dir}, Filter: rules}) {
		if err != nil {
			var one *rsyncx.PathError
			if errors.As(err, &one) {
				if one.Path != dir && path.Dir(below(".", one.Path)) == path.Clean(below(".", dir)) {
					paths = append(paths, one.Path) // so that the walk tells of it
				}
				continue
			}
			return nil, err
		}
		if d.Path == dir {
			for i := range d.Entries {
				paths = append(paths, below(dir, d.Entries[i].Name))
			}
			if d.Upto == "" {
				break
			}
		}
	}
	return paths, nil
}

// only brings paths into the order of a walk, without those that another one has
// already: the same or, unless the walk is flat, one above.
func only(paths []string, flat bool) []string {
	slices.SortFunc(paths, inWalk)
	var kept []string
	for _, p := range paths {
		if n := len(kept); n > 0 && (kept[n-1] == p || !flat && strings.HasPrefix(p, kept[n-1]+"/")) {
			continue
		}
		kept = append(kept, p)
	}
	return kept
}

// inWalk compares paths by their place in a walk: depth first, siblings by name.
func inWalk(a, b string) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		x, y := a[i], b[i]
		switch {
		case x == y:
		case x == '/':
			return -1
		case y == '/':
			return 1
		case x < y:
			return -1
		default:
			return 1
		}
	}
	return len(a) - len(b)
}

func below(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

func isDir(e *rsyncx.Entry) bool { return e.Mode&unix.S_IFMT == unix.S_IFDIR }

func isRegular(e *rsyncx.Entry) bool { return e.Mode&unix.S_IFMT == unix.S_IFREG }
