package program_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A node is one name of the world that a case starts from. All names are
// relative to the world's directory: "from/a", "to/a", "rules".
type node struct {
	path     string
	kind     byte // f d l p s c b as find prints them, and h: another name of target
	mode     uint32
	uid, gid int
	sec      int64
	nsec     int64
	target   string // of a symbolic link, or the first name of a hard link
	content  []segment
	xattrs   []xattr
}

type xattr struct{ name, value string }

// A segment is a piece of a file's content, so that a changed copy of a large
// file is short to write down.
type segment struct {
	kind byte   // t text, r random bytes, z zeros that are written, h a hole
	text string // of t
	seed uint64 // of r: which endless stream of bytes
	off  int64  // of r: where in it
	len  int64  // of r, z and h
}

func (s segment) size() int64 {
	if s.kind == 't' {
		return int64(len(s.text))
	}
	return s.len
}

func (s segment) bytes() []byte {
	switch s.kind {
	case 't':
		return []byte(s.text)
	case 'r':
		out := make([]byte, 0, s.len+16)
		for w := s.off / 8; int64(len(out)) < s.len+s.off%8; w++ {
			x := uint64(w)*0x9e3779b97f4a7c15 + s.seed*0xd1342543de82ef95
			x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
			x = (x ^ x>>27) * 0x94d049bb133111eb
			out = binary.LittleEndian.AppendUint64(out, x^x>>31)
		}
		return out[s.off%8:][:s.len]
	}
	return make([]byte, s.len)
}

func contentSize(c []segment) int64 {
	var n int64
	for _, s := range c {
		n += s.size()
	}
	return n
}

// cut returns what lies from off on, n bytes of it.
func cut(c []segment, off, n int64) []segment {
	var out []segment
	for _, s := range c {
		size := s.size()
		from, to := max(off, 0), min(off+n, size)
		if from < to {
			p := s
			if s.kind == 't' {
				p.text = s.text[from:to]
			} else {
				p.off, p.len = s.off+from, to-from
			}
			out = append(out, p)
		}
		off -= size
	}
	return out
}

// build makes the nodes below dir. Attributes of directories come last.
func build(dir string, nodes []node) error {
	for _, n := range nodes {
		if err := n.create(dir); err != nil {
			return fmt.Errorf("make %q: %w", n.path, err)
		}
	}
	for _, n := range slices.Backward(nodes) {
		if n.kind == 'd' {
			if err := n.attributes(filepath.Join(dir, n.path)); err != nil {
				return fmt.Errorf("attributes of %q: %w", n.path, err)
			}
		}
	}
	return nil
}

// alter changes what is below dir: a node takes the place of what has its name,
// or goes (x) if it has none to take. What has no directory to be in is left out.
func alter(dir string, nodes []node) error {
	for i, n := range nodes {
		path := filepath.Join(dir, n.path)
		parent := filepath.Dir(path)
		if real, err := filepath.EvalSymlinks(parent); err != nil || real != parent {
			continue
		}
		if st, err := os.Lstat(parent); err != nil || !st.IsDir() {
			continue
		}
		if n.kind == 'h' {
			if st, err := os.Lstat(filepath.Join(dir, n.target)); err != nil || st.IsDir() || n.target == n.path {
				continue
			}
		}
		if st, err := os.Lstat(path); err != nil || n.kind != 'd' || !st.IsDir() {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
		if n.kind != 'x' {
			if err := n.create(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("make %q: %w", n.path, err)
			}
		}
		if n.kind == 'd' {
			if err := n.attributes(path); err != nil {
				return fmt.Errorf("attributes of %q: %w", n.path, err)
			}
		}
		when := []unix.Timespec{{}, {Sec: 1_000_000_100 + int64(i)}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, parent, when, 0); err != nil {
			return err
		}
	}
	return nil
}

func (n node) create(dir string) error {
	path := filepath.Join(dir, n.path)
	var err error
	switch n.kind {
	case 'd':
		return os.MkdirAll(path, 0o755)
	case 'h':
		return unix.Linkat(unix.AT_FDCWD, filepath.Join(dir, n.target), unix.AT_FDCWD, path, 0)
	case 'l':
		err = os.Symlink(n.target, path)
	case 'p':
		err = unix.Mkfifo(path, 0o600)
	case 's':
		err = unix.Mknod(path, unix.S_IFSOCK|0o600, 0)
	case 'c':
		err = unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, uint32(n.sec%2)+3)))
	case 'b':
		err = unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n.sec%2))))
	case 'f':
		err = writeContent(path, n.content)
	}
	if err != nil {
		return err
	}
	return n.attributes(path)
}

func writeContent(path string, c []segment) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var at int64
	for _, s := range c {
		if s.kind != 'h' {
			if _, err := f.WriteAt(s.bytes(), at); err != nil {
				return err
			}
		}
		at += s.size()
	}
	return f.Truncate(at)
}

func (n node) attributes(path string) error {
	if err := unix.Lchown(path, n.uid, n.gid); err != nil {
		return err
	}
	if n.kind != 'l' {
		if err := unix.Chmod(path, n.mode); err != nil {
			return err
		}
	}
	for _, x := range n.xattrs {
		if err := unix.Lsetxattr(path, x.name, []byte(x.value), 0); err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
	}
	when := []unix.Timespec{{}, {Sec: n.sec, Nsec: n.nsec}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, when, unix.AT_SYMLINK_NOFOLLOW)
}

// acl is an access control list in the kernel's form. perms are those of the
// owner, of user 7, of the group, of group 1, of the mask and of others.
func acl(perms [6]uint16) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for i, e := range []struct {
		tag uint16
		id  uint32
	}{{1, ^uint32(0)}, {2, 7}, {4, ^uint32(0)}, {8, 1}, {16, ^uint32(0)}, {32, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, perms[i])
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return string(b)
}

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// shell says the same as create and attributes to a person with a shell.
func (n node) shell() string {
	q := shellQuote(n.path)
	var b strings.Builder
	switch n.kind {
	case 'd':
		fmt.Fprintf(&b, "mkdir -p %s", q)
	case 'h':
		fmt.Fprintf(&b, "ln %s %s\n", shellQuote(n.target), q)
		return b.String()
	case 'l':
		fmt.Fprintf(&b, "ln -s %s %s", shellQuote(n.target), q)
	case 'p':
		fmt.Fprintf(&b, "mkfifo %s", q)
	case 's':
		fmt.Fprintf(&b, "python3 -c 'import os,sys; os.mknod(sys.argv[1], 0o140600)' %s", q)
	case 'c':
		fmt.Fprintf(&b, "mknod %s c 1 %d", q, n.sec%2+3)
	case 'b':
		fmt.Fprintf(&b, "mknod %s b 7 %d", q, n.sec%2)
	case 'f':
		fmt.Fprintf(&b, "printf %%s %s >%s", shellQuote(textOf(n.content)), q)
	}
	if n.uid != 0 || n.gid != 0 {
		fmt.Fprintf(&b, "; chown -h %d:%d %s", n.uid, n.gid, q)
	}
	if n.kind != 'l' {
		fmt.Fprintf(&b, "; chmod %04o %s", n.mode, q)
	}
	for _, x := range n.xattrs {
		fmt.Fprintf(&b, "; setfattr -h -n %s -v 0x%x %s", x.name, x.value, q)
	}
	if n.kind != 'd' {
		fmt.Fprintf(&b, "; touch -h -d @%d.%09d %s", n.sec, n.nsec, q)
	}
	b.WriteByte('\n')
	return b.String()
}

func textOf(c []segment) string {
	var b strings.Builder
	for _, s := range c {
		if s.kind == 't' {
			b.WriteString(s.text)
		} else {
			fmt.Fprintf(&b, "<%c %d bytes, seed %d from %d>", s.kind, s.len, s.seed, s.off)
		}
	}
	return b.String()
}

func shellQuote(s string) string {
	plain := s != ""
	for i := range len(s) {
		c := s[i]
		if c < 0x20 || c >= 0x7f {
			return "$'" + strings.ReplaceAll(strings.Trim(fmt.Sprintf("%+q", s), `"`), "'", `\'`) + "'"
		}
		plain = plain && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("/._-=:,+@%", c) >= 0)
	}
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// memoryDir is t.TempDir in memory where that is possible.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "drs")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
