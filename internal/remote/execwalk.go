package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// Walk lists the whole tree by one find, which knows no order and no filter:
// what it prints is sorted here, and everything below the root is listed, also
// what the filter hides. Nothing is yielded before the end of the listing.
func (s *execSource) Walk(ctx context.Context, o rsyncx.WalkOptions) iter.Seq2[rsyncx.Dir, error] {
	return func(yield func(rsyncx.Dir, error) bool) {
		if o.MaxEntries <= 0 {
			o.MaxEntries = rsyncx.DefaultMaxEntries
		}
		w := &execWalk{execSource: s, ctx: ctx, o: o, yield: yield, spool: newSpool()}
		defer w.spool.close()
		err := w.run()
		if err != nil && !errors.Is(err, errStopped) {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			yield(rsyncx.Dir{}, fmt.Errorf("list %s: %w", rsyncx.Printable(s.root), err))
		}
	}
}

type execWalk struct {
	*execSource
	ctx   context.Context // of the iterator
	o     rsyncx.WalkOptions
	yield func(rsyncx.Dir, error) bool
	spool *spool

	devices map[string]uint64 // numbers, by path
	nodes   []string          // devices whose numbers are to be asked for
	device  uint64            // of the root
	odd     []*rsyncx.PathError
	broken  map[string]bool // directories that find could not read to their end

	only  rsyncx.Selection // of the root
	stack []open           // directories on the way to the current one
	now   group
}

// maxDevices bounds how many devices a tree may have.
const maxDevices = 1 << 16

// open is a directory that was yielded.
type open struct {
	path  string
	scope *filter.Scope
	only  rsyncx.Selection
	dirs  []string // the names of its directories that the filter lets in and that are to come
}

// group is the directory whose records are coming.
type group struct {
	path       string
	known      bool // the directory's own record came, as the first
	unreadable bool
	self       rsyncx.Entry
	entries    []rsyncx.Entry
	size       int
}

func (w *execWalk) run() error {
	var err error
	if w.only, err = w.o.Select(); err != nil {
		return err
	}
	if err := w.list(); err != nil {
		return w.explainRoot(err)
	}
	if len(w.nodes) > 0 && w.execSource.devices {
		var err error
		if w.devices, err = w.deviceNumbers(w.ctx, w.nodes); err != nil {
			return err
		}
	}
	for _, odd := range w.odd {
		if !w.yield(rsyncx.Dir{}, odd) {
			return errStopped
		}
	}
	if err := w.spool.each(w.record); err != nil {
		return err
	}
	return w.deliver()
}

// list puts what find prints into the spool. A directory that the login must not
// read or enter is marked and left out.
func (w *execWalk) list() error {
	limits := ""
	if w.o.OneFileSystem {
		limits = " -xdev"
	}
	if w.o.Flat && w.o.Only == nil {
		limits += " -maxdepth 1"
	}
	text := `find .` + limits + ` -path ./` + stateDir + ` -prune` +
		` -o -type d \( ! -readable -o ! -executable \) -printf 'u\0` + findFormat + `' -prune` +
		` -o -printf 'l\0` + findFormat + `'; printf 'e\0%s\0' $?`
	said, err := converse(w.ctx, w.host.far, w.host.silence, nil, w.take, w.inRoot(text)...)
	if err != nil {
		return err
	}
	return w.complaints(said)
}

// take reads find's output to its end.
func (w *execWalk) take(out io.Reader) error {
	in := bufio.NewReaderSize(out, 256<<10)
	var r findRecord
	var key, value []byte
	for n := int64(-1); ; n++ { // the root is no entry
		if err := readRecord(in, &r); err != nil {
			if err == io.EOF { //nolint:errorlint // a lost connection wraps io.EOF
				err = errors.New("the listing broke off")
			}
			return err
		}
		if r.kind == finished {
			_, err := in.Peek(1)
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("%w: more behind the end of the listing", rsyncx.ErrHostile)
		}
		if n >= w.o.MaxEntries {
			return fmt.Errorf("%w: more than %d names", rsyncx.ErrTooMany, w.o.MaxEntries)
		}
		kind := r.facts[0]
		value = append(append(value[:0], r.kind), r.facts...)
		if kind == 'd' {
			key = appendKey(key[:0], r.path, nil)
			if err := w.spool.add(key, value); err != nil {
				return err
			}
		}
		if (kind == 'b' || kind == 'c') && len(w.nodes) < maxDevices {
			w.nodes = append(w.nodes, string(r.path))
		}
		if len(r.path) > 0 {
			i := bytes.LastIndexByte(r.path, '/')
			key = appendKey(key[:0], r.path[:max(i, 0)], r.path[i+1:])
			if err := w.spool.add(key, value); err != nil {
				return err
			}
		}
	}
}

// appendKey makes a key that sorts a name behind its directory's own record,
// whose name is "", and directories in the order of a walk.
func appendKey(b, dir, name []byte) []byte {
	from := len(b)
	b = append(b, dir...)
	for i := from; i < len(b); i++ {
		if b[i] == '/' {
			b[i] = 0
		}
	}
	return append(append(b, 0, 0), name...)
}

func splitKey(key []byte) (dir, name string) {
	d, n, _ := bytes.Cut(key, []byte{0, 0})
	return strings.ReplaceAll(string(d), "\x00", "/"), string(n)
}

// complaints makes errors of what find said about names. What is gone by now is
// none. A name that cannot be made out leaves every directory in doubt, which
// the reader is told by an error about the root.
func (w *execWalk) complaints(said string) error {
	w.broken = map[string]bool{}
	for line := range strings.SplitSeq(said, "; ") {
		if line == "" || strings.HasSuffix(line, ": No such file or directory") {
			continue
		}
		path, why := complaint(line)
		w.broken[path] = true
		var err error = errors.New(why)
		if strings.HasSuffix(why, "Permission denied") {
			err = fmt.Errorf("%w: %s", fs.ErrPermission, why)
		}
		w.odd = append(w.odd, &rsyncx.PathError{Path: path, Err: err})
	}
	delete(w.broken, "")
	return nil
}

// complaint takes a line of find apart: find: './path': reason.
func complaint(line string) (path, why string) {
	rest, ok := strings.CutPrefix(line, "find: './")
	name, why, found := strings.Cut(rest, "': ")
	if !ok || !found || strings.ContainsAny(name, `\'`) || rsyncx.CheckPath(name) != nil {
		return "", line
	}
	return name, why
}

// record takes one record in the order of the walk.
func (w *execWalk) record(key, value []byte) error {
	dir, name := splitKey(key)
	if dir != w.now.path {
		if err := w.deliver(); err != nil {
			return err
		}
		w.now = group{path: dir}
	}
	d, err := parseFacts(value[1:])
	if err != nil && errors.Is(err, rsyncx.ErrHostile) {
		return err
	}
	if err != nil {
		return w.strange(joinTo(dir, name), err)
	}
	if name == "" {
		if w.now.known {
			return fmt.Errorf("%w: the directory %s twice", rsyncx.ErrHostile, rsyncx.Printable(dir))
		}
		w.now.known, w.now.unreadable, w.now.self = true, value[0] == unreadable, d.Entry
		w.now.self.Name = dir[strings.LastIndexByte(dir, '/')+1:]
		return nil
	}
	d.Name = name
	if isDevice(d.Mode) {
		d.Rdev = w.devices[joinTo(dir, name)]
	}
	if n := len(w.now.entries); n > 0 && w.now.entries[n-1].Name == name {
		return fmt.Errorf("%w: the name %s twice", rsyncx.ErrHostile, rsyncx.Printable(name))
	}
	if w.now.size += len(name) + len(d.Target) + len(d.User) + len(d.Group); w.now.size > rsyncx.MaxDirBytes {
		return fmt.Errorf("%w: the names of the directory %s", rsyncx.ErrTooMany, rsyncx.Printable(dir))
	}
	w.now.entries = append(w.now.entries, d.Entry)
	return nil
}

func (w *execWalk) strange(path string, err error) error {
	if !w.yield(rsyncx.Dir{}, &rsyncx.PathError{Path: path, Err: err}) {
		return errStopped
	}
	return nil
}

// deliver yields the directory whose records have come, unless the filter hides it.
func (w *execWalk) deliver() error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	g := w.now
	scope, only, wanted := w.enter(g.path)
	switch {
	case !wanted, w.broken[g.path]:
		return nil
	case !g.known && g.path == "":
		return errors.New("find did not list the directory itself")
	case !g.known:
		return fmt.Errorf("%w: names in %s, which is no directory", rsyncx.ErrHostile, rsyncx.Printable(g.path))
	case g.path == "":
		w.device = g.self.Dev
	case w.o.OneFileSystem && g.self.Dev != w.device:
		return nil
	}
	if g.unreadable {
		if g.path == "" {
			return fs.ErrPermission
		}
		return w.strange(g.path, fs.ErrPermission)
	}
	if only.Rules() {
		var err error
		if scope, err = scope.Enter(g.path, func(name string) ([]byte, error) { return w.mergeFile(&g, name) }); err != nil {
			return fmt.Errorf("%w: %w", errFilter, err)
		}
	}
	entries, missing := chosen(only, g.path, g.entries)
	for _, m := range missing {
		if !w.yield(rsyncx.Dir{}, m) {
			return errStopped
		}
	}
	o := open{path: g.path, scope: scope, only: only}
	kept := entries[:0]
	for _, e := range entries {
		isDir := e.Mode&unix.S_IFMT == unix.S_IFDIR
		if scope != nil && !(isDir && only.Leads(e.Name)) {
			if hidden, _ := scope.Excluded(join(g.path, e.Name), isDir, filter.Sender); hidden {
				continue
			}
		}
		if isDir && w.o.OneFileSystem && w.o.OmitMounts && e.Dev != w.device {
			continue
		}
		kept = append(kept, e)
		if _, into := only.Enter(e.Name); into && isDir {
			o.dirs = append(o.dirs, e.Name)
		}
	}
	w.stack = append(w.stack, o)
	if !w.yield(rsyncx.Dir{Path: g.path, Self: g.self, Entries: kept, Partial: !only.All()}, nil) {
		return errStopped
	}
	return nil
}

// enter finds the parent of a directory among those that were yielded. wanted is
// false if it was not, or the filter hid the directory there.
func (w *execWalk) enter(path string) (scope *filter.Scope, only rsyncx.Selection, wanted bool) {
	if path == "" {
		return w.o.Filter.Root().For(filter.Sender), w.only, true
	}
	parent, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent, name = path[:i], path[i+1:]
	}
	for n := len(w.stack); n > 0; n-- {
		top := &w.stack[n-1]
		if top.path != parent {
			if top.path != "" && !strings.HasPrefix(parent, top.path+"/") {
				w.stack = w.stack[:n-1]
				continue
			}
			return nil, only, false
		}
		i, ok := slices.BinarySearch(top.dirs, name)
		top.dirs = top.dirs[i:]
		only, _ = top.only.Enter(name)
		return top.scope, only, ok
	}
	return nil, only, false
}

// mergeFile returns the content of a per-directory filter file.
func (w *execWalk) mergeFile(g *group, name string) ([]byte, error) {
	i, ok := slices.BinarySearchFunc(g.entries, name, func(e rsyncx.Entry, name string) int { return strings.Compare(e.Name, name) })
	switch {
	case !ok:
		return nil, fs.ErrNotExist
	case g.entries[i].Mode&unix.S_IFMT == unix.S_IFDIR:
		return nil, unix.EISDIR
	}
	return readWhole(w.ctx, w.execSource, join(g.path, name))
}

func joinTo(dir, name string) string {
	if name == "" {
		return dir
	}
	return join(dir, name)
}
