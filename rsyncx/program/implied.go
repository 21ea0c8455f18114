package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/cli"
)

// unimplied hides the attributes of the directories that only lead to what is
// sent: each looks as the destination has it, or as a new one would.
type unimplied struct {
	rsyncx.Source
	only []string
	dest string // the destination directory
	new  rsyncx.Entry
}

var _ rsyncx.Source = (*unimplied)(nil)

func (u *unimplied) Abilities() rsyncx.Abilities {
	a := u.Source.Abilities()
	a.Digests = false
	return a
}

func (u *unimplied) Walk(ctx context.Context, o rsyncx.WalkOptions) iter.Seq2[rsyncx.Dir, error] {
	o.Same = nil
	return func(yield func(rsyncx.Dir, error) bool) {
		for d, err := range u.Source.Walk(ctx, o) {
			if err == nil {
				err = u.hide(&d, &o)
			}
			if !yield(d, err) || err != nil && !isPathError(err) {
				return
			}
		}
	}
}

func isPathError(err error) bool {
	var one *rsyncx.PathError
	return errors.As(err, &one)
}

// leads reports whether path is there only because something below it is sent.
func (u *unimplied) leads(path string) bool {
	leads := false
	for _, o := range u.only {
		if o == path || strings.HasPrefix(path, o+"/") || o == "" && !strings.Contains(path, "/") {
			return false
		}
		leads = leads || strings.HasPrefix(o, path+"/")
	}
	return leads
}

func (u *unimplied) hide(d *rsyncx.Dir, o *rsyncx.WalkOptions) error {
	if d.Path != "" && u.leads(d.Path) {
		if err := u.disguise(d.Path, &d.Self, o); err != nil {
			return err
		}
	}
	for i := range d.Entries {
		e := &d.Entries[i]
		if path := below(d.Path, e.Name); isDir(e) && u.leads(path) {
			if err := u.disguise(path, e, o); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u *unimplied) disguise(path string, e *rsyncx.Entry, o *rsyncx.WalkOptions) error {
	var st unix.Stat_t
	err := unix.Lstat(filepath.Join(u.dest, path), &st)
	now := u.new
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("stat %s in the destination: %w", rsyncx.Printable(path), err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is no directory at the destination, and drsync follows no links where it writes", rsyncx.Printable(path))
	default:
		now.Mode, now.UID, now.GID = st.Mode, st.Uid, st.Gid
		now.Mtime = rsyncx.Time{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)}
	}
	e.Mode, e.UID, e.GID, e.Mtime, e.User, e.Group, e.Xattrs = now.Mode, now.UID, now.GID, now.Mtime, "", "", ""
	if err != nil || !o.Xattrs && !o.ACLs {
		return nil
	}
	e.Xattrs, err = rsyncx.XattrsOf(filepath.Join(u.dest, path), o)
	return err
}

// newDirectory is what a directory that nothing is known of becomes.
func (r *run) newDirectory() rsyncx.Entry {
	now := r.Now()
	return rsyncx.Entry{
		Mode: unix.S_IFDIR | 0o777&^cli.Umask(), UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		Mtime: rsyncx.Time{Sec: now.Unix(), Nsec: int32(now.Nanosecond())},
	}
}
