package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

// The parts of a manifest, in the order in which Publish replays them.
const (
	partClear  = iota // what stands in the way of another type
	partDirs          // new directories with all that is in them
	partFiles         // staged files to their places
	partLinks         // hard links, attributes
	partDelete        // what the source has not
	partAttrs         // of directories, deepest first
	parts
)

// ErrStaged says that an earlier Stage waits to be published or discarded.
var ErrStaged = errors.New("an earlier staged tree waits to be published")

// Stage compares src with dst, fetches what is new or changed into dst's
// private staging directory and writes down what else Publish has to do. Nothing
// visible changes. Every decision is reported to o.Event as a Change, whose Name
// ends in '/' for a directory and is "./" for the root, in a dry run as well.
//
// src is not trusted: what breaks the rules of a listing ends Stage with an
// error that wraps ErrHostile. On any error nothing stays staged,
// but for what Options.Resume keeps for the next Stage.
//
// A destination that cannot be written is an *UnwritableError, unless nothing has
// to be done there.
func Stage(ctx context.Context, src Source, dst *Root, o Options) (*Staged, error) {
	staged, err := stage(ctx, src, dst, o)
	var shut *UnwritableError
	if errors.As(err, &shut) && !o.DryRun {
		return asItIs(ctx, src, dst, o, err)
	}
	return staged, err
}

func stage(ctx context.Context, src Source, dst *Root, o Options) (_ *Staged, err error) {
	o = o.withDefaults()
	if err := o.honoured(); err != nil {
		return nil, err
	}
	s := &stager{src: src, dst: dst, o: o, can: src.Abilities()}
	if s.ids, err = newOwnerIDs(&o); err != nil {
		return nil, err
	}
	s.cmp = newComparer(o, s.can)
	s.xattrs.rules = s.cmp.rules
	s.out = &Staged{root: dst, stage: -1, state: -1, dry: o.DryRun, noSync: o.NoSync, half: o.deleteOnly, sink: o.Event}
	defer func() {
		s.close()
		if err != nil {
			err = errors.Join(err, s.giveUp(err))
		}
	}()
	if err := s.guards(ctx); err != nil {
		return nil, err
	}
	if err := s.openRacy(ctx); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	if err := s.findEmpty(ctx); err != nil {
		return nil, err
	}
	if err := s.findIdle(ctx); err != nil {
		return nil, err
	}
	if err := s.walk(ctx); err != nil {
		return nil, err
	}
	if err := s.guard(); err != nil {
		return nil, err
	}
	if err := s.contents(ctx); err != nil {
		return nil, err
	}
	if err := s.deletions(); err != nil {
		return nil, err
	}
	if err := s.remember(); err != nil {
		return nil, err
	}
	s.dst.refused.tell(&s.stats, &s.notes, s.o.Event)
	s.out.stats = s.result()
	if err := s.out.finish(); err != nil {
		return nil, err
	}
	return s.out, nil
}

func (o Options) withDefaults() Options {
	if o.MaxEntries <= 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	o.Delete = o.Delete || o.DeleteExcluded
	o.Perms = o.Perms || o.ACLs
	o.Backup = o.Backup || o.BackupDir != ""
	if o.Backup && o.BackupDir == "" {
		o.OmitDirTimes = true // every backup changes the time of its directory
		if o.Suffix == "" {
			o.Suffix = "~"
		}
	}
	o.Append = o.Append || o.AppendVerify
	o.Inplace = o.Inplace || o.Append
	if o.PartialDir != "" && !filepath.IsAbs(o.PartialDir) {
		o.PartialDir = filepath.Clean(o.PartialDir)
	}
	return o
}

// stager is one Stage at work.
type stager struct {
	src Source
	dst *Root
	o   Options
	can Abilities
	ids ownerIDs
	cmp comparer
	out *Staged

	frames []*frame // from the root to the directory looked at
	last   string   // path of the last directory the source sent
	piece  Piece    // that the source sent last
	at     *frame   // of that; nil when it is not wanted
	// gathers says that the pieces of a directory are put together in whole.
	gathers bool
	whole   Dir
	listed  int64 // names the source sent
	// excused are the paths of which the source said what is wrong with them, and what leads there.
	excused map[string]struct{}
	// ignored is the directory that was last kept out with all below it.
	ignored string
	names   []byte // scratch
	xattrs  xattrReader
	lister  destLister
	only    Selection // of the root
	same    *sameDirs // nil when the source does not ask
	// racyDir, unless it is nil, tells whether a directory of the destination holds
	// a file whose size and time are not to be trusted. It is called from several goroutines.
	racyDir func(path string) bool

	wanted  *spool // files to fetch
	linked  *spool // hard links to decide when all files are there
	content *contentWriter
	trees   newTrees
	again   bool // files that change while they are read are read again
	// wantedBytes is the total length of wanted, without what is only compared.
	wantedBytes int64

	moved  leftovers
	shared *spool // staged files that are leftovers; nil without any
	alts   []*altDir

	groups   []linkGroup
	groupOf  map[linkKey]int
	several  bool  // a group has more than one name in the source
	destSeen int64 // entries of the destination
	stageGID int64 // that staged names must be given not to have their directory's, or -1
	doomed   int64 // entries in partDelete
	undoomed int64 // entries that would be there but for DeleteUpTo

	pruned  map[string]bool // directories of the source that are left out: by PruneEmpty, and idle ones
	backups *filter.Rules   // what keeps backups from deletion
	// Backups go to backupDir, "" or ending in '/', below the destination, or to the
	// directory backupOutside, when that is not "".
	backupDir, backupOutside string
	backedUp                 int64 // names that get a backup
	stats                    Stats
	told                     int64 // of stats.Reused, by the changes so far
	notes                    notes

	adjusted adjusted     // files of the destination that get other attributes
	sharing  sharedInodes // with Inplace

	racy   *racy       // nil without Options.Racy
	source uint64      // inode of the source's root, to be remembered; or 0
	known  knownSource // what is remembered
	mounts mounts      // to be remembered

	temp    scratch
	log     *stageLog // nil without Options.Resume
	resumed int64     // bytes of wantedBytes that were there already
}

// contents stages all that Publish will put in place.
func (s *stager) contents(ctx context.Context) error {
	if s.o.deleteOnly {
		s.onlyDeletions()
		return nil
	}
	if err := s.leaders(); err != nil {
		return err
	}
	if err := s.fetch(ctx); err != nil {
		return err
	}
	if err := s.links(ctx); err != nil {
		return err
	}
	if err := s.apart(); err != nil {
		return err
	}
	if err := s.content.finish(); err != nil {
		return err
	}
	return s.trees.finish()
}

// prepare makes the staging directory and the files of the manifest. In a dry
// run those are temporary files without a name.
func (s *stager) prepare() (err error) {
	s.names = make([]byte, 64<<10)
	s.lister.reader.most = s.dst.long
	s.stageGID = -1
	if !s.o.DryRun {
		if err := s.out.begin(s.o.resumes()); err != nil {
			return err
		}
		if st, err := statFd(s.out.stage); err == nil && st.Mode&unix.S_ISGID != 0 {
			s.stageGID = int64(os.Getegid()) // the destination hands its group down to what is staged
		}
		nanoseconds, err := s.out.probe(s.cmp.umask)
		if err != nil {
			return err
		}
		s.cmp.nanoseconds = s.cmp.nanoseconds && nanoseconds
	}
	for i := range s.out.parts {
		if s.out.parts[i], err = s.newSpool(partName(i)); err != nil {
			return err
		}
		s.out.parts[i].hash()
	}
	if s.wanted, err = s.newSpool("wanted"); err != nil {
		return err
	}
	if s.linked, err = s.newSpool("linked"); err != nil {
		return err
	}
	if err := s.openAlts(); err != nil {
		return err
	}
	if err := s.prepareBackups(); err != nil {
		return err
	}
	attrs, err := s.newSpool("attrs")
	if err != nil {
		return err
	}
	s.trees = newTrees{root: s.dst, stage: s.out.stage, fresh: s.out.fresh, at: descent{root: s.out.stage}, attrs: attrs}
	if s.o.deleteOnly {
		s.trees.stage, s.o.Event = -1, nil
	}
	s.content = newContentWriter(s.dst, s.out.stage, s.out.fresh, &s.o)
	if s.temp, err = openScratch(s.dst, s.o.TempDir); err != nil {
		return err
	}
	s.lacking()
	return s.openLog()
}

func (s *stager) newSpool(name string) (*spool, error) {
	if !s.o.DryRun {
		f, err := s.dst.createFile(s.out.stage, name)
		if err != nil {
			return nil, fmt.Errorf("stage below %s: %w", s.dst.path, err)
		}
		return newSpool(f), nil
	}
	f, err := os.CreateTemp("", "drsync-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	return newSpool(f), nil
}

func (s *stager) close() {
	for _, f := range s.frames {
		f.close()
	}
	s.closeAlts()
	s.wanted.close()
	s.linked.close()
	s.shared.close()
	s.trees.attrs.close()
	s.log.close()
	s.temp.close()
	s.trees.at.close()
	if s.content != nil {
		s.content.close()
	}
}

func (s *stager) op(part int, o op) error {
	if s.o.deleteOnly && !o.deletes(part, s.cmp.root) {
		return nil
	}
	return s.out.parts[part].add(o.append)
}

// deletes reports whether an operation is part of removing what the source has not:
// with it goes the leave to do so in a directory, and the taking back of that. The
// time of a directory stays that of the removal, as rsync --delete-before has it.
func (o *op) deletes(part int, root bool) bool {
	if o.kind == opDirAttr && !root {
		o.attr.set &= setMode
		return true
	}
	return part == partDelete || o.kind == opEnter || o.kind == opBackupDir || o.kind == opOldBackups
}

// pretends reports whether nothing is staged beside the manifest.
func (s *stager) pretends() bool { return s.o.DryRun || s.o.deleteOnly }

// onlyDeletions leaves out what belongs to the second half of DeleteBefore, where
// it will be decided and reported.
func (s *stager) onlyDeletions() {
	s.o.Event = s.out.sink
	s.stats.Deleted, s.stats.NotDeleted = 0, 0
	c := &s.stats.Counts // of what makes way, which the second half does
	c.DeletedFiles, c.DeletedDirs, c.DeletedLinks, c.DeletedDevices, c.DeletedSpecials = 0, 0, 0, 0, 0
}

// deletes reports whether what was found to delete is deleted. It is settled when all files are there.
func (s *stager) deletes() bool {
	return s.o.IgnoreErrors || s.stats.Unreadable == 0 && (s.stats.Vanished == 0 || !s.o.KeepIfVanished)
}

// deletions keeps or drops what the walk found to delete, now that it is known
// whether everything of the source could be read.
func (s *stager) deletions() error {
	p := s.out.parts[partDelete]
	if err := p.flush(); err != nil {
		return err
	}
	if s.deletes() {
		s.stats.NotDeleted += s.undoomed
	} else if s.skipsDeletion(); p.count > 0 {
		s.notes.add(fmt.Sprintf("nothing was deleted (%d entries would have been): not all of the source could be read", p.count))
		return p.reset()
	}
	for r := p.records(); ; {
		record, err := r.next()
		if err != nil {
			return endOf(err)
		}
		o, err := parseOp(record)
		if err != nil {
			return err
		}
		s.deleted(o)
	}
}

// skipsDeletion says once, in rsync's words, that nothing will be deleted.
func (s *stager) skipsDeletion() {
	if s.o.Delete && !s.o.deleted {
		s.info("./", "IO error encountered -- skipping file deletion")
	}
}

func (s *stager) deleted(o op) {
	if o.kind == opEnter {
		return
	}
	s.stats.Deleted++
	s.stats.Counts.deleted(o.kindOf)
	name := o.path
	if o.kind == opRmdir {
		name += "/"
	}
	s.o.Event.Emit(event.Event{Kind: event.Change, Itemize: deleting, Name: name})
}

// guard refuses a source with less in it than it must have, and to delete more
// than the operator thought possible.
func (s *stager) guard() error {
	if err := s.fewest(); err != nil {
		return err
	}
	n := s.stats.Deleted // for names of another type
	if s.deletes() {
		n += s.out.parts[partDelete].count
	}
	err := tooManyDeletions(n, s.destSeen, s.o.MaxDelete, s.o.MaxDeleteFraction)
	return hint.With(err, "see whether the source is complete and mounted; if the deletions are meant, raise the limit for one run")
}

// freeDeletions is how many entries may go before their fraction matters.
const freeDeletions = 20

func tooManyDeletions(n, of, most int64, fraction float64) error {
	if most > 0 && n > most {
		return refused("%d entries of the destination would be deleted, more than the allowed %d", n, most)
	}
	if fraction > 0 && n > freeDeletions && float64(n) > fraction*float64(of) {
		return refused("%d of %d entries of the destination would be deleted, more than the allowed %.3g %%", n, of, fraction*100)
	}
	return nil
}

func (s *stager) result() Stats {
	s.stats.Notes = s.notes.lines()
	return s.stats
}

func (s *stager) warn(path, text string) {
	s.o.Event.Emit(event.Event{Kind: event.Warning, Name: path, Text: text})
}

func (s *stager) skip(path, text string) {
	s.o.Event.Emit(event.Event{Kind: event.Skip, Name: path, Text: text})
}

// changed reports an entry that Publish will change.
func (s *stager) changed(path string, e *Entry, c change, linkTo string) {
	ev := event.Event{Kind: event.Change, Itemize: c.letters(e.Mode), Name: path, Target: e.Target}
	ev.Entry = s.eventEntry(e)
	switch {
	case isDir(e) && path == "":
		ev.Name = "./"
	case isDir(e):
		ev.Name += "/"
	case isRegular(e):
		ev.Bytes = e.Size
		ev.Entry.Reused = s.stats.Reused - s.told // counted before the file is told of
	}
	if linkTo != "" {
		ev.Target = linkTo
	}
	s.o.Event.Emit(ev)
}

// sent is the mode that e has on its way: as the source has it, but for Chmod.
func (s *stager) sent(e *Entry) uint32 { return s.o.SentMode(e) }

// SentMode returns the mode of e after Chmod, which leaves links alone.
func (o *Options) SentMode(e *Entry) uint32 {
	if isSymlink(e) {
		return e.Mode
	}
	return changeMode(o.Chmod, e.Mode)
}

// notes collects one line for each kind of loss, in order of appearance.
type notes struct {
	texts []string
	count map[string]int64
}

// add notes a line. One that is added again is shown once, with its number.
func (n *notes) add(text string) { n.addTimes(text, 1) }

func (n *notes) addTimes(text string, times int64) {
	if n.count == nil {
		n.count = make(map[string]int64)
	}
	if n.count[text] == 0 {
		n.texts = append(n.texts, text)
	}
	n.count[text] += times
}

func (n *notes) lines() []string {
	lines := make([]string, 0, len(n.texts))
	for _, text := range n.texts {
		if count := n.count[text]; count > 1 {
			text = fmt.Sprintf("%s (%d times)", text, count)
		}
		lines = append(lines, text)
	}
	return lines
}

// Sync makes dst what src is: Stage, Staged.Sync and Staged.Publish. A publish
// that an earlier crash interrupted is finished first. With DeleteBefore that is
// done twice, for the deletions alone at first, and without any after.
func Sync(ctx context.Context, src Source, dst *Root, o Options) (Stats, error) {
	if !o.DryRun {
		left, err := OpenStaged(dst)
		if err == nil {
			err = left.Publish(ctx)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Stats{}, fmt.Errorf("finish the interrupted publish: %w", err)
		}
	}
	if !o.DeleteBefore || o.DryRun {
		o.DeleteBefore = false // a dry run names the same deletions either way
		return syncOnce(ctx, src, dst, o)
	}
	o.DeleteBefore, o.Delete = false, true
	first := o
	first.deleteOnly, first.Racy = true, false
	before, err := syncOnce(ctx, src, dst, first)
	if err != nil {
		return before, fmt.Errorf("make room first: %w", err)
	}
	o.DeleteUpTo, o.deleted = max(0, o.DeleteUpTo-before.Deleted), true
	stats, err := syncOnce(ctx, src, dst, o)
	stats.Deleted += before.Deleted
	stats.NotDeleted += before.NotDeleted
	stats.Counts.addDeleted(&before.Counts)
	for _, note := range before.Notes {
		if !slices.Contains(stats.Notes, note) {
			stats.Notes = append(stats.Notes, note)
		}
	}
	return stats, err
}

func syncOnce(ctx context.Context, src Source, dst *Root, o Options) (Stats, error) {
	staged, err := Stage(ctx, src, dst, o)
	if err != nil {
		return Stats{}, err
	}
	if o.DryRun {
		return staged.Stats(), staged.Discard()
	}
	if err := staged.Sync(); err != nil {
		return Stats{}, errors.Join(err, staged.Discard())
	}
	err = staged.Publish(ctx)
	return staged.Stats(), err
}
