package rsyncx

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"golang.org/x/sys/unix"
)

// xattrsListed walks and writes down the names of extended attributes by path,
// with the values that are text.
func xattrsListed(t testing.TB, src Source, o WalkOptions) map[string]string {
	t.Helper()
	all := map[string]string{}
	put := func(path string, e *Entry) {
		must(t, CheckXattrs(e.Xattrs))
		var parts []string
		for name, value := range Xattrs(e.Xattrs) {
			if name == aclNames {
				if _, ok := parseACLNames(value); !ok {
					t.Errorf("names %q", value)
				}
				continue
			}
			if strings.HasPrefix(name, "system.") {
				value = fmt.Sprint(len(value))
			}
			parts = append(parts, name+"="+value)
		}
		if parts != nil {
			all[path] = strings.Join(parts, " ")
		}
	}
	for d, err := range src.Walk(t.Context(), o) {
		must(t, err)
		put(d.Path+"/", &d.Self)
		for i := range d.Entries {
			put(joinPath(d.Path, d.Entries[i].Name), &d.Entries[i])
		}
	}
	return all
}

func TestLocalReadsXattrs(t *testing.T) {
	testenv.RequireRoot(t)
	testenv.Require(t, "setfacl")
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	write(t, dir+"/d/f", "f")
	write(t, dir+"/plain", "no attributes")
	write(t, dir+"/mode", "an access control list that says what the mode does")
	must(t, os.Symlink("d", dir+"/link"))
	must(t, unix.Mkfifo(dir+"/pipe", 0o644))
	for path, list := range map[string][]string{
		"":     {"user.top=1"},
		"d":    {"user.dir=2"},
		"d/f":  {"user.b=two", "user.a=", "trusted.t=root's", "user.rsync.%stat=rsync's own"},
		"link": {"trusted.link=yes"}, "pipe": {"trusted.pipe=yes"},
	} {
		for _, x := range list {
			name, value, _ := strings.Cut(x, "=")
			must(t, unix.Lsetxattr(dir+"/"+path, name, []byte(value), 0))
		}
	}
	for _, args := range [][]string{{"-m", "u:7:r", dir + "/d/f"}, {"-d", "-m", "g:8:rwx", dir + "/d"}, {"-m", "u::rw,g::r,o::r", dir + "/mode"}} {
		if out, err := exec.Command("setfacl", args...).CombinedOutput(); err != nil {
			t.Fatalf("setfacl %q: %v: %s", args, err, out)
		}
	}
	src, dst := open(t, dir, dir)
	dst.Close()
	plain := map[string]string{"/": "user.top=1", "d": "user.dir=2", "d/": "user.dir=2",
		"d/f": "trusted.t=root's user.a= user.b=two", "link": "trusted.link=yes", "pipe": "trusted.pipe=yes"}
	acls := map[string]string{"d": aclDefault + "=44", "d/": aclDefault + "=44", "d/f": aclAccess + "=44"}
	both := map[string]string{}
	for path, list := range plain {
		both[path] = strings.TrimSpace(acls[path] + " " + list)
	}
	users := map[string]string{"/": "user.top=1", "d": "user.dir=2", "d/": "user.dir=2", "d/f": "user.a= user.b=two"}
	sameTree(t, "none", xattrsListed(t, src, WalkOptions{}), nil)
	sameTree(t, "attributes", xattrsListed(t, src, WalkOptions{Xattrs: true}), plain)
	sameTree(t, "lists", xattrsListed(t, src, WalkOptions{ACLs: true}), acls)
	sameTree(t, "both", xattrsListed(t, src, WalkOptions{Xattrs: true, ACLs: true}), both)
	asNobody(t, func() { sameTree(t, "of a user", xattrsListed(t, src, WalkOptions{Xattrs: true}), users) })

	through, err := LocalView(dir, View{CopyLinks: true})
	must(t, err)
	defer through.Close()
	if got := xattrsListed(t, through, WalkOptions{Xattrs: true})["link"]; got != "user.dir=2" {
		t.Errorf("through a link: %s", got)
	}
	must(t, unix.Lsetxattr(dir+"/plain", "trusted.large", make([]byte, 3000), 0))
	if got := xattrsListed(t, src, WalkOptions{Xattrs: true})["plain"]; len(got) != 3000+len("trusted.large=") {
		t.Errorf("a large attribute: %d bytes", len(got))
	}
}

func TestRepeatsMode(t *testing.T) {
	entry := func(tag byte) string { return string([]byte{tag, 0, 6, 0, 255, 255, 255, 255}) }
	head := "\x02\x00\x00\x00"
	for acl, want := range map[string]bool{
		head + entry(0x01) + entry(0x04) + entry(0x20):                             true,
		head + entry(0x01) + entry(0x02) + entry(0x04) + entry(0x10) + entry(0x20): false,
		head + entry(0x01) + entry(0x04) + entry(0x08) + entry(0x10) + entry(0x20): false,
		"":     false,
		"\x02": false,
	} {
		if got := repeatsMode([]byte(acl)); got != want {
			t.Errorf("%q: %v", acl, got)
		}
	}
}

// TestLocalReportsXattrs looks that what cannot be read is no empty list.
func TestLocalReportsXattrs(t *testing.T) {
	var r xattrReader
	if _, err := r.held(-1, true, true); err == nil || errors.Is(err, unix.ENODATA) {
		t.Errorf("of nothing: %v", err)
	}
}
