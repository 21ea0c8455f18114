package rsyncx

import (
	"errors"
	"io/fs"
	"os/user"
	"slices"
	"strconv"
	"sync"

	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

// walkOptions is what Stage asks of the source.
func (s *stager) walkOptions() WalkOptions {
	return WalkOptions{Filter: s.o.Filter, OneFileSystem: s.o.OneFileSystem, OmitMounts: s.o.OmitMounts,
		MaxEntries: s.o.MaxEntries, Only: s.o.Only, Flat: s.o.Flat, Xattrs: s.cmp.xattrs, ACLs: s.cmp.acls}
}

// sameDirs answers WalkOptions.Same: whether a directory of the destination has,
// by its digest, the entries of the source's. It keeps what it listed for that
// until the directory comes. Its methods may be called from several goroutines.
type sameDirs struct {
	root   int
	rules  *filter.Scope
	only   Selection
	digest DigestOptions
	racy   func(path string) bool
	owners reverseOwners
	free   chan *sameLister

	long int // in tests, in place of longDir

	mu    sync.Mutex
	kept  map[Piece][]info
	queue []Piece // of kept, as they came
	bytes int
	names []*namesHere // of long directories, the last used last
}

// namesHere are the names of a directory of which pieces are asked for.
type namesHere struct {
	path string
	read sync.Once
	all  *longNames // nil before they are read, or when they cannot be
}

// maxKept bounds the listings kept, in bytes, sameListers those who list at once.
const (
	maxKept     = 12 << 20
	sameListers = 16
	infoBytes   = 200
	maxNames    = 3 // long directories whose names are kept
)

// sameLister is what one goroutine needs to list directories.
type sameLister struct {
	descent descent
	lister  destLister
	link    []byte
	entries []Entry
}

// sameDirs returns what answers for the destination, or nil when two directories
// with the same entries may still differ in something that has to be done, or said.
func (s *stager) sameDirs() *sameDirs {
	o := &s.o
	switch {
	case !s.can.Digests, o.Filter.PerDirectory(), o.Explain, o.PruneEmpty:
		return nil
	case o.Checksum, o.IgnoreTimes:
		return nil
	case o.Xattrs, o.ACLs: // digests do not cover them: each name has to be opened for its own, here and there
		return nil
	case len(s.alts) > 0 && o.AltDest != CopyDest: // what is the same there is replaced here
		return nil
	case o.UserMap != nil, o.GroupMap != nil, o.Chmod != nil:
		return nil
	}
	return &sameDirs{
		root: s.dst.fd, rules: o.Filter.Root().For(filter.Sender), only: s.only, racy: s.racyDir,
		digest: DigestOptions{
			Perms: o.Perms || o.Executability, Owner: o.Owner, Group: o.Group,
			NumericIDs: o.NumericIDs || !s.can.OwnerNames,
			// Without -t the quick check looks at the times all the same.
			Times: o.Times || !o.SizeOnly, Nanoseconds: s.cmp.nanoseconds && !o.WholeSeconds,
			HardLinks:    o.HardLinks && s.can.HardLinks,
			OmitDirTimes: o.OmitDirTimes || !o.Times, OmitLinkTimes: o.OmitLinkTimes || !o.Times, // those are never set then, nor looked at
		},
		free: make(chan *sameLister, sameListers),
		kept: map[Piece][]info{},
		long: s.dst.long,
	}
}

// same implements WalkOptions.Same. What goes wrong here makes the directory
// come, and goes wrong again then.
func (d *sameDirs) same(p Piece, want DirDigest) bool {
	if CheckPath(p.Path) != nil || d.racy != nil && d.racy(p.Path) {
		return false
	}
	if only, into := d.only.at(p.Path); !into || !only.All() {
		return false
	}
	l := d.take()
	defer d.give(l)
	all, err := l.list(d, p)
	if err != nil {
		return false
	}
	got, ok := l.sum(d, all)
	d.keep(p, all)
	return ok && got == want
}

func (d *sameDirs) take() *sameLister {
	select {
	case l := <-d.free:
		return l
	default:
		l := &sameLister{descent: descent{root: d.root}, link: make([]byte, maxPath+1)}
		l.lister.reader.most = d.long
		return l
	}
}

func (d *sameDirs) give(l *sameLister) {
	select {
	case d.free <- l:
	default:
		l.descent.close()
	}
}

// close is called when nobody asks any more.
func (d *sameDirs) close() {
	if d == nil {
		return
	}
	for {
		select {
		case l := <-d.free:
			l.descent.close()
		default:
			return
		}
	}
}

// errLong says that the destination has much more than the source tells of.
var errLong = errors.New("it has too many names here")

// list lists the destination's directory, or a piece of it, and marks what the
// sender's rules hide.
func (l *sameLister) list(d *sameDirs, p Piece) ([]info, error) {
	fd, err := l.descent.dir(p.Path)
	if err != nil {
		return nil, err
	}
	if fd, err = openDir(fd, "."); err != nil { // for its own place in the listing
		return nil, err
	}
	defer unix.Close(fd)
	var all []info
	if p.whole() {
		var long *longNames
		if all, long, err = l.lister.list(fd, p.Path); long != nil {
			err = errLong
		}
	} else {
		all, err = l.piece(d, fd, p)
	}
	if err != nil {
		return nil, err
	}
	for i := range all {
		here := &all[i]
		if d.rules != nil {
			here.hidden, _ = d.rules.Excluded(joinPath(p.Path, here.Name), here.isDir(), filter.Sender)
		}
		if isSymlink(&here.Entry) && !here.hidden {
			if here.Target, err = readLinkAt(fd, here.Name, l.link); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// piece lists a piece of a directory, unless it has much more than a piece of one should.
func (l *sameLister) piece(d *sameDirs, fd int, p Piece) ([]info, error) {
	n := d.namesAt(p.Path)
	n.read.Do(func() { n.all, _ = l.lister.names(fd, p.Path) })
	if n.all == nil {
		return nil, errLong
	}
	from, to := n.all.past(p.After), n.all.upTo(p.Upto)
	if to-from > 2*l.lister.reader.piece() {
		return nil, errLong
	}
	return l.lister.describe(fd, p.Path, n.all.span(from, to))
}

// namesAt returns the place for the names of a directory, and gives up others.
func (d *sameDirs) namesAt(path string) *namesHere {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &namesHere{path: path}
	if i := slices.IndexFunc(d.names, func(n *namesHere) bool { return n.path == path }); i >= 0 {
		n = d.names[i]
		d.names = slices.Delete(d.names, i, i+1)
	} else if len(d.names) == maxNames {
		d.names = slices.Delete(d.names, 0, 1)
	}
	d.names = append(d.names, n)
	return n
}

// namesOf returns the names of a directory if they are known.
func (d *sameDirs) namesOf(path string) *longNames {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	i := slices.IndexFunc(d.names, func(n *namesHere) bool { return n.path == path })
	var n *namesHere
	if i >= 0 {
		n = d.names[i]
	}
	d.mu.Unlock()
	if n == nil {
		return nil
	}
	n.read.Do(func() {}) // waits for whoever reads them
	return n.all
}

// sum digests what is not hidden.
func (l *sameLister) sum(d *sameDirs, all []info) (DirDigest, bool) {
	l.entries = shown(l.entries[:0], all)
	if !d.digest.NumericIDs {
		d.owners.fill(l.entries, d.digest.Owner, d.digest.Group)
	}
	sum, ok := DigestEntries(l.entries, d.digest)
	if clear(l.entries); cap(l.entries) > 1<<12 {
		l.entries = nil
	}
	return sum, ok
}

// shown appends the entries that are not hidden.
func shown(to []Entry, all []info) []Entry {
	for i := range all {
		if !all[i].hidden {
			to = append(to, all[i].Entry)
		}
	}
	return to
}

func (d *sameDirs) keep(p Piece, all []info) {
	d.mu.Lock()
	defer d.mu.Unlock()
	size := sizeOf(p, all)
	if _, twice := d.kept[p]; twice || d.bytes+size > maxKept {
		return
	}
	d.kept[p] = all
	d.queue = append(d.queue, p)
	d.bytes += size
}

func sizeOf(p Piece, all []info) int { return 256 + 2*len(p.Path) + infoBytes*len(all) }

// arrived returns the listing of p if it was kept, and forgets those of
// directories and pieces that will not come any more.
func (d *sameDirs) arrived(p Piece) ([]info, bool) {
	if d == nil {
		return nil, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	all, ok := d.kept[p]
	d.drop(p)
	for len(d.queue) > 0 && d.queue[0].upTo(p) {
		d.drop(d.queue[0])
		d.queue = d.queue[1:]
	}
	d.names = slices.DeleteFunc(d.names, func(n *namesHere) bool { return comesAfter(n.path, p.Path) })
	return all, ok
}

// upTo reports whether p does not come after q in a walk.
func (p Piece) upTo(q Piece) bool {
	return p.Path == q.Path && p.After <= q.After || comesAfter(p.Path, q.Path)
}

func (d *sameDirs) drop(p Piece) {
	if all, ok := d.kept[p]; ok {
		d.bytes -= sizeOf(p, all)
		delete(d.kept, p)
	}
}

// relist lists a directory, or a piece, whose listing was not kept.
func (d *sameDirs) relist(p Piece) ([]info, error) {
	l := d.take()
	defer d.give(l)
	all, err := l.list(d, p)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errLong) {
		err = hostile(p.Path, "the destination has it no more")
	}
	return all, err
}

// reverseOwners finds the name of an id of this host that stands for it there
// and back: a name that leads to another id would hide a difference.
type reverseOwners struct {
	mu     sync.Mutex
	users  map[uint32]string
	groups map[uint32]string
}

func (o *reverseOwners) fill(entries []Entry, users, groups bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range entries {
		e := &entries[i]
		if users {
			e.User = remember(&o.users, e.UID, func() string { return userThereAndBack(e.UID) })
		}
		if groups {
			e.Group = remember(&o.groups, e.GID, func() string { return groupThereAndBack(e.GID) })
		}
	}
}

func userThereAndBack(id uint32) string {
	there, err := user.LookupId(strconv.FormatUint(uint64(id), 10))
	if err != nil {
		return ""
	}
	back, err := user.Lookup(there.Username)
	if err != nil || parseID(back.Uid) != int64(id) {
		return ""
	}
	return there.Username
}

func groupThereAndBack(id uint32) string {
	there, err := user.LookupGroupId(strconv.FormatUint(uint64(id), 10))
	if err != nil {
		return ""
	}
	back, err := user.LookupGroup(there.Name)
	if err != nil || parseID(back.Gid) != int64(id) {
		return ""
	}
	return there.Name
}
