package rsyncx

import (
	"strings"
	"time"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

// Texts of Skip events, in rsync's words. Those up to SkipNotCreatedDir come with
// Options.Explain only; see ExplainLine.
const (
	SkipUpToDate      = "is uptodate"
	SkipExists        = "exists"
	SkipNewer         = "is newer"
	SkipOverMax       = "is over max-size"
	SkipUnderMin      = "is under min-size"
	SkipNotCreated    = "not creating new file"
	SkipNotCreatedDir = "not creating new directory"
	SkipNonRegular    = "skipping non-regular file"
	SkipUnsafe        = "ignoring unsafe symlink" // the event has the Target
	// SkipHidden, SkipProtected and SkipRisked are followed by the pattern of the rule.
	SkipHidden    = "hidden by the rule "
	SkipProtected = "protected by the rule "
	SkipRisked    = "may be deleted by the rule " // with Options.Explain only
)

// ExplainLine returns rsync's line for a Skip event and the verbosity from which on
// rsync writes it: how often -v is given. An event with an Itemize is shown with -i
// by those letters instead, and one of a directory (its Name ends in '/') that is
// up to date is shown no other way, unless it is new and as an alternate directory
// has it. The line is "" for other texts.
func ExplainLine(e event.Event) (line string, verbosity int) {
	name := Printable(strings.TrimSuffix(e.Name, "/"))
	switch text := e.Text; {
	case text == SkipUpToDate && strings.HasSuffix(e.Name, "/") && strings.HasPrefix(e.Itemize, "c"):
		return name + "/ " + text, 2
	case text == SkipUpToDate && strings.HasSuffix(e.Name, "/"):
		return "", 2
	case text == SkipUpToDate, text == SkipExists, text == SkipNewer, text == SkipOverMax, text == SkipUnderMin:
		return name + " " + text, 2
	case text == SkipNotCreated, text == SkipNotCreatedDir:
		return text + ` "` + name + `"`, 2
	case text == SkipNonRegular:
		return text + ` "` + name + `"`, 0
	case text == SkipUnsafe:
		return text + ` "` + name + `" -> "` + Printable(e.Target) + `"`, 1
	}
	kind := "file "
	if strings.HasSuffix(e.Name, "/") {
		kind = "directory "
	}
	if rule, ok := strings.CutPrefix(e.Text, SkipHidden); ok {
		return "[sender] hiding " + kind + name + " because of pattern " + rule, 2
	}
	if rule, ok := strings.CutPrefix(e.Text, SkipProtected); ok {
		return "[generator] protecting " + kind + name + " because of pattern " + rule, 2
	}
	if rule, ok := strings.CutPrefix(e.Text, SkipRisked); ok {
		return "[generator] risking " + kind + name + " because of pattern " + rule, 2
	}
	return "", 2
}

// explain says why a name is left alone, when that is wanted.
func (s *stager) explain(path, text string) {
	if s.o.Explain {
		s.skip(path, text)
	}
}

// eventEntry is what an event tells of an entry.
func (s *stager) eventEntry(e *Entry) event.Entry {
	tells := event.Entry{Mode: s.sent(e), Size: e.Size, Mtime: time.Unix(e.Mtime.Sec, int64(e.Mtime.Nsec)), UID: e.UID, GID: e.GID}
	if s.o.OwnNumbers && s.o.Owner {
		tells.UID = s.ids.uid(e)
	}
	if s.o.OwnNumbers && s.o.Group {
		tells.GID = s.ids.gid(e)
	}
	return tells
}

// upToDate says that nothing of a name differs.
func (s *stager) upToDate(path string, e *Entry) {
	s.upToDateAs(path, e, change{update: '.'})
}

func (s *stager) upToDateAs(path string, e *Entry, ch change) {
	if !s.o.Explain {
		return
	}
	ev := event.Event{Kind: event.Skip, Text: SkipUpToDate, Itemize: ch.letters(e.Mode), Name: path, Target: e.Target, Entry: s.eventEntry(e)}
	switch {
	case isDir(e) && path == "":
		ev.Name = "./"
	case isDir(e):
		ev.Name += "/"
	}
	s.o.Event.Emit(ev)
}

// protected asks the destination's rules, and with backups beside the files the
// rule that keeps those, which comes after all others.
func (s *stager) protected(guard *filter.Scope, path string, dir bool) bool {
	kept, rule := guard.Excluded(path, dir, filter.Receiver)
	if !kept && rule == "" && s.backups != nil {
		kept, rule = s.backups.Root().Excluded(path, dir, filter.Receiver)
	}
	if s.o.Event == nil || rule == "" {
		return kept
	}
	if dir {
		path += "/"
	}
	if kept {
		s.skip(path, SkipProtected+Printable(rule))
	} else {
		s.explain(path, SkipRisked+Printable(rule))
	}
	return kept
}

// sayKept says that the rules would keep a name of the destination that the source
// has, as rsync does, which asks them first.
func (s *stager) sayKept(f *frame, here *info) {
	if s.o.Explain && s.o.Delete && !s.o.deleted && !f.early {
		defer s.aloud()()
		s.protected(f.guard, joinPath(f.path, here.Name), here.isDir())
	}
}

// count adds an entry of the source to the counts by type.
func (s *stager) count(e *Entry) {
	c := &s.stats.Counts
	add(e.Mode, &c.Files, &c.Dirs, &c.Links, &c.Devices, &c.Specials)
}

// created counts an entry that the destination did not have.
func (s *stager) created(e *Entry) {
	c := &s.stats.Counts
	s.stats.Created++
	add(e.Mode, &c.NewFiles, &c.NewDirs, &c.NewLinks, &c.NewDevices, &c.NewSpecials)
}

func (c *Counts) deleted(mode uint32) {
	add(mode, &c.DeletedFiles, &c.DeletedDirs, &c.DeletedLinks, &c.DeletedDevices, &c.DeletedSpecials)
}

// addDeleted adds the deletions of an earlier half.
func (c *Counts) addDeleted(b *Counts) {
	c.DeletedFiles += b.DeletedFiles
	c.DeletedDirs += b.DeletedDirs
	c.DeletedLinks += b.DeletedLinks
	c.DeletedDevices += b.DeletedDevices
	c.DeletedSpecials += b.DeletedSpecials
}

func add(mode uint32, files, dirs, links, devices, specials *int64) {
	n := specials
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		n = files
	case unix.S_IFDIR:
		n = dirs
	case unix.S_IFLNK:
		n = links
	case unix.S_IFCHR, unix.S_IFBLK:
		n = devices
	}
	*n++
}
