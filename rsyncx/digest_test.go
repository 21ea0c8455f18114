package rsyncx

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func digest(t *testing.T, o DigestOptions, entries ...Entry) DirDigest {
	t.Helper()
	d, ok := DigestEntries(entries, o)
	if !ok {
		t.Fatal("no digest")
	}
	return d
}

// TestDigestCovers changes one fact after the other: the digest changes exactly
// when an option covers the fact.
func TestDigestCovers(t *testing.T) {
	all := DigestOptions{Perms: true, Owner: true, Group: true, Times: true, Nanoseconds: true}
	file := Entry{Name: "f", Mode: unix.S_IFREG | 0o644, Size: 5, Mtime: Time{10, 20}, UID: 7, GID: 8, User: "u", Group: "g", Nlink: 1, Ino: 3, Dev: 4}
	link := Entry{Name: "f", Mode: unix.S_IFLNK | 0o777, Size: 1, Mtime: Time{10, 20}, Target: "t"}
	node := Entry{Name: "f", Mode: unix.S_IFCHR | 0o600, Rdev: 9}
	dir := Entry{Name: "f", Mode: unix.S_IFDIR | 0o755, Size: 4096, Nlink: 3}
	never := func(*DigestOptions) {}
	for _, c := range []struct {
		what   string
		e      Entry
		change func(e *Entry)
		drop   func(o *DigestOptions) // after which it is not covered any more; nil: always is
	}{
		{"name", file, func(e *Entry) { e.Name = "g" }, nil},
		{"type", file, func(e *Entry) { e.Mode = unix.S_IFIFO | 0o644 }, nil},
		{"length", file, func(e *Entry) { e.Size++ }, nil},
		{"target", link, func(e *Entry) { e.Target = "u" }, nil},
		{"device", node, func(e *Entry) { e.Rdev++ }, nil},
		{"mode", file, func(e *Entry) { e.Mode ^= 0o4000 }, func(o *DigestOptions) { o.Perms = false }},
		{"user", file, func(e *Entry) { e.User = "v" }, func(o *DigestOptions) { o.Owner = false }},
		{"group", file, func(e *Entry) { e.Group = "v" }, func(o *DigestOptions) { o.Group = false }},
		{"unnamed user", node, func(e *Entry) { e.UID = 1 }, func(o *DigestOptions) { o.Owner = false }},
		{"unnamed group", node, func(e *Entry) { e.GID = 1 }, func(o *DigestOptions) { o.Group = false }},
		{"name in place of number", node, func(e *Entry) { e.UID, e.User = 1, "\x00\x00" }, func(o *DigestOptions) { o.Owner = false }},
		{"seconds", file, func(e *Entry) { e.Mtime.Sec-- }, func(o *DigestOptions) { o.Times = false }},
		{"nanoseconds", file, func(e *Entry) { e.Mtime.Nsec++ }, func(o *DigestOptions) { o.Nanoseconds = false }},
		{"time of a link", link, func(e *Entry) { e.Mtime.Sec-- }, func(o *DigestOptions) { o.Times = false }},
		{"time of a link, left out", link, func(e *Entry) { e.Mtime.Sec-- }, func(o *DigestOptions) { o.OmitLinkTimes = true }},
		{"time of a directory", dir, func(e *Entry) { e.Mtime.Sec-- }, func(o *DigestOptions) { o.OmitDirTimes = true }},
		{"number of a named user", file, func(e *Entry) { e.UID = 9 }, never},
		{"name of root", node, func(e *Entry) { e.User, e.Group = "root", "wheel" }, never},
		{"length of a directory", dir, func(e *Entry) { e.Size, e.Nlink = 8192, 9 }, never},
		{"mode and length of a link", link, func(e *Entry) { e.Mode, e.Size = unix.S_IFLNK|0o755, 9 }, never},
		{"inode", file, func(e *Entry) { e.Ino, e.Dev = 9, 9 }, never},
	} {
		o := all
		changed := c.e
		c.change(&changed)
		if c.drop != nil {
			c.drop(&o)
			if digest(t, o, c.e) != digest(t, o, changed) {
				t.Errorf("%s: covered by %+v", c.what, o)
			}
		}
		if c.drop == nil || o != all {
			if digest(t, all, c.e) == digest(t, all, changed) {
				t.Errorf("%s: not covered", c.what)
			}
		}
	}
}

func TestDigestOwnersByNumber(t *testing.T) {
	o := DigestOptions{Owner: true, NumericIDs: true}
	a, b := Entry{Name: "f", UID: 7, User: "u"}, Entry{Name: "f", UID: 8, User: "u"}
	if digest(t, o, a) == digest(t, o, b) {
		t.Error("the number is not covered")
	}
	b = Entry{Name: "f", UID: 7, User: "other"}
	if digest(t, o, a) != digest(t, o, b) {
		t.Error("the name is covered")
	}
}

func TestDigestTellsDirectoriesApart(t *testing.T) {
	e := func(name string) Entry { return Entry{Name: name, Mode: unix.S_IFREG} }
	seen := map[DirDigest]string{}
	for _, names := range []string{"", "a", "ab", "a\x00", "abc"} {
		var entries []Entry
		for _, n := range names {
			entries = append(entries, e(string(n)))
		}
		d := digest(t, DigestOptions{}, entries...)
		if other, ok := seen[d]; ok {
			t.Errorf("%q and %q have one digest", names, other)
		}
		seen[d] = names
	}
	if digest(t, DigestOptions{}, e("ab")) == digest(t, DigestOptions{}, e("a"), e("b")) {
		t.Error("names run into each other")
	}
	if digest(t, DigestOptions{}) == digest(t, DigestOptions{Times: true}) {
		t.Error("the options are not covered")
	}
}

func TestDigestRefusesHardLinks(t *testing.T) {
	dir := Entry{Name: "d", Mode: unix.S_IFDIR, Nlink: 5}
	file := Entry{Name: "f", Mode: unix.S_IFREG, Nlink: 2}
	for _, c := range []struct {
		e    Entry
		hard bool
		want bool
	}{{dir, true, true}, {file, true, false}, {file, false, true}} {
		if _, ok := DigestEntries([]Entry{c.e}, DigestOptions{HardLinks: c.hard}); ok != c.want {
			t.Errorf("%s with HardLinks %v: %v, want %v", c.e.Name, c.hard, ok, c.want)
		}
	}
}

func TestRacyEntries(t *testing.T) {
	now := time.Unix(1000, 500)
	for _, c := range []struct {
		mode uint32
		when Time
		want bool
	}{
		{unix.S_IFREG, Time{998, 499}, false},
		{unix.S_IFREG, Time{998, 500}, true},
		{unix.S_IFREG, Time{1000, 0}, true},
		{unix.S_IFREG, Time{5000, 0}, true},
		{unix.S_IFDIR, Time{1000, 0}, false},
	} {
		if got := RacyEntries([]Entry{{Mode: c.mode, Mtime: c.when}}, now); got != c.want {
			t.Errorf("%#o of %v: %v, want %v", c.mode, c.when, got, c.want)
		}
	}
}

func BenchmarkDigestEntries(b *testing.B) {
	entries := make([]Entry, 100)
	for i := range entries {
		entries[i] = Entry{Name: "a-file-of-usual-length", Mode: unix.S_IFREG | 0o644, Size: 4711, Mtime: Time{1e9, 5}, UID: 1000, GID: 1000, User: "user", Group: "group"}
	}
	o := DigestOptions{Perms: true, Owner: true, Group: true, Times: true, Nanoseconds: true}
	b.ReportAllocs()
	for b.Loop() {
		DigestEntries(entries, o)
	}
}
