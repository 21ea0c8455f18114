package rsyncx

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// mayLink reports whether the staged file for w may be another name of a file
// of the destination: it is nothing that is written to, has no other names of its own, and
// no attributes that rules keep us from seeing.
func (s *stager) mayLink(w *wish) bool {
	return s.o.Times && w.group < 0 && w.acl == "" && !w.mount && !s.inPlace(w) && !s.cmp.ruled
}

// takeOver makes the staged file another name of the basis, when that is a leftover that nobody
// else has taken and is in all the same as the file will be, and reports whether it did. If the
// leftover stays after all, apart makes two files of them.
func (a *assembly) takeOver() (done bool, err error) {
	w, p := &a.d.wish, a.p
	if !a.d.mine || !p.removable(a.d.basis) {
		return false, nil
	}
	at, err := p.content.linkOwn(p.dst.fd, a.d.basis, w.tree, w.path)
	if err != nil {
		return false, nil // it is copied then
	}
	dir, name, err := p.content.lanes[0].open(at, w.path)
	if err != nil {
		return false, stagingError(w.path, err)
	}
	st, err := statAt(dir, name)
	if err != nil {
		return false, stagingError(w.path, err)
	}
	p.bears(dir, name, &st)
	set := p.freshFile(w, &a.d.entry)
	plain, acls := xattrsDiffer(a.d.entry.Xattrs, st.Xattrs)
	same := isRegular(&st.Entry) && st.Nlink == 2 && st.Size == a.d.plan.Size && hasAttrs(&st, set) &&
		!(plain && p.cmp.xattrs) && !(acls && p.cmp.acls) && (p.cmp.root || int(st.UID) == os.Geteuid())
	if !same {
		return false, p.content.remove(at, w.path)
	}
	a.place = at
	return true, p.shares(a.d.left, at, w.path)
}

// removable reports whether Publish will be able to take the name path of the destination away,
// as far as the kernel holds its directory. Where only our rights are missing what is in it is no leftover. A
// second name of what then stays would make one file of two.
func (s *stager) removable(path string) bool {
	at := &s.content.from
	at.start(s.dst.fd)
	dir, _, err := at.parent(path)
	if err != nil {
		return false
	}
	var st unix.Statx_t
	err = unix.Statx(dir, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st)
	return err != nil || st.Attributes&st.Attributes_mask&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) == 0
}

// shares notes that what is staged at a place is one file with a leftover.
func (s *stager) shares(left int32, at place, path string) (err error) {
	if s.shared == nil {
		if s.shared, err = s.newSpool("shared"); err != nil {
			return err
		}
	}
	return s.shared.add(func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(left))
		b = binary.AppendUvarint(b, at.number)
		b = binary.AppendUvarint(b, at.tree.number)
		b = binary.AppendUvarint(b, uint64(at.tree.top))
		return appendText(b, path)
	})
}

// apart is called when it is known what becomes of every name. What shares its
// file with a leftover that stays gets one of its own: two files of the source
// must not be one here.
func (s *stager) apart() error {
	if s.shared == nil {
		return nil
	}
	if err := s.shared.flush(); err != nil {
		return err
	}
	at := descent{root: s.dst.fd}
	defer at.close()
	for r := s.shared.records(); ; {
		record, err := r.next()
		if err != nil {
			return endOf(err)
		}
		d := decoder{b: record}
		left := int32(d.uint())
		where := place{number: d.uint(), tree: tree{number: d.uint(), top: int(d.uint())}}
		path := d.text()
		if d.bad || left <= 0 || left > s.moved.count {
			return errFormat
		}
		if is := s.moved.get(left).is; is&leftGone != 0 || is&leftGoes != 0 && s.deletes() {
			continue
		}
		if err := s.ownFile(&at, s.moved.path(left), where, path); err != nil {
			return stagingError(path, err)
		}
	}
}

// ownFile replaces what is staged for path by a copy of the file from of the destination.
func (s *stager) ownFile(at *descent, from string, to place, path string) error {
	f, st, err := openBasis(at, from)
	if err != nil {
		return err
	}
	defer f.Close()
	set := ownAttr(&st)
	if keep := s.cmp.copied(); keep != 0 {
		list, err := s.xattrs.held(int(f.Fd()), keep&setPlain != 0, keep&setACLs != 0)
		if err != nil {
			return err
		}
		set.set, set.xattrs = set.set|keep, list
	}
	copied, err := s.content.copyOwn(f, st.Size, tree{}, path, set)
	if err != nil {
		return err
	}
	l := &s.content.lanes[0]
	dir, name, err := l.open(copied, path)
	if err != nil {
		return err
	}
	if dir, err = openDir(dir, "."); err != nil { // the lane's own changes with its next place
		return err
	}
	defer unix.Close(dir)
	toDir, toName, err := l.open(to, path)
	if err != nil {
		return err
	}
	return s.dst.rename(dir, name, toDir, toName)
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
