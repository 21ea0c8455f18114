package rsyncx

import (
	"context"
	"encoding/binary"
	"os"
	"strings"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// leftovers are the files of the destination that the source does not have
// under their names: any of them may be what the source has under another.
type leftovers struct {
	first map[uint64]int32 // by what find compares: index of the first file, plus 1
	all   []leftover
	paths []byte
	full  bool               // there are more than were kept
	sums  map[int32][16]byte // of those that were read for another's sake, by index
}

// leftover is one of them. Where it lies is told by its path in leftovers.paths.
type leftover struct {
	next   int32 // with the same key, plus 1
	end    uint32
	doomed bool // Publish will delete it
	taken  bool
}

const (
	maxLeftovers     = 1 << 20
	maxLeftoverPaths = 48 << 20 // bytes
	leftoversTried   = 32       // of those with one key
)

// key puts together what a file has in common with itself under another name.
func (s *stager) movedKey(e *Entry) uint64 {
	var b [20]byte
	binary.LittleEndian.PutUint64(b[:], uint64(e.Size))
	binary.LittleEndian.PutUint64(b[8:], uint64(e.Mtime.Sec))
	if s.cmp.nanoseconds {
		binary.LittleEndian.PutUint32(b[16:], uint32(e.Mtime.Nsec))
	}
	return xxh3.Hash(b[:])
}

// leftOver notes a file that the source has not under this name.
func (s *stager) leftOver(path string, here *info, doomed bool) {
	l := &s.moved
	if !s.o.Renames || !isRegular(&here.Entry) || here.Size == 0 || here.mount {
		return
	}
	if len(l.all) == maxLeftovers || len(l.paths)+len(path) > maxLeftoverPaths {
		l.full = true
		return
	}
	if l.first == nil {
		l.first = map[uint64]int32{}
	}
	key := s.movedKey(&here.Entry)
	l.paths = append(l.paths, path...)
	l.all = append(l.all, leftover{next: l.first[key], end: uint32(len(l.paths)), doomed: doomed})
	l.first[key] = int32(len(l.all))
}

func (l *leftovers) path(i int) string {
	start := uint32(0)
	if i > 0 {
		start = l.all[i-1].end
	}
	return string(l.paths[start:l.all[i].end])
}

// movedFrom returns the path of a leftover that may be the content of w, or "":
// one with the same last name before others, one that is not taken before others.
func (s *stager) movedFrom(w *wish) string {
	if len(s.moved.all) == 0 || w.hasOld || w.listed == 0 {
		return ""
	}
	best, rank := "", -1
	tried := 0
	for i := s.moved.first[s.movedKey(&w.entry)]; i > 0 && tried < leftoversTried; i = s.moved.all[i-1].next {
		tried++
		path := s.moved.path(int(i - 1))
		r := 0
		if _, name := splitPath(path); name == w.entry.Name {
			r += 2
		}
		if !s.moved.all[i-1].taken {
			r++
		}
		if r > rank {
			best, rank = path, r
		}
	}
	return best
}

// movedWith looks among the leftovers that may be w, of which the likeliest is
// not, for one whose content has the given sum.
func (s *stager) movedWith(ctx context.Context, w *wish, size int64, whole [16]byte) (path string) {
	at := &descent{root: s.dst.fd}
	defer at.close()
	tried := 0
	for i := s.moved.first[s.movedKey(&w.entry)]; i > 0 && tried < leftoversTried && ctx.Err() == nil; i = s.moved.all[i-1].next {
		tried++
		sum, ok := s.moved.sums[i]
		path := s.moved.path(int(i - 1))
		if !ok {
			have := sumBasis(ctx, at, &draft{how: byMove, basis: path}, s.content.scratch())
			if have.err != nil || have.size != size {
				continue
			}
			sum = have.whole
			if s.moved.sums == nil {
				s.moved.sums = map[int32][16]byte{}
			}
			s.moved.sums[i] = sum
		}
		if sum == whole {
			return path
		}
	}
	return ""
}

// mayTake reports whether the leftover path, found for w, may become w itself:
// it will be deleted, and nobody has taken it.
func (s *stager) mayTake(w *wish, path string) bool {
	// It may be that nothing or not all is deleted, or that it lives on as a backup.
	if s.stats.Unreadable > 0 || s.o.DeleteLimited || s.o.Backup {
		return false
	}
	for i := s.moved.first[s.movedKey(&w.entry)]; i > 0; i = s.moved.all[i-1].next {
		if l := &s.moved.all[i-1]; s.moved.path(int(i-1)) == path {
			ok := l.doomed && !l.taken
			l.taken = true
			return ok
		}
	}
	return false
}

// survey notes what is at a name that only the destination has and that stays.
func (s *stager) survey(parent int, path string, here *info) {
	if !s.o.Renames || s.moved.full || here.mount {
		return
	}
	if !here.isDir() {
		s.leftOver(path, here, false)
		return
	}
	fd, err := openDir(parent, here.Name)
	if err != nil {
		return // nothing of it is needed
	}
	defer unix.Close(fd)
	// What goes wrong leaves out some that might have been found.
	_, _ = s.lister.each(fd, path, func(in *info) error {
		if in.Dev == here.Dev {
			s.survey(fd, joinPath(path, in.Name), in)
		}
		return nil
	})
}

// similar returns the name of a file in a directory of the destination that
// may resemble e, or "": one of the same length and time, else the one whose name has
// the longest beginning and end in common with that of e, and at least half of it.
func (s *stager) similar(e *Entry, around []info) string {
	best, most := "", len(e.Name)/2
	for i := range around {
		here := &around[i]
		if !isRegular(&here.Entry) || here.mount || here.Name == e.Name || here.Size < deltaLeast {
			continue
		}
		if here.Size == e.Size && s.cmp.sameTime(here.Mtime, e.Mtime) {
			return here.Name
		}
		if n := alike(here.Name, e.Name); n > most {
			best, most = here.Name, n
		}
	}
	return best
}

// alike returns how many bytes two names have in common at their beginning and end.
func alike(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	a, b = a[n:], b[n:]
	for strings.HasSuffix(a, b[max(0, len(b)-1):]) && len(a) > 0 && len(b) > 0 {
		a, b = a[:len(a)-1], b[:len(b)-1]
		n++
	}
	return n
}

// takeOver makes the staged file another name of the basis, when that is to be deleted and
// is in all the same as the file will be, and reports whether it did.
func (a *assembly) takeOver() bool {
	w, p := &a.d.wish, a.p
	if p.o.Xattrs || p.o.ACLs || a.basis == nil {
		return false
	}
	st, err := statFd(int(a.basis.Fd()))
	if err != nil || st.Nlink != 1 || st.Size != a.d.plan.Size || w.acl != "" || !hasAttrs(&st, p.fresh(&a.d.entry, nil, w.gid)) || !p.mayTake(w, a.d.basis) {
		return false
	}
	if a.place, err = p.content.linkOwn(p.dst.fd, a.d.basis, w.tree, w.path); err != nil {
		return false // it is copied then
	}
	return true
}

// hasAttrs reports whether a file has all of a already.
func hasAttrs(st *info, a attr) bool {
	return (a.set&setMode == 0 || a.mode == st.Mode&0o7777) && (a.set&setUID == 0 || a.uid == st.UID) &&
		(a.set&setGID == 0 || a.gid == st.GID) && (a.set&setTime == 0 || a.mtime == st.Mtime)
}

// linkOwn makes the staged file for path another name of the file from in the
// directory root, which is the destination or an alternate one.
func (c *contentWriter) linkOwn(root int, from string, t tree, path string) (place, error) {
	c.from.start(root)
	fromDir, fromName, err := c.from.parent(from)
	if err != nil {
		return place{}, err
	}
	l := &c.lanes[0]
	at := l.place(t)
	dir, name, err := l.open(at, path)
	if err == nil {
		err = c.root.do("link", func() error { return unix.Linkat(fromDir, fromName, dir, name, 0) })
	}
	return at, err
}

// copyOwn stages, for path, a copy of a file of this host with the attributes set. It shares
// the blocks where the file system can. The file must be open for reading; its length is size.
func (c *contentWriter) copyOwn(from *os.File, size int64, t tree, path string, set attr) (_ place, err error) {
	at, out, err := c.createNext(t, path)
	if err != nil {
		return place{}, stagingError(path, err)
	}
	defer func() {
		out.Close()
		if err != nil {
			_ = c.remove(at, path) // what stays goes with the staging directory
		}
	}()
	if !c.clone(out, from) {
		err = c.copyContent(out, from, size)
	}
	if err == nil {
		err = setLength(int(out.Fd()), size)
	}
	if err == nil {
		err = c.root.apply(int(out.Fd()), c.fresh.without(set))
	}
	if err != nil {
		return place{}, stagingError(path, err)
	}
	return at, nil
}

func (c *contentWriter) copyContent(to, from *os.File, size int64) error {
	buf := c.scratch()
	for off := int64(0); off < size; {
		n, err := from.ReadAt(buf[:min(size-off, copyBuffer)], off)
		if n == 0 {
			return err
		}
		if err := c.space(int64(n)); err != nil {
			return err
		}
		if err := c.writeAt(int(to.Fd()), buf[:n], off, false); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}
