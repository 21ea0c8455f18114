package rsyncx

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
	"golang.org/x/sys/unix"
)

// TestNothingToDoNeedsNoWriting: a destination that cannot be written is as good as any
// when it is what it should be, and an error without any change told of when it is not.
func TestNothingToDoNeedsNoWriting(t *testing.T) {
	testenv.RequireRoot(t)
	dir := tempDir(t)
	write(t, dir+"/from/d/f", "content")
	write(t, dir+"/from/g", "more")
	mkdirs(t, dir+"/to")
	mount(t, "-t", "tmpfs", "none", dir+"/to")
	src, dst := open(t, dir+"/from", dir+"/to")
	o := Archive()
	o.Delete = true
	_, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	must(t, unix.Mount("", dir+"/to", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	var told []string
	o.Event = func(e event.Event) {
		if e.Kind == event.Change {
			told = append(told, e.Name)
		}
	}
	for _, o.DeleteBefore = range []bool{false, true} {
		if _, err := Sync(t.Context(), src, dst, o); err != nil {
			t.Errorf("nothing to do, DeleteBefore %v: %v", o.DeleteBefore, err)
		}
	}
	o.DeleteBefore = false
	staged, err := Stage(t.Context(), src, dst, o)
	must(t, err)
	must(t, errors.Join(staged.Sync(), staged.Publish(t.Context()), staged.Discard()))

	for name, change := range map[string]func(){
		"content": func() { write(t, dir+"/from/g", "other content") },
		"a time":  func() { setMtime(t, dir+"/from/g", 5) },
		"gone":    func() { must(t, os.Remove(dir+"/from/d/f")) },
	} {
		change()
		for _, o.DeleteBefore = range []bool{false, true} {
			_, err := Sync(t.Context(), src, dst, o)
			var shut *UnwritableError
			if !errors.As(err, &shut) || !errors.Is(err, unix.EROFS) || !strings.Contains(hint.Of(err), stateDir) {
				t.Errorf("%s, DeleteBefore %v: %v (%s)", name, o.DeleteBefore, err, hint.Of(err))
			}
		}
	}
	if len(told) > 0 {
		t.Errorf("told of changes that were not made: %q", told)
	}
}
