package rsyncx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

// How the old content of a name gets to its backup: op.number of opBackup.
const (
	backupMove = iota // renamed: the name goes
	backupLink        // linked: the name stays until it is replaced
	backupCopy        // copied: the name is written to in its place

	backupHow     = 0x0f
	backupOutside = 0x10 // the target is below the directory of opBackupDir
	backupEarly   = 0x20 // of an earlier backup, whose name a new one may need: opOldBackups makes it
)

// prepareBackups settles where backups go.
func (s *stager) prepareBackups() error {
	switch {
	case !s.o.Backup && s.o.Suffix == "":
		return nil
	case !s.o.Backup:
		return errors.New("a suffix is for backups, and none are asked for")
	case strings.Contains(s.o.Suffix, "/"):
		return fmt.Errorf("the backup suffix %q has a slash in it", s.o.Suffix)
	case s.o.BackupDir == "":
		return s.protectBackups()
	}
	dir := filepath.Clean(s.o.BackupDir)
	if filepath.IsLocal(dir) {
		s.backupDir = strings.TrimPrefix(dir+"/", "./")
		if err := s.backupsFit(dir); err != nil {
			return fmt.Errorf("use the backup directory %s: %w", s.o.BackupDir, err)
		}
		if s.backupDir == "" || !s.o.Delete {
			return nil
		}
		return s.op(partClear, op{kind: opOldBackups})
	}
	if !filepath.IsAbs(dir) {
		root, err := filepath.Abs(s.dst.path)
		if err != nil {
			return fmt.Errorf("find the backup directory %s: %w", s.o.BackupDir, err)
		}
		dir = root + "/" + s.o.BackupDir
	}
	// Publish cannot do without it, so better now than half way.
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return fmt.Errorf("use the backup directory %s: %w", s.o.BackupDir, unix.ENOTDIR)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("use the backup directory %s: %w", s.o.BackupDir, err)
	}
	s.backupOutside = dir
	return s.op(partClear, op{kind: opBackupDir, target: dir})
}

// backupsFit checks that what is there of the backup directory in the destination
// is directories: nothing has to make way for it, nor is it behind a link.
func (s *stager) backupsFit(dir string) error {
	if s.dst.fd < 0 {
		return nil
	}
	fd, err := openDir(s.dst.fd, ".")
	if err != nil {
		return err
	}
	defer func() { unix.Close(fd) }()
	for part := range strings.SplitSeq(dir, "/") {
		st, err := statAt(fd, part)
		switch {
		case errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return err
		case isSymlink(&st.Entry):
			return hint.With(fmt.Errorf("%s is a symbolic link in the destination, and is not followed", Printable(part)),
				"name the directory that it leads to, by its absolute path")
		case !st.isDir():
			return fmt.Errorf("%s: %w", Printable(part), unix.ENOTDIR)
		}
		next, err := openDir(fd, part)
		if err != nil {
			return err
		}
		unix.Close(fd)
		fd = next
	}
	return nil
}

// protectBackups keeps earlier backups from being deleted, as rsync does.
func (s *stager) protectBackups() error {
	if !s.o.Delete || s.o.DeleteExcluded {
		return nil
	}
	b := filter.NewBuilder()
	err := b.Filter("P *" + s.o.Suffix)
	if err == nil {
		s.backups, err = b.Rules(filter.Options{})
	}
	return err
}

// backsUp reports whether a name that is deleted gets a backup: one that is
// a backup already does not.
func (s *stager) backsUp(path string) bool {
	return s.o.Backup && (s.o.BackupDir != "" || len(path) <= len(s.o.Suffix) || !strings.HasSuffix(path, s.o.Suffix))
}

// unsafeOld reports whether what path holds is a link that SafeLinks would
// leave out: rsync does not keep such a one as a backup either.
func (s *stager) unsafeOld(path string, here *info) bool {
	if !s.o.SafeLinks || !isSymlink(&here.Entry) {
		return false
	}
	d := descent{root: s.dst.fd}
	defer d.close()
	dir, name, err := d.parent(path)
	if err != nil {
		return false
	}
	target, err := readLinkAt(dir, name, make([]byte, maxPath+1))
	return err == nil && leavesTree(path, target)
}

// backup returns what makes a backup of path, which is no directory.
func (s *stager) backup(path string, here *info, how uint64) op {
	s.backedUp++
	o := op{kind: opBackup, path: path, target: s.backupDir + path + s.o.Suffix, number: how,
		kindOf: here.Mode & unix.S_IFMT, dev: here.Dev, ino: here.Ino, attr: attr{set: s.cmp.copied()}}
	if s.cmp.ruled {
		o.attr.xattrs = s.ruledXattrs(path) // Publish has no rules
	}
	if s.backupOutside != "" {
		o.number |= backupOutside
	}
	if s.backupDir != "" && len(s.frames) > 0 {
		s.frames[0].dirty = true // it may be made there
	}
	if s.o.Explain {
		to := path + s.o.Suffix
		if s.o.BackupDir != "" {
			to = filepath.Join(s.o.BackupDir, to)
		}
		s.info(path, "backed up "+Printable(path)+" to "+Printable(to))
	}
	return o
}

// ruledXattrs returns what a copy of a name of the destination gets of its attributes
// by the rules, as far as they can be read.
func (s *stager) ruledXattrs(path string) string {
	d := descent{root: s.dst.fd}
	defer d.close()
	dir, name, err := d.parent(path)
	if err != nil {
		return ""
	}
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	list, err := s.xattrs.held(fd, true, s.cmp.acls)
	if err != nil {
		return ""
	}
	return chosen(list, setPlain)
}

// keepOld makes a backup of what is about to be replaced. Another name of a file may be
// written to in its place, which a link to it would show.
func (s *stager) keepOld(path string, here *info) error {
	if s.o.Inplace && isRegular(&here.Entry) && here.Nlink != 1 {
		return s.keepCopy(path, here)
	}
	return s.keepBy(backupLink, path, here)
}

// keepCopy makes a backup of what is about to be written to in its place.
func (s *stager) keepCopy(path string, here *info) error { return s.keepBy(backupCopy, path, here) }

func (s *stager) keepBy(how uint64, path string, here *info) error {
	if !s.o.Backup || s.unsafeOld(path, here) {
		return nil
	}
	o := s.backup(path, here, how)
	o.size, o.attr.mtime = here.Size, here.Mtime
	return s.op(partClear, o)
}

// beforeBackups gives a directory its owner and mode before backups are made of
// what is in it: what is made for those takes over both. Others than root might
// lock themselves out.
func (s *stager) beforeBackups(path string, a attr) error {
	if a.set, a.gone = a.set&(setMode|setUID|setGID|setACLs), ""; s.o.BackupDir == "" || a.set == 0 || !s.cmp.root {
		return nil
	}
	if a.set&setACLs == 0 {
		a.xattrs = ""
	}
	return s.op(partClear, op{kind: opDirAttr, path: path, attr: a})
}

// holdsBackups reports whether the directory path is the one for backups, or
// holds it: it will not be empty.
func (s *stager) holdsBackups(path string) bool { return strings.HasPrefix(s.backupDir, path+"/") }

// getsBackups reports whether backups may come to lie in the directory of f, which changes its time.
func (s *stager) getsBackups(f *frame) bool {
	inside := s.backupDir != "" && f.path != "" && (strings.HasPrefix(f.path+"/", s.backupDir) || s.holdsBackups(f.path))
	return inside && s.o.Times && f.fd >= 0 && !f.mount && (s.cmp.root || f.owned)
}

// keepsOwn reports whether the backups of what is in the directory path come to
// lie in it as well: it is among earlier backups.
func (s *stager) keepsOwn(path string) bool {
	return s.backupDir != "" && strings.HasPrefix(s.backupDir+path+"/", path+"/")
}
