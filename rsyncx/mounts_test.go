package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
	"golang.org/x/sys/unix"
)

// TestUnmountedIsRefused: a directory of the source that had a file system of its own
// and is empty now takes nothing away from the destination.
func TestUnmountedIsRefused(t *testing.T) {
	testenv.RequireRoot(t)
	dir := tempDir(t)
	write(t, dir+"/from/f", "f")
	mkdirs(t, dir+"/from/a/vol", dir+"/to")
	unmount := func() { must(t, unix.Unmount(dir+"/from/a/vol", unix.MNT_DETACH)) }
	remount := func() { must(t, unix.Mount("none", dir+"/from/a/vol", "tmpfs", 0, "")) }
	remount()
	t.Cleanup(func() { _ = unix.Unmount(dir+"/from/a/vol", unix.MNT_DETACH) })
	write(t, dir+"/from/a/vol/d/data", "data")
	src, dst := open(t, dir+"/from", dir+"/to")
	o := Archive()
	o.SameSource, o.Delete = true, true
	sync := func(o Options) error {
		t.Helper()
		_, err := Sync(t.Context(), src, dst, o)
		return err
	}
	must(t, sync(o))
	must(t, sync(o)) // what is remembered stays so
	before := snapshot(t, dir+"/to")
	unmount()
	for range 2 {
		err := sync(o)
		var guard *GuardError
		if !errors.As(err, &guard) || !strings.Contains(hint.Of(err), "mount") {
			t.Fatalf("unmounted: %v (%s)", err, hint.Of(err))
		}
		if err := CheckSource(t.Context(), src, dst, o); err == nil {
			t.Error("CheckSource accepts it")
		}
	}
	sameTree(t, "refused", snapshot(t, dir+"/to"), before)
	accept := o
	accept.NewSource, accept.DryRun = true, true
	must(t, sync(accept))
	if err := sync(o); err == nil {
		t.Error("a dry run remembers")
	}
	remount()
	write(t, dir+"/from/a/vol/d/data", "data")
	must(t, sync(o))
	unmount()
	accept.DryRun = false
	must(t, sync(accept))
	if _, err := os.Lstat(dir + "/to/a/vol/d"); err == nil {
		t.Error("what was accepted was not done")
	}
	must(t, sync(o)) // it is no mount point any more

	remount()
	write(t, dir+"/from/a/vol/new", "x")
	must(t, sync(o))
	unmount()
	write(t, dir+"/from/a/vol/below", "not empty")
	must(t, sync(o))
	must(t, os.RemoveAll(dir+"/from/a/vol/below"))
	must(t, sync(o)) // forgotten since
}

func TestMountTops(t *testing.T) {
	m := MountTops{}
	var tops []string
	for _, d := range []struct {
		path string
		dev  uint64
	}{{"", 1}, {"a", 1}, {"a/m", 2}, {"a/m/d", 2}, {"a/m/n", 3}, {"a/m/n/d", 3}, {"a/mm", 2}, {"b", 1}, {"c", 0}, {"m", 2}} {
		if m.Top(d.path, &Entry{Dev: d.dev}) {
			tops = append(tops, d.path)
		}
	}
	if want := []string{"a/m", "a/m/n", "a/mm", "m"}; !slices.Equal(tops, want) {
		t.Errorf("%q, want %q", tops, want)
	}
}

func TestMountsAreBounded(t *testing.T) {
	var m mounts
	for i := range 3 * maxMounts {
		m.add(fmt.Sprintf("%03d%s", i, strings.Repeat("/"+strings.Repeat("\xff", 249), 16)))
	}
	k := knownSource{ino: 7, mounts: m.paths}
	again, ok := parseKnownSource(string(k.text()))
	if !ok || len(k.text()) > maxSourceFile || len(m.paths) < 10 || again.ino != 7 || !slices.Equal(again.mounts, k.mounts) {
		t.Errorf("%d paths in %d bytes, read %v", len(m.paths), len(k.text()), ok)
	}
	m = mounts{}
	for i := range 3 * maxMounts {
		m.add(fmt.Sprint(i % (2 * maxMounts)))
	}
	if len(m.paths) != maxMounts || !slices.IsSorted(m.paths) {
		t.Errorf("%d paths", len(m.paths))
	}
}

func FuzzKnownSource(f *testing.F) {
	f.Add("1 5\nmount \"a/b\"\n")
	f.Add("1 5\nmount \"../b\"\n")
	for _, text := range []string{"1 42\n", "1 42", "2 42\n", "1 0\n", "1 18446744073709551616\n", "1 -1\n", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, ok := parseKnownSource(text)
		if !ok {
			return
		}
		if again, ok := parseKnownSource(string(k.text())); !ok || again.ino != k.ino || !slices.Equal(again.mounts, k.mounts) {
			t.Fatalf("%+v became %+v", k, again)
		}
	})
}

// far is a source whose connection breaks when a mount point is asked for.
type far struct{ Source }

var errLine = errors.New("the line broke")

func (f far) Lstat(ctx context.Context, path string) (Entry, error) {
	if path != "" {
		return Entry{}, errLine
	}
	return f.Source.Lstat(ctx, path)
}

func TestMountGuardNeedsTheSource(t *testing.T) {
	dir := tempDir(t)
	mkdirs(t, dir+"/from", dir+"/to")
	src, dst := open(t, dir+"/from", dir+"/to")
	s := &stager{src: far{src}, dst: dst}
	if err := s.stillMounted(t.Context(), &Entry{Dev: 1}, []string{"m"}); !errors.Is(err, errLine) {
		t.Errorf("a broken line: %v", err)
	}
}
