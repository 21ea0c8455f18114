package program_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// snapshot says of every name below dir all that a copy can carry over. A time
// from since on is "now". Names of one inode are told by "inode of".
func snapshot(dir string, since time.Time) (map[string]string, error) {
	all := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || name == "." {
			return err
		}
		text, err := describe(path, &st)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		when := fmt.Sprintf(" %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		if now := since.Unix() - 1; st.Mtim.Sec >= now && st.Mtim.Sec < now+3600 {
			when = " now"
		}
		text += when
		if st.Nlink > 1 && !d.IsDir() {
			if other, ok := first[st.Ino]; ok {
				text += fmt.Sprintf(" inode of %q", other)
			} else {
				first[st.Ino] = name
			}
		}
		all[name] = text
		return nil
	})
	return all, err
}

func describe(path string, st *unix.Stat_t) (string, error) {
	text := fmt.Sprintf("%07o %d:%d", st.Mode, st.Uid, st.Gid)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if len(content) > 60 {
			text += fmt.Sprintf(" %d bytes %x", len(content), sha256.Sum256(content))
		} else {
			text += fmt.Sprintf(" %q", content)
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		text += fmt.Sprintf(" -> %q", target)
	case unix.S_IFCHR, unix.S_IFBLK:
		text += fmt.Sprintf(" device %x", st.Rdev)
	}
	attrs, err := xattrsOf(path)
	return text + attrs, err
}

func xattrsOf(path string) (string, error) {
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	var text []string
	for _, name := range strings.Split(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 8192)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		text = append(text, fmt.Sprintf(" %s=%q", name, value[:n]))
	}
	slices.Sort(text)
	return strings.Join(text, ""), nil
}

// treeDiff says what differs between what the two programs left.
func treeDiff(rsync, drsync map[string]string) []string {
	var diffs []string
	for _, name := range slices.Sorted(maps.Keys(rsync)) {
		if got, ok := drsync[name]; !ok {
			diffs = append(diffs, fmt.Sprintf("%q: rsync has %s, drsync has not", name, rsync[name]))
		} else if got != rsync[name] {
			diffs = append(diffs, fmt.Sprintf("%q: rsync has\n\t%s, drsync\n\t%s", name, rsync[name], got))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(drsync)) {
		if _, ok := rsync[name]; !ok {
			diffs = append(diffs, fmt.Sprintf("%q: drsync has %s, rsync has not", name, drsync[name]))
		}
	}
	return diffs
}
