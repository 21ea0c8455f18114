package rsyncx

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx/filter"
)

// variant is one set of options, for both programs.
type variant struct {
	args    []string
	set     func(*Options)
	exclude string
	hard    bool
	loose   bool // itemized lines are not compared
}

var variants = []variant{
	{args: []string{"-a", "--del"}, set: func(o *Options) { o.Delete = true }},
	{args: []string{"-a", "--del"}, set: func(o *Options) { o.Delete = true }, exclude: "*.o\n/a/\n- b/d\n+ d/*.tmp\n*.tmp\n#x\n"},
	{args: []string{"-a"}, set: func(o *Options) {}},
	{args: []string{"-aH", "--del"}, set: func(o *Options) { o.Delete, o.HardLinks = true, true }, hard: true, loose: true},
	{args: []string{"-ac", "--del"}, set: func(o *Options) { o.Delete, o.Checksum = true, true }},
	{args: []string{"-aI", "--del"}, set: func(o *Options) { o.Delete, o.IgnoreTimes = true, true }},
	{args: []string{"-a", "--size-only"}, set: func(o *Options) { o.SizeOnly = true }},
	{args: []string{"-rl", "--del"}, set: func(o *Options) { *o = Options{Links: true, Delete: true} }},
	{args: []string{"-rtp"}, set: func(o *Options) { *o = Options{Times: true, Perms: true} }},
	{args: []string{"-rtog", "--specials", "--del"}, set: func(o *Options) {
		*o = Options{Times: true, Owner: true, Group: true, Specials: true, Delete: true}
	}},
}

// TestAsRsync syncs random trees with rsync and with this package and compares
// the trees and what both say about them.
func TestAsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	testenv.RequireRoot(t)
	for i := range 120 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			compareWithRsync(t, uint64(i), variants[i%len(variants)])
		})
	}
}

func compareWithRsync(t *testing.T, seed uint64, v variant) {
	dir := tempDir(t)
	from, to, to2 := filepath.Join(dir, "from"), filepath.Join(dir, "to"), filepath.Join(dir, "to2")
	mkdirs(t, from, to, to2)
	for i, d := range []string{from, to, to2} {
		r := &randomTree{Rand: rand.New(rand.NewPCG(seed, uint64(min(i, 1)))), t: t, root: true, hard: v.hard}
		r.make(d, 2)
	}
	o := Archive()
	v.set(&o)
	args := append([]string{"-i", "--modify-window=-1"}, v.args...)
	if v.exclude != "" {
		list := filepath.Join(dir, "excludes")
		write(t, list, v.exclude)
		args = append(args, "--exclude-from="+list)
		b := filter.NewBuilder()
		if err := b.ExcludeFrom("excludes", strings.NewReader(v.exclude), false); err != nil {
			t.Fatal(err)
		}
		o.Filter = rules(t, b)
	}
	want := runRsync(t, append(args, from+"/", to+"/"))

	before := snapshot(t, to2)
	var events eventLog
	o.Event = events.add
	src, dst := open(t, from, to2)
	dry := o
	dry.DryRun = true
	if _, err := Sync(t.Context(), src, dst, dry); err != nil {
		t.Fatal(err)
	}
	sameTree(t, "after a dry run", snapshot(t, to2), before)
	pretended := events.take()
	stats, err := Sync(t.Context(), src, dst, o)
	if err != nil {
		t.Fatal(err)
	}
	got := events.take()
	if !slices.Equal(pretended, got) {
		t.Errorf("the dry run said\n%s\nthe run\n%s", strings.Join(pretended, "\n"), strings.Join(got, "\n"))
	}
	sameTree(t, "as rsync", steady(o, before, snapshot(t, to2)), steady(o, before, snapshot(t, to)))
	if _, err := os.Lstat(filepath.Join(to2, stateDir)); !os.IsNotExist(err) {
		t.Errorf("%s was left: %v", stateDir, err)
	}
	if !v.loose && !slices.Equal(blurred(got, want), blurred(want, got)) {
		t.Errorf("said alone\n%s\nrsync said alone\n%s", without(got, want), without(want, got))
	}
	if stats.Unreadable+stats.Torn+stats.Vanished > 0 {
		t.Errorf("counted %+v", stats)
	}
}

// blurred takes the owner letters out of lines that the other has not: rsync
// looks again at setuid files after it gave them away, and then sees no difference.
func blurred(lines, others []string) []string {
	lines = slices.Clone(lines)
	for i, l := range lines {
		if l[0] == '.' && !slices.Contains(others, l) {
			lines[i] = l[:6] + ".." + l[8:]
		}
	}
	return lines
}

func without(lines, others []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return slices.Contains(others, l) }), "\n")
}

// steady takes out the modification times of the run, and the modes that
// rsync without -p takes from what stood in a new name's place.
func steady(o Options, before, tree map[string]string) map[string]string {
	for name, text := range tree {
		parts := strings.SplitN(text, " ", 4)
		if sec, _, _ := strings.Cut(parts[2], "."); len(sec) == 10 && sec > "17" {
			parts[2] = "now"
		}
		if old := before[name]; !o.Perms && old != "" && old[:3] != text[:3] {
			parts[0] = parts[0][:3]
		}
		tree[name] = strings.Join(parts, " ")
	}
	return tree
}

func runRsync(t *testing.T, args []string) []string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("rsync", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && !strings.Contains(errs.String(), "could not make way") {
		t.Fatalf("rsync %q: %v\n%s", args, err, errs.String())
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		if len(line) > 11 && line[11] == ' ' && !strings.HasPrefix(line, "cannot delete") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

func rules(t testing.TB, b *filter.Builder) *filter.Rules {
	t.Helper()
	r, err := b.Rules(filter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// eventLog writes changes down as rsync prints them.
type eventLog struct {
	mu    sync.Mutex
	lines []string
	other []event.Event
}

func (l *eventLog) add(e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Kind != event.Change {
		if e.Kind != event.Progress {
			l.other = append(l.other, e)
		}
		return
	}
	line := e.Itemize + " " + rsyncEscape(e.Name)
	if e.Target != "" && e.Itemize[0] == 'h' {
		line += " => " + rsyncEscape(e.Target)
	} else if e.Target != "" {
		line += " -> " + rsyncEscape(e.Target)
	}
	l.lines = append(l.lines, line)
}

func (l *eventLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	slices.Sort(lines)
	return lines
}

// rsyncEscape is what rsync prints in the C locale.
func rsyncEscape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c < 0x20 && c != '\t' || c >= 0x7f {
			fmt.Fprintf(&b, `\#%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
