package rsyncx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
)

// tries is how often a file is read that changes meanwhile; the last content is taken.
const tries = 3

// wish is a file to fetch, or a hard link to decide later.
type wish struct {
	path    string
	group   int    // of hard links, or -1
	listed  int64  // bytes
	entry   Entry  // as listed
	compare bool   // fetch only to see whether the content differs
	gid     int64  // that a new file inherits, or -1
	acl     string // that a new file inherits
	tree    tree   // that it belongs to when its directory is new
	mount   bool   // below a mount point: it cannot be replaced
	hasOld  bool
	old     info   // what the destination has
	alt     int    // Options.AltDests that has a file by this name, from 1: that is old then, without hasOld; or 0
	like    string // name of a file in the same directory that may have some of the content, or ""
	left    int32  // number of old among the leftovers, or 0
	// elsewhere says that it is left out, unless another name of its group is made.
	elsewhere bool
}

func (w *wish) append(b []byte) []byte {
	flags := byte(0)
	for i, on := range []bool{w.compare, w.mount, w.hasOld, w.elsewhere} {
		if on {
			flags |= 1 << i
		}
	}
	b = binary.AppendVarint(append(b, flags), int64(w.group))
	b = binary.AppendVarint(b, w.gid)
	b = binary.AppendUvarint(b, w.tree.number)
	b = binary.AppendUvarint(b, uint64(w.tree.top))
	b = binary.AppendUvarint(b, uint64(w.alt))
	b = binary.AppendUvarint(b, uint64(w.left))
	b = appendText(b, w.path)
	b = appendText(b, w.like)
	b = appendText(b, w.acl)
	b = appendEntry(b, &w.entry)
	return appendEntry(b, &w.old.Entry)
}

func appendEntry(b []byte, e *Entry) []byte {
	b = appendText(appendText(appendText(appendText(b, e.User), e.Group), e.Target), e.Xattrs)
	for _, v := range []uint64{uint64(e.Mode), uint64(e.Size), uint64(e.UID), uint64(e.GID), e.Rdev, e.Dev, e.Ino, e.Nlink} {
		b = binary.AppendUvarint(b, v)
	}
	return appendTime(b, e.Mtime)
}

func (d *decoder) entry() Entry {
	e := Entry{User: d.text(), Group: d.text(), Target: d.text(), Xattrs: d.text()}
	e.Mode, e.Size, e.UID, e.GID = d.uint32(), int64(d.uint()), d.uint32(), d.uint32()
	e.Rdev, e.Dev, e.Ino, e.Nlink = d.uint(), d.uint(), d.uint(), d.uint()
	e.Mtime = d.time()
	return e
}

func parseWish(record []byte) (wish, error) {
	d := decoder{b: record}
	flags := d.byte()
	w := wish{group: int(d.int()), gid: d.int(), compare: flags&1 != 0, mount: flags&2 != 0, hasOld: flags&4 != 0, elsewhere: flags&8 != 0}
	w.tree = tree{number: d.uint(), top: int(d.uint())}
	w.alt = int(d.uint())
	w.left = int32(d.uint32())
	w.path = d.text()
	w.like = d.text()
	w.acl = d.text()
	w.entry = d.entry()
	w.old.Entry = d.entry()
	_, w.entry.Name = splitPath(w.path)
	w.listed = w.entry.Size
	if d.bad || len(d.b) > 0 || w.tree.top < 0 || w.tree.top > len(w.path) {
		return wish{}, errFormat
	}
	return w, nil
}

// fetch reads every wanted file into the staging directory. In a dry run it
// reports them, and reads only those that have to be compared.
func (s *stager) fetch(ctx context.Context) error {
	list, err := s.reuse(ctx, s.wanted)
	if err != nil {
		return err
	}
	defer list.close()
	if err := s.enough(list); err != nil {
		return err
	}
	return s.fetchAll(ctx, list)
}

// enough looks before the first byte whether the disk can take what is wanted.
func (s *stager) enough(list *spool) error {
	if s.o.DryRun || s.o.Reserve <= 0 {
		return nil // what is wanted is not what is needed: files may have holes, or grow in place
	}
	need := s.wantedBytes - s.resumed
	free, err := s.dst.free()
	if err != nil || free-s.o.Reserve >= need {
		return err
	}
	moved, err := s.perhapsMoved(list)
	if need -= moved; err == nil && free-s.o.Reserve < need {
		err = tooFull(s.dst.path, free, need, s.o.Reserve)
	}
	return err
}

func tooFull(path string, free, need, reserve int64) error {
	return hint.With(fmt.Errorf("the file system of %s has %d bytes free, and %d are needed beside the reserve of %d", path, free, need, reserve),
		"make room on the standby, or exclude what it does not need")
}

// fetchAll reads the files of list, and once more those that changed meanwhile.
func (s *stager) fetchAll(ctx context.Context, list *spool) error {
	if s.o.DryRun {
		return s.pretend(ctx, list)
	}
	list, err := s.spare(ctx, list)
	if err != nil {
		return err
	}
	defer list.close()
	for try := 1; ; try++ {
		if err := list.flush(); err != nil {
			return err
		}
		if list.count == 0 {
			return nil
		}
		var torn *spool
		if try < tries {
			var err error
			if torn, err = s.newSpool(fmt.Sprintf("torn-%d-%s", try, list.f.Name())); err != nil {
				return err
			}
			defer torn.close()
		}
		if err := s.pass(ctx, list, torn); err != nil || torn == nil {
			return err
		}
		list = torn
	}
}

// pretend is fetchAll of a dry run.
func (s *stager) pretend(ctx context.Context, list *spool) error {
	compare, err := s.newSpool("compare")
	if err != nil {
		return err
	}
	defer compare.close()
	if err := list.flush(); err != nil {
		return err
	}
	for r := list.records(); ; {
		record, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		w, err := parseWish(record)
		if err != nil {
			return err
		}
		if w.compare {
			if err := compare.add(w.append); err != nil {
				return err
			}
			continue
		}
		s.fetched(&w, &w.entry, w.entry.Size, place{})
	}
	if err := compare.flush(); err != nil || compare.count == 0 {
		return err
	}
	rest, err := s.spare(ctx, compare)
	if err != nil {
		return err
	}
	defer rest.close()
	return s.pass(ctx, rest, nil)
}

// pass asks the source for every file of list, in one stream. Files that
// changed while they were read are added to torn, or taken when it is nil.
func (s *stager) pass(ctx context.Context, list, torn *spool) error {
	s.again = torn != nil
	expected := list.records()
	for f, err := range s.src.Read(ctx, paths(list)) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("read from the source: %w", err)
		}
		record, err := expected.next()
		if errors.Is(err, io.EOF) {
			return hostile(f.Path, "it was not asked for")
		}
		if err != nil {
			return err
		}
		w, err := parseWish(record)
		if err != nil {
			return err
		}
		if f.Path != w.path {
			return hostile(f.Path, "it was sent instead of %q", Printable(w.path))
		}
		if err := s.one(ctx, &w, &f, torn); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, err := expected.next(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it left out files that were asked for", ErrHostile)
	}
	return s.content.finish()
}

func paths(list *spool) iter.Seq[Want] {
	return func(yield func(Want) bool) {
		for r := list.records(); ; {
			record, err := r.next()
			if err != nil { // the reader of the answers meets it too
				return
			}
			if w, err := parseWish(record); err != nil || !yield(Want{Path: w.path, Size: w.listed}) {
				return
			}
		}
	}
}

// one takes the answer for one wish.
func (s *stager) one(ctx context.Context, w *wish, f *File, torn *spool) error {
	if f.Err != nil {
		return s.notRead(w, f.Err)
	}
	if !isRegular(&f.Entry) || f.Body == nil {
		return hostile(w.path, "it was sent as a file and is none")
	}
	if err := s.believable(w, &f.Entry); err != nil {
		return err
	}
	f.Entry.Xattrs = w.entry.Xattrs // those are told by a listing only
	if w.mount && !w.compare {
		return crossesMount(w.path)
	}
	set := s.freshFile(w, &f.Entry)
	got, err := s.receive(ctx, w, f, set)
	switch {
	case err != nil:
		return err
	case got.err != nil:
		return s.notRead(w, got.err)
	case got.torn && torn != nil:
		return torn.add(w.append)
	case got.torn:
		s.stats.Torn++
		s.warn(w.path, "changed on every try while it was read")
	}
	if got.same && w.alt > 0 {
		w.compare = false
		m := altMatch{rank: altValue, dir: w.alt, info: w.old, set: s.attrs(&f.Entry, nil)}
		if ch := s.cmp.attrs(&f.Entry, m.set, &w.old, '.'); !ch.any() {
			m.rank = altExact
		}
		if done, err := s.altTake(w, &f.Entry, &m); done || err != nil {
			return err
		}
		return s.notRead(w, fmt.Errorf("%w: the file of an alternate directory", ErrTorn))
	}
	if got.same {
		s.racy.read(w.path, &f.Entry)
		s.groupKept(w.group, &w.old)
		if got.torn { // it shrank: the destination's copy is as good as any
			return nil
		}
		return s.adjust(w.path, &f.Entry, &w.old)
	}
	if got.torn || s.o.DryRun {
		s.fetched(w, &f.Entry, got.size, got.at)
		return s.put(w, &f.Entry, got.at, got.size, wholeFile)
	}
	return s.arrived(w, &f.Entry, got.at, got.size, contentSum{sum: got.sum}, wholeFile)
}

// freshFile is what a new file for w gets.
func (s *stager) freshFile(w *wish, e *Entry) attr {
	return s.bequeath(s.fresh(e, w.dest(), w.gid), e, w.dest(), w.acl)
}

// placed notes what Publish has to do for something that was staged: nothing when
// it lies in a new tree.
func (s *stager) placed(path string, at place, kind uint32, size int64) error {
	if s.o.DryRun || !at.tree.none() {
		return nil
	}
	return s.op(partFiles, op{kind: opFile, path: path, number: at.number, size: size, kindOf: kind})
}

// believable looks at what the source says of a file when it opened it.
func (s *stager) believable(w *wish, e *Entry) error {
	if err := checkFacts(w.path, e); err != nil {
		return err
	}
	if e.Size > 4*w.listed+1<<30 {
		return hint.With(hostile(w.path, "it was listed with %d bytes and has %d", w.listed, e.Size),
			"if it really grows this fast, exclude it")
	}
	return nil
}

// own is the destination's file, or nil.
func (w *wish) own() *info {
	if !w.hasOld {
		return nil
	}
	return &w.old
}

// dest is the file that the new one is compared with.
func (w *wish) dest() *info {
	if !w.hasOld && w.alt == 0 {
		return nil
	}
	return &w.old
}

// notRead leaves the destination's copy, if there is one, as it is.
func (s *stager) notRead(w *wish, err error) error {
	if errors.Is(err, ErrHostile) {
		return fmt.Errorf("read %s from the source: %w", Printable(w.path), err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		s.vanished(w.path)
		return nil
	}
	s.stats.Unreadable++
	s.warn(w.path, "cannot be read on the source: "+Printable(err.Error()))
	return nil
}

// fetched counts and reports a file that Publish will put in place.
func (s *stager) fetched(w *wish, e *Entry, size int64, at place) {
	s.groupReplaced(w.group, w.path, at)
	s.racy.read(w.path, e)
	s.stats.Transferred++
	s.stats.TransferredBytes += size
	if w.dest() == nil {
		s.created(e)
	}
	s.itemized(w, e)
	s.told = s.stats.Reused
	s.o.Event.Emit(event.Event{Kind: event.Progress, Items: s.stats.Transferred, Total: s.wanted.count,
		Bytes: s.stats.TransferredBytes, Size: s.wantedBytes})
}

// itemized reports a file whose content travels.
func (s *stager) itemized(w *wish, e *Entry) {
	ch := change{update: '>', isNew: w.dest() == nil}
	if w.dest() != nil {
		ch = s.cmp.attrs(e, s.attrs(e, &w.old), &w.old, '>')
		ch.content = s.o.Checksum
	}
	s.changed(w.path, e, ch, "")
}

func crossesMount(path string) error {
	return hint.With(fmt.Errorf("%s lies below a mount point of the destination and cannot be replaced by a rename", Printable(path)),
		"exclude the mount point, or sync it as a tree of its own")
}

// endOf makes the end of a spool no error.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
