package rsyncx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx/filter"
)

// choice is one option, for both programs. dir is a directory for its own use,
// one for each program.
type choice struct {
	name string
	args func(r *rand.Rand, dir string) []string
	set  func(o *Options, b *filter.Builder, args []string)
}

func plain(set func(*Options), args ...string) choice {
	return choice{name: strings.Join(args, " "), args: func(*rand.Rand, string) []string { return args },
		set: func(o *Options, _ *filter.Builder, _ []string) { set(o) }}
}

// valued is an option with one of several values.
func valued(name string, set func(o *Options, value string) error, values ...string) choice {
	return choice{name: name, args: func(r *rand.Rand, dir string) []string {
		if name == "--delete" {
			return []string{name + "-" + values[r.IntN(len(values))]}
		}
		return []string{name + "=" + strings.ReplaceAll(values[r.IntN(len(values))], "DIR", dir)}
	}, set: func(o *Options, _ *filter.Builder, args []string) {
		if err := set(o, args[0][len(name)+1:]); err != nil {
			panic(err)
		}
	}}
}

func ruled(rules ...string) choice {
	return choice{name: "-f", args: func(r *rand.Rand, _ string) []string { return []string{"-f", rules[r.IntN(len(rules))]} },
		set: func(_ *Options, b *filter.Builder, args []string) {
			if err := b.Filter(args[1]); err != nil {
				panic(err)
			}
		}}
}

func number(into *int64, text string) (err error) {
	*into, err = strconv.ParseInt(text, 10, 64)
	return err
}

var choices = []choice{
	valued("--delete", func(o *Options, v string) error { o.Delete, o.DeleteBefore = true, v == "before"; return nil },
		"during", "delay", "before"),
	plain(func(o *Options) { o.DeleteExcluded = true }, "--delete-excluded"),
	plain(func(o *Options) { o.Existing = true }, "--existing"),
	plain(func(o *Options) { o.IgnoreExisting = true }, "--ignore-existing"),
	plain(func(o *Options) { o.Update = true }, "-u"),
	plain(func(o *Options) { o.ModifyWindow = 1 }, "--modify-window=1"),
	valued("--min-size", func(o *Options, v string) error { return number(&o.MinSize, v) }, "1", "2", "3"),
	valued("--max-size", func(o *Options, v string) error { o.MaxSizeSet = true; return number(&o.MaxSize, v) }, "0", "1", "2"),
	plain(func(o *Options) { o.OmitDirTimes = true }, "-O"),
	plain(func(o *Options) { o.OmitLinkTimes = true }, "-J"),
	plain(func(o *Options) { o.Executability = true }, "-E"),
	plain(func(o *Options) { o.SafeLinks = true }, "--safe-links"),
	plain(func(o *Options) { o.PruneEmpty = true }, "-m"),
	plain(func(o *Options) { o.Force = true }, "--force"),
	plain(func(o *Options) { o.NumericIDs = true }, "--numeric-ids"),
	plain(func(o *Options) { o.Checksum = true }, "-c"),
	plain(func(o *Options) { o.IgnoreTimes = true }, "-I"),
	plain(func(o *Options) { o.SizeOnly = true }, "--size-only"),
	plain(func(o *Options) { o.HardLinks = true }, "-H"),
	plain(func(o *Options) { o.Perms = false }, "--no-p"),
	plain(func(o *Options) { o.Times = false }, "--no-t"),
	plain(func(o *Options) { o.Owner, o.Group = false, false }, "--no-o", "--no-g"),
	plain(func(o *Options) { o.Links = false }, "--no-l"),
	plain(func(o *Options) { o.Devices, o.Specials = false, false }, "--no-D"),
	plain(func(o *Options) { o.Backup = true }, "-b"),
	valued("--backup-dir", func(o *Options, v string) error { o.BackupDir = v; return nil }, ".bak", ".keep/bak", "DIR/bak"),
	valued("--suffix", func(o *Options, v string) error { o.Backup, o.Suffix = true, v; return nil }, ".old", "~"),
	valued("--max-delete", func(o *Options, v string) error { o.DeleteLimited = true; return number(&o.DeleteUpTo, v) }, "0", "1", "3", "7"),
	valued("--chmod", func(o *Options, v string) (err error) { o.Chmod, err = ParseChmod(v); return err },
		"D2775,F664", "g=u,o-rwx", "a+X", "Fu+s,D-w", "u=rwx,go=", "+x"),
	valued("--usermap", func(o *Options, v string) (err error) { o.Owner = true; o.UserMap, err = ParseIDMap(v); return err },
		"*:7", "1:bin,0:daemon", "0-5:9", "da*:3", "root:5", ":4"),
	valued("--groupmap", func(o *Options, v string) (err error) { o.Group = true; o.GroupMap, err = ParseIDMap(v); return err },
		"*:7", "1:bin,0:daemon", "6-9:0", "[dl]*:3"),
	ruled("- *.o", "P a", "- b/", "H c*", "R a/", "-p sp*", "hide,! */", "P /b/", "- *.tmp"),
	ruled("+ a", "- /a/*", "H *", "S *.o"),
}

// randomOptions draws what both programs are called with. Each gets its own
// directory beside the tree, "mine" and "theirs".
func randomOptions(r *rand.Rand, dir string) (o Options, args []string) {
	o = Archive()
	o.WholeSeconds = true
	args = []string{"-ai"}
	b := filter.NewBuilder()
	taken := map[string]bool{}
	for range 1 + r.IntN(5) {
		c := choices[r.IntN(len(choices))]
		if taken[c.name] && c.name != "-f" {
			continue
		}
		taken[c.name] = true
		text := c.args(r, filepath.Join(dir, "theirs"))
		args = append(args, text...)
		mine := slices.Clone(text)
		for i := range mine {
			mine[i] = strings.ReplaceAll(mine[i], filepath.Join(dir, "theirs"), filepath.Join(dir, "mine"))
		}
		c.set(&o, b, mine)
	}
	if o.Suffix != "" || o.BackupDir != "" {
		args, o.Backup = append(args, "-b"), true
	}
	if o.HardLinks && !o.Perms {
		args, o.Perms = append(args, "-p"), true // which of the names' modes rsync keeps is its own affair
	}
	if n := r.IntN(9); n < 3 && !o.HardLinks { // with them it is each program's affair which name of several decides
		o.AltDest, o.AltDests = AltDest(n), []string{"../alt", filepath.Join(dir, "mine", "to", "a")}[:1+r.IntN(2)]
		for i := range o.AltDests {
			args = append(args, altOptions[n]+"="+[]string{"../alt", filepath.Join(dir, "theirs", "to", "a")}[i])
		}
	}
	if o.DeleteLimited && !o.Delete && !o.DeleteExcluded {
		args, o.Delete = append(args, "--del"), true
	}
	var err error
	if o.Filter, err = b.Rules(filter.Options{DeleteExcluded: o.DeleteExcluded}); err != nil {
		panic(err)
	}
	return o, args
}

// founds are seeds that once found something: the order of limited deletions,
// links that are unsafe as backups, groups that staged files inherit, the time's
// letter of -J, and what rsync says of files that it gave away.
var founds = []uint64{214, 161, 221, 237, 115, 192, 171}

// TestOptionsAsRsync draws options by chance. DRSYNC_CASES is how many cases,
// DRSYNC_SEED the first.
func TestOptionsAsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	testenv.RequireRoot(t)
	cases, first := 100, uint64(0)
	if text := os.Getenv("DRSYNC_CASES"); text != "" {
		cases, _ = strconv.Atoi(text)
	}
	if text := os.Getenv("DRSYNC_SEED"); text != "" {
		first, _ = strconv.ParseUint(text, 10, 64)
	}
	seeds := slices.Clone(founds)
	for i := range cases {
		seeds = append(seeds, first+uint64(i))
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			optionsAsRsync(t, seed)
		})
	}
}

func optionsAsRsync(t *testing.T, seed uint64) {
	dir := tempDir(t)
	r := rand.New(rand.NewPCG(seed, 99))
	o, args := randomOptions(r, dir)
	from, theirs, mine := filepath.Join(dir, "from"), filepath.Join(dir, "theirs"), filepath.Join(dir, "mine")
	theirTree, myTree := filepath.Join(theirs, "to"), filepath.Join(mine, "to")
	mkdirs(t, from, theirTree, myTree)
	for i, d := range []string{from, theirTree, myTree} {
		tree := &randomTree{Rand: rand.New(rand.NewPCG(seed, uint64(min(i, 1)))), t: t, root: true, hard: o.HardLinks}
		tree.make(d, 2)
	}
	if o.AltDests != nil {
		makeAlt(t, theirs+"/alt", seed, 1, o.HardLinks)
		makeAlt(t, mine+"/alt", seed, 1, o.HardLinks)
	}
	before := snapshot(t, mine)
	if o.IgnoreExisting && clash(snapshot(t, from), snapshot(t, myTree)) {
		return // rsync goes into what it has just left alone, be it a file or a link
	}
	want, code := askRsync(t, append(args, from+"/", theirTree+"/"))

	if code == 2 {
		return
	}
	var events eventLog
	o.Event = events.add
	src, dst := open(t, from, myTree)
	dry := o
	dry.DryRun = true
	if _, err := Sync(t.Context(), src, dst, dry); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	sameTree(t, "after a dry run", snapshot(t, mine), before)
	pretended := events.take()
	stats, err := Sync(t.Context(), src, dst, o)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	got := events.take()
	if o.DeleteBefore {
		pretended, got, want = timeless(pretended), timeless(got), timeless(want)
	}
	if !slices.Equal(pretended, got) {
		t.Errorf("the dry run said\n%s\nthe run\n%s", strings.Join(pretended, "\n"), strings.Join(got, "\n"))
	}
	myEnd, theirEnd := wholeSecondDirs(steady(o, before, snapshot(t, mine))), wholeSecondDirs(steady(o, before, snapshot(t, theirs)))
	if o.BackupDir != "" {
		withoutBackupDirs(myEnd)
		withoutBackupDirs(theirEnd)
	}
	sameTree(t, "as rsync", myEnd, theirEnd)
	if got, want := ownerless(got, want), ownerless(want, got); !o.HardLinks && !slices.Equal(got, want) {
		t.Errorf("said alone\n%s\nrsync said alone\n%s", without(got, want), without(want, got))
	}
	mycode := 0
	switch {
	case stats.Skipped > 0:
		mycode = 23
	case stats.NotDeleted > 0:
		mycode = 25
	}
	if mycode != code {
		t.Errorf("status %d, rsync %d; %+v", mycode, code, stats)
	}
	if t.Failed() {
		t.Logf("rsync %q", args)
	}
}

// ownerless takes p, o and g out of '.' lines that the other has not: rsync looks
// again at files that it gave away, which clears setuid, and says what it sees then.
func ownerless(lines, others []string) []string {
	var left []string
	for _, l := range lines {
		if l[0] == '.' && !slices.Contains(others, l) {
			if l = l[:5] + "..." + l[8:]; strings.Trim(l[2:11], ".") == "" {
				continue
			}
		}
		left = append(left, l)
	}
	slices.Sort(left)
	return left
}

// withoutBackupDirs leaves only the type of the directories of backups, which
// rsync gives the attributes that it has just made, and the root's time aside.
func withoutBackupDirs(tree map[string]string) {
	for name, text := range tree {
		if (strings.Contains(name, "bak") || strings.Contains(name, ".keep")) && text[:3] == "004" || name == "to" {
			tree[name] = text[:3]
		}
	}
}

// clash reports whether a directory meets something else.
func clash(from, to map[string]string) bool {
	for name, text := range from {
		if other, ok := to[name]; ok && text[:3] == "004" && other[:3] != "004" {
			return true
		}
	}
	return false
}

// timeless takes the time's letter from the lines of directories: rsync sees the
// times that its own deletions have made before it looks at them.
func timeless(lines []string) []string {
	var left []string
	for _, l := range lines {
		if strings.HasPrefix(l, ".d..t") {
			l = ".d..." + l[5:]
		}
		if !strings.HasPrefix(l, ".d......... ") {
			left = append(left, l)
		}
	}
	return left
}

// wholeSecondDirs leaves out the fractions of the times of directories.
func wholeSecondDirs(tree map[string]string) map[string]string {
	dirs := regexp.MustCompile(`^(004\d+ \S+ -?\d+)\.\d+`)
	for name, text := range tree {
		tree[name] = dirs.ReplaceAllString(text, "$1")
	}
	return tree
}

func askRsync(t *testing.T, args []string) (lines []string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "rsync", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if (ctx.Err() != nil || errors.As(err, &exit) && exit.ExitCode() == 2) && slices.Contains(args, "-H") {
			return nil, 2 // it hangs or gives up: hard links in conflict with other types are too much for it
		}
		if !errors.As(err, &exit) || exit.ExitCode() != 23 && exit.ExitCode() != 25 {
			t.Fatalf("rsync %q: %v\n%s", args, err, errs.String())
		}
		code = exit.ExitCode()
	}
	if os.Getenv("DRSYNC_SAY") != "" {
		t.Logf("%s%s", out.String(), errs.String())
	}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		if len(line) > 11 && line[11] == ' ' && strings.ContainsRune("<>ch.*", rune(line[0])) && !strings.HasPrefix(line, "cannot delete") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines, code
}
