package rsyncx

import (
	"context"
	"iter"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx/filter"
)

// entered notes which directories a walk yields.
type entered struct {
	Source
	dirs []string
}

func (s *entered) Walk(ctx context.Context, o WalkOptions) iter.Seq2[Dir, error] {
	return func(yield func(Dir, error) bool) {
		for d, err := range s.Source.Walk(ctx, o) {
			if s.dirs = append(s.dirs, d.Path); !yield(d, err) {
				return
			}
		}
	}
}

// TestHiddenNamesAsRsync compares what is said of the names that rules hide, those of
// per-directory files among them. Hidden directories are not entered, and nothing of
// them comes over.
func TestHiddenNamesAsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	dir, src, dst := pair(t, map[string][]byte{"old.o": []byte("x")}, map[string][]byte{"a.o": nil, "b/c.o": nil, "b/kept": nil, "d/x/y": nil, "d/.rules": []byte("- x/\n+ *.o\n- z*\n"),
		"d/m.o": nil, "d/z1": nil, "e/f": nil, "e/g/h.o": nil, "old.o": nil})
	rule := []string{": .rules", "- *.o", "H /e/"}
	args := []string{"-avv"}
	b := filter.NewBuilder()
	for _, r := range rule {
		args = append(args, "-f", r)
		must(t, b.Filter(r))
	}
	out, err := exec.Command("rsync", append(args, dir+"/from/", dir+"/to2/")...).Output()
	must(t, err)
	var want, got []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "[sender] hiding") {
			line, _, _ = strings.Cut(line, " <rule from a file") // which rsync does not show
			want = append(want, strings.TrimSpace(line))
		}
	}
	watched := &entered{Source: src}
	o := Archive()
	o.Filter, o.Explain = rules(t, b), true
	o.Event = func(e event.Event) {
		if strings.HasPrefix(e.Text, SkipHidden) {
			line, _ := ExplainLine(e)
			if strings.Contains(line, " d/") {
				line, _, _ = strings.Cut(line, " because of pattern")
				line += " because of pattern"
			}
			got = append(got, line)
		}
	}
	_, err = Sync(t.Context(), watched, dst, o)
	must(t, err)
	if slices.Sort(got); len(want) < 5 || !slices.Equal(got, sorted(want)) {
		t.Errorf("said\n%s\nrsync\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if want := []string{"", "b", "d"}; !slices.Equal(watched.dirs, want) {
		t.Errorf("entered %q, want %q", watched.dirs, want)
	}
	sameTree(t, "as rsync", rootless(snapshot(t, dir+"/to")), rootless(snapshot(t, dir+"/to2")))
}
