package rsyncx

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// newDir holds, in the staging directory, the directories that the destination
// has not, each with all that is in it, so that Publish puts it in its place by
// one rename. They lie there under numbers, treesPerDir of them in a directory.
const (
	newDir      = "trees"
	treesPerDir = 1 << 12
)

// tree is the topmost of several directories that the destination has not. The
// zero value is none.
type tree struct {
	number uint64
	top    int // length of its path
}

func (t tree) none() bool { return t.number == 0 }

// path returns where what will be path lies below the staging directory.
func (t tree) path(path string) string { return treePath(t.number) + path[t.top:] }

func treeDir(number uint64) string { return newDir + "/" + strconv.FormatUint(number/treesPerDir, 16) }

func treeName(number uint64) string { return strconv.FormatUint(number, 16) }

func treePath(number uint64) string { return treeDir(number) + "/" + treeName(number) }

// newTrees makes new directories and what is in them beside files. Below the
// staging directory they are ours alone until finish has given them their attributes.
type newTrees struct {
	root  *Root
	stage int // -1 in a dry run
	fresh freshAttr
	last  uint64
	at    descent
	attrs *spool // of directories, deepest first
}

// mkdir makes the directory that will be path. When its parent in the destination is there,
// so that it is the top of a new tree, the answer has the operation that puts it in its place.
func (n *newTrees) mkdir(parent tree, path string) (t tree, o op, err error) {
	if t = parent; t.none() {
		n.last++
		t = tree{number: n.last, top: len(path)}
		o = op{kind: opTree, path: path, number: t.number}
	}
	if n.stage < 0 {
		return t, o, nil
	}
	if t != parent && (n.last == 1 || n.last%treesPerDir == 0) {
		if err := n.makeDirs(t.number); err != nil {
			return tree{}, op{}, stagingError(path, err)
		}
	}
	dir, name, err := n.at.parent(t.path(path))
	if err == nil {
		err = n.root.mkdir(dir, name, 0o700)
	}
	if err == nil && t != parent {
		var st info
		st, err = statAt(dir, name)
		o.ino = st.Ino
	}
	if err != nil {
		return tree{}, op{}, stagingError(path, err)
	}
	return t, o, nil
}

func (n *newTrees) makeDirs(number uint64) error {
	n.at.close()
	for _, dir := range []string{newDir, treeDir(number)} {
		at, name, err := n.at.parent(dir)
		if err == nil {
			err = n.root.mkdir(at, name, 0o700)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

func stagingError(path string, err error) error {
	return fmt.Errorf("stage %s: %w", Printable(path), err)
}

// later reports what attributes of a new directory have to wait until Publish
// has renamed it: who is not root cannot move a directory that he may not write
// into. What is returned is to be applied at once.
func (t tree) later(path string, a attr) (now attr, waits bool) {
	if os.Geteuid() == 0 || len(path) != t.top || a.set&setMode == 0 || a.mode&0o200 != 0 {
		return a, false
	}
	a.mode |= 0o700
	return a, true
}

// setLater puts the attributes of a directory aside until finish: whatever is
// made in it would change its time.
func (n *newTrees) setLater(t tree, path string, a attr) error {
	if n.stage < 0 {
		return nil
	}
	return n.attrs.add(op{kind: opDirAttr, path: path, number: t.number, size: int64(t.top), attr: a}.append)
}

// finish gives the directories their attributes, deepest first. Nothing can be
// added to them after.
func (n *newTrees) finish() error {
	n.at.close()
	if n.stage < 0 || n.attrs.count == 0 {
		return nil
	}
	if err := n.attrs.flush(); err != nil {
		return err
	}
	defer n.at.close()
	for r := n.attrs.records(); ; {
		record, err := r.next()
		if err != nil {
			return endOf(err)
		}
		o, err := parseOp(record)
		if err != nil {
			return err
		}
		if err := n.setNow(&o); err != nil {
			return fmt.Errorf("stage a new directory: %w", err)
		}
	}
}

func (n *newTrees) setNow(o *op) error {
	parent, name := splitPath(tree{number: o.number, top: int(o.size)}.path(o.path))
	dir, err := n.at.dir(parent)
	if err != nil {
		return err
	}
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return n.root.apply(fd, n.fresh.without(o.attr))
}

// freshAttr is what a new name in the staging directory has without being given it.
type freshAttr struct {
	uid, gid uint32
	known    bool
	modes    bool // a file has the mode that it was created with, the mask aside
	umask    uint32
}

// without takes out of a what a new name has anyhow.
func (f freshAttr) without(a attr) attr {
	if f.known && a.set&setUID != 0 && a.uid == f.uid {
		a.set &^= setUID
	}
	if f.known && a.set&setGID != 0 && a.gid == f.gid {
		a.set &^= setGID
	}
	if a.xattrs == "" {
		a.set &^= setPlain | setACLs | setRuled
	}
	return a
}

// create returns the mode to create a file with that gets a, and what of a is
// left to set then. The staging directory is closed to others, so that a file may
// have its mode before its content. What chown and write would take off is set after.
func (f freshAttr) create(a attr) (mode uint32, left attr) {
	left = f.without(a)
	if !f.modes || a.set&setMode == 0 || left.set&(setPlain|setACLs) != 0 || a.mode&^0o777 != 0 || a.mode&f.umask != 0 {
		return 0o600, left
	}
	left.set &^= setMode
	return a.mode, left
}
