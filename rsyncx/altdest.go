package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/drsync/drsync/internal/event"
	"golang.org/x/sys/unix"
)

// altDir is one of Options.AltDests, open. Below it no symbolic link is followed.
type altDir struct {
	at descent
}

// altRank says how much a name of an alternate directory is like that of the source.
type altRank uint8

const (
	altNone  altRank = iota
	altType          // its type only
	altValue         // its content, by the quick check, or its target or number
	altExact         // its attributes too
)

// altMatch is the best that the alternate directories have for a name: of equals the first.
type altMatch struct {
	rank altRank
	dir  int  // of Options.AltDests, from 1; 0 is the destination itself
	info info // of what is there
	set  attr // what the source asks for, over that
	// unsure says that rank counts if the content is found to be the same.
	unsure bool
	first  altFirst
}

// altFirst is the first of the alternate directories that has the name at all.
type altFirst struct {
	dir  int
	info info
}

// altOptions are rsync's names for the kinds, in its messages.
var altOptions = [...]string{CompareDest: "--compare-dest", CopyDest: "--copy-dest", LinkDest: "--link-dest"}

// openAlts opens the alternate directories. One that is not there is said, and
// helps nobody.
func (s *stager) openAlts() error {
	if len(s.o.AltDests) > 0 && int(s.o.AltDest) >= len(altOptions) {
		return errors.New("stage: what is to be done with the files of the alternate directories is not known")
	}
	for _, path := range s.o.AltDests {
		fd, err := openat(s.dst.fd, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			what := ""
			switch {
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ELOOP):
				what = "does not exist"
			case errors.Is(err, unix.ENOTDIR):
				what = "is not a dir"
			default:
				return fmt.Errorf("open the alternate directory %s: %w", path, err)
			}
			s.o.Event.Emit(event.Event{Kind: event.Info, Name: path, Text: altOptions[s.o.AltDest] + " arg " + what + ": " + Printable(s.altPath(path))})
			continue
		}
		s.alts = append(s.alts, &altDir{at: descent{root: fd}})
	}
	return nil
}

// altPath is how rsync, which works inside the destination, names the directory.
func (s *stager) altPath(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	dir, err := filepath.Abs(s.dst.path)
	if err != nil {
		dir = s.dst.path
	}
	return dir + "/" + path
}

func (s *stager) closeAlts() {
	for _, a := range s.alts {
		a.at.close()
		unix.Close(a.at.root)
	}
	s.alts = nil
}

// altRoot is the descriptor of an alternate directory, or of the destination for 0.
func (s *stager) altRoot(dir int) int {
	if dir == 0 {
		return s.dst.fd
	}
	return s.alts[dir-1].at.root
}

// alternate looks for path in the alternate directories. own is the destination's
// file, or nil.
func (s *stager) alternate(path string, e *Entry, own *info) altMatch {
	best, first := altMatch{}, altFirst{}
	for i, a := range s.alts {
		dir, name, err := a.at.root, ".", error(nil)
		if path != "" {
			dir, name, err = a.at.parent(path)
		}
		if err != nil {
			continue
		}
		here, err := statAt(dir, name)
		if err != nil || class(here.Mode) != class(e.Mode) {
			continue
		}
		s.bears(dir, name, &here)
		m := altMatch{rank: altType, dir: i + 1, info: here, set: s.attrs(e, own)}
		if first.dir == 0 {
			first = altFirst{dir: i + 1, info: here}
		}
		same, unsure := s.altSame(dir, e, &here)
		if same {
			m.rank, m.unsure = altValue, unsure
			if ch := s.cmp.attrs(e, m.set, &here, '.'); !ch.any() {
				m.rank = altExact
			}
		}
		if m.rank > best.rank {
			best = m
		}
		if best.rank == altExact {
			break
		}
	}
	best.first = first
	return best
}

// altSame is the quick check of a name of an alternate directory.
func (s *stager) altSame(dir int, e *Entry, here *info) (same, open bool) {
	switch {
	case isRegular(e):
		v := s.cmp.quick(e, here)
		return v != differs, v == unsure
	case e.Mode&unix.S_IFMT != here.Mode&unix.S_IFMT:
		return false, false
	case isSymlink(e):
		target, err := readLinkAt(dir, e.Name, make([]byte, maxPath+1))
		return err == nil && target == e.Target, false
	case isDevice(e.Mode):
		return e.Rdev == here.Rdev, false
	}
	return true, false
}

// altFile does with a regular file what AltDest says, when an alternate directory has it.
// here is what the destination has in its place; f is nil when it is known already that the file's directory will change. When
// it is not done, w knows what may help to fetch the file.
func (s *stager) altFile(f *frame, w *wish, e *Entry, here *info) (done bool, err error) {
	if len(s.alts) == 0 || w.hasOld && s.o.AltDest == CopyDest {
		return false, nil
	}
	m := s.alternate(w.path, e, w.own())
	switch {
	case m.rank == altNone:
		return false, nil
	case m.unsure && w.hasOld:
		w.compare = s.can.Sums // which tell whether the one or the other has the content
		return false, nil
	case m.unsure && s.can.Sums: // which tell of all of them
		w.alt, w.old, w.compare = m.first.dir, m.first.info, true
		return false, nil
	case m.unsure:
		w.alt, w.old, w.compare = m.dir, m.info, true
		return false, nil
	case w.hasOld && (m.rank < altExact || m.info.Dev == w.old.Dev && m.info.Ino == w.old.Ino):
		return false, nil
	case m.rank == altType:
		w.alt, w.old = m.dir, m.info
		return false, nil
	case w.hasOld && w.old.mount:
		return false, nil
	}
	if f != nil && w.group >= 0 && m.rank == altExact && s.o.AltDest == CompareDest {
		f.dirty = true // it may become a link
	}
	if f != nil && (m.rank != altExact || s.o.AltDest != CompareDest || here != nil) {
		if err := s.touch(f, e); err != nil {
			return false, err
		}
	}
	// Of what makes way only that of another type gets a backup.
	backup := here != nil && !w.hasOld && s.backsUp(w.path)
	if leftOut := m.rank == altExact && s.o.AltDest == CompareDest; leftOut && backup {
		backup = false
		if err := s.keepOld(w.path, here); err != nil {
			return false, err
		}
	}
	done, err = s.altTake(w, e, &m)
	if !done && err == nil && !w.hasOld {
		w.alt, w.old = m.dir, m.info
	}
	if done && backup && err == nil {
		err = s.keepOld(w.path, here)
	}
	return done, err
}

// altBySum is altFile when the sum of the content is known.
func (s *stager) altBySum(ctx context.Context, d *draft, f *FileSums) (done bool, err error) {
	w := &d.wish
	if len(s.alts) == 0 || !w.compare || w.hasOld && s.o.AltDest == CopyDest {
		return false, nil
	}
	best := altMatch{}
	for i, a := range s.alts {
		dir, name, err := a.at.parent(w.path)
		if err != nil {
			continue
		}
		here, err := statAt(dir, name)
		if err != nil || !isRegular(&here.Entry) || here.Size != d.entry.Size {
			continue
		}
		s.bears(dir, name, &here)
		have := sumBasis(ctx, &a.at, &draft{how: d.how, basis: w.path, wish: wish{listed: w.listed}, kind: s.sumKind(w)}, s.content.scratch())
		if have.err != nil || have.size != here.Size || !have.has(f, s.sumKind(w)) {
			continue
		}
		m := altMatch{rank: altValue, dir: i + 1, info: here, set: s.attrs(&d.entry, w.own())}
		if ch := s.cmp.attrs(&d.entry, m.set, &here, '.'); !ch.any() {
			m.rank = altExact
		}
		if m.rank > best.rank {
			best = m
		}
	}
	if best.rank == altNone || w.hasOld && (best.rank < altExact || best.info.Dev == w.old.Dev && best.info.Ino == w.old.Ino) {
		return false, ctxOr(ctx, nil)
	}
	return s.altTake(w, &d.entry, &best)
}

// altTake leaves a file out, links it or copies it, by AltDest. It is not done
// when the file of the alternate directory is not what it was, or cannot be read.
func (s *stager) altTake(w *wish, e *Entry, m *altMatch) (done bool, err error) {
	kind := s.o.AltDest
	if m.rank < altExact {
		kind = CopyDest
	}
	ch := s.cmp.attrs(e, m.set, &m.info, '.')
	if kind == CompareDest {
		s.altSaid(w.path, e, ch)
		return true, s.leaveOut(w)
	}
	at := place{}
	if kind == LinkDest {
		if at, done, err = s.altLink(w.tree, w.path, m); err != nil {
			return false, err
		}
		ch = s.cmp.attrs(e, m.set, &m.info, 'h')
	}
	if !done {
		if at, done, err = s.altCopy(w, e, m); err != nil || !done {
			return false, err
		}
		ch = s.cmp.attrs(e, m.set, &m.info, 'c')
	} else {
		s.stats.Linked++
	}
	s.altSaid(w.path, e, ch)
	if kind == LinkDest && w.group >= 0 {
		s.groups[w.group].altDev, s.groups[w.group].altIno = m.info.Dev, m.info.Ino
	}
	s.groupReplaced(w.group, w.path, at)
	return true, s.placed(w.path, at, unix.S_IFREG, e.Size)
}

// altClear removes what the destination has in the place of a file that is left out.
func (s *stager) altClear(w *wish) error {
	if !w.tree.none() {
		return nil
	}
	at := descent{root: s.dst.fd}
	defer at.close()
	dir, name, err := at.parent(w.path)
	if err != nil {
		return fmt.Errorf("look at %s of the destination: %w", Printable(w.path), err)
	}
	here, err := statAt(dir, name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && here.isDir() { // that makes way already
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s of the destination: %w", Printable(w.path), err)
	}
	return s.op(partClear, op{kind: opRemove, path: w.path, kindOf: here.Mode & unix.S_IFMT})
}

// altSaid reports a name that an alternate directory has: as one that is up to date when
// nothing of it differs.
func (s *stager) altSaid(path string, e *Entry, ch change) {
	quiet := ch
	if quiet.update = '.'; quiet.any() {
		s.changed(path, e, ch, "")
		return
	}
	s.upToDateAs(path, e, ch)
}

// altLink stages another name of what an alternate directory has. When the
// file system refuses, or it is not there any more, that is not done.
func (s *stager) altLink(t tree, path string, m *altMatch) (at place, done bool, err error) {
	if s.pretends() {
		return place{}, true, nil
	}
	c := s.content
	at, err = c.linkOwn(s.altRoot(m.dir), path, t, path)
	switch {
	case errors.Is(err, unix.EMLINK), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP):
		s.notes.add("a file was copied from an alternate directory: it cannot be linked from there")
		return place{}, false, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return place{}, false, nil
	case err != nil:
		return place{}, false, stagingError(path, err)
	}
	st, err := c.statStaged(at, path)
	if err == nil && (st.Dev != m.info.Dev || st.Ino != m.info.Ino || !s.cmp.likeBefore(&st, &m.info)) {
		return place{}, false, c.remove(at, path)
	}
	if err != nil {
		return place{}, false, stagingError(path, err)
	}
	return at, true, nil
}

// likeBefore reports whether nothing of what was compared has changed since.
func (c *comparer) likeBefore(now, before *info) bool {
	return now.Size == before.Size && now.Mtime == before.Mtime && now.Mode == before.Mode && now.UID == before.UID && now.GID == before.GID
}

// altCopy stages a copy of a file of an alternate directory.
func (s *stager) altCopy(w *wish, e *Entry, m *altMatch) (at place, done bool, err error) {
	if s.pretends() {
		return place{}, true, nil
	}
	from, before, err := openBasis(&s.alts[m.dir-1].at, w.path)
	if err != nil {
		return place{}, false, nil // it is fetched then
	}
	defer from.Close()
	if before.Ino != m.info.Ino || !s.cmp.likeBefore(&before, &m.info) {
		return place{}, false, nil
	}
	at, err = s.content.copyOwn(from, before.Size, w.tree, w.path, s.bequeath(s.fresh(e, w.own(), w.gid), e, w.own(), w.acl))
	if errors.Is(err, io.EOF) || errors.Is(err, unix.EIO) {
		return place{}, false, nil
	}
	if err != nil {
		return place{}, false, err
	}
	after, err := statFd(int(from.Fd()))
	if err != nil || !s.cmp.likeBefore(&after, &before) {
		return place{}, false, s.content.remove(at, w.path)
	}
	return at, true, nil
}

// altNode does with a link or special file what AltDest says, when an alternate directory
// has all of it. Otherwise like is what was most like it, or nil.
func (s *stager) altNode(f *frame, path string, e *Entry, group int) (done bool, like *altMatch, err error) {
	if len(s.alts) == 0 {
		return false, nil, nil
	}
	m := s.alternate(path, e, nil)
	switch {
	case m.rank == altNone:
		return false, nil, nil
	case m.rank < altExact || s.o.AltDest == CopyDest:
		return false, &m, nil
	case s.o.AltDest == CompareDest:
		s.groupElsewhere(group)
		s.altSaid(path, e, change{update: '.'})
		return true, nil, nil
	}
	if err := s.touch(f, e); err != nil {
		return false, nil, err
	}
	at, done, err := s.altLink(f.tree, path, &m)
	if err != nil || !done {
		return false, &m, err
	}
	s.stats.Linked++
	s.altSaid(path, e, change{update: 'h'})
	if group >= 0 {
		s.groups[group].altDev, s.groups[group].altIno = m.info.Dev, m.info.Ino
	}
	s.groupReplaced(group, path, at)
	return true, nil, s.placed(path, at, e.Mode&unix.S_IFMT, 0)
}

// altMade reports a name that was made anew and that the alternate directories
// have, if with another value or other attributes.
func (s *stager) altMade(path string, e *Entry, m *altMatch) {
	ch := s.cmp.attrs(e, m.set, &m.info, 'c')
	// Of a directory the time counts here though it is not kept.
	if m.rank == altExact && !(isDir(e) && s.o.Times && s.o.OmitDirTimes && !s.cmp.sameTime(e.Mtime, m.info.Mtime)) {
		ch = change{update: 'c'}
	}
	ch.content = m.rank < altExact && !isDir(e)
	s.altSaid(path, e, ch)
}
