package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/cli"
)

// A run that a signal ends says so once, and copies nothing.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "S"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "S/f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	var out, said bytes.Buffer
	status := Run(ctx, World{Out: &out, Err: &said, Dir: dir, Now: time.Now}, []string{"-a", "S/", "D"})
	if status != int(Signal) || !strings.Contains(said.String(), "(code 20)") {
		t.Errorf("%d %s", status, &said)
	}
	if _, err := os.Stat(filepath.Join(dir, "D")); err == nil {
		t.Error("it left the directory that it made")
	}
}

// What was not transferred counts more than what vanished, whatever comes first.
func TestWorse(t *testing.T) {
	for _, order := range [][]Status{{DeleteLimit, Vanished, Partial}, {Partial, Vanished, DeleteLimit}, {Vanished, Partial}} {
		r := &run{}
		for _, s := range order {
			r.worse(s)
		}
		if r.io != Partial {
			t.Errorf("%v: %d", order, r.io)
		}
	}
}

func TestStatusOf(t *testing.T) {
	remote := errors.New("remote")
	r := &run{World: World{Status: func(err error) int {
		if errors.Is(err, remote) {
			return 127
		}
		return 0
	}}}
	for _, c := range []struct {
		err  error
		want Status
	}{
		{fail(Selection, "x"), Selection}, {fmt.Errorf("wrapped: %w", usage(remote)), Usage}, {fmt.Errorf("wrapped: %w", remote), NoCommand},
		{rsyncx.ErrHostile, Protocol}, {errors.ErrUnsupported, Unsupported}, {rsyncx.ErrBusy, Selection}, {errors.New("disk"), FileIO},
	} {
		if got := r.statusOf(t.Context(), c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

// The rate holds on average, and what was not used for long is not made up for.
func TestRate(t *testing.T) {
	now := time.Unix(1000, 0)
	r := &rate{perSecond: 1000, now: func() time.Time { return now }}
	if wait := r.owe(1000); wait > 0 { // the first second is free
		t.Errorf("the first second costs %v", wait)
	}
	if wait := r.owe(500); wait != 500*time.Millisecond {
		t.Errorf("half a second's worth costs %v", wait)
	}
	now = now.Add(time.Hour)
	if wait := r.owe(3000); wait != 2*time.Second {
		t.Errorf("three seconds' worth after an hour cost %v", wait)
	}
}

func TestOperands(t *testing.T) {
	for _, c := range []struct {
		args []string
		want []operand
		dest string
	}{
		{[]string{"a", "b"}, []operand{{path: "a"}}, "b"},
		{[]string{"a"}, []operand{{path: "a"}}, ""},
		{[]string{"u@h:a/", ":b", "c"}, []operand{{remote: true, host: "h", user: "u", path: "a/"}, {remote: true, host: "h", user: "u", path: "b"}}, "c"},
		{[]string{"h:", "."}, []operand{{remote: true, host: "h"}}, "."},
		{[]string{"./a:b", "c/d:e", "."}, []operand{{path: "./a:b"}, {path: "c/d:e"}}, "."},
		{[]string{"[::1]:/a", "."}, []operand{{remote: true, host: "::1", path: "/a"}}, "."},
		{[]string{"u@[fe80::1]:a:b", "."}, []operand{{remote: true, host: "fe80::1", user: "u", path: "a:b"}}, "."},
		{[]string{"a@b.c@h:x", "."}, []operand{{remote: true, host: "h", user: "a@b.c", path: "x"}}, "."},
	} {
		got, dest, err := operands(c.args)
		if err != nil || dest != c.dest || !slices.Equal(got, c.want) {
			t.Errorf("%q: %+v %q %v", c.args, got, dest, err)
		}
	}
	for _, bad := range [][]string{{":a", "b"}, {"-oProxyCommand=x:a", "b"}, {"h:a", "g:b", "."}, {"a", "h:b", "."}} {
		if got, _, err := operands(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestOnly(t *testing.T) {
	if got := only([]string{"b", "a-", "a/x", "a", "b", "a/x/y"}, false); !slices.Equal(got, []string{"a", "a-", "b"}) {
		t.Errorf("%q", got)
	}
	if got := only([]string{"b", "a-", "a/x", "a"}, true); !slices.Equal(got, []string{"a", "a/x", "a-", "b"}) {
		t.Errorf("flat: %q", got)
	}
}

// Several bases are one tree: the first has a name, directories become one, and a
// directory comes before what is none.
func TestMerged(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"1/a": "1", "1/d/x": "1", "1/n": "1", "2/a": "2", "2/d/y": "2", "2/n/in": "2", "2/z": "2"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	var parts []part
	for _, base := range []string{"1", "2"} {
		src, err := rsyncx.Local(filepath.Join(dir, base))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part{Source: src})
	}
	m := newMerged(parts)
	defer m.Close()
	var names []string
	var files []rsyncx.Want
	for d, err := range m.Walk(t.Context(), rsyncx.WalkOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range d.Entries {
			names = append(names, below(d.Path, d.Entries[i].Name))
			if isRegular(&d.Entries[i]) {
				files = append(files, rsyncx.Want{Path: names[len(names)-1], Size: -1})
			}
		}
	}
	if want := []string{"a", "d", "n", "z", "d/x", "d/y", "n/in"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	got := map[string]string{}
	files = append(files, rsyncx.Want{Path: "nope"})
	for f, err := range m.Read(t.Context(), slices.Values(files)) {
		if err != nil {
			t.Fatal(err)
		}
		if f.Err != nil {
			got[f.Path] = "missing"
			continue
		}
		var text bytes.Buffer
		if _, err := text.ReadFrom(f.Body); err != nil {
			t.Fatal(err)
		}
		got[f.Path] = text.String()
	}
	for path, want := range map[string]string{"a": "1", "d/x": "1", "d/y": "2", "n/in": "2", "z": "2", "nope": "missing"} {
		if got[path] != want {
			t.Errorf("%s: %q, want %q", path, got[path], want)
		}
	}
}

// A guard that refuses the source ends with rsync's status for stopped deletions,
// a line that says which and one that says what to do, and nothing is changed.
func TestGuards(t *testing.T) {
	for _, c := range []struct{ option, said string }{
		{"--source-marker=MARK", "the source has no MARK"}, {"--min-entries=10", "fewer than the 10"}, {"--max-delete-fraction=10", "more than the allowed 10 %"},
		{"--same-source", "another directory than the last time"},
	} {
		t.Run(c.option, func(t *testing.T) {
			dir := t.TempDir()
			for _, sub := range []string{"first", "second", "D"} {
				if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 40 {
				if err := os.WriteFile(filepath.Join(dir, "D", fmt.Sprint(i)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			do := func(args ...string) (int, string) {
				var said bytes.Buffer
				return Run(t.Context(), World{Out: &said, Err: &said, Dir: dir, Now: time.Now}, args), said.String()
			}
			if c.option == "--same-source" {
				if status, said := do("-r", "--new-source", "first/", "D"); status != 0 {
					t.Fatalf("%d %s", status, said)
				}
			}
			status, said := do("-r", "--del", c.option, "second/", "D")
			lines := strings.Split(strings.TrimSpace(said), "\n")
			if status != 25 || len(lines) != 3 || !strings.Contains(lines[0], c.said) || !strings.Contains(lines[2], "refused") {
				t.Errorf("%d %s", status, said)
			}
			if _, err := os.Stat(filepath.Join(dir, "D/7")); err != nil {
				t.Errorf("it deleted: %v", err)
			}
		})
	}
}

// The limit of the line goes to whoever makes the line.
func TestBandwidthIsPassedOn(t *testing.T) {
	var got int64
	Run(t.Context(), World{Out: io.Discard, Err: io.Discard, Dir: t.TempDir(), Now: time.Now, Dial: func(_ context.Context, to Remote) (Host, error) {
		got = to.BytesPerSecond
		return nil, errors.New("no")
	}}, []string{"-a", "--bwlimit=3m", "host:a/", "b"})
	if got != 3<<20 {
		t.Errorf("%d bytes a second", got)
	}
}

// With -q nothing is printed but what is wrong.
func TestQuiet(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-aqv", "--stats", "f", "g"}, {"-aq", "--progress", "-i", "f", "h/"}, {"-q", "--list-only", "f"}} {
		var out, said bytes.Buffer
		if status := Run(t.Context(), World{Out: &out, Err: &said, Dir: dir, Now: time.Now}, args); status != 0 || out.Len()+said.Len() > 0 {
			t.Errorf("%q: %d %s%s", args, status, &out, &said)
		}
	}
}

// asking is a source that asks Same for every directory it is told of.
type asking struct {
	rsyncx.Source
	dirs []string
	same []string // those of which Same said so
}

func (a *asking) Abilities() rsyncx.Abilities { return rsyncx.Abilities{Digests: true, Views: true} }

func (a *asking) Walk(_ context.Context, o rsyncx.WalkOptions) iter.Seq2[rsyncx.Dir, error] {
	return func(yield func(rsyncx.Dir, error) bool) {
		for _, dir := range a.dirs {
			d := rsyncx.Dir{Path: dir, Same: o.Same(rsyncx.Piece{Path: dir}, rsyncx.DirDigest{})}
			if d.Same {
				a.same = append(a.same, dir)
			}
			if !yield(d, nil) {
				return
			}
		}
	}
}

// Of several bases, a directory is compared by its digest when one alone has it.
func TestMergedDigests(t *testing.T) {
	a, b := &asking{dirs: []string{"", "x", "x/y", "z"}}, &asking{dirs: []string{"", "w", "z"}}
	m := newMerged([]part{{Source: a, only: []string{"x", "z"}}, {Source: b, only: []string{"w", "z"}}})
	if abilities := m.Abilities(); !abilities.Digests || !abilities.Views {
		t.Errorf("%+v", abilities)
	}
	for _, err := range m.Walk(t.Context(), rsyncx.WalkOptions{Same: func(rsyncx.Piece, rsyncx.DirDigest) bool { return true }}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(a.same, []string{"x", "x/y"}) || !slices.Equal(b.same, []string{"w"}) {
		t.Errorf("%q %q", a.same, b.same)
	}
}

// A long file shows how far it is while it is read, at most once a second, under
// its name, and the whole of it in the same line at the end.
func TestProgressUnderWay(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ option, start, end string }{
		{"--progress", "f\n\r", "(xfr#1, to-chk=0/1)\n"}, {"--info=progress2", "\r", "(xfr#1, to-chk=0/1)\n"}, {"-i", ">f+++++++++ f\n", ""},
	} {
		now := time.Unix(1000, 0)
		var mu sync.Mutex
		clock := func() time.Time { // a tenth of a second goes by whenever somebody looks
			mu.Lock()
			defer mu.Unlock()
			now = now.Add(100 * time.Millisecond)
			return now
		}
		var out, said bytes.Buffer
		status := Run(t.Context(), World{Out: &out, Err: &said, Dir: dir, Now: clock}, []string{"-r", c.option, "f", "g"})
		if err := os.Remove(filepath.Join(dir, "g")); err != nil || status != 0 {
			t.Fatalf("%d %v %s", status, err, &said)
		}
		text := out.String()
		under := strings.Count(text, "%") - strings.Count(text, "100%")
		if !strings.Contains(text, c.end) || !strings.Contains(text, c.start) || (under > 0) != (c.option != "-i") {
			t.Errorf("%s: %q", c.option, text)
		}
		if strings.Count(text, "\n") > 3 {
			t.Errorf("%s: more lines than one file has: %q", c.option, text)
		}
	}
}

// What is read of a file in parts shows where in the file it is.
func TestWatchedOffset(t *testing.T) {
	b := &watchedBody{size: 100, ranges: []rsyncx.Range{{Off: 10, Len: 5}, {Off: 50, Len: 20}}}
	for read, want := range map[int64]int64{0: 10, 3: 13, 5: 15, 6: 51, 25: 70, 30: 100} {
		if b.read = read; b.offset() != want {
			t.Errorf("%d read: %d, want %d", read, b.offset(), want)
		}
	}
}

// What is listed can be chosen, and what can be chosen is listed.
func TestListedSums(t *testing.T) {
	listed := map[rsyncx.SumKind]bool{}
	for _, name := range checksums {
		c, err := cli.ParseLine([]string{"-r", "--checksum-choice=" + name, "a", "b"})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		listed[c.Options.ChecksumKind] = true
	}
	for kind := rsyncx.SumKind(0); kind.Known(); kind++ {
		if !listed[kind] {
			t.Errorf("the sum %d is not listed", kind)
		}
	}
}

// The page about options names each one that is refused.
func TestRefusedOptionsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/rsync.md")
	if err != nil {
		t.Fatal(err)
	}
	_, refused, _ := strings.Cut(string(page), "Refused are")
	refused, _, _ = strings.Cut(refused, "\n* **")
	for line := range strings.Lines(cli.RefusedHelp()) {
		name, _, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
		name = strings.TrimSuffix(name, ",")
		name, _, _ = strings.Cut(name, "=")
		if !regexp.MustCompile("[` ]" + name + "[` =]").MatchString(refused) {
			t.Errorf("%s is not among the refused ones", name)
		}
	}
}
