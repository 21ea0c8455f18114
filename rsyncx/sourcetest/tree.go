package sourcetest

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/rsyncx"
	"golang.org/x/sys/unix"
)

const (
	typeMask    = unix.S_IFMT
	typeRegular = unix.S_IFREG
)

// node is one name to create. Without dir, target or fifo it is a regular file.
type node struct {
	path    string
	content string
	target  string
	dir     bool
	fifo    bool
	mode    uint32
	nsec    int64
}

// tree is a directory and what is in it.
type tree struct {
	dir     string
	want    map[string]unix.Stat_t // by path; "" is the root
	content map[string]string      // of regular files
	target  map[string]string      // of symbolic links
}

// newTree makes a small tree with every kind of name that needs no privilege.
func newTree(t *testing.T) *tree {
	big := make([]byte, 3<<20+17)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(big)
	return newTreeOf(t, []node{
		{path: ".drsync", dir: true}, {path: ".drsync/stage", content: "drsync's own, not listed"},
		{path: "big", content: string(big)},
		{path: "empty", content: ""},
		{path: "empty.d", dir: true},
		{path: "etc", dir: true, mode: 0o750},
		{path: "etc/app.conf", content: "port=8081\n", mode: 0o600, nsec: 123_456_789},
		{path: "etc/deep", dir: true}, {path: "etc/deep/er", dir: true}, {path: "etc/deep/er/file", content: "x"},
		{path: "etc/deep.txt", content: "between its name and its content\n"},
		{path: "etc/.drsync", dir: true}, {path: "etc/.drsync/f", content: "only the one at the root is ours\n"},
		{path: "pipe", fifo: true},
		{path: "run.sh", content: "#!/bin/sh\n", mode: 0o4755},
		{path: "to-etc", target: "etc"},
		{path: "to-nowhere", target: "/no/such/file"},
	})
}

func newTreeOf(t *testing.T, nodes []node) *tree {
	t.Helper()
	tr := &tree{dir: t.TempDir(), want: map[string]unix.Stat_t{}, content: map[string]string{}, target: map[string]string{}}
	slices.SortFunc(nodes, func(a, b node) int { return strings.Compare(a.path, b.path) })
	for _, n := range nodes {
		tr.make(t, n)
	}
	for _, n := range slices.Backward(nodes) { // after everything below was made
		tr.finish(t, n)
	}
	tr.finish(t, node{dir: true, mode: 0o755, nsec: 5})
	return tr
}

func (tr *tree) make(t *testing.T, n node) {
	t.Helper()
	path := filepath.Join(tr.dir, n.path)
	var err error
	switch {
	case n.dir:
		err = os.MkdirAll(path, 0o755)
	case n.fifo:
		err = unix.Mkfifo(path, 0o644)
	case n.target != "":
		err = os.Symlink(n.target, path)
	default:
		err = os.WriteFile(path, []byte(n.content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (tr *tree) finish(t *testing.T, n node) {
	t.Helper()
	path := filepath.Join(tr.dir, n.path)
	var err error
	if n.mode != 0 {
		err = unix.Chmod(path, n.mode)
	}
	if when := time.Unix(1_600_000_000+int64(len(n.path)), n.nsec); n.target == "" && err == nil {
		err = os.Chtimes(path, when, when)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Lstat(path, &st)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n.path == ".drsync" || strings.HasPrefix(n.path, ".drsync/") {
		return
	}
	tr.want[n.path] = st
	switch {
	case n.target != "":
		tr.target[n.path] = n.target
	case !n.dir && !n.fifo:
		tr.content[n.path] = n.content
	}
}

// files returns the paths of the regular files in order.
func (tr *tree) files() []string {
	var files []string
	for path := range tr.content {
		files = append(files, path)
	}
	slices.Sort(files)
	return files
}

// check compares one entry with the disk, as far as a source can tell.
func (tr *tree) check(t *testing.T, can rsyncx.Abilities, path string, e rsyncx.Entry) {
	t.Helper()
	st, ok := tr.want[path]
	if !ok {
		t.Errorf("%q is not in the tree", path)
		return
	}
	want := rsyncx.Entry{Name: filepath.Base(path), Mode: st.Mode, Mtime: rsyncx.Time{Sec: int64(st.Mtim.Sec)}, UID: st.Uid, GID: st.Gid,
		Target: tr.target[path]}
	if path == "" {
		want.Name = ""
	}
	if st.Mode&typeMask == typeRegular {
		want.Size = st.Size
	} else {
		e.Size = 0
	}
	if can.Nanoseconds {
		want.Mtime.Nsec = int32(st.Mtim.Nsec)
	}
	if can.HardLinks {
		want.Dev, want.Ino, want.Nlink = uint64(st.Dev), st.Ino, uint64(st.Nlink)
	}
	if can.OwnerNames && st.Uid == 0 && e.User != "root" {
		t.Errorf("%q belongs to %q, want root", path, e.User)
	}
	e.User, e.Group, e.Rdev = "", "", 0
	if e != want {
		t.Errorf("%q is\n%+v, want\n%+v", path, e, want)
	}
}

func (tr *tree) checkFile(t *testing.T, can rsyncx.Abilities, f rsyncx.File) {
	t.Helper()
	if f.Err != nil {
		t.Errorf("read %q: %v", f.Path, f.Err)
		return
	}
	tr.check(t, can, f.Path, f.Entry)
	content, err := io.ReadAll(f.Body)
	if err != nil || !bytes.Equal(content, []byte(tr.content[f.Path])) {
		t.Errorf("read %q: %d bytes, %v; want %d", f.Path, len(content), err, len(tr.content[f.Path]))
	}
	if n, err := f.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %q after its end: %d, %v", f.Path, n, err)
	}
}

// checkWalk compares a whole walk: every directory once, depth first, its
// entries strictly ascending.
func (tr *tree) checkWalk(t *testing.T, src rsyncx.Source, dirs []rsyncx.Dir) {
	t.Helper()
	seen := map[string]bool{}
	var order []string
	for _, d := range dirs {
		order = append(order, d.Path)
		tr.check(t, src.Abilities(), d.Path, d.Self)
		for i, e := range d.Entries {
			path := join(d.Path, e.Name)
			if i > 0 && d.Entries[i-1].Name >= e.Name {
				t.Errorf("%q comes after %q", e.Name, d.Entries[i-1].Name)
			}
			seen[path] = true
			tr.check(t, src.Abilities(), path, e)
		}
	}
	want := []string{}
	for path, st := range tr.want {
		if path != "" && !seen[path] {
			t.Errorf("%q was not listed", path)
		}
		if st.Mode&typeMask == unix.S_IFDIR {
			want = append(want, path)
		}
	}
	slices.SortFunc(want, func(a, b string) int {
		return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
	})
	if !slices.Equal(order, want) {
		t.Errorf("directories in the order\n%q, want\n%q", order, want)
	}
}

func walk(t *testing.T, dirs iter.Seq2[rsyncx.Dir, error]) []rsyncx.Dir {
	t.Helper()
	var all []rsyncx.Dir
	for d, err := range dirs {
		if err != nil {
			t.Fatal(fmt.Errorf("walk: %w", err))
		}
		all = append(all, d)
	}
	return all
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
