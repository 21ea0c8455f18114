package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// Bounds on what the patterns of one line may come to.
const (
	maxFound  = 1 << 20 // names
	maxLooked = 1 << 14 // directories that are looked into
)

// wildcards make a part of a path a pattern.
const wildcards = "*?["

// isPattern tells whether a source of a host has to be looked for by its names there.
func (o operand) isPattern() bool { return o.remote && strings.ContainsAny(o.path, wildcards) }

// patterns expands what sources name of a host as rsync has it done: by its
// login shell or, with --secluded-args, by the rsync there. No shell is asked here either way.
type patterns struct {
	host     Host
	secluded bool // leading dots match, and nothing behind the last pattern is looked for
	looked   int
	found    []operand
}

// expand puts the names that match in place of the patterns among sources, in
// their order. A pattern that nothing matches is the name of a file.
func (r *run) expand(ctx context.Context, host Host, sources []operand) ([]operand, error) {
	p := patterns{host: host, secluded: r.secluded()}
	for _, s := range sources {
		if !s.isPattern() {
			p.found = append(p.found, s)
			continue
		}
		before := len(p.found)
		parts := strings.Split(s.path, "/")
		for i, part := range parts {
			parts[i] = p.pattern(part)
		}
		if err := p.descend(ctx, s, "", parts, false); err != nil {
			return nil, fmt.Errorf("expand %s: %w", rsyncx.Printable(s.path), err)
		}
		if len(p.found) == before {
			if !p.secluded { // as what a shell leaves of it
				s.path = literal(parts)
			}
			p.found = append(p.found, s)
		}
	}
	return p.found, nil
}

// secluded tells whether --secluded-args is in force.
func (r *run) secluded() bool {
	if r.c.Secluded != nil {
		return *r.c.Secluded
	}
	on := r.env("RSYNC_PROTECT_ARGS")
	return on != "" && on != "0"
}

// pattern is a part of a path as filter.Match takes it. Unless the arguments are
// secluded a backslash is one except before a wildcard, and so is a '[' that nothing closes.
func (p *patterns) pattern(part string) string {
	if p.secluded || !strings.ContainsAny(part, `\[`) {
		return part
	}
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		switch c := part[i]; {
		case c == '\\' && i+1 < len(part) && strings.IndexByte(wildcards+"]", part[i+1]) >= 0:
			b.WriteString(part[i : i+2])
			i++
		case c == '\\':
			b.WriteString(`\\`)
		case c == '[' && !closed(part[i+1:]):
			b.WriteString(`\[`)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// closed tells whether a class that begins before s has an end.
func closed(s string) bool {
	s = strings.TrimLeft(s, "!^")
	return len(s) > 1 && strings.IndexByte(s[1:], ']') >= 0
}

// wild tells whether a part has a wildcard that is not escaped.
func wild(part string) bool {
	for i := 0; i < len(part); i++ {
		switch {
		case part[i] == '\\':
			i++
		case strings.IndexByte(wildcards, part[i]) >= 0:
			return true
		}
	}
	return false
}

// plain is the name that a part without wildcards stands for.
func plain(part string) string {
	if !strings.Contains(part, `\`) {
		return part
	}
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		if part[i] == '\\' && i+1 < len(part) {
			i++
		}
		b.WriteByte(part[i])
	}
	return b.String()
}

func literal(parts []string) string {
	names := make([]string, len(parts))
	for i, part := range parts {
		names[i] = plain(part)
	}
	return strings.Join(names, "/")
}

// descend finds what parts match below the directory that prefix leads to.
// matched says that a part of the path was a pattern.
func (p *patterns) descend(ctx context.Context, s operand, prefix string, parts []string, matched bool) error {
	n := slices.IndexFunc(parts, wild)
	if n < 0 {
		return p.end(ctx, s, prefix+literal(parts), matched)
	}
	if n > 0 {
		prefix += literal(parts[:n]) + "/"
	}
	part, rest := parts[n], parts[n+1:]
	entries, err := p.list(ctx, prefix)
	if err != nil {
		return err
	}
	for i := range entries {
		e := &entries[i]
		if !p.match(part, e.Name) {
			continue
		}
		link := e.Mode&unix.S_IFMT == unix.S_IFLNK
		if link && p.secluded && !p.leads(ctx, prefix, e.Name, len(rest) > 0) {
			continue
		}
		if len(rest) == 0 {
			if err := p.add(s, prefix+e.Name, e); err != nil {
				return err
			}
			continue
		}
		if !isDir(e) && !link {
			continue
		}
		if err := p.descend(ctx, s, prefix+e.Name+"/", rest, true); err != nil && (!link || ctx.Err() != nil || errors.Is(err, errTooMuch)) {
			return err // where a link leads need not be what the host shows
		}
	}
	return nil
}

func (p *patterns) match(part, name string) bool {
	if !p.secluded && name[0] == '.' && !strings.HasPrefix(part, ".") && !strings.HasPrefix(part, `\.`) {
		return false
	}
	return filter.Match(part, name)
}

// end takes a path in which nothing is left to expand. A shell gives it when it is there.
func (p *patterns) end(ctx context.Context, s operand, path string, matched bool) error {
	if !matched {
		s.path = path
		p.found = append(p.found, s)
		return nil
	}
	if p.secluded {
		return p.add(s, path, nil)
	}
	dir, name := split(path)
	src, err := p.open(ctx, dir, rsyncx.View{})
	if src == nil || err != nil {
		return err
	}
	defer src.Close()
	e, err := src.Lstat(ctx, name)
	switch {
	case lost(err):
		return err
	case err != nil:
		return nil // it is not there
	}
	return p.add(s, path, &e)
}

var errTooMuch = hint.New("too much matches", "name the directory, and what of it is meant by --include and --exclude")

// add notes what was found; e is what is known of it.
func (p *patterns) add(s operand, path string, e *rsyncx.Entry) error {
	if len(p.found) >= maxFound {
		return errTooMuch
	}
	s.path, s.entry = path, e
	p.found = append(p.found, s)
	return nil
}

// open opens a directory of the host. One that cannot be looked at is nil.
func (p *patterns) open(ctx context.Context, dir string, v rsyncx.View) (rsyncx.Source, error) {
	if p.looked++; p.looked > maxLooked {
		return nil, errTooMuch
	}
	src, err := p.host.Source(ctx, remotePath(orDot(dir)), v)
	if err != nil && lost(err) && !noDirectory(err) {
		return nil, err
	}
	if err != nil {
		return nil, nil
	}
	return src, nil
}

// leads tells whether a link in dir leads to something, or to a directory.
func (p *patterns) leads(ctx context.Context, dir, name string, toDir bool) bool {
	src, err := p.open(ctx, dir, rsyncx.View{CopyLinks: true})
	if src == nil || err != nil {
		return false
	}
	defer src.Close()
	e, err := src.Lstat(ctx, name)
	if toDir {
		return err == nil && isDir(&e)
	}
	// What a host says has lost its kind. Of what it does not show nothing is known.
	return err == nil || !errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(err.Error(), rsyncx.ErrDangling.Error())
}

// list returns what is in a directory, by name. One that cannot be looked at has nothing.
func (p *patterns) list(ctx context.Context, dir string) ([]rsyncx.Entry, error) {
	src, err := p.open(ctx, dir, rsyncx.View{})
	if src == nil || err != nil {
		return nil, err
	}
	defer src.Close()
	for d, err := range src.Walk(ctx, rsyncx.WalkOptions{Flat: true, MaxEntries: maxFound}) {
		switch {
		case errors.Is(err, rsyncx.ErrTooMany):
			return nil, errTooMuch
		case isPathError(err):
			continue
		case err != nil:
			return nil, err
		case d.Path == "":
			return d.Entries, nil
		}
	}
	return nil, nil
}
