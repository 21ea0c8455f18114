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

// moreExceptions are those about one option or two.
func moreExceptions(ex *exception, lines func(func(string) string), c diffCase, run command, rsync, drsync outcome) {
	alternateExceptions(lines, run, rsync)
	// Where one of the alternate directories is as the source's, rsync does not tell that it made DEST.
	if _, there := rsync.before[path.Clean(run.dest)]; !there && alternates(run) {
		lines(func(l string) string {
			l = strings.TrimSuffix(l, " is uptodate")
			if strings.HasSuffix(l, "./") && !strings.HasSuffix(l, "/./") || strings.HasPrefix(l, "Number of created files: ") {
				return ""
			}
			return l
		})
	}
	// Without -H rsync has changed a file by one of its names when it looks at the next.
	if !run.has("-H") {
		lines(func(l string) string {
			if m := itemized.FindStringSubmatch(l); m != nil && l[0] == '.' && l[1] != 'd' && shares(printable(rsync.before), "to/"+m[2]) {
				return ""
			}
			return l
		})
	}
	// A name of a list that ends in a slash and is a link to a directory drsync sends as the link.
	for _, name := range linksWithSlash(c.nodes) {
		leaveOut(ex, func(n string) bool { return n == "to/"+name || strings.HasPrefix(n, "to/"+name+"/") })
		lines(func(l string) string {
			if strings.Contains(l, name) || strings.HasPrefix(l, "Number of ") {
				return ""
			}
			return l
		})
	}
	// Mode bits that come with an access list rsync's dry run shows, and the real run does not.
	if run.hasPrefix("-A") {
		lines(func(l string) string {
			if m := itemized.FindStringSubmatch(l); m != nil && l[0] == '.' && l[1] != 'd' && l[9] == 'a' {
				return l[:5] + "." + l[6:]
			}
			return l
		})
	}
	// Of what is deleted rsync does not always know the mode.
	if run.hasPrefix("--out-format=") {
		lines(func(l string) string {
			if strings.Contains(l, "*deleting  ") || strings.Contains(l, "del. ") {
				return permissions.ReplaceAllString(l, "")
			}
			return l
		})
	}
	// rsync deletes in a directory of a list whose name ends in a slash, into which it does not go.
	if run.hasPrefix("--files-from=") && run.hasPrefix("--del") && !run.recurses() {
		dirs := slices.DeleteFunc(namedDirectories(c.nodes), func(name string) bool { // what is none makes way for it
			return strings.HasPrefix(rsync.before["from/"+name], "010")
		})
		if len(dirs) > 0 {
			notDeletedIn(ex, lines, dirs, run, rsync, drsync)
		}
	}
	backupExceptions(ex, lines, run, rsync)
	// Why something exists is not said.
	lines(func(l string) string { return existsHow.ReplaceAllString(l, " exists") })
	// What has one inode in DEST and several in the source rsync --inplace writes over itself.
	if run.has("-H") && inPlace(run) {
		for name := range rsync.before {
			below, ok := strings.CutPrefix(name, "to/")
			if _, regular := strings.CutPrefix(rsync.before["from/"+below], "010"); ok && regular && shares(rsync.before, name) && !shares(rsync.before, "from/"+below) {
				leaveOut(ex, func(n string) bool { return n == name || strings.HasPrefix(n, "to/") && shares(rsync.before, n) })
			}
		}
	}
	if inPlace(run) {
		if apart := partedIn(rsync.before); len(apart) > 0 {
			leaveOut(ex, func(n string) bool { return apart[n] })
		}
	}
	// Where something is missing drsync deletes nothing, not even to make way.
	if strings.Contains(drsync.stderr, "could not make way for") && (strings.Contains(rsync.stderr, "No such file or directory") || strings.Contains(rsync.stderr, "Not a directory")) {
		for name := range rsync.before {
			inTheWay := "warning: " + rsyncx.Printable(strings.TrimPrefix(name, "to/")) + ": could not make way for"
			if !strings.Contains(drsync.stderr, inTheWay) {
				continue
			}
			leaveOut(ex, func(n string) bool { return n == name || strings.HasPrefix(n, name+"/") })
			lines(func(l string) string {
				if strings.Contains(l, rsyncx.Printable(strings.TrimPrefix(name, "to/"))) {
					return ""
				}
				return l
			})
		}
	}
	// What is not there yet gets the mode of a similar file in rsync, where there are alternate directories.
	if run.has("-y") && alternates(run) && !run.keeps('p') {
		ex.then(func(tree map[string]string) map[string]string {
			for name, text := range tree {
				if rsync.before[name] == "" && strings.HasPrefix(text, "010") {
					tree[name] = text[:3] + text[7:]
				}
			}
			return tree
		})
	}
	// It asks for the names of --usermap although it only lists.
	if run.has("--list-only") && strings.Contains(rsync.stderr, "Unknown --usermap name on receiver") {
		ex.warns = true
	}
}

// backupExceptions are those about -b.
func backupExceptions(ex *exception, lines func(func(string) string), run command, rsync outcome) {
	// A backup that is copied, since the file itself is written to, has in rsync no more than the
	// options keep; drsync keeps the file as it was.
	if inPlace(run) && !(run.keeps('t') && run.keeps('o') && run.keeps('g') && run.keeps('p')) {
		eachBackup(ex, run, rsync, func(_, text string) string {
			text = attributes.ReplaceAllString(text, "")
			return ownFacts.ReplaceAllString(text[:strings.LastIndexByte(text, ' ')], "$1")
		})
	}
	// What is replaced is moved to its backup, with all attributes. Where other names of it may
	// be written to drsync copies it, so that the backup stays what it was.
	if inPlace(run) {
		eachBackup(ex, run, rsync, func(old, text string) string {
			if !shares(rsync.before, old) && !run.hasPrefix("-A") { // with -A rsync makes lists up
				return text
			}
			if text = attributes.ReplaceAllString(text, ""); shares(rsync.before, old) {
				return text[:3]
			}
			return text
		})
	}
	// Of a directory that holds new backups rsync says that its time differs.
	if dir := strings.TrimPrefix(run.value("--backup-dir="), "./"); dir != "" {
		lines(func(l string) string {
			if name, ok := strings.CutPrefix(l, ".d..t...... "); ok && (strings.HasPrefix(name, dir+"/") || strings.HasPrefix(dir+"/", name)) {
				return ""
			}
			return l
		})
	}
	// rsync asks the rule that keeps earlier backups about what the source has, too.
	if rule := " because of pattern *" + run.suffix(); run.hasPrefix("-b") || run.has("--backup") {
		lines(func(l string) string {
			if strings.HasPrefix(l, "[generator] protecting ") && strings.HasSuffix(l, rule) {
				return ""
			}
			return l
		})
	}
}

func (c command) suffix() string {
	if s := c.value("--suffix="); s != "" || c.hasPrefix("--backup-dir=") {
		return s
	}
	return "~"
}

// alternateExceptions are those about --link-dest and the like.
func alternateExceptions(lines func(func(string) string), run command, rsync outcome) {
	if !alternates(run) {
		return
	}
	several := 0
	for _, o := range run.opts {
		if strings.Contains(o, "-dest=") {
			several++
		}
	}
	// Of what several have rsync shows attributes of one and of another.
	if several > 1 && (run.hasPrefix("-X") || run.hasPrefix("-A")) {
		lines(func(l string) string {
			if m := itemized.FindStringSubmatch(l); m != nil && (l[0] == 'c' || l[0] == 'h') {
				return l[:9] + ".." + l[11:]
			}
			return l
		})
	}
	// rsync tells of a directory that it does not make since only existing ones are updated.
	if run.has("--existing") || run.has("--ignore-non-existing") {
		lines(func(l string) string {
			if m := itemized.FindStringSubmatch(l); m != nil && l[:2] == "cd" && !strings.HasPrefix(rsync.tree["to/"+strings.TrimSuffix(m[2], "/")], "004") {
				return ""
			}
			return l
		})
	}
}

var existsHow = regexp.MustCompile(` exists \((uptodate|type change|sum change|file change|attr change)\)$`)

// alternates reports whether there are alternate directories.
func alternates(run command) bool {
	return run.hasPrefix("--compare-dest") || run.hasPrefix("--copy-dest") || run.hasPrefix("--link-dest")
}

func inPlace(run command) bool { return run.has("--inplace") || run.hasPrefix("--append") }

// printable is a tree under the names that are shown.
func printable(tree map[string]string) map[string]string {
	shown := map[string]string{}
	for name, text := range tree {
		if i := strings.Index(text, " inode of "); i >= 0 {
			if other, err := strconv.Unquote(text[i+len(" inode of "):]); err == nil {
				text = text[:i] + " inode of " + strconv.Quote(rsyncx.Printable(other))
			}
		}
		shown[rsyncx.Printable(name)] = text
	}
	return shown
}

// linksWithSlash returns the links of the source that a list names with a slash.
func linksWithSlash(nodes []node) []string {
	return slices.DeleteFunc(namedDirectories(nodes), func(name string) bool {
		return !slices.ContainsFunc(nodes, func(n node) bool { return n.kind == 'l' && n.path == "from/"+name })
	})
}

// recurses reports whether -r is among the options: with a list -a is not enough.
func (c command) recurses() bool {
	goes := false
	for _, o := range c.opts {
		switch {
		case strings.HasPrefix(o, "-r"):
			goes = true
		case o == "--no-r", o == "--no-recursive", o == "--no-a":
			goes = false
		}
	}
	return goes
}

// namedDirectories returns what a list names with a slash at the end.
func namedDirectories(nodes []node) []string {
	var names []string
	for _, list := range nodes {
		if !namesDirectory(list) {
			continue
		}
		for name := range strings.FieldsFuncSeq(list.content[0].text, func(r rune) bool { return r == '\n' || r == 0 }) {
			if clean := path.Clean("/" + name)[1:]; clean != "" && strings.HasSuffix(strings.TrimSuffix(name, "."), "/") {
				names = append(names, clean, last(clean)) // without -R the last part alone
			}
		}
	}
	return names
}

// notDeletedIn leaves out what rsync deleted below dirs, and its backups, and sees that drsync did not.
func notDeletedIn(ex *exception, lines func(func(string) string), dirs []string, run command, rsync, drsync outcome) {
	names := map[string]bool{}
	below := func(name string) bool {
		return slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(name, "to/"+dir+"/") })
	}
	for name := range gone(rsync) {
		names[name] = below(name)
	}
	for name := range rsync.tree {
		_, before := rsync.before[name]
		_, made := drsync.tree[name]
		_, isBackup := run.backupOf(name)
		names[name] = !before && !made && (isBackup || strings.HasPrefix(rsync.tree[name], "004"))
	}
	maps.DeleteFunc(names, func(_ string, is bool) bool { return !is })
	for name := range gone(drsync) {
		if below(name) {
			ex.more = append(ex.more, "drsync deleted "+name)
		}
	}
	if len(names) > 0 {
		lines(noDeletedLines)
		ex.then(aside(names))
	}
}

// namesDirectory reports whether n is a list with a name that ends in a slash.
func namesDirectory(n node) bool {
	return n.path == "list" && len(n.content) == 1 && slashes.MatchString(n.content[0].text)
}

var (
	slashes     = regexp.MustCompile(`/\.?[\n\x00]`)
	permissions = regexp.MustCompile(`[-rwxsStT]{9}`)
	ownFacts    = regexp.MustCompile(`^(...)\d* \d+:\d+`)
)

// attributes of a text of a snapshot that a copy of the content has not.
var attributes = regexp.MustCompile(` [a-z]+\.[a-z_ ]+="([^"\\]|\\.)*"| inode of ".*"$`)

// shares reports whether name has other names in the tree.
func shares(tree map[string]string, name string) bool {
	if strings.Contains(tree[name], " inode of ") {
		return true
	}
	for _, text := range tree {
		if strings.HasSuffix(text, " inode of "+strconv.Quote(name)) {
			return true
		}
	}
	return false
}

// partedIn are the names in to that share an inode while, of what is copied to them, two
// are different files.
func partedIn(tree map[string]string) map[string]bool {
	first := func(name string) string {
		if _, of, linked := strings.Cut(tree[name], " inode of "); linked {
			if other, err := strconv.Unquote(of); err == nil {
				return other
			}
		}
		return name
	}
	from, names, mixed := map[string]string{}, map[string][]string{}, map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		below, ok := strings.CutPrefix(name, "to/")
		if !ok {
			continue
		}
		is := first(name)
		names[is] = append(names[is], name)
		if strings.HasPrefix(tree["from/"+below], "010") {
			source := first("from/" + below)
			if before, known := from[is]; known && before != source {
				mixed[is] = true
			}
			from[is] = source
		}
	}
	apart := map[string]bool{}
	for is := range mixed {
		for _, name := range names[is] {
			apart[name] = true
		}
	}
	return apart
}

// eachBackup changes what is said of the backups that the run made: old is the name that
// each is one of.
func eachBackup(ex *exception, run command, rsync outcome, change func(old, text string) string) {
	ex.then(func(tree map[string]string) map[string]string {
		for name, text := range tree {
			if old, isBackup := run.backupOf(name); isBackup && rsync.before[name] == "" && !strings.HasPrefix(text, "004") {
				tree[name] = change(old, text)
			}
		}
		return tree
	})
}

// backupOf returns the name that name is a backup of, by its look.
func (c command) backupOf(name string) (old string, isBackup bool) {
	dir, suffix := strings.TrimPrefix(c.value("--backup-dir="), "./"), c.value("--suffix=")
	if dir == "" && !c.hasPrefix("-b") && !c.has("--backup") {
		return "", false
	}
	if dir == "" && suffix == "" {
		suffix = "~"
	}
	old, isBackup = strings.CutSuffix(name, suffix)
	if dir == "" || !isBackup {
		return old, isBackup
	}
	below, inDir := strings.CutPrefix(old, strings.TrimPrefix(path.Join("to", dir), "to/@/")+"/")
	return "to/" + below, inDir
}

// keeps reports whether the letter, one of those of -a, is among the options.
func (c command) keeps(letter byte) bool {
	long := map[byte]string{'t': "times", 'p': "perms", 'o': "owner", 'g': "group", 'l': "links", 'D': "D"}[letter]
	keeps := false
	for _, o := range c.opts {
		switch {
		case o == "-a", o == "-"+string(letter), o == "--"+long:
			keeps = true
		case o == "--no-a", o == "--no-"+string(letter), o == "--no-"+long:
			keeps = false
		case strings.HasPrefix(o, "-r") && strings.IndexByte(o, letter) > 0:
			keeps = true
		}
	}
	return keeps
}

// otherNames adds to the names with special bits what is a link to one of them, and as
// what they are shown.
func otherNames(nodes []node, special map[string]bool) {
	at := map[string]bool{}
	for _, n := range nodes {
		if n.mode&0o7000 != 0 {
			at[n.path] = true
		}
	}
	for range 3 {
		for _, n := range nodes {
			if n.kind == 'h' && (at[n.target] || at[n.path]) {
				at[n.path], at[n.target] = true, true
			}
		}
	}
	for p := range at {
		special[last(p)], special[rsyncx.Printable(last(p))] = true, true
	}
}
