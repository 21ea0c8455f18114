package rsyncx

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/rsyncx/filter"
)

// TestLocalWalkInPieces walks trees whose directories come in pieces, and puts them
// together: nothing is missing, twice or out of order.
func TestLocalWalkInPieces(t *testing.T) {
	dir := tempDir(t)
	bushy(t, rand.New(rand.NewPCG(3, 0)), dir, 600)
	for i := range 100 {
		write(t, fmt.Sprintf("%s/m0/f%03d", dir, i), "")
		write(t, fmt.Sprintf("%s/m0/d%03d/x", dir, i), "")
	}
	src, dst := open(t, dir, dir)
	dst.Close()
	for name, o := range map[string]WalkOptions{
		"all": {}, "filtered": {Filter: excludes(t, "*0", "/m0/d01*", "f05*")}, "flat": {Flat: true}, "one": {Only: []string{"m0/d003"}},
		"some": {Only: []string{"m0/d003", "m0/d004", "m0/d005", "m0/d006/x", "m0/f001", "m0/f002", "m0/missing"}},
	} {
		src.(*local).long = 0
		want := walked(t, src, o)
		slices.SortStableFunc(want, func(a, b string) int { // what could not be read first
			return strings.Compare(a[:1], b[:1]) * -1
		})
		for _, long := range []int{1, 2, 3, 7, 50} {
			src.(*local).long = long
			got := together(t, src, o, long)
			if !slices.Equal(got, want) {
				t.Errorf("%s in pieces of %d:\n%s\nwant\n%s", name, long, without(got, want), without(want, got))
			}
		}
		for n := range 20 { // left early, with nothing left open
			before := openFiles(t)
			for range src.Walk(t.Context(), o) {
				if n--; n < 0 {
					break
				}
			}
			if after := openFiles(t); after != before {
				t.Fatalf("%s: %d descriptors are open, %d were", name, after, before)
			}
		}
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(all)
}

// together is walked with the pieces put together.
func together(t *testing.T, src Source, o WalkOptions, most int) []string {
	t.Helper()
	var lines, failed []string
	last := Piece{}
	for d, err := range src.Walk(t.Context(), o) {
		var single *PathError
		if errors.As(err, &single) {
			failed = append(failed, "cannot read "+single.Path)
			continue
		}
		must(t, err)
		p := d.Piece()
		if p.After != last.Upto || p.After != "" && p.Path != last.Path || len(d.Entries) > most {
			t.Fatalf("%d entries of %+v came after %+v", len(d.Entries), p, last)
		}
		if last = p; !isDir(&d.Self) {
			t.Errorf("%+v is itself %+v", p, d.Self)
		}
		must(t, checkDir(&d))
		line := ""
		for _, e := range d.Entries {
			line += " " + e.Name
		}
		if p.After == "" {
			line = "/" + d.Path + ":" + line
		} else {
			line, lines = lines[len(lines)-1]+line, lines[:len(lines)-1]
		}
		if d.Partial && d.Upto == "" {
			line += " …"
		}
		lines = append(lines, line)
	}
	if last.Upto != "" {
		t.Errorf("the walk ended with %+v", last)
	}
	return append(failed, lines...)
}

// pieceVariants are options that look at more than one entry at a time.
func pieceVariants(t *testing.T) []variant {
	perDirectory := func(o *Options) {
		b := filter.NewBuilder()
		must(t, b.Filter(":- .rules"))
		must(t, b.Exclude("*.tmp"))
		o.Filter = rules(t, b)
	}
	return append([]variant{
		{set: func(o *Options) { o.Delete, o.DeleteLimited, o.DeleteUpTo = true, true, 3 }},
		{set: func(o *Options) { o.Delete, o.Fuzzy = true, true }},
		{set: func(o *Options) { o.Delete, o.PruneEmpty = true, true }, exclude: "*.o"},
		{set: func(o *Options) { o.Delete, o.DeleteAfter = true, true; perDirectory(o) }},
		{set: func(o *Options) { o.Delete = true; perDirectory(o) }},
		{set: func(o *Options) { o.Delete, o.Backup = true, true }},
		{set: func(o *Options) { o.Delete, o.DeleteBefore = true, true }},
		{set: func(o *Options) { o.Explain = true }, exclude: "*.o"},
		{set: func(o *Options) { o.Existing, o.Renames = true, true }},
		{set: func(o *Options) { o.Delete, o.HardLinks = true, true }, hard: true, exclude: "a"},
		{set: func(o *Options) { o.Delete, o.Only = true, []string{"a", "b", "d/a", "d/b", "e.tmp"} }},
	}, variants...)
}

// TestPiecesMakeNoDifference syncs trees whose directories are long on either side, on
// both or on none: everything that is said, counted and done is the same.
func TestPiecesMakeNoDifference(t *testing.T) {
	all := pieceVariants(t)
	for i := range 3 * len(all) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			comparePieces(t, uint64(i), all[i%len(all)])
		})
	}
}

func comparePieces(t *testing.T, seed uint64, v variant) {
	dir := tempDir(t)
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	mkdirs(t, from)
	r := &randomTree{Rand: rand.New(rand.NewPCG(seed, 7)), t: t, root: os.Geteuid() == 0, hard: v.hard}
	r.make(from, 2)
	write(t, from+"/.rules", "*.o\nd\n") // where a variant asks for it
	if seed%2 == 0 {                     // much is the same, or little
		mkdirs(t, to)
		r.make(to, 2)
	} else {
		copyTree(t, from, to)
		spoil(r.Rand, t, to)
	}
	o := Archive()
	v.set(&o)
	if v.exclude != "" && o.Filter == nil {
		o.Filter = excludes(t, strings.Fields(v.exclude)...)
	}
	type result struct {
		lines, other []string
		stats        Stats
		tree         map[string]string
	}
	run := func(long [2]int, digests, dry bool) result {
		at := to
		if !dry {
			at = filepath.Join(dir, fmt.Sprint("to", long, digests))
			copyTree(t, to, at)
		}
		src, dst := open(t, from, at)
		src.(*local).long, dst.long = long[0], long[1]
		if digests {
			src = &digesting{Source: src, now: time.Now()}
		}
		var events eventLog
		o.Event, o.DryRun = events.add, dry
		stats, err := Sync(t.Context(), src, dst, o)
		if err != nil {
			t.Fatalf("%v, digests %v: %v", long, digests, err)
		}
		got := result{lines: events.lines, stats: stats, tree: steady(o, nil, snapshot(t, at))}
		for _, e := range events.other {
			got.other = append(got.other, fmt.Sprint(e.Kind, " ", e.Name, " ", e.Text))
		}
		return got
	}
	for _, dry := range []bool{true, false} {
		want := run([2]int{0, 0}, false, dry)
		for _, long := range [][2]int{{3, 0}, {0, 3}, {2, 3}, {1, 1}, {4, 2}} {
			for _, digests := range []bool{false, true} {
				got := run(long, digests, dry)
				what := fmt.Sprintf("seed %d, pieces of %v, digests %v, dry %v", seed, long, digests, dry)
				if !slices.Equal(got.lines, want.lines) || !slices.Equal(got.other, want.other) {
					t.Errorf("%s: said\n%s\n%s\nwant\n%s\n%s", what, strings.Join(got.lines, "\n"), strings.Join(got.other, "\n"), strings.Join(want.lines, "\n"), strings.Join(want.other, "\n"))
				}
				if !reflect.DeepEqual(got.stats, want.stats) {
					t.Errorf("%s: counted\n%+v, want\n%+v", what, got.stats, want.stats)
				}
				sameTree(t, what, got.tree, want.tree)
			}
		}
	}
}

func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
}

// TestHostilePieces: nothing changes when the pieces of a directory are not one
// after the other and whole, so that nothing seems to be gone that is not.
func TestHostilePieces(t *testing.T) {
	piece := func(path, after, upto string, entries ...Entry) Dir {
		d := listing(path, entries...)
		d.After, d.Upto = after, upto
		return d
	}
	first := piece("", "", "m", fileEntry("a", 4), dirEntry("d"))
	for name, dirs := range map[string][]Dir{
		"no first piece":     {piece("", "m", "")},
		"no last piece":      {first},
		"a gap":              {first, piece("", "n", "")},
		"twice":              {first, first},
		"another directory":  {first, piece("d", "m", "")},
		"a directory inside": {first, listing("d"), piece("", "m", "")},
		"after the end":      {listing(""), piece("", "m", "")},
		"backwards":          {piece("", "", "m"), piece("", "m", "l")},
		"nowhere":            {piece("", "", "m"), piece("", "m", "m")},
		"a name before":      {first, piece("", "m", "", fileEntry("b", 4))},
		"the name before":    {first, piece("", "m", "", fileEntry("m", 4))},
		"a name behind":      {piece("", "", "m", fileEntry("n", 4))},
		"no name":            {piece("", "", "a/b")},
	} {
		t.Run(name, func(t *testing.T) {
			dir, dst := victim(t)
			before := snapshot(t, dir)
			if _, err := Sync(t.Context(), &fake{dirs: dirs, files: evil}, dst, sceneOptions()); err == nil {
				t.Error("no error")
			}
			sameTree(t, name, rootless(snapshot(t, dir)), rootless(before))
		})
	}
}

// TestLongNames looks at the names themselves.
func TestLongNames(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var all longNames
	seen := map[string]uint8{}
	for range 200_000 {
		name := make([]byte, 1+r.IntN(1+r.IntN(20)))
		for i := range name {
			name[i] = byte('a' + r.IntN(3))
		}
		if r.IntN(1000) == 0 {
			name = []byte(strings.Repeat(string(name), maxName)[:maxName])
		}
		all.add(name, 4+uint8(len(name)%2)*4)
		seen[string(name)] = 4 + uint8(len(name)%2)*4
	}
	all.sort()
	if len(all.chunks) < 2 || all.len() != len(seen) {
		t.Fatalf("%d names in %d chunks, want %d", all.len(), len(all.chunks), len(seen))
	}
	last := ""
	for i, d := range all.span(0, all.len()) {
		if d.name <= last || d.kind != seen[d.name] || string(all.name(i)) != d.name {
			t.Fatalf("%q of kind %d after %q", d.name, d.kind, last)
		}
		if all.past(last) != i || all.upTo(d.name) != i+1 || all.past(d.name+"\x01") != i+1 {
			t.Fatalf("%q is the %d: %d %d %d", d.name, i, all.past(last), all.upTo(d.name), all.past(d.name+"\x01"))
		}
		last = d.name
	}
	if all.upTo("") != all.len() || all.past("zzz") != all.len() {
		t.Error("what lies behind all names")
	}
}
