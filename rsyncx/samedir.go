package rsyncx

import (
	"errors"
	"io/fs"
	"os/user"
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

	mu    sync.Mutex
	kept  map[string][]info
	queue []string // of kept, as they came
	bytes int
}

// maxKept bounds the listings kept, in bytes, sameListers those who list at once.
const (
	maxKept     = 16 << 20
	sameListers = 16
	infoBytes   = 200
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
		kept: map[string][]info{},
	}
}

// same implements WalkOptions.Same. What goes wrong here makes the directory
// come, and goes wrong again then.
func (d *sameDirs) same(path string, want DirDigest) bool {
	if CheckPath(path) != nil || d.racy != nil && d.racy(path) {
		return false
	}
	if only, into := d.only.at(path); !into || !only.All() {
		return false
	}
	l := d.take()
	defer d.give(l)
	all, err := l.list(d, path)
	if err != nil {
		return false
	}
	got, ok := l.sum(d, all)
	d.keep(path, all)
	return ok && got == want
}

func (d *sameDirs) take() *sameLister {
	select {
	case l := <-d.free:
		return l
	default:
		return &sameLister{descent: descent{root: d.root}, link: make([]byte, maxPath+1)}
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

// list lists the destination's directory path and marks what the sender's rules hide.
func (l *sameLister) list(d *sameDirs, path string) ([]info, error) {
	fd, err := l.descent.dir(path)
	if err != nil {
		return nil, err
	}
	if fd, err = openDir(fd, "."); err != nil { // for its own place in the listing
		return nil, err
	}
	defer unix.Close(fd)
	all, err := l.lister.list(fd, path)
	if err != nil {
		return nil, err
	}
	for i := range all {
		here := &all[i]
		if d.rules != nil {
			here.hidden, _ = d.rules.Excluded(joinPath(path, here.Name), here.isDir(), filter.Sender)
		}
		if isSymlink(&here.Entry) && !here.hidden {
			if here.Target, err = readLinkAt(fd, here.Name, l.link); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
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

func (d *sameDirs) keep(path string, all []info) {
	d.mu.Lock()
	defer d.mu.Unlock()
	size := sizeOf(path, all)
	if _, twice := d.kept[path]; twice || d.bytes+size > maxKept {
		return
	}
	d.kept[path] = all
	d.queue = append(d.queue, path)
	d.bytes += size
}

func sizeOf(path string, all []info) int { return 256 + 2*len(path) + infoBytes*len(all) }

// arrived returns the listing of path if it was kept, and forgets those of
// directories that will not come any more.
func (d *sameDirs) arrived(path string) ([]info, bool) {
	if d == nil {
		return nil, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	all, ok := d.kept[path]
	d.drop(path)
	for len(d.queue) > 0 && (d.queue[0] == path || comesAfter(d.queue[0], path)) {
		d.drop(d.queue[0])
		d.queue = d.queue[1:]
	}
	return all, ok
}

func (d *sameDirs) drop(path string) {
	if all, ok := d.kept[path]; ok {
		d.bytes -= sizeOf(path, all)
		delete(d.kept, path)
	}
}

// relist lists a directory whose listing was not kept.
func (d *sameDirs) relist(path string) ([]info, error) {
	l := d.take()
	defer d.give(l)
	all, err := l.list(d, path)
	if errors.Is(err, fs.ErrNotExist) {
		err = hostile(path, "the destination has it no more")
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
