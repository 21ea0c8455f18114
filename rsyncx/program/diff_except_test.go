package program_test

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/drsync/drsync/rsyncx"
)

// exception takes out of a comparison what is known to differ, with the reason.
type exception struct {
	exit  bool // the exit status, too
	lines func([]string) []string
	warns bool // only one of them may have something to say
	tree  func(map[string]string) map[string]string
	more  []string // what must hold instead, and does not
}

// then adds a change to those that are made to a tree before it is compared.
func (ex *exception) then(change func(map[string]string) map[string]string) {
	before := ex.tree
	ex.tree = func(tree map[string]string) map[string]string {
		if before != nil {
			tree = before(tree)
		}
		return change(maps.Clone(tree))
	}
}

// exceptions is the whole list of what the two programs may do differently.
func exceptions(c diffCase, run command, rsync, drsync outcome) exception {
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
	for _, q := range quirks(c, run, rsync) {
		if q.applies {
			lines(q.to)
		}
	}
	sorted := ex.lines
	ex.lines = func(l []string) []string { return once(run, sorted(l)) }
	if unreadRules(run, rsync, drsync) {
		return refused(drsync, "a filter rule is wrong")
	}
	// In a directory of a list that is not gone into rsync deletes, drsync does not.
	if run.hasPrefix("--del") && c.keepsContent(run) {
		lines(noDeletedLines)
		onlyRsyncDeleted(&ex, rsync, drsync)
	}
	// With a rule for the destination alone rsync's sender reads the files of the source all the same.
	if rsync.exit == 1 && drsync.exit == 0 && strings.Contains(rsync.stderr, "specified-side merge file contains specified-side filter") {
		return nothingToCompare()
	}
	// A similar file gives a new one its mode, with -y and without -p; and so does a
	// symbolic link the device that replaces it, for all to write to.
	if !run.keepsModes() {
		changeText(&ex, func(name, text string) string {
			old, there := rsync.before[name]
			if run.has("-y") && !there && strings.HasPrefix(text, "010") || strings.HasPrefix(old, "012") && !strings.HasPrefix(text, "010") && !strings.HasPrefix(text, "004") {
				return text[:3] + text[7:]
			}
			return text
		})
	}
	// What --chmod gives the group rsync gives the owning group of a list too, when that
	// has what the mask has; drsync leaves the list's entries.
	if run.hasPrefix("-A") && run.hasPrefix("--chmod") {
		changeText(&ex, func(_, text string) string { return accessList.ReplaceAllStringFunc(text, withoutGroup) })
	}
	// A directory for backups may get from rsync the list of another directory.
	if run.hasPrefix("-A") && run.hasPrefix("--backup-dir") {
		changeText(&ex, func(name, text string) string {
			if strings.HasPrefix(name, "bak/") || strings.HasPrefix(name, "to/bak/") {
				return defaultList.ReplaceAllString(text, "")
			}
			return text
		})
	}
	// A file that was written in --temp-dir has no list of the directory that it is moved to.
	if run.hasPrefix("--temp-dir") && !run.hasPrefix("-A") {
		changeText(&ex, func(name, text string) string {
			if !strings.HasPrefix(text, "010") || text == rsync.before[name] {
				return text
			}
			return accessList.ReplaceAllString(text, "")
		})
	}
	// Where a directory of the way is none in the destination drsync does not begin.
	if none := "is no directory at the destination, and drsync follows no links"; run.has("--no-implied-dirs") && strings.Contains(drsync.stderr, none) {
		return refused(drsync, none)
	}
	// A time that a file system cannot tell stops rsync's copy for a backup.
	if run.has("--inplace") && strings.Contains(rsync.stderr, "failed: Invalid argument (22)") {
		return nothingToCompare()
	}
	// In rsync a rule that is anchored in a directory takes the directory's name for a pattern.
	for _, dir := range c.wildRules() {
		lines(func(l string) string {
			if strings.Contains(l, rsyncx.Printable(dir)) {
				return ""
			}
			return l
		})
		leaveOut(&ex, func(name string) bool { return strings.HasPrefix(name, "to/"+dir+"/") })
		leaveOutTime(&ex, "to/"+dir)
	}
	if leads := c.hiddenLead(run); len(leads) > 0 && len(run.rules()) > 0 {
		lines(func(l string) string {
			for name := range leads {
				if strings.Contains(l, rsyncx.Printable(name)) {
					return ""
				}
			}
			return l
		})
		leaveOut(&ex, func(name string) bool { return leads[strings.TrimPrefix(name, "to/")] })
	}
	// Of what is deleted rsync knows only the name, and the mode most of the time.
	lines(func(l string) string { return deletedFacts.ReplaceAllString(l, "del. ") })
	// rsync looks again at setuid files after it gave them away, and then sees
	// other differences of mode, owner and lists than before, or none; the trees tell.
	nodes := c.nodes
	for _, r := range c.runs {
		nodes = slices.Concat(nodes, r.changes)
	}
	if special := withSpecialBits(nodes); len(special) > 0 {
		lines(func(l string) string {
			if m := itemized.FindStringSubmatch(l); m != nil && special[last(strings.TrimSuffix(m[2], "/"))] && l[0] == '.' {
				if l = l[:5] + "..." + l[8:9] + ".." + l[11:]; strings.HasPrefix(l[2:], "......... ") {
					return ""
				}
			}
			return l
		})
	}
	moreExceptions(&ex, lines, c, run, rsync, drsync)
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
	// rsync's dry run takes a directory for deleted in which something protected stays.
	if run.has("-n") {
		lines(func(l string) string {
			if strings.Contains(l, "deleting ") && strings.HasSuffix(l, "/") || strings.HasPrefix(l, "Number of deleted files: ") || strings.HasPrefix(l, "cannot delete non-empty") {
				return ""
			}
			return l
		})
	}
	// How much of a changed file travels from a host is a matter of how it is looked for.
	if c.remote && !run.has("-n") {
		lines(func(l string) string {
			if strings.HasPrefix(l, "Literal data:") || strings.HasPrefix(l, "Matched data:") {
				return ""
			}
			return l
		})
		ex.more = append(ex.more, dataOf(drsync.stdout)...)
	}
	// rsync's dry run has not given a file its attributes when it looks at the file's next name.
	if run.has("-n") {
		lines(func(l string) string {
			if m := itemized.FindStringSubmatch(l); m != nil && l[0] == 'h' {
				name, _, _ := strings.Cut(m[2], " => ")
				return "h" + l[1:2] + " " + name
			}
			return l
		})
	}
	// rsync goes into a file that it was to leave alone as if it were the directory
	// of the source, and dies of a first name of several that found no place.
	if run.has("--ignore-existing") && (strings.Contains(rsync.stderr, "Not a directory") || strings.Contains(rsync.stderr, "recv_generator: mkdir") || strings.Contains(rsync.stderr, "recv_generator: failed to stat")) || strings.Contains(rsync.stderr, "(finish_hard_link)") {
		return nothingToCompare()
	}
	all := nothingToCompare()
	// A name of a list that ends in a slash stands for what a link leads to, which
	// rsync refuses when the link belongs to somebody else; drsync sends the link.
	if strings.Contains(rsync.stderr, "refusing to follow a symlink owned by an untrusted user") {
		return all
	}
	if rsync.exit == 23 && strings.Contains(rsync.stderr, "[sender] link_stat") && strings.Contains(rsync.stderr, "Too many levels of symbolic links") {
		return all
	}
	// rsync trips over its own feet now and then.
	if strings.Contains(rsync.stderr, "rejecting excluded file-list name") || strings.Contains(rsync.stderr, "rejecting unrequested file-list name") || rsync.exit == 2 && (strings.Contains(rsync.stderr, "Invalid packet") || strings.Contains(rsync.stderr, "hard-link gnum")) {
		return all
	}
	// Where a directory of the way is none in the destination drsync does not begin.
	if run.has("--no-implied-dirs") && strings.Contains(drsync.stderr, "is no directory at the destination, and drsync follows no links") {
		return refused(drsync, "is no directory at the destination")
	}
	// A dry run of rsync looks for the extended attributes of what it did not make.
	if run.has("-n") && strings.Contains(rsync.stderr, "gen_entry_copy_xattrs") {
		return all
	}
	// rsync follows a link to a directory above it until the kernel has enough;
	// drsync leaves it out.
	if (run.has("-k") || run.has("--copy-links") || run.has("--copy-unsafe-links")) && deep(rsync.tree) {
		return all
	}
	// A filter file that is a link out of the source's tree is an error: without its
	// rules names might be deleted that it protects.
	if run.hasPrefix("--filter=:") || run.hasPrefix("--filter=dir-merge") {
		for _, n := range c.nodes {
			if n.kind == 'l' && strings.HasPrefix(n.path, "from/") && slices.Contains([]string{"b", ".rules"}, last(n.path)) && (n.target[0] == '/' || strings.Contains(n.target, "..")) {
				return all
			}
		}
	}
	// Earlier backups in the destination that are to go last are replaced by new ones in
	// rsync; drsync moves them first.
	if run.has("--delete-after") || run.has("--delete-delay") {
		if dir := strings.TrimPrefix(run.value("--backup-dir="), "./"); dir != "" {
			leaveOut(&ex, func(name string) bool { return strings.HasPrefix(name, "to/"+dir+"/") })
			lines(func(l string) string {
				if name, ok := strings.CutPrefix(l, "cannot delete non-empty directory: "); ok && strings.HasPrefix(dir+"/", name+"/") || deletedLine.MatchString(l) && strings.Contains(l, " "+dir+"/") {
					return ""
				}
				return l
			})
		}
	}
	// Backups of backups come to lie where rsync has yet to delete, and does so again.
	if dir := strings.TrimPrefix(run.value("--backup-dir="), "./"); dir != "" && run.hasPrefix("--del") {
		if twice := dir + "/" + dir; rsync.before["to/"+twice] != "" {
			leaveOut(&ex, func(name string) bool { return strings.HasPrefix(name, "to/"+twice+"/") })
			lines(func(l string) string {
				if strings.Contains(l, twice) {
					return ""
				}
				return l
			})
		}
	}
	// A backup that is made beside its file rsync deletes again at the end with these options. In
	// drsync it stays, and is just what the file was.
	if (run.has("--delete-after") || run.has("--delete-delay")) && run.has("--delete-excluded") && run.has("-b") && run.value("--backup-dir=") == "" && rsync.exit == 0 {
		fresh := func(name string) bool {
			_, in := rsync.tree[name]
			old, isBackup := run.backupOf(name)
			was, _, _ := strings.Cut(drsync.before[old], " inode of ")
			is, _, _ := strings.Cut(drsync.tree[name], " inode of ")
			return !in && isBackup && is != "" && (is == was || inPlace(run))
		}
		if slices.ContainsFunc(slices.Collect(maps.Keys(drsync.tree)), fresh) {
			leaveOut(&ex, fresh)
			lines(noDeletedLines)
		}
	}
	// rsync leaves out a rule that is longer than it can read; drsync refuses the file
	// since it cannot know what that protects.
	if strings.Contains(rsync.stderr, "discarding over-long filter") && drsync.exit != 0 {
		return refused(drsync, "filter rule")
	}
	// rsync's dry run does not see that backups fill a directory that is to make way; the real run does.
	if run.has("-n") && run.hasPrefix("-b") && strings.Contains(drsync.stderr, "could not make way for") && !strings.Contains(rsync.stderr, "could not make way for") {
		return refused(drsync, "could not make way for")
	}
	// What cannot be used as --temp-dir is seen after the destination was made.
	if run.hasPrefix("--temp-dir") && rsync.exit != 0 && rsync.exit == drsync.exit {
		dest := path.Clean(run.dest)
		lines(func(l string) string {
			if strings.HasPrefix(l, "[sender] hiding ") {
				return ""
			}
			return l
		})
		if _, made := rsync.before[dest]; !made && len(rsync.tree) == len(rsync.before)+1 {
			leaveOut(&ex, func(name string) bool { return name == dest })
		}
	}
	// The filter files of a directory that only leads to names of a list count in rsync
	// for the names that come after its first.
	if run.hasPrefix("--files-from") && (run.hasPrefix("--filter=:") || run.hasPrefix("--filter=dir-merge") || run.hasPrefix("-F")) && rsync.exit == 0 {
		return all
	}
	// rsync counts what is named twice as often as it is.
	// Nor does drsync look into directories that stay out for not existing.
	if len(run.srcs) > 1 || run.hasPrefix("--files-from") || run.has("--existing") || run.has("--ignore-non-existing") {
		lines(func(l string) string {
			if strings.HasPrefix(l, "total size is ") || strings.HasPrefix(l, "Total file size: ") || strings.HasPrefix(l, "Number of files: ") {
				return ""
			}
			return l
		})
	}
	// rsync looks for default access lists of what is no directory.
	if strings.Contains(rsync.stderr, "sys_acl_get_file(") {
		return all
	}
	// A --temp-dir that is to be deleted itself rsync misses then.
	if run.hasPrefix("--temp-dir=") && strings.Contains(rsync.stderr, "mkstemp ") && strings.Contains(rsync.stderr, "No such file or directory") {
		return all
	}
	// A dry run of rsync looks for hard links below what is no directory yet, and a real one for
	// backups in a directory that is a link.
	backups := "to/" + strings.TrimPrefix(run.value("--backup-dir="), "./")
	if run.has("-n") && strings.Contains(rsync.stderr, "[generator] stat ") || strings.Contains(rsync.stderr, "keep_backup failed") && strings.HasPrefix(rsync.before[backups], "012") {
		return all
	}
	// Names that begin with # or ; are none to rsync with -0 either, unless they come from a host.
	if !c.remote && run.has("-0") && run.hasPrefix("--files-from=") && slices.ContainsFunc(c.nodes, func(n node) bool {
		return n.path == "list" && len(n.content) == 1 && remark.MatchString(n.content[0].text)
	}) {
		return all
	}
	// From a host rsync asks for the remarks of a list as if they were names, and then does not delete.
	if c.remote && strings.Contains(rsync.stderr, "# a remark\" failed") {
		return nothingToCompare()
	}
	// rsync does not tell the patterns of files of rules at the other side.
	if strings.Contains(rsync.stdout, "<rule from a file read earlier>") {
		lines(func(l string) string {
			before, _, _ := strings.Cut(l, " because of pattern ")
			return before
		})
	}
	// rsync writes what --append-verify finds changed, reads it again, and then
	// transfers it once more: it shows it twice, and keeps what it wrote first as a backup.
	if strings.Contains(rsync.stderr, "failed verification -- update ") {
		ex.warns = true
		before := ex.lines
		ex.lines = func(l []string) []string {
			l = slices.DeleteFunc(before(l), func(s string) bool {
				m := itemized.FindStringSubmatch(s)
				return figures.MatchString(s) || m != nil && strings.Contains(rsync.stderr, " "+m[2]+" failed verification")
			})
			return slices.DeleteFunc(slices.Compact(l), func(s string) bool {
				name, second := strings.CutPrefix(s, ">f..t...... ")
				return second && slices.ContainsFunc(l, func(o string) bool { return o != s && strings.HasPrefix(o, ">f") && strings.HasSuffix(o, " "+name) })
			})
		}
		if run.hasPrefix("-b") || run.hasPrefix("--backup") {
			ex.tree = func(tree map[string]string) map[string]string {
				tree = maps.Clone(tree)
				for name := range tree {
					if _, ok := rsync.before[name]; !ok {
						delete(tree, name)
					}
				}
				return tree
			}
		}
	}
	// A name that is sent twice counts twice for rsync.
	if run.hasPrefix("-R") && len(run.srcs) > 1 {
		lines(func(l string) string {
			if strings.HasPrefix(l, "total size is ") {
				return ""
			}
			return l
		})
	}
	// rsync looks for other bases although it only lists.
	if run.has("--list-only") && strings.Contains(rsync.stderr, "-dest arg does not exist") {
		ex.warns = true
	}
	// rsync does not look where a link leads that somebody else made.
	if strings.Contains(rsync.stderr, "owned by an untrusted user") {
		ex.warns = true
		if rsync.exit != drsync.exit {
			return nothingToCompare()
		}
	}
	// Its receiver refuses what its own sender sends, directories on the way that are excluded.
	if rsync.exit == 4 && strings.Contains(rsync.stderr, "rejecting excluded file-list name") {
		return nothingToCompare()
	}
	// rsync's temporary files change the time of the directory in which they are.
	if run.hasPrefix("--temp-dir") || run.has("-T") {
		leaveOut(&ex, func(name string) bool { return name == "tmp" })
	}
	if dir := run.value("--temp-dir="); dir != "" && dir[0] != '@' {
		leaveOutTime(&ex, "to/"+dir)
	}
	// The directory in which rsync makes that of the backups has the time of that, or what
	// it ought to have.
	if dir := run.value("--backup-dir="); dir != "" && strings.HasSuffix(rsync.tree["to"], " now") {
		leaveOutTime(&ex, "to")
	}
	// Of a directory inside one that cannot go rsync says twice that it cannot go.
	{
		before := ex.lines
		ex.lines = func(l []string) []string {
			l = before(l)
			return slices.DeleteFunc(slices.Clone(l), func(s string) bool {
				n := slices.Index(l, s)
				l = l[n+1:]
				return strings.HasPrefix(s, "cannot delete non-empty directory") && len(l) > 0 && l[0] == s
			})
		}
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
	// or deletes before it meets a link that leads nowhere.
	if run.hasPrefix("--del") && !run.has("--ignore-errors") && (strings.Contains(rsync.stderr, "No such file or directory") || strings.Contains(rsync.stderr, "symlink has no referent")) {
		nothingDeleted(&ex, lines, run, rsync, drsync)
		if rsync.exit == 25 && drsync.exit == 23 {
			ex.exit = true // it deleted up to the limit
			return ex
		}
	}
	// rsync reads a filter file of one side on the other as well, only to find that a rule in
	// it names a side, which the file's own may not; drsync reads it where it counts.
	if rsync.exit == 1 && drsync.exit != 1 && strings.Contains(rsync.stderr, "specified-side merge file contains specified-side filter") {
		return all
	}
	// After a rule that is none rsync leaves what it had done by then, drsync nothing.
	if rsync.exit == 1 && strings.Contains(rsync.stderr, "filter") {
		if strings.Contains(rsync.stderr, "[generator=") {
			return all // of a directory that drsync does not even look into
		}
		for _, d := range treeDiff(drsync.before, drsync.tree) {
			ex.more = append(ex.more, "drsync changed something after a bad rule: before and behind "+d)
		}
		return exception{lines: func([]string) []string { return nil }, tree: func(map[string]string) map[string]string { return nil }, more: ex.more}
	}
	// An rsync at the other end that finds one there is only seen to go.
	if c.remote && rsync.exit == 12 && strings.Contains(rsync.stderr, "(code 1) at exclude.c") {
		return all
	}
	// Which entries go before the limit is reached follows from the order of the work.
	if rsync.exit == 25 && !run.has("--max-delete=0") {
		asManyDeleted(&ex, lines, run, rsync, drsync)
	}
	// Without -p rsync -X gives a name whose attributes it sets the source's mode all the same,
	// which an access list that comes from the directory shows too.
	if run.has("-X") && !run.keepsModes() {
		before := ex.tree
		ex.tree = func(tree map[string]string) map[string]string {
			if before != nil {
				tree = before(tree)
			}
			tree = maps.Clone(tree)
			for name, text := range tree {
				tree[name] = accessList.ReplaceAllString(text[:3]+text[7:], "")
			}
			return tree
		}
	}
	return ex
}

var accessList = regexp.MustCompile(` system\.posix_acl_access="([^"\\]|\\.)*"`)

var defaultList = regexp.MustCompile(` system\.posix_acl_default="([^"\\]|\\.)*"`)

var remark = regexp.MustCompile(`(^|\x00)[#;]`)

// figures are lines of --stats that count what was transferred.
var figures = regexp.MustCompile(`^(Literal data|Matched data|Number of regular files transferred|Total transferred file size): `)

// refused sees that drsync said why, and did nothing.
func refused(drsync outcome, why string) exception {
	ex := nothingToCompare()
	if !strings.Contains(drsync.stderr, why) {
		ex.more = append(ex.more, fmt.Sprintf("drsync does not say %q: %s", why, firstLines(drsync.stderr)))
	}
	for _, d := range treeDiff(drsync.before, drsync.tree) {
		ex.more = append(ex.more, "drsync changed something: before and behind "+d)
	}
	return ex
}

// leaveOut leaves names out of the comparison.
func leaveOut(ex *exception, names func(string) bool) {
	before := ex.tree
	ex.tree = func(tree map[string]string) map[string]string {
		if before != nil {
			tree = before(tree)
		}
		tree = maps.Clone(tree)
		maps.DeleteFunc(tree, func(name, _ string) bool { return names(name) })
		return tree
	}
}

// leaveOutTime leaves the time of the directory name out.
func leaveOutTime(ex *exception, name string) {
	before := ex.tree
	ex.tree = func(tree map[string]string) map[string]string {
		if before != nil {
			tree = before(tree)
		}
		tree = maps.Clone(tree)
		if text, ok := tree[name]; ok && strings.HasPrefix(text, "004") && strings.Count(text, " ") > 1 {
			tree[name] = text[:strings.LastIndexByte(text, ' ')]
		}
		return tree
	}
}

// value returns what an option that begins so says.
func (c command) value(prefix string) string {
	for _, o := range slices.Backward(c.opts) {
		if v, ok := strings.CutPrefix(o, prefix); ok {
			return v
		}
	}
	return ""
}

func nothingToCompare() exception {
	return exception{lines: func([]string) []string { return nil }, tree: func(map[string]string) map[string]string { return nil }, exit: true, warns: true}
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

// deep reports whether a tree is as deep as only a loop makes it.
func deep(tree map[string]string) bool {
	for name := range tree {
		if strings.Count(name, "/") > 20 {
			return true
		}
	}
	return false
}

var deletedFacts = regexp.MustCompile(`^del\. .{10}[^ ]* [^ ]* [^ ]+:[^ ]+ `)

func withSpecialBits(nodes []node) map[string]bool {
	names := map[string]bool{}
	for _, n := range nodes {
		if n.mode&0o7000 != 0 {
			names[last(n.path)], names[rsyncx.Printable(last(n.path))] = true, true
			if n.path == "from" || n.path == "to" {
				names["."] = true
			}
		}
	}
	otherNames(nodes, names)
	return names
}

func last(p string) string { return p[strings.LastIndexByte(p, '/')+1:] }

var itemized = regexp.MustCompile(`^([<>ch.*][fdLDS][-.+?a-zA-Z ]{9}) (.*)$`)
