package program

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
)

// operand is one SRC of the line.
type operand struct {
	host, user string // "" for this host
	remote     bool
	path       string
	// entry is what the host told of it when a pattern was expanded; nil is nothing.
	entry *rsyncx.Entry
}

// operands splits the paths of a line into sources and the destination. Without
// one, "" is returned: the sources are listed.
func operands(paths []string) (sources []operand, dest string, err error) {
	if len(paths) == 0 {
		return nil, "", hint.New("no source is given", "drsync rsync [OPTION]... SRC... DEST; --help lists the options")
	}
	var errs []error
	if len(paths) > 1 {
		dest, paths = paths[len(paths)-1], paths[:len(paths)-1]
		if dest == "" {
			errs = append(errs, hint.New("the destination is empty", `"." is the directory that drsync is started in`))
		}
		if _, _, daemon, remote := splitHost(dest); remote || daemon {
			errs = append(errs, hint.With(fmt.Errorf("the destination %s is remote: drsync pulls and never pushes", dest),
				"run drsync on the host that the files shall be on"))
		}
	}
	for i, p := range paths {
		o, err := source(p, i > 0 && sources[0].remote, sources)
		if err != nil {
			errs = append(errs, err)
		}
		sources = append(sources, o)
	}
	return sources, dest, errors.Join(errs...)
}

func source(p string, again bool, before []operand) (operand, error) {
	host, path, daemon, remote := splitHost(p)
	switch {
	case p == "":
		return operand{}, hint.New("a source is empty", `"." is the directory that drsync is started in`)
	case daemon:
		return operand{}, hint.With(fmt.Errorf("%s is a module of an rsync daemon, which drsync does not speak with", p), "name it as [USER@]HOST:PATH")
	case !remote && again:
		return operand{}, fmt.Errorf("%s is local and the first source is not: all sources must be on one host", p)
	case !remote:
		return operand{path: p}, nil
	}
	o := operand{remote: true, host: host, path: path}
	if user, name, ok := strings.Cut(host, "@"); ok {
		o.user, o.host = user, name
	}
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		o.user, o.host = host[:i], host[i+1:]
	}
	o.host = strings.TrimSuffix(strings.TrimPrefix(o.host, "["), "]")
	if len(before) > 0 {
		first := before[0]
		switch {
		case !first.remote:
			return operand{}, fmt.Errorf("%s is remote and the first source is not: all sources must be on one host", p)
		case o.host == "" && o.user == "":
			o.host, o.user = first.host, first.user
		case o.host != first.host || o.user != first.user:
			return operand{}, fmt.Errorf("%s is on another host than the first source: all must be on one", p)
		}
	}
	if o.host == "" {
		return operand{}, fmt.Errorf("the source %q has no host", p)
	}
	if strings.HasPrefix(o.host, "-") {
		return operand{}, fmt.Errorf("the host of the source %q begins with a dash", p)
	}
	return o, nil
}

// splitHost tells whether p names something elsewhere: a colon before any slash.
// An IPv6 address stands in brackets.
func splitHost(p string) (host, path string, daemon, remote bool) {
	if strings.HasPrefix(p, "rsync://") {
		return "", "", true, false
	}
	head, rest := "", p
	if i := strings.IndexByte(p, '['); i >= 0 && !strings.ContainsAny(p[:i], "/:") {
		if j := strings.IndexByte(p[i:], ']'); j >= 0 && !strings.Contains(p[i:i+j], "/") {
			head, rest = p[:i+j+1], p[i+j+1:]
		}
	}
	before, after, found := strings.Cut(rest, ":")
	if !found || strings.Contains(before, "/") {
		return "", "", false, false
	}
	if strings.HasPrefix(after, ":") {
		return "", "", true, false
	}
	return head + before, after, false, true
}

// split divides the path of a source into the directory it is looked for in and
// its name there, which is "" for the directory's content.
func split(p string) (dir, name string) {
	if p == "" { // of a remote host: where the login begins
		return ".", ""
	}
	if strings.HasSuffix(p, "/") {
		return p, ""
	}
	dir, name = filepath.Split(p)
	if dir == "" {
		dir = "."
	}
	if name == "." || name == ".." {
		return p, ""
	}
	return dir, name
}
