package program_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// exception takes out of a comparison what is known to differ, with the reason.
type exception struct {
	exit  bool // the exit status, too
	lines func([]string) []string
	tree  func(map[string]string) map[string]string
}

// exceptions is the whole list of what the two programs may do differently.
func exceptions(c diffCase, run command, rsync outcome) exception {
	var ex exception
	lines := func(f func(string) string) {
		before := ex.lines
		ex.lines = func(l []string) []string {
			if before != nil {
				l = before(l)
			}
			l = slices.Clone(l)
			for i := range l {
				l[i] = f(l[i])
			}
			l = slices.DeleteFunc(l, func(s string) bool { return s == "" })
			slices.Sort(l)
			return l
		}
	}
	// rsync prints these two control characters as they are.
	lines(func(l string) string {
		return strings.NewReplacer("\t", `\#011`, "\x7f", `\#177`).Replace(l)
	})
	// Of what is deleted rsync knows only the name, and the mode most of the time.
	lines(func(l string) string { return deletedFacts.ReplaceAllString(l, "del. ") })
	// rsync looks again at setuid files after it gave them away, and then sees
	// other differences than before.
	if special := withSpecialBits(c.nodes); len(special) > 0 {
		lines(func(l string) string {
			if m := itemized.FindStringSubmatch(l); m != nil && special[last(strings.TrimSuffix(m[2], "/"))] && l[0] == '.' {
				return "attributes of " + m[2]
			}
			return l
		})
	}
	// What was deleted first has changed the time of its directory.
	if run.has("--delete-before") {
		lines(func(l string) string {
			if strings.HasPrefix(l, ".d..t...... ") || strings.HasSuffix(l, "/") && !itemized.MatchString(l) {
				return ""
			}
			if strings.HasPrefix(l, ".d..t") {
				return ".d..." + l[5:]
			}
			return l
		})
	}
	// rsync's dry run has not looked at the content it would have sent.
	if run.has("-n") {
		lines(func(l string) string {
			if strings.HasPrefix(l, "Literal data:") || strings.HasPrefix(l, "Matched data:") {
				return ""
			}
			return l
		})
	}
	// Nor has it given a file its attributes when it looks at the file's next name.
	if run.has("-n") {
		lines(func(l string) string {
			if m := itemized.FindStringSubmatch(l); m != nil && l[0] == 'h' && !strings.Contains(l, " => ") {
				return ""
			}
			return l
		})
	}
	// rsync fetches short files in parts, too, when it may.
	if c.remote {
		lines(func(l string) string {
			if strings.HasPrefix(l, "Literal data:") || strings.HasPrefix(l, "Matched data:") {
				return ""
			}
			return l
		})
	}
	// rsync goes into a file that it was to leave alone as if it were the directory
	// of the source, and dies of a first name of several that found no place.
	if run.has("--ignore-existing") && strings.Contains(rsync.stderr, "Not a directory") || strings.Contains(rsync.stderr, "(finish_hard_link)") {
		return exception{lines: func([]string) []string { return nil }, tree: func(map[string]string) map[string]string { return nil }, exit: true}
	}
	// From a host rsync asks for the remarks of a list as if they were names, and then does not delete.
	if c.remote && strings.Contains(rsync.stderr, "# a remark\" failed") {
		return exception{lines: func([]string) []string { return nil }, tree: func(map[string]string) map[string]string { return nil }, exit: true}
	}
	// rsync does not tell the patterns of files of rules at the other side.
	if strings.Contains(rsync.stdout, "<rule from a file read earlier>") {
		lines(func(l string) string {
			before, _, _ := strings.Cut(l, " because of pattern ")
			return before
		})
	}
	// rsync says twice that something is in the way.
	if strings.Contains(rsync.stderr, "could not make way for") {
		lines(func(l string) string {
			if strings.HasPrefix(l, "cannot delete non-empty directory") {
				return ""
			}
			return l
		})
	}
	// rsync deletes although a name of the line is missing; drsync then does not.
	if run.hasPrefix("--del") && strings.Contains(rsync.stderr, "No such file or directory") {
		lines(func(string) string { return "" })
		ex.tree = func(map[string]string) map[string]string { return nil }
	}
	// After a rule that is none rsync leaves what it had done by then, drsync nothing.
	if rsync.exit == 1 && strings.Contains(rsync.stderr, "filter") {
		lines(func(string) string { return "" })
		ex.tree = func(map[string]string) map[string]string { return nil }
	}
	// An rsync at the other end that finds one there is only seen to go.
	if c.remote && rsync.exit == 12 && strings.Contains(rsync.stderr, "(code 1) at exclude.c") {
		return exception{lines: func([]string) []string { return nil }, tree: func(map[string]string) map[string]string { return nil }, exit: true}
	}
	// Which entries go before the limit is reached follows from the order of the work.
	if rsync.exit == 25 && !run.has("--max-delete=0") {
		lines(func(string) string { return "" })
		ex.tree = func(map[string]string) map[string]string { return nil }
	}
	// Without -p rsync -X gives a name whose attributes it sets the source's mode all the same.
	if run.has("-X") && !run.keepsModes() {
		before := ex.tree
		ex.tree = func(tree map[string]string) map[string]string {
			if before != nil {
				tree = before(tree)
			}
			tree = maps.Clone(tree)
			for name, text := range tree {
				tree[name] = text[:3] + text[7:]
			}
			return tree
		}
	}
	return ex
}

// keepsModes tells whether -p is among the options.
func (c command) keepsModes() bool {
	keeps := false
	for _, o := range c.opts {
		switch {
		case o == "-a":
			keeps = true
		case o == "--no-p", o == "--no-perms":
			keeps = false
		case strings.HasPrefix(o, "-r") && strings.Contains(o, "p"):
			keeps = true
		}
	}
	return keeps
}

var deletedFacts = regexp.MustCompile(`^del\. .{10}[^ ]* [^ ]* [0-9]+:[0-9]+ `)

func withSpecialBits(nodes []node) map[string]bool {
	names := map[string]bool{}
	for _, n := range nodes {
		if n.mode&0o7000 != 0 {
			names[last(n.path)] = true
			if n.path == "from" || n.path == "to" {
				names["."] = true
			}
		}
	}
	return names
}

func last(p string) string { return p[strings.LastIndexByte(p, '/')+1:] }

var itemized = regexp.MustCompile(`^([<>ch.*][fdLDS][-.+?a-zA-Z ]{9}) (.*)$`)
