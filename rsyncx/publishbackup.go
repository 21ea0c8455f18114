package rsyncx

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// backupBase is the directory outside the tree that backups go to.
type backupBase struct {
	path string
	fd   int // -1 until something is put there
}

func (b *backupBase) open() (int, error) {
	if b.path == "" {
		return -1, errFormat
	}
	if b.fd < 0 {
		if err := os.MkdirAll(b.path, 0o777); err != nil {
			return -1, err
		}
		fd, err := openat(unix.AT_FDCWD, b.path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return -1, err
		}
		b.fd = fd
	}
	return b.fd, nil
}

func (b *backupBase) close() {
	if b.fd >= 0 {
		unix.Close(b.fd)
		b.fd = -1
	}
}

// backup moves, links or copies a name to its backup. Done again it sees
// that the name is gone, or by now another one, and leaves both. What hinders it
// stops the publish: the old content must not be lost.
func (p *publisher) backup(dir int, name string, o *op) error {
	st, err := statAt(dir, name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err == nil && st.isDir():
		return errMoved
	case err == nil && p.again && (st.Dev != o.dev || st.Ino != o.ino):
		return nil
	}
	if err == nil {
		err = p.keep(dir, name, &st, o)
	}
	if noPlace(err) {
		p.leave(o.path) // without its backup it must stay
		return fmt.Errorf("make a backup: %w", err)
	}
	if err != nil {
		return fmt.Errorf("make a backup: %v", err) //nolint:errorlint // it must not pass for a change of the destination
	}
	return nil
}

// noPlace reports whether a backup cannot be made for a reason that is likely to
// stay, so that a publish that waited for its end would not come to one.
func noPlace(err error) bool {
	for _, reason := range []error{unix.EPERM, unix.EACCES, unix.EBUSY, unix.EROFS, unix.ENOTDIR, unix.ELOOP} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

func (p *publisher) keep(dir int, name string, st *info, o *op) error {
	to, toName, err := p.backupPlace(o)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	how := o.number & backupHow
	if how == backupCopy && p.again && (!o.looksLike(st) || o.isThere(to, toName)) {
		return nil // it was made, or what it would be made of is half written over
	}
	if how == backupMove {
		err = p.replacing(to, toName, func() error { return p.root.rename(dir, name, to, toName) })
		if err == nil && st.Nlink > 1 {
			err = notThere(p.root.unlink(dir, name)) // both may be names of one file, and then stay
		}
		if !errors.Is(err, unix.EXDEV) {
			return err
		}
	}
	const as = "old"
	if err := notThere(p.root.unlink(p.stage, as)); err != nil {
		return err
	}
	if how == backupLink && p.root.do("link", func() error { return unix.Linkat(dir, name, p.stage, as, 0) }) == nil {
		err := p.replacing(to, toName, func() error { return p.root.rename(p.stage, as, to, toName) })
		if !errors.Is(err, unix.EXDEV) {
			return errors.Join(err, notThere(p.root.unlink(p.stage, as)))
		}
	}
	if err := p.duplicate(dir, name, st, to, toName, o.attr); err != nil || how != backupMove {
		return err
	}
	return notThere(p.root.unlink(dir, name))
}

// looksLike reports whether a file has the length and time of what is backed up.
func (o *op) looksLike(st *info) bool { return st.Size == o.size && st.Mtime == o.attr.mtime }

// isThere reports whether a file that looks like the backup is at its place.
func (o *op) isThere(dir int, name string) bool {
	st, err := statAt(dir, name)
	return err == nil && isRegular(&st.Entry) && o.looksLike(&st)
}

// replacing puts something at a backup's place, in which a directory may stand.
func (p *publisher) replacing(to int, toName string, put func() error) error {
	err := put()
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		if err := p.root.removeAll(to, toName); err != nil {
			return err
		}
		err = put()
	}
	return err
}

// backupPlace opens the directory of a backup and makes those that are missing,
// with the attributes of the ones that the backup comes from.
func (p *publisher) backupPlace(o *op) (fd int, name string, err error) {
	base := p.root.fd
	if o.number&backupOutside != 0 {
		if base, err = p.outside.open(); err != nil {
			return -1, "", err
		}
	}
	dir, name := splitPath(o.target)
	from, _ := splitPath(o.path)
	if fd, err = openDir(base, "."); err != nil || dir == "" {
		return fd, name, err
	}
	done := ""
	for part := range strings.SplitSeq(dir, "/") {
		done = joinPath(done, part)
		// The tail of dir is the directory that the backup comes from.
		above := ""
		if tail := len(dir) - len(done); tail < len(from) {
			above = strings.TrimSuffix(from[:len(from)-tail], "/")
		}
		next, err := p.backupDir(fd, part, above, o.attr.set)
		unix.Close(fd)
		if err != nil {
			return -1, "", err
		}
		fd = next
	}
	return fd, name, nil
}

func (p *publisher) backupDir(parent int, name, like string, keep attrSet) (int, error) {
	err := p.root.mkdir(parent, name, 0o777)
	isNew := err == nil
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	fd, err := openDir(parent, name)
	if like != "" && (errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)) { // an earlier backup
		if err := p.root.unlink(parent, name); err != nil {
			return -1, err
		}
		return p.backupDir(parent, name, like, keep)
	}
	if err != nil || !isNew || like == "" {
		return fd, err
	}
	d := descent{root: p.root.fd}
	defer d.close()
	if dir, err := d.dir(like); err == nil {
		if st, err := statFd(dir); err == nil {
			_ = p.root.apply(fd, withXattrs(likeAttr(&st, fd, keep), dir, ".", attr{set: keep & setACLs})) // as good as it goes
		}
	}
	return fd, nil
}

// likeAttr is what the new directory made gets of the one that st is about: as in
// rsync its owners only when they are kept, and without Perms it stays in the group
// that it inherited.
func likeAttr(st *info, made int, keep attrSet) attr {
	a := ownAttr(st)
	a.set &^= (setUID | setGID) &^ keep
	if now, err := statFd(made); err == nil && keep&setMode == 0 {
		a.mode |= now.Mode & unix.S_ISGID
	}
	return a
}

func ownAttr(st *info) attr {
	a := attr{set: setMode | setTime, mode: st.Mode & 0o7777, mtime: st.Mtime}
	if os.Geteuid() == 0 {
		a.set, a.uid, a.gid = a.set|setUID|setGID, st.UID, st.GID
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		a.set &^= setMode
	}
	return a
}

// withXattrs adds to a the extended attributes of name in dir that keep speaks of,
// as far as they can be read.
// Those that rules let pass are told by like.
func withXattrs(a attr, dir int, name string, like attr) attr {
	keep := like.set & (setPlain | setACLs)
	if a.set&setMode == 0 {
		keep &^= setACLs // a symbolic link
	}
	if keep == 0 {
		return a
	}
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return a
	}
	defer unix.Close(fd)
	var r xattrReader
	ruled := like.set&setRuled != 0
	list, err := r.held(fd, keep&setPlain != 0 && !ruled, keep&setACLs != 0)
	if err != nil {
		return a
	}
	if ruled {
		for name, value := range Xattrs(like.xattrs) {
			list = insertXattr(list, name, value)
		}
		keep |= setRuled
	}
	a.set, a.xattrs = a.set|keep, list
	return a
}

// duplicate copies a name that cannot be linked, under another name first.
func (p *publisher) duplicate(dir int, name string, st *info, to int, toName string, like attr) error {
	const as = ".drsync-backup"
	if err := notThere(p.root.unlink(to, as)); err != nil {
		return err
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = p.copyFile(dir, name, to, as)
	case unix.S_IFLNK:
		var target string
		if target, err = readLinkAt(dir, name, make([]byte, maxPath+1)); err == nil {
			err = p.root.do("create", func() error { return unix.Symlinkat(target, to, as) })
		}
	default:
		err = p.root.do("create", func() error { return unix.Mknodat(to, as, st.Mode&unix.S_IFMT|0o600, int(st.Rdev)) })
	}
	if err != nil {
		return err
	}
	fd, err := openat(to, as, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := p.root.apply(fd, withXattrs(ownAttr(st), dir, name, like)); err != nil {
		return err
	}
	return p.replacing(to, toName, func() error { return p.root.rename(to, as, to, toName) })
}

func (p *publisher) copyFile(dir int, name string, to int, as string) error {
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	outFd, err := p.root.create(to, as, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(outFd), as)
	if p.root.clone(outFd, fd) != nil {
		_, err = io.Copy(out, fdReader(fd))
	}
	if err == nil {
		err = out.Sync() // it may be on another file system than the tree
	}
	return errors.Join(err, out.Close())
}
