package rsyncx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// xattrTree gives random attributes and access control lists to what is in a tree.
type xattrTree struct {
	*rand.Rand
	t testing.TB
	// user is set when no root is at work.
	user bool
}

func (x *xattrTree) dress(dir string) {
	must(x.t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			x.one(path)
		}
		return err
	}))
}

func (x *xattrTree) one(path string) {
	var st unix.Stat_t
	must(x.t, unix.Lstat(path, &st))
	kind := st.Mode & unix.S_IFMT
	names := []string{"user.a", "user.b", "trusted.t", "security.own"}
	if x.user {
		names = names[:2]
	}
	for _, name := range names {
		if strings.HasPrefix(name, "user.") && kind != unix.S_IFREG && kind != unix.S_IFDIR || x.IntN(3) > 0 {
			continue
		}
		must(x.t, unix.Lsetxattr(path, name, []byte([]string{"", "1", "two", strings.Repeat("long", 100)}[x.IntN(4)]), 0))
	}
	if kind == unix.S_IFREG && !x.user && x.IntN(6) == 0 {
		must(x.t, unix.Lsetxattr(path, "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	}
	if kind == unix.S_IFLNK {
		return
	}
	if x.IntN(3) == 0 {
		x.list(path, aclAccess)
	}
	if kind == unix.S_IFDIR && x.IntN(3) == 0 {
		x.list(path, aclDefault)
	}
	when := []unix.Timespec{st.Atim, st.Mtim}
	must(x.t, unix.UtimesNanoAt(unix.AT_FDCWD, path, when, unix.AT_SYMLINK_NOFOLLOW))
}

// list sets an access control list made at random.
func (x *xattrTree) list(path, name string) {
	const nobody = 1<<32 - 1
	entries := []aclEntry{{aclOwner, uint16(x.IntN(2)*2 + 4), nobody}}
	if x.IntN(2) == 0 {
		entries = append(entries, aclEntry{aclUser, uint16(x.IntN(8)), []uint32{1, 7, 4711}[x.IntN(3)]})
	}
	entries = append(entries, aclEntry{aclOwned, uint16(x.IntN(8)), nobody})
	if x.IntN(2) == 0 {
		entries = append(entries, aclEntry{aclGroup, uint16(x.IntN(8)), []uint32{0, 8, 4711}[x.IntN(3)]})
	}
	if len(entries) > 2 || x.IntN(2) == 0 {
		entries = append(entries, aclEntry{aclMask, uint16(x.IntN(8)), nobody})
	}
	entries = append(entries, aclEntry{aclOther, uint16(x.IntN(2) * 4), nobody})
	must(x.t, unix.Lsetxattr(path, name, encodeACL(entries), 0))
}

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

func encodeACL(entries []aclEntry) []byte {
	b := []byte{2, 0, 0, 0}
	for _, e := range entries {
		b = append(b, byte(e.tag), byte(e.tag>>8), byte(e.perm), byte(e.perm>>8), byte(e.id), byte(e.id>>8), byte(e.id>>16), byte(e.id>>24))
	}
	return b
}

// dressed is snapshot with extended attributes and access control lists.
func dressed(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := snapshot(t, dir)
	var r xattrReader
	for name, text := range all {
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_PATH|unix.O_NOFOLLOW, 0)
		must(t, err)
		link := strings.Contains(text, " -> ")
		list, err := r.held(fd, true, !link)
		unix.Close(fd)
		must(t, err)
		for name, value := range Xattrs(list) {
			switch {
			case isACL(name):
				text += " " + strings.TrimPrefix(name, "system.posix_acl_") + "=" + aclText(value)
			case len(value) > 20:
				text += fmt.Sprintf(" %s=%x", name, xxh3.HashString(value))
			default:
				text += fmt.Sprintf(" %s=%q", name, value)
			}
		}
		all[name] = text
	}
	return all
}

// aclText writes an access control list down: owner, users, group, groups, mask, others.
func aclText(acl string) string {
	var b strings.Builder
	for at := aclHead; at < len(acl); at += aclEach {
		e := []byte(acl[at:])
		fmt.Fprintf(&b, "%d", e[0])
		if e[0] == aclUser || e[0] == aclGroup {
			fmt.Fprintf(&b, ".%d", binary.LittleEndian.Uint32(e[4:]))
		}
		fmt.Fprintf(&b, ":%d,", e[2])
	}
	return b.String()
}

var xattrVariants = []variant{
	{args: []string{"-aX", "--del"}, set: func(o *Options) { o.Xattrs, o.Delete = true, true }},
	{args: []string{"-aA", "--del"}, set: func(o *Options) { o.ACLs, o.Delete = true, true }},
	{args: []string{"-aAX"}, set: func(o *Options) { o.Xattrs, o.ACLs = true, true }},
	{args: []string{"-aHAX", "--del"}, set: func(o *Options) { o.Xattrs, o.ACLs, o.HardLinks, o.Delete = true, true, true, true }, hard: true, loose: true},
	{args: []string{"-acAX", "--del"}, set: func(o *Options) { o.Xattrs, o.ACLs, o.Checksum, o.Delete = true, true, true, true }},
	{args: []string{"-aAX", "--inplace"}, set: func(o *Options) { o.Xattrs, o.ACLs, o.Inplace = true, true, true }},
	{args: []string{"-rpX"}, set: func(o *Options) { *o = Options{Perms: true, Xattrs: true} }},
	{args: []string{"-a"}, set: func(*Options) {}},
	{args: []string{"-rt"}, set: func(o *Options) { *o = Options{Times: true} }},
	{args: []string{"-rlA"}, set: func(o *Options) { *o = Options{Links: true, ACLs: true} }},
	{args: []string{"-aAX", "--size-only", "--chmod=u+w,g-x"}, set: func(o *Options) {
		o.Xattrs, o.ACLs, o.SizeOnly = true, true, true
		o.Chmod, _ = ParseChmod("u+w,g-x")
	}},
}

// TestXattrsAsRsync syncs random trees with random attributes with rsync and
// with this package, and compares.
func TestXattrsAsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	testenv.RequireRoot(t)
	for i := range 110 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			xattrsAsRsync(t, uint64(i), xattrVariants[i%len(xattrVariants)], true)
		})
	}
}

func xattrsAsRsync(t *testing.T, seed uint64, v variant, root bool) {
	dir := t.TempDir() // not in memory, where there may be no attributes
	from, to, to2 := filepath.Join(dir, "from"), filepath.Join(dir, "to"), filepath.Join(dir, "to2")
	mkdirs(t, from, to, to2)
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	for i, d := range []string{from, to, to2} {
		at := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(min(i, 1))+n)) }
		(&randomTree{Rand: at(0), t: t, root: root, hard: v.hard}).make(d, 2)
		(&xattrTree{Rand: at(100), t: t, user: !root}).dress(d)
		if !root {
			giveAway(t, d)
		}
	}
	as := func(f func()) { f() }
	if !root {
		as = func(f func()) { asNobody(t, f) }
	}
	o := Archive()
	v.set(&o)
	var want []string
	as(func() {
		want = runRsync(t, append([]string{"-i", "--modify-window=-1"}, append(v.args, from+"/", to+"/")...))
	})
	before := dressed(t, to2)
	var events eventLog
	o.Event = events.add
	src, dst := open(t, from, to2)
	dry := o
	dry.DryRun = true
	sync := func(o Options) (stats Stats, err error) {
		as(func() { stats, err = Sync(t.Context(), src, dst, o) })
		return stats, err
	}
	_, err := sync(dry)
	must(t, err)
	sameTree(t, "after a dry run", dressed(t, to2), before)
	pretended := events.take()
	stats, err := sync(o)
	must(t, err)
	got := events.take()
	if !slices.Equal(pretended, got) {
		t.Errorf("the dry run said\n%s\nthe run\n%s", strings.Join(pretended, "\n"), strings.Join(got, "\n"))
	}
	sameTree(t, "as rsync", steady(o, before, dressed(t, to2)), steady(o, before, dressed(t, to)))
	if !v.loose && !slices.Equal(lookedAgain(got, want), lookedAgain(want, got)) {
		t.Errorf("said alone\n%s\nrsync said alone\n%s", without(got, want), without(want, got))
	}
	for _, note := range stats.Notes {
		if strings.Contains(note, "attribute") {
			t.Error(note)
		}
	}
	if !o.Times {
		return
	}
	_, err = sync(o)
	must(t, err)
	if again := events.take(); len(again) > 0 {
		t.Errorf("a second run said\n%s", strings.Join(again, "\n"))
	}
}

// TestXattrsOfAUser does so without root.
func TestXattrsOfAUser(t *testing.T) {
	testenv.Require(t, "rsync")
	for i := range 12 {
		v := xattrVariants[[]int{0, 1, 2, 4, 5, 7}[i%6]]
		xattrsAsRsync(t, uint64(1000+i), v, false)
	}
}

// giveAway makes all below dir a user's who may read it and work in its directories.
func giveAway(t testing.TB, dir string) {
	t.Helper()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		must(t, os.Lchown(path, 65534, 65534))
		more := uint32(0o400)
		if d.IsDir() {
			more = 0o700
		}
		if d.Type()&os.ModeSymlink == 0 {
			must(t, unix.Chmod(path, st.Mode&0o777|more))
		}
		return nil
	}))
}

// TestXattrsRefused lets the file system refuse them: everything else arrives, and it is said once.
func TestXattrsRefused(t *testing.T) {
	testenv.RequireRoot(t)
	dir := t.TempDir()
	from, to := dir+"/from", dir+"/to"
	write(t, from+"/new/f", "f")
	write(t, from+"/old", "f")
	write(t, to+"/old", "f")
	for _, name := range []string{"/new/f", "/old", "/new"} {
		must(t, unix.Setxattr(from+name, "user.a", []byte("1"), 0))
	}
	must(t, unix.Utimes(from+"/old", make([]unix.Timeval, 2)))
	must(t, unix.Utimes(to+"/old", make([]unix.Timeval, 2)))
	src, dst := open(t, from, to)
	dst.fault = func(call string) error {
		if call == "setxattr" {
			return unix.EOPNOTSUPP
		}
		return nil
	}
	o := Archive()
	o.Xattrs = true
	var events eventLog
	o.Event = events.add
	stats, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "without attributes", snapshot(t, to), snapshot(t, from))
	if stats.Skipped != 3 || len(stats.Notes) != 1 && len(stats.Notes) != 2 || !strings.HasPrefix(stats.Notes[0], XattrsNotKept) {
		t.Errorf("counted %+v", stats)
	}
	dst.fault = nil
	_, err = Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "with attributes", dressed(t, to), dressed(t, from))
}

// TestXattrsUntold leaves the destination's alone when the source does not know its own.
func TestXattrsUntold(t *testing.T) {
	testenv.RequireRoot(t)
	dir := t.TempDir()
	write(t, dir+"/from/f", "f")
	write(t, dir+"/to/f", "f")
	must(t, unix.Setxattr(dir+"/to/f", "user.a", []byte("1"), 0))
	src, dst := open(t, dir+"/from", dir+"/to")
	o := Options{Xattrs: true, ACLs: true, Checksum: true}
	stats, err := Sync(t.Context(), untold{src}, dst, o)
	must(t, err)
	if len(stats.Notes) != 1 || !strings.Contains(dressed(t, dir+"/to")["f"], "user.a") {
		t.Errorf("noted %q, left %q", stats.Notes, dressed(t, dir+"/to")["f"])
	}
}

type untold struct{ Source }

func (u untold) Abilities() Abilities {
	a := u.Source.Abilities()
	a.Xattrs = false
	return a
}

// TestXattrsOfBackups looks that a copy has what the file had.
func TestXattrsOfBackups(t *testing.T) {
	testenv.RequireRoot(t)
	dir := t.TempDir()
	write(t, dir+"/from/d/f", "new")
	write(t, dir+"/to/d/f", "old one")
	list := encodeACL([]aclEntry{{aclOwner, 6, 0}, {aclUser, 4, 9}, {aclOwned, 4, 0}, {aclMask, 4, 0}, {aclOther, 4, 0}})
	must(t, unix.Setxattr(dir+"/to/d/f", "trusted.a", []byte("1"), 0))
	must(t, unix.Setxattr(dir+"/to/d/f", aclAccess, list, 0))
	was := dressed(t, dir+"/to")["d/f"]
	src, dst := open(t, dir+"/from", dir+"/to")
	o := Archive()
	o.Xattrs, o.ACLs, o.Backup, o.BackupDir = true, true, true, "old"
	staged, err := Stage(t.Context(), src, dst, o)
	must(t, err)
	links := 0
	dst.fault = func(call string) error {
		if call == "link" {
			links++
			return unix.EMLINK // it has to be copied
		}
		return nil
	}
	must(t, staged.Publish(t.Context()))
	if got := dressed(t, dir+"/to")["old/d/f"]; got != was || links == 0 {
		t.Errorf("the backup is %s, was %s", got, was)
	}
}

// lookedAgain is blurred where the mode is at stake as well: setuid goes with the owner.
func lookedAgain(lines, others []string) []string {
	lines = slices.Clone(lines)
	for i, l := range lines {
		if l[0] == '.' && !slices.Contains(others, l) {
			lines[i] = l[:5] + "..." + l[8:]
		}
	}
	slices.Sort(lines)
	return lines
}

// TestXattrFaults breaks a publish before each call that changes something, and
// finishes it.
func TestXattrFaults(t *testing.T) {
	testenv.RequireRoot(t)
	dir := t.TempDir()
	from := dir + "/from"
	write(t, from+"/d/f", "f")
	write(t, from+"/d/g", "g")
	must(t, os.Symlink("f", from+"/d/link"))
	(&xattrTree{Rand: rand.New(rand.NewPCG(3, 3)), t: t}).dress(from)
	for n := 1; ; n++ {
		to := fmt.Sprintf("%s/to%d", dir, n)
		write(t, to+"/d/f", "f")
		write(t, to+"/d/g", "other")
		must(t, os.Symlink("f", to+"/d/link"))
		for _, name := range []string{"user.old", "trusted.old", "user.a"} {
			must(t, unix.Setxattr(to+"/d/f", name, []byte("old"), 0))
			must(t, unix.Setxattr(to+"/d", name, []byte("old"), 0))
		}
		src, dst := open(t, from, to)
		o := Archive()
		o.Xattrs, o.ACLs = true, true
		staged, err := Stage(t.Context(), src, dst, o)
		must(t, err)
		calls := 0
		broken := errors.New("broken off")
		dst.fault = func(call string) error {
			if calls++; calls >= n {
				return broken
			}
			return nil
		}
		err = staged.Publish(t.Context())
		dst.fault = nil
		if err == nil {
			if n < 10 {
				t.Errorf("only %d calls", n)
			}
			return
		}
		must(t, dst.Close())
		src, dst = open(t, from, to)
		_, err = Sync(t.Context(), src, dst, o)
		must(t, err)
		sameTree(t, fmt.Sprintf("broken off before call %d", n), dressed(t, to), dressed(t, from))
	}
}

func TestMapACL(t *testing.T) {
	id := func(id uint32) uint32 { return id + 1 }
	got, ok := mapACL(string(encodeACL([]aclEntry{{aclOwner, 7, 0}, {aclUser, 1, 9}, {aclUser, 2, 3}, {aclOwned, 4, 0}, {aclGroup, 1, 5}, {aclMask, 7, 0}, {aclOther, 0, 0}})), id, id)
	const none = 1<<32 - 1
	want := string(encodeACL([]aclEntry{{aclOwner, 7, none}, {aclUser, 2, 4}, {aclUser, 1, 10}, {aclOwned, 4, none}, {aclGroup, 1, 6}, {aclMask, 7, none}, {aclOther, 0, none}}))
	if !ok || got != want {
		t.Errorf("%v %q, want %q", ok, got, want)
	}
	for _, bad := range []string{"", "\x02\x00\x00", "\x02\x00\x00\x00\x01", "\x01\x00\x00\x00", "\x02\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00"} {
		if _, ok := mapACL(bad, id, id); ok {
			t.Errorf("%q is taken for a list", bad)
		}
	}
}

// TestACLNames lets a source call users and groups in its lists otherwise than we do.
func TestACLNames(t *testing.T) {
	testenv.RequireRoot(t)
	dir := t.TempDir()
	write(t, dir+"/from/f", "f")
	mkdirs(t, dir+"/to")
	must(t, unix.Setxattr(dir+"/from/f", aclAccess, encodeACL([]aclEntry{{aclOwner, 6, 0}, {aclUser, 4, 4711}, {aclOwned, 4, 0}, {aclGroup, 6, 4712}, {aclMask, 6, 0}, {aclOther, 4, 0}}), 0))
	src, dst := open(t, dir+"/from", dir+"/to")
	o := Archive()
	o.ACLs = true
	_, err := Sync(t.Context(), calling{src}, dst, o)
	must(t, err)
	if got := dressed(t, dir+"/to")["f"]; !strings.HasSuffix(got, "access=1:6,2.1:4,4:4,8.7:6,16:6,32:4,") {
		t.Errorf("by name: %s", got)
	}
	o.NumericIDs = true
	_, err = Sync(t.Context(), calling{src}, dst, o)
	must(t, err)
	if got := dressed(t, dir+"/to")["f"]; !strings.HasSuffix(got, "access=1:6,2.4711:4,4:4,8.4712:6,16:6,32:4,") {
		t.Errorf("by number: %s", got)
	}
}

// calling is a source where daemon is 4711 and the group lp is 4712.
type calling struct{ Source }

func (c calling) Walk(ctx context.Context, o WalkOptions) iter.Seq2[Dir, error] {
	text := func(tag byte, id uint64, name string) []byte {
		return appendText(binary.AppendUvarint([]byte{tag}, id), name)
	}
	return func(yield func(Dir, error) bool) {
		for d, err := range c.Source.Walk(ctx, o) {
			for i := range d.Entries {
				d.Entries[i].Xattrs = insertXattr(d.Entries[i].Xattrs, aclNames, string(append(text(aclUser, 4711, "daemon"), text(aclGroup, 4712, "lp")...)))
			}
			if !yield(d, err) {
				return
			}
		}
	}
}

func FuzzXattrs(f *testing.F) {
	f.Add(AppendXattr(AppendXattr(nil, aclAccess, encodeACL([]aclEntry{{aclOwner, 7, 0}, {aclUser, 1, 9}})), "user.a", "1"), []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if CheckXattrs(string(a)) != nil || CheckXattrs(string(b)) != nil {
			return
		}
		// Doing what besides says to the one list makes it the other.
		now := maps.Collect(Xattrs(string(a)))
		for name, value := range besides(string(a), string(b)) {
			if value == nil {
				delete(now, name)
			} else {
				now[name] = string(*value)
			}
		}
		if !maps.Equal(now, maps.Collect(Xattrs(string(b)))) {
			t.Errorf("%q to %q: %q", a, b, now)
		}
		if plain, acls := xattrsDiffer(string(a), string(a)); plain || acls {
			t.Errorf("%q differs from itself", a)
		}
		for _, value := range maps.Collect(Xattrs(string(a))) {
			id := func(id uint32) uint32 { return id }
			if once, ok := mapACL(value, id, id); ok {
				if twice, ok := mapACL(once, id, id); !ok || once != twice {
					t.Errorf("%q is %q, then %q", value, once, twice)
				}
			}
		}
	})
}
