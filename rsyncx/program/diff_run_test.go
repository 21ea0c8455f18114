package program_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// outcome is what one run printed, and how the world looked behind it.
type outcome struct {
	args   []string
	stdout string
	stderr string
	exit   int
	before map[string]string // how the world looked at the start
	tree   map[string]string
}

// runner runs a command line in a directory.
type runner func(ctx context.Context, dir string, args []string) (stdout, stderr string, exit int, err error)

// fakeShell is a remote shell that knows one host: this one.
const fakeShell = "#!/bin/sh\nshift\nexec sh -c \"$*\"\n"

// play makes the world of c in a directory of its own below base and runs what
// is to be run there.
func play(ctx context.Context, base string, c diffCase, run runner) ([]outcome, error) {
	dir, err := os.MkdirTemp(base, "w")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	host := ""
	if c.remote {
		host = "host"
	}
	// "@" in a list of rules or names is the world, too.
	nodes := slices.Clone(c.nodes)
	for i, n := range nodes {
		if n.kind == 'f' && len(n.content) == 1 && n.content[0].kind == 't' && !strings.HasPrefix(n.path, "from") {
			nodes[i].content = []segment{{kind: 't', text: strings.ReplaceAll(n.content[0].text, "@/", dir+"/")}}
		}
	}
	since := time.Now()
	if err := build(dir, nodes); err != nil {
		return nil, fmt.Errorf("build the world: %w", err)
	}
	before, err := snapshot(dir, since)
	if err != nil {
		return nil, fmt.Errorf("look at the world: %w", err)
	}
	before = anywhere(before, dir)
	var all []outcome
	for _, r := range c.runs {
		if err := alter(dir, r.changes); err != nil {
			return nil, fmt.Errorf("change the world: %w", err)
		}
		if len(r.changes) > 0 {
			if before, err = snapshot(dir, since); err != nil {
				return nil, fmt.Errorf("look at the world: %w", err)
			}
			before = anywhere(before, dir)
		}
		args := r.args(dir, host)
		o := outcome{args: args, before: before}
		o.stdout, o.stderr, o.exit, err = run(ctx, dir, args)
		if err != nil {
			return nil, err
		}
		o.stdout = strings.Join(slices.DeleteFunc(strings.SplitAfter(o.stdout, "\n"), func(line string) bool {
			at, isDir := strings.CutSuffix(line[strings.LastIndexByte(line, ' ')+1:], "/\n")
			return isDir && wayTo(dir, at)
		}), "")
		for _, at := range []string{dir, dir[1:]} { // -R leaves out the slash
			o.stdout = strings.ReplaceAll(o.stdout, at, "@")
			o.stderr = strings.ReplaceAll(o.stderr, at, "@")
		}
		if o.tree, err = snapshot(dir, since); err != nil {
			return nil, fmt.Errorf("look at the world: %w", err)
		}
		o.tree = anywhere(o.tree, dir)
		before = o.tree
		all = append(all, o)
	}
	return all, nil
}

// wayTo reports whether the path of -R is one on the way to dir.
func wayTo(dir, path string) bool { return path != "" && strings.HasPrefix(dir+"/", "/"+path+"/") }

// anywhere takes the place of the world out of what was found in it.
func anywhere(tree map[string]string, dir string) map[string]string {
	all := make(map[string]string, len(tree))
	for name, text := range tree {
		if wayTo(dir, name[strings.IndexByte(name, '/')+1:]) {
			continue // what -R makes of the way here, which others change
		}
		name = strings.ReplaceAll(name+"/", dir+"/", "/@/")
		all[strings.TrimSuffix(name, "/")] = strings.ReplaceAll(text, dir, "@")
	}
	return all
}

// What depends on the way a program talks, not on what it did.
var chatter = regexp.MustCompile(`^(sending incremental file list|receiving incremental file list|(building|receiving) file list \.\.\. (done)?|sent [0-9.,KMG]+ bytes .*|total: matches=.*|delta-transmission .*|(\(new\) )?backup_dir is .*|deleting in .*|removing duplicate name .*|\[sender\] showing .*|\[generator\] risking .*|Number of files (skipped|unreadable): .*|an entry was left out: .*|IO error encountered -- skipping file deletion|nothing was deleted \(.*|Number of files linked: .*|Bytes reused: .*|  (allmem|arena|fordblks|fsmblks|hblkhd|hblks|keepcost|ordblks|smblks|uordblks|usmblks): .*|rsync\[[0-9]+\] .* heap statistics:|File list .*|Total bytes (sent|received): .*|done|opening connection using: .*|protected args: .*|server_sender starting.*|\[(Receiver|sender|receiver|generator)\] .*memory.*)$`)

// Numbers of --stats and of the end of -v that are a matter of the tree alone.
var speedup = regexp.MustCompile(`  speedup is .*$`)

// said returns the lines of stdout that must be the same, sorted: the order of a
// copy is a program's own.
func said(stdout string) []string {
	var lines []string
	for line := range strings.Lines(stdout) {
		line = strings.TrimSuffix(line, "\n")
		line = speedup.ReplaceAllString(line, "")
		if line == "" || chatter.MatchString(line) {
			continue
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

// without returns the lines that others has not, each as often as it is there.
func without(lines, others []string) []string {
	count := map[string]int{}
	for _, o := range others {
		count[o]++
	}
	var out []string
	for _, l := range lines {
		if count[l] > 0 {
			count[l]--
			continue
		}
		out = append(out, l)
	}
	return out
}

// compare says in what two programs differ that did the same.
func compare(c diffCase, rsync, drsync []outcome) []string {
	var diffs []string
	for i, want := range rsync {
		got := drsync[i]
		say := func(format string, a ...any) {
			diffs = append(diffs, "run "+strconv.Itoa(i+1)+": "+fmt.Sprintf(format, a...))
		}
		ex := exceptions(c, c.runs[i], want, got)
		if want.exit != got.exit && !ex.exit {
			say("rsync exits %d, drsync %d\n\trsync: %s\n\tdrsync: %s", want.exit, got.exit, firstLines(want.stderr), firstLines(got.stderr))
		}
		if (want.stderr == "") != (got.stderr == "") && !ex.exit && !ex.warns {
			say("only one warns\n\trsync: %s\n\tdrsync: %s", firstLines(want.stderr), firstLines(got.stderr))
		}
		a, b := said(want.stdout), said(got.stdout)
		if ex.lines != nil {
			a, b = ex.lines(a), ex.lines(b)
		}
		for _, l := range without(a, b) {
			say("only rsync says %q", l)
		}
		for _, l := range without(b, a) {
			say("only drsync says %q", l)
		}
		wt, gt := want.tree, got.tree
		if ex.tree != nil {
			wt, gt = ex.tree(wt), ex.tree(gt)
		}
		for _, d := range append(treeDiff(wt, gt), ex.more...) {
			say("%s", d)
		}
		if len(diffs) > 0 || len(treeDiff(want.tree, got.tree)) > 0 {
			break // what comes behind starts from another state
		}
	}
	return diffs
}

func firstLines(s string) string {
	lines := strings.SplitN(strings.TrimSpace(s), "\n", 5)
	return strings.Join(lines[:min(len(lines), 4)], "\n\t\t")
}
