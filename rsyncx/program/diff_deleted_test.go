package program_test

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"strings"
)

// What is said about a deletion.
var deletedLine = regexp.MustCompile(`^(\*deleting  |deleting |\[generator\] protecting |del\. |cannot delete non-empty directory: |Number of deleted files: |backed up )`)

// A line that says no more than that the time of a directory differs, as it does
// where something was deleted.
var directoryTime = regexp.MustCompile(`^\.d\.\.[t.]\.{6} `)

// gone returns the names that a run took away. What something else has taken the
// place of, or lies below such a thing, does not count.
func gone(o outcome) map[string]bool {
	names := map[string]bool{}
	for name := range o.before {
		if _, ok := o.tree[name]; ok {
			continue
		}
		names[name] = true
		for p := path.Dir(name); p != "."; p = path.Dir(p) {
			if text, ok := o.tree[p]; ok {
				if !strings.HasPrefix(text, "004") {
					delete(names, name)
				}
				break
			}
		}
	}
	return names
}

// aside takes the names out of a tree, and the times of the directories in which
// they are; other names of theirs are no longer told to be such.
func aside(names map[string]bool) func(map[string]string) map[string]string {
	inode := regexp.MustCompile(` inode of ".*"$`)
	return func(tree map[string]string) map[string]string {
		tree, dirs := maps.Clone(tree), map[string]bool{}
		for name := range names {
			delete(tree, name)
			if dir := path.Dir(name); strings.HasPrefix(tree[dir], "004") && !dirs[dir] {
				dirs[dir] = true
				if strings.Count(tree[dir], " ") > 1 { // else another exception has taken it out
					tree[dir] = tree[dir][:strings.LastIndexByte(tree[dir], ' ')]
				}
			}
		}
		for name, text := range tree {
			if names[name] || strings.HasPrefix(name, "to/") {
				tree[name] = inode.ReplaceAllString(text, "")
			}
		}
		return tree
	}
}

func noDeletedLines(l string) string {
	if deletedLine.MatchString(l) || directoryTime.MatchString(l) || strings.Contains(l, "*deleting  ") || strings.Contains(l, " del. ") {
		return ""
	}
	return l
}

// nothingDeleted compares all but what rsync deleted, and sees that drsync did not.
func nothingDeleted(ex *exception, lines func(func(string) string), run command, rsync, drsync outcome) {
	lines(noDeletedLines)
	for name := range gone(drsync) {
		if drsync.before["from"+strings.TrimPrefix(name, "to")] != "" && run.hasPrefix("--compare-dest") {
			continue // it is elsewhere
		}
		ex.more = append(ex.more, fmt.Sprintf("drsync deleted %q although a name is missing", name))
	}
	names := gone(rsync)
	for name := range rsync.tree { // backups of those
		_, before := rsync.before[name]
		_, made := drsync.tree[name]
		if _, isBackup := run.backupOf(name); !before && !made && (isBackup || strings.Contains(name, "bak")) {
			names[name] = true
		}
	}
	ex.then(aside(names))
}

// asManyDeleted compares all but what was deleted of what could have been, and
// sees that both deleted as many.
func asManyDeleted(ex *exception, lines func(func(string) string), run command, rsync, drsync outcome) {
	lines(noDeletedLines)
	one, other := gone(rsync), gone(drsync)
	if len(one) != len(other) && !run.hasPrefix("-b") && !run.hasPrefix("--backup") {
		ex.more = append(ex.more, fmt.Sprintf("rsync deleted %d names, drsync %d", len(one), len(other)))
	}
	both := maps.Clone(one)
	maps.Copy(both, other)
	if run.hasPrefix("-b") || run.hasPrefix("--backup") { // copies of one may be there and not of the other
		for _, tree := range []map[string]string{rsync.tree, drsync.tree} {
			for name := range tree {
				_, inRsync := rsync.tree[name]
				_, inDrsync := drsync.tree[name]
				if inRsync != inDrsync {
					both[name] = true
				}
			}
		}
	}
	ex.then(aside(both))
}

// figure is a number of bytes in --stats.
var figure = regexp.MustCompile(`(?m)^(Literal data|Matched data|Total transferred file size): ([0-9,]+) bytes`)

// dataOf says what is wrong with drsync's own figures: what travelled and what
// was there already are what was transferred.
func dataOf(stdout string) []string {
	found := map[string]int64{}
	for _, m := range figure.FindAllStringSubmatch(stdout, -1) {
		var n int64
		for _, d := range strings.ReplaceAll(m[2], ",", "") {
			n = n*10 + int64(d-'0')
		}
		found[m[1]] = n
	}
	if total, ok := found["Total transferred file size"]; ok && found["Literal data"]+found["Matched data"] != total {
		return []string{fmt.Sprintf("drsync's figures do not agree: %v", found)}
	}
	return nil
}
