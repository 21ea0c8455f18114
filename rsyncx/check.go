package rsyncx

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOwnerName bounds a user or group name, in bytes.
const maxOwnerName = 256

// checkDir refuses a directory that breaks the rules of a listing: entries with
// impossible names, facts, or out of order.
func checkDir(d *Dir) error {
	if err := CheckPath(d.Path); err != nil {
		return err
	}
	for _, bound := range []string{d.After, d.Upto} {
		if bound != "" && CheckName(bound) != nil {
			return fmt.Errorf("a piece of %q: %w", Printable(d.Path), CheckName(bound))
		}
	}
	if d.Upto != "" && d.Upto <= d.After {
		return hostile(d.Path, "a piece of it ends before it begins")
	}
	if d.Same && d.Path != "" {
		return nil // nothing else was sent
	}
	if !isDir(&d.Self) {
		return hostile(d.Path, "it was listed and is no directory")
	}
	if err := checkFacts(d.Path, &d.Self); err != nil {
		return err
	}
	size := 0
	for i := range d.Entries {
		e := &d.Entries[i]
		if err := CheckName(e.Name); err != nil {
			return fmt.Errorf("in %q: %w", Printable(d.Path), err)
		}
		if e.Name <= d.After || d.Upto != "" && e.Name > d.Upto {
			return hostile(joinPath(d.Path, e.Name), "it is no name of its piece")
		}
		if i > 0 && d.Entries[i-1].Name >= e.Name {
			return hostile(joinPath(d.Path, e.Name), "it came after %q", Printable(d.Entries[i-1].Name))
		}
		// The whole path is made only for the error, and where its length matters.
		if checkFacts(e.Name, e) != nil || len(d.Path)+1+len(e.Name) > maxPath {
			if err := checkFacts(joinPath(d.Path, e.Name), e); err != nil {
				return err
			}
		}
		if size += len(e.Name) + len(e.Target) + len(e.User) + len(e.Group) + len(e.Xattrs); size > MaxDirBytes {
			return hostile(d.Path, "more than %d bytes of names", MaxDirBytes)
		}
	}
	return nil
}

func checkFacts(path string, e *Entry) error {
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
		if e.Target != "" {
			return hostile(path, "it is no symbolic link and has a target")
		}
	case unix.S_IFLNK:
		if err := checkTarget(e.Target); err != nil {
			return fmt.Errorf("%q: %w", Printable(path), err)
		}
	default:
		return hostile(path, "its type is %#o", e.Mode)
	}
	switch {
	case e.Mode&^(unix.S_IFMT|0o7777) != 0:
		return hostile(path, "its mode is %#o", e.Mode)
	case e.Size < 0:
		return hostile(path, "its length is %d", e.Size)
	case e.Mtime.Nsec < 0 || e.Mtime.Nsec >= 1e9:
		return hostile(path, "its time has %d nanoseconds", e.Mtime.Nsec)
	case len(e.User) > maxOwnerName || len(e.Group) > maxOwnerName:
		return hostile(path, "its owner has a name of %d bytes", max(len(e.User), len(e.Group)))
	case e.Xattrs != "" && CheckXattrs(e.Xattrs) != nil:
		return fmt.Errorf("%q: %w", Printable(path), CheckXattrs(e.Xattrs))
	case len(path) > maxPath:
		return hostile(path[:maxPath], "its path has %d bytes", len(path))
	}
	return nil
}

func hostile(path, format string, args ...any) error {
	return fmt.Errorf("%w: %q: %s", ErrHostile, Printable(path), fmt.Sprintf(format, args...))
}

// comesAfter reports whether b follows a in a walk: depth first, siblings by name.
func comesAfter(a, b string) bool {
	for {
		x, restA, moreA := strings.Cut(a, "/")
		y, restB, moreB := strings.Cut(b, "/")
		if x != y {
			return x < y
		}
		if !moreA || !moreB {
			return moreB && !moreA
		}
		a, b = restA, restB
	}
}
