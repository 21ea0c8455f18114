package program_test

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/drsync/drsync/rsyncx"
)

// quirk is a line that rsync writes in another way, or not, for a reason of its own:
// to brings the lines of both programs to one form where applies.
type quirk struct {
	why     string
	applies bool
	to      func(line string) string
}

var (
	linked    = regexp.MustCompile(` => .*$`)
	operation = regexp.MustCompile(`^(?:send|recv) [^ ]+ [^ ]+ [^ ]+ `)
	modeShown = regexp.MustCompile(`^(recv [^ ]+) [-rwxsStT]{9} `)
)

// quirks are those of single lines.
func quirks(c diffCase, run command, rsync outcome) []quirk {
	again := shownNames(rsync.before, severalNames(rsync.before))
	dirs := map[string]string{}
	for name, text := range rsync.before {
		if strings.HasPrefix(text, "004") {
			dirs[name] = text
		}
	}
	wasDir := shownNames(dirs, nil)
	replaced := false
	for name := range dirs {
		text, ok := rsync.before["from"+strings.TrimPrefix(name, "to")]
		replaced = replaced || ok && !strings.HasPrefix(text, "004")
	}
	elsewhere := map[string]bool{}
	for _, top := range []string{"alt/", "alt2/"} {
		for name := range rsync.before {
			if below, ok := strings.CutPrefix(name, top); ok {
				elsewhere[rsyncx.Printable(below)] = true
			}
		}
	}
	backups := strings.TrimPrefix(run.value("--backup-dir="), "./")
	return []quirk{
		{"its dry run leaves a destination's file its names, and then finds the next one to be right or not", run.has("-n") && run.has("-H"), func(l string) string {
			name := strings.TrimSuffix(strings.TrimSpace(operation.ReplaceAllString(linked.ReplaceAllString(l, ""), "")), " is uptodate")
			if m := itemized.FindStringSubmatch(name); m != nil {
				name = m[2]
				if l[0] == 'h' { // of a symbolic link it may show the target
					name, _, _ = strings.Cut(name, " -> ")
				}
			}
			if again[name] {
				return ""
			}
			return l
		}},
		{"its dry run does not know the first name of a new file", run.has("-n") && run.has("-H"), func(l string) string {
			if m := itemized.FindStringSubmatch(l); m != nil && l[0] == 'h' {
				name, _, _ := strings.Cut(linked.ReplaceAllString(m[2], ""), " -> ")
				return "h" + l[1:2] + " " + name
			}
			if strings.HasPrefix(l, "Number of created files: ") {
				return ""
			}
			return l
		}},
		{"its dry run makes a backup of what makes way more often, or less", run.has("-n"), func(l string) string {
			if strings.HasPrefix(l, "backed up ") {
				return ""
			}
			return l
		}},
		{"it says of a link that leads nowhere that it is hidden, drsync nothing", run.has("--copy-links") || run.has("--copy-unsafe-links") || run.has("-k"), func(l string) string {
			m := toldOfName.FindStringSubmatch(l)
			if m != nil && !strings.HasPrefix(l, "[sender] hiding directory ") && !leadsSomewhere(rsync.before, m[1]) {
				return ""
			}
			return l
		}},
		{"its dry run counts a directory as deleted in which something protected stays", run.has("-n"), func(l string) string {
			if strings.HasPrefix(l, "Number of deleted files: ") {
				return ""
			}
			return l
		}},
		{"earlier backups that go last are gone in drsync before it looks", backups != "" && (run.has("--delete-after") || run.has("--delete-delay")), func(l string) string {
			if strings.Contains(l, "deleting ") && strings.Contains(l, backups+"/") || strings.HasPrefix(l, "cannot delete non-empty directory: "+backups) || strings.HasPrefix(l, "Number of deleted files: ") {
				return ""
			}
			return l
		}},
		{"what receives has changed a mode in its list when it shows that, or not", c.remote && !run.keepsModes(), func(l string) string {
			return modeShown.ReplaceAllString(l, "$1 ")
		}},
		{"where a list changes the mode it may find the mode right", run.hasPrefix("-A") || run.has("-X"), func(l string) string {
			m := itemized.FindStringSubmatch(l)
			if m != nil && run.hasPrefix("--chmod") && !strings.HasSuffix(m[1], "+") { // see there
				l = l[:5] + "." + l[6:9] + "." + l[10:]
				m = itemized.FindStringSubmatch(l)
			}
			switch {
			case m == nil || strings.HasSuffix(m[1], "+"):
			case l[0] == 'h': // nor does it look for other lists of what a link replaces
				return l[:5] + "." + l[6:9] + ".. " + m[2]
			case l[9] == 'a' && l[5] == 'p':
				return l[:5] + "." + l[6:]
			}
			return l
		}},
		{"of a directory in which something is kept after all is made it says so, and drsync knows before", run.has("--delete-after"), func(l string) string {
			if strings.HasPrefix(l, "[generator] protecting ") {
				return ""
			}
			return l
		}},
		{"what was there of a file that is appended to it counts as sent, or not", run.hasPrefix("--append"), func(l string) string {
			if strings.HasPrefix(l, "Literal data:") || strings.HasPrefix(l, "Matched data:") {
				return ""
			}
			return l
		}},
		{"a link that a directory made way for is none that was created", run.has("-H") && replaced, func(l string) string {
			if strings.HasPrefix(l, "Number of created files: ") {
				return ""
			}
			return l
		}},
		{"it says that of a link whose other name changed its attributes", run.has("-H"), func(l string) string {
			if strings.HasPrefix(l, "hf......... ") {
				return ""
			}
			return l
		}},
		{"it compares a name with the directory that made way for it", run.has("-H"), func(l string) string {
			if m := itemized.FindStringSubmatch(l); m != nil && l[0] == 'h' && wasDir[linked.ReplaceAllString(m[2], "")] {
				return "h" + l[1:2] + " " + m[2]
			}
			return l
		}},
		{"its dry run does not know the file that --link-dest makes a name of", run.has("-n") && run.has("-H") && run.hasPrefix("--link-dest"), func(l string) string {
			name := linked.ReplaceAllString(l, "")
			if m := itemized.FindStringSubmatch(name); m != nil {
				name = m[2]
			}
			if name != l && elsewhere[name] {
				return ""
			}
			return l
		}},
		{"with -y any small file of the directory makes a name the first of its group", run.has("-y") && run.has("-H"), func(l string) string {
			if m := itemized.FindStringSubmatch(l); m != nil && strings.HasSuffix(m[1], "f+++++++++") {
				return linked.ReplaceAllString(m[2], "")
			}
			return linked.ReplaceAllString(l, "")
		}},
	}
}

// leadsSomewhere reports whether the name told is one of the source and no link, or is a link
// in the source to one that is none.
func leadsSomewhere(tree map[string]string, told string) bool {
	for name, text := range tree {
		if below, ok := strings.CutPrefix(name, "from/"); !ok || rsyncx.Printable(below) != told {
			continue
		}
		_, target, link := strings.Cut(text, " -> ")
		if !strings.HasPrefix(text, "012") || !link {
			return true
		}
		if quoted, err := strconv.QuotedPrefix(target); err == nil {
			target, _ = strconv.Unquote(quoted)
		}
		to := tree[path.Join(path.Dir(name), target)]
		return to != "" && !strings.HasPrefix(to, "012") && !strings.HasPrefix(target, "/")
	}
	return false
}

// withoutGroup takes what the owning group may out of an access list in the text of a
// snapshot.
func withoutGroup(text string) string {
	name, value, _ := strings.Cut(text, "=")
	list, err := strconv.Unquote(value)
	if err != nil {
		return text
	}
	b := []byte(list)
	for i := 4; i+8 <= len(b); i += 8 { // behind the version: tag, rights and number
		if b[i] == 4 {
			b[i+2] = 0
		}
	}
	return name + "=" + strconv.Quote(string(b))
}

// severalNames returns the last names of what has several names in the source.
func severalNames(tree map[string]string) map[string]bool {
	first := regexp.MustCompile(` inode of "(.*)"$`)
	last := map[string]bool{}
	for name, text := range tree {
		if m := first.FindStringSubmatch(text); m != nil && strings.HasPrefix(name, "from/") {
			last[path.Base(name)] = true
			for other := range tree {
				if rsyncx.Printable(other) == rsyncx.Printable(m[1]) || strings.TrimSuffix(m[1], path.Base(other)) != m[1] {
					last[path.Base(other)] = true
				}
			}
		}
	}
	return last
}

// shownNames returns the names below the destination as they are shown, those alone
// whose last name is among some unless that is nil.
func shownNames(tree map[string]string, some map[string]bool) map[string]bool {
	shown := map[string]bool{}
	for name := range tree {
		below, ok := strings.CutPrefix(name, "to/")
		if ok && (some == nil || some[path.Base(below)]) {
			shown[strings.NewReplacer("\t", `\#011`, "\x7f", `\#177`).Replace(rsyncx.Printable(below))] = true
		}
	}
	return shown
}

// once leaves one of equal lines that rsync writes each time that it comes to a name,
// and none about the names of the line, of which drsync looks at one if several
// are the same at the destination.
func once(run command, sorted []string) []string {
	if len(run.srcs) > 1 {
		sorted = slices.DeleteFunc(sorted, func(l string) bool {
			m := toldOfName.FindStringSubmatch(l)
			return m != nil && slices.ContainsFunc(run.srcs, func(s string) bool {
				return rsyncx.Printable(last(s)) == m[1] || rsyncx.Printable(last(s)) == last(m[1])
			})
		})
	}
	if run.hasPrefix("--copy-dest") { // one that is copied without -t is both up to date and not
		sorted = slices.DeleteFunc(slices.Clone(sorted), func(l string) bool {
			name, same := strings.CutSuffix(l, " is uptodate")
			return same && slices.Contains(sorted, name)
		})
	}
	several := len(run.srcs) > 1 || run.hasPrefix("--files-from")
	return slices.CompactFunc(sorted, func(a, b string) bool {
		return a == b && (several && toldOfName.MatchString(a) || run.hasPrefix("--copy-dest") && run.has("-vv") && linked.MatchString(a))
	})
}

var toldOfName = regexp.MustCompile(`^(?:\[sender\] hiding (?:file|directory) |copying unsafe symlink ")(.*?)(?: because of pattern .*|" -> ".*|)$`)

// unreadRules reports filter files that are none, which drsync reads and refuses and rsync
// does not read, or takes for something: with -R rsync reads those of a directory
// on the way for the names that come after its first alone, and it ends a
// rule at a NUL byte, where nobody knows what the rest was to protect.
func unreadRules(run command, rsync, drsync outcome) bool {
	wrong := strings.Contains(drsync.stderr, "a filter rule is wrong") && rsync.exit != 1 && drsync.exit == 1
	forced := run.has("--force") && !run.hasPrefix("--del") // whose files of the destination rsync reads when something makes way
	return wrong && (strings.Contains(drsync.stderr, "a NUL byte") || run.has("-R") || run.hasPrefix("--files-from") || forced)
}

// listed returns the names of --files-from in a case.
func (c diffCase) listed(run command) []string {
	if !run.hasPrefix("--files-from") {
		return nil
	}
	for _, n := range c.nodes {
		if n.path == "list" {
			return strings.FieldsFunc(textOf(n.content), func(r rune) bool { return r == '\n' || r == 0 })
		}
	}
	return nil
}

// keepsContent reports whether a list names directories with a slash that are not
// gone into: rsync deletes in them, drsync does not.
func (c diffCase) keepsContent(run command) bool {
	return !run.has("-r") && slices.ContainsFunc(c.listed(run), func(name string) bool { return strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.") })
}

// onlyRsyncDeleted puts aside what rsync deleted and drsync left.
func onlyRsyncDeleted(ex *exception, rsync, drsync outcome) {
	names := gone(rsync)
	for name := range gone(drsync) {
		delete(names, name)
	}
	before, away := ex.tree, aside(names)
	ex.tree = func(tree map[string]string) map[string]string {
		if before != nil {
			tree = before(tree)
		}
		return away(tree)
	}
}

// changeText changes what is said of each name.
func changeText(ex *exception, to func(name, text string) string) {
	before := ex.tree
	ex.tree = func(tree map[string]string) map[string]string {
		if before != nil {
			tree = before(tree)
		}
		tree = maps.Clone(tree)
		for name, text := range tree {
			tree[name] = to(name, text)
		}
		return tree
	}
}

// wildRules returns the directories of the source whose path has wildcards and whose
// filter file has anchored rules.
func (c diffCase) wildRules() []string {
	var dirs []string
	for _, n := range c.nodes {
		dir, name := path.Split(strings.TrimPrefix(n.path, "from/"))
		if n.kind == 'f' && slices.Contains([]string{".rsync-filter", ".rules", "b"}, name) && strings.ContainsAny(dir, `*?[\\`) && strings.Contains(textOf(n.content), " /") {
			dirs = append(dirs, strings.TrimSuffix(dir, "/"))
		}
	}
	return dirs
}

// hiddenLead returns the names of a list that a rule may hide and that lead to names
// which come after them: rsync does not send those on the way then, whatever is below.
func (c diffCase) hiddenLead(run command) map[string]bool {
	leads := map[string]bool{}
	names := c.listed(run)
	for i, name := range names {
		name = strings.Trim(strings.TrimPrefix(name, "./"), "/")
		for _, later := range names[i+1:] {
			if strings.HasPrefix(strings.TrimLeft(strings.TrimPrefix(later, "./"), "/"), name+"/") {
				leads[name] = true
			}
		}
	}
	return leads
}

// rules returns the options that filter.
func (c command) rules() []string {
	var rules []string
	for _, o := range c.opts {
		if o == "-C" || strings.HasPrefix(o, "-F") || strings.HasPrefix(o, "--filter") || strings.HasPrefix(o, "--exclude") || strings.HasPrefix(o, "--include") {
			rules = append(rules, o)
		}
	}
	return rules
}
