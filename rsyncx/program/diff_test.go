// The differential tests: the real rsync and this program do the same in equal
// worlds, and what they leave and say is compared.
package program_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
)

func number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// bench prepares what all cases of one test share.
func bench(t testing.TB) (base string) {
	t.Helper()
	testenv.Require(t, "rsync")
	testenv.RequireRoot(t)
	base = memoryDir(t)
	if err := os.WriteFile(filepath.Join(base, "shell"), []byte(fakeShell), 0o755); err != nil {
		t.Fatal(err)
	}
	return base
}

func differences(ctx context.Context, base string, c diffCase, one, other runner) ([]string, error) {
	want, err := play(ctx, base, c, one)
	if err != nil {
		return nil, err
	}
	got, err := play(ctx, base, c, other)
	if err != nil {
		return nil, err
	}
	// What follows from the order in which its processes come to their work, rsync does
	// one way or another: any of them will do.
	for range 3 {
		if len(compare(c, want, got)) == 0 {
			return nil, nil
		}
		again, err := play(ctx, base, c, one)
		if err != nil {
			return nil, err
		}
		if len(compare(c, again, got)) == 0 {
			return nil, nil
		}
	}
	for _, o := range got {
		if o.exit != 0 && unsupported.MatchString(o.stderr) {
			return nil, fmt.Errorf("%w: %q: %s", errUnsupported, o.args, o.stderr)
		}
	}
	return compare(c, want, got), nil
}

// errUnsupported says that an option is not carried out yet.
var errUnsupported = errors.New("unsupported")

// check plays a case with both programs; if they differ, it makes the case
// smaller and reports it.
func check(t *testing.T, base string, c diffCase, other runner) {
	t.Helper()
	rsync := runCommand("rsync")
	diffs, err := differences(t.Context(), base, c, rsync, other)
	for range 9 {
		if !errors.Is(err, errUnsupported) {
			break
		}
		t.Log(err) // not built yet
		c = relax(c, err.Error())
		diffs, err = differences(t.Context(), base, c, rsync, other)
	}
	if errors.Is(err, errUnsupported) || errors.Is(err, errHung) {
		t.Log(err)
		return
	}
	if err != nil {
		t.Fatalf("%v\n--- case\n%s", err, c.text())
	}
	if len(diffs) == 0 {
		return
	}
	first := c
	c = shrink(c, time.Duration(number(t, "DRSYNC_DIFF_SHRINK", 20))*time.Second, func(c diffCase) bool {
		d, err := differences(t.Context(), base, c, rsync, other)
		return err == nil && len(d) > 0 && kindOf(d) == kindOf(diffs)
	})
	if d, err := differences(t.Context(), base, c, rsync, other); err == nil && len(d) > 0 {
		diffs = d
	}
	t.Errorf("%s%s\n--- case\n%s--- script\n%s", first.note, strings.Join(diffs, "\n"), c.text(), c.script())
}

// kindOf tells differences of one kind from others, so that shrinking does not
// wander from one to another.
func kindOf(diffs []string) string {
	d := diffs[0]
	switch {
	case strings.Contains(d, "exits"):
		return "exit"
	case strings.Contains(d, "says"):
		return "output"
	}
	return "tree"
}

// TestRsyncAsItself finds no difference between rsync and rsync: the cases and
// the comparison are steady.
func TestRsyncAsItself(t *testing.T) {
	base := bench(t)
	for i := range number(t, "DRSYNC_DIFF_SELF", 25) {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			check(t, base, newCase(uint64(i)), runCommand("rsync"))
		})
	}
}

// TestComparisonSees finds a difference between rsync and an rsync that was told
// something else.
func TestComparisonSees(t *testing.T) {
	base := bench(t)
	world := []node{
		{path: "from", kind: 'd', mode: 0o750, uid: 1, sec: 1_000_000_000},
		{path: "from/f", kind: 'f', mode: 0o640, gid: 7, sec: 1_000_000_000, nsec: 5, content: []segment{{kind: 't', text: "x"}}},
		{path: "from/h", kind: 'h', target: "from/f"},
		{path: "from/l", kind: 'l', target: "f", sec: 1_000_000_001},
		{path: "from/x", kind: 'f', mode: 0o644, sec: 1_000_000_000, xattrs: []xattr{{"user.a", "1"}, {aclAccess, acl([6]uint16{6, 5, 4, 4, 7, 4})}}},
		{path: "from/p", kind: 'p', mode: 0o644, sec: 1_000_000_000},
		{path: "to", kind: 'd', mode: 0o755, sec: 1_000_000_000},
		{path: "to/extra", kind: 'f', mode: 0o644, sec: 1_000_000_000},
	}
	c := diffCase{nodes: world, runs: []command{{opts: []string{"-aHAX", "-i", "--del"}, srcs: []string{"from/"}, dest: "to/"}}}
	for _, more := range []string{"--no-p", "--no-o", "--no-g", "--no-t", "--no-l", "--no-H", "--no-X", "--no-A", "--no-D", "--no-i", "-n", "--existing", "--max-delete=0", "--exclude=f", "-v", "--chmod=a+x"} {
		t.Run(more, func(t *testing.T) {
			t.Parallel()
			diffs, err := differences(t.Context(), base, c, runCommand("rsync"), runCommand("rsync", more))
			if strings.HasPrefix(more, "--no-") { // the later one wins
				other := func(ctx context.Context, dir string, args []string) (string, string, int, error) {
					return runCommand("rsync")(ctx, dir, append(args, more))
				}
				diffs, err = differences(t.Context(), base, c, runCommand("rsync"), other)
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(diffs) == 0 {
				t.Error("no difference was seen")
			}
		})
	}
}

// unsettled are the seeds, one in a line of a file, that are known to differ;
// whoever sets DRSYNC_DIFF_ALL meets them, too.
func unsettled(t *testing.T, file string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seeds := map[string]bool{}
	if os.Getenv("DRSYNC_DIFF_ALL") == "" {
		for _, seed := range strings.Fields(string(text)) {
			seeds[seed] = true
		}
	}
	return seeds
}

// TestAsRsync compares random cases.
func TestAsRsync(t *testing.T) {
	base := bench(t)
	differ := unsettled(t, "testdata/unsettled")
	first := number(t, "DRSYNC_DIFF_FIRST", 0)
	for i := range number(t, "DRSYNC_DIFF_CASES", 150) {
		if differ[strconv.Itoa(first+i)] {
			continue
		}
		t.Run(strconv.Itoa(first+i), func(t *testing.T) {
			t.Parallel()
			check(t, base, newCase(uint64(first+i)), runProgram)
		})
	}
}

// TestKeptCases plays the cases that once differed.
func TestKeptCases(t *testing.T) {
	base := bench(t)
	files, err := filepath.Glob("testdata/cases/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no kept cases: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := parseCase(string(text))
			if err != nil {
				t.Fatal(err)
			}
			check(t, base, c, runProgram)
		})
	}
}

var refusedOption = regexp.MustCompile(`option (-[-a-zA-Z@0-9]+)`)

// relax takes out of c what err says is not carried out.
func relax(c diffCase, err string) diffCase {
	c.runs = slices.Clone(c.runs)
	names := map[string]bool{}
	for _, m := range refusedOption.FindAllStringSubmatch(err, -1) {
		names[m[1]] = true
	}
	for i := range c.runs {
		r := &c.runs[i]
		if strings.Contains(err, "source") {
			r.srcs = []string{"from/"}
		}
		r.opts = slices.DeleteFunc(slices.Clone(r.opts), func(o string) bool {
			name, _, _ := strings.Cut(o, "=")
			for n := range names {
				if len(n) == 2 && o[1] != '-' && strings.Contains(o, n[1:]) {
					return true
				}
			}
			return names[name]
		})
	}
	return c
}
