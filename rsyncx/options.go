package rsyncx

import (
	"errors"
	"fmt"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx/filter"
)

// Options says what of a tree is carried over and what may go. The zero value
// copies regular files and directories and deletes nothing. Options are named
// after those of rsync, whose manual says what they do; where they do something else, it
// is said here. Stage refuses combinations that rsync refuses.
type Options struct {
	Filter *filter.Rules

	// Only and Flat restrict the source's walk; see WalkOptions.
	Only []string
	Flat bool
	// KeepRoot leaves the attributes of the destination directory itself alone,
	// KeepImplied those of the directories that only lead to Only: new ones are
	// made as anything that is made there.
	KeepRoot, KeepImplied bool
	// NewRoot says that the destination directory was made for this run: it is
	// reported as new.
	NewRoot bool

	Links     bool // -l: symbolic links as links
	Perms     bool // -p
	Times     bool // -t
	Owner     bool // -o; honoured as root only
	Group     bool // -g
	Devices   bool // --devices, half of -D; as root only
	Specials  bool // --specials: named pipes and sockets, the other half of -D
	HardLinks bool // -H
	Xattrs    bool // -X; as root all but those of the system, otherwise those of users, unless Filter has rules for their names
	ACLs      bool // -A; implies Perms

	Executability bool // -E: without Perms
	OmitDirTimes  bool // -O
	OmitLinkTimes bool // -J
	SafeLinks     bool // --safe-links
	PruneEmpty    bool // -m

	NumericIDs bool      // --numeric-ids
	UserMap    []IDMap   // --usermap, --chown; with Owner only
	GroupMap   []IDMap   // --groupmap, --chown; with Group only
	Chmod      []ModeSet // --chmod

	OneFileSystem bool // -x
	OmitMounts    bool // -x given twice

	// Shallow says that the source does not go into all directories that it lists,
	// whatever Only and Flat say. Otherwise one whose content does not come counts as unreadable.
	Shallow bool

	Checksum       bool    // -c: compare by content
	ChecksumKind   SumKind // --checksum-choice: by which sum; a source that makes no sums is read in full instead
	SizeOnly       bool    // --size-only
	IgnoreTimes    bool    // -I
	WholeSeconds   bool    // compare times in whole seconds, as rsync does unless told; else to the nanosecond where both sides know it
	ModifyWindow   int64   // --modify-window, in seconds; with WholeSeconds
	Existing       bool    // --existing
	IgnoreExisting bool    // --ignore-existing
	Update         bool    // -u
	MinSize        int64   // --min-size; 0 is none
	MaxSize        int64   // --max-size; negative is none, and so is 0 without MaxSizeSet
	MaxSizeSet     bool    // MaxSize counts although it is 0

	Inplace      bool     // --inplace: files keep their inodes; they are patched by Publish
	Append       bool     // --append; implies Inplace
	AppendVerify bool     // --append-verify; implies Append
	Sparse       bool     // -S
	WholeFile    bool     // -W: no delta
	Fuzzy        bool     // -y: a similar file is the basis of a new one
	Renames      bool     // a file whose content the destination has under a name that is deleted, replaced or its own is not fetched
	AltDests     []string // --compare-dest, --copy-dest, --link-dest: directories, relative to the destination or absolute
	AltDest      AltDest  // which of the three
	Resume       bool     // --partial: what was fetched stays when Stage fails, and spares the next one fetching it
	PartialDir   string   // --partial-dir: a directory, by its path from that of the file, for half of it; implies Resume. What lies there is a basis when the source tells Sums
	TempDir      string   // --temp-dir: long files that are read in full lie there, without a name, until they are whole
	NoSync       bool     // leave it to the kernel when files reach the disk; --fsync is its absence

	Backup    bool   // -b
	BackupDir string // --backup-dir; relative to the destination or absolute
	Suffix    string // --suffix; "" is "~" without BackupDir and none with it

	Delete       bool // any --delete form: remove what the source has not
	DeleteBefore bool // --delete-before: make room first, at the price of the old files
	DeleteAfter  bool // --delete-after: the per-directory filter files that come along protect what they name. DeleteBefore goes before it
	Force        bool // --force
	IgnoreErrors bool // --ignore-errors
	// KeepIfVanished deletes nothing, but with IgnoreErrors, when something vanished on the source while it was read.
	KeepIfVanished bool
	// DeleteUpTo is rsync's --max-delete: so many are deleted, the rest is counted
	// in Stats.NotDeleted. It counts with DeleteLimited only.
	DeleteUpTo    int64
	DeleteLimited bool
	// DeleteExcluded is --delete-excluded: it implies Delete. What it makes of the
	// rules is settled when Filter is built (filter.Options).
	DeleteExcluded bool
	// MaxDelete refuses the whole Stage when more entries would be deleted; 0 is no limit.
	MaxDelete int64
	// MaxDeleteFraction refuses it when more than this part (0 to 1) of the
	// destination's entries would be deleted and they are more than 20; 0 is no limit.
	MaxDeleteFraction float64

	// Marker is a path that the source must have, MinEntries how many entries it must
	// have at least: an unmounted directory has neither. SameSource refuses a source
	// whose root is another inode than the last time, or has none; NewSource accepts it and remembers.
	Marker     string
	MinEntries int64
	SameSource bool
	NewSource  bool

	// Racy remembers the files that were read within two seconds of their
	// modification time, and compares them by content the next time.
	Racy bool

	DryRun bool
	// Explain emits a Skip event for every name that is left alone, up to date or hidden.
	Explain bool
	// OwnNumbers has events name the owners that files get here, not those of the source.
	OwnNumbers bool
	// Reserve is how many bytes must stay free on the destination's file system.
	Reserve int64
	// MaxEntries bounds the source's listing; 0 is DefaultMaxEntries.
	MaxEntries int64

	Event event.Sink

	deleteOnly bool // the first half of DeleteBefore
	deleted    bool // the second: what is still there stays, for filter files may be gone that kept it
}

// AltDest says what is done with a file that one of Options.AltDests has.
type AltDest uint8

const (
	CompareDest AltDest = iota // it is left out
	CopyDest                   // it is copied from there
	LinkDest                   // it becomes another name of that one
)

// IDMap is one rule of --usermap or --groupmap: the first that matches decides.
type IDMap struct {
	Name     string // of the source's user or group, with wildcards; "" when Lo and Hi count
	Lo, Hi   uint32 // its number, from to
	Unnamed  bool   // matches what has no name on the source
	ToName   string // of this host; "" when To counts
	To       uint32
	Wildcard bool // matches all: "*"
}

// ModeSet is one clause of --chmod: And is kept of the mode, Or added to it, for
// directories, for other files or for both. With ExecIf the x bits of Or count only
// for directories and for files that have one already.
type ModeSet struct {
	Dirs, Files bool
	And, Or     uint32
	ExecIf      bool
	// CopyFrom, unless it is 0, is how far the three bits that are copied lie to the
	// left in the mode, plus one; CopyTo has a bit for each class that they, but
	// for those of CopyMask, are added to, or with CopyOff taken from.
	CopyFrom         uint8
	CopyTo, CopyMask uint32
	CopyOff          bool
}

// Archive returns the options of rsync's -a: -rlptgoD.
func Archive() Options {
	return Options{Links: true, Perms: true, Times: true, Owner: true, Group: true, Devices: true, Specials: true}
}

// Stats counts what Stage found and what Publish will have done.
type Stats struct {
	Entries          int64 // of the source, after filtering
	Bytes            int64 // total length of its regular files, and of the targets of its links
	Created          int64
	Transferred      int64 // regular files fetched
	TransferredBytes int64
	Deleted          int64
	Torn             int64    // changed while read, on every try; the last content was taken
	Vanished         int64    // listed, gone when asked for; with KeepIfVanished any of them switches deletion off
	Unreadable       int64    // names of the source that could not be read; any of them switches deletion off
	NotDeleted       int64    // left because of DeleteUpTo
	Left             int64    // entries that could not be changed, removed or replaced
	Linked           int64    // new names of a file that the destination has: hard links, renames, LinkDest
	Reused           int64    // bytes of transferred files that were there already and did not travel
	Counts           Counts   // of Entries and of Created, by type
	Skipped          int64    // could not be carried as they are: owners without root, devices, no way to make place
	Notes            []string // one line for each kind of loss, for the operator
}

// Counts counts entries by type.
type Counts struct {
	Files, Dirs, Links, Devices, Specials                                    int64
	NewFiles, NewDirs, NewLinks, NewDevices, NewSpecials                     int64
	DeletedFiles, DeletedDirs, DeletedLinks, DeletedDevices, DeletedSpecials int64
}

// honoured refuses what Stage cannot do, and says what can be done instead.
func (o *Options) honoured() error {
	for _, c := range []struct {
		on         bool
		name, hint string
	}{
		{o.Append && o.WholeFile, "Append with WholeFile", "a file that is appended to is not sent whole: leave out one of the two"},
		{o.Inplace && o.PartialDir != "", "Inplace with PartialDir", "what is written in place is its own half file: leave out the partial directory"},
		{o.PartialDir != "" && CheckPath(o.PartialDir) != nil, "a partial directory that is not a relative path of plain names",
			"files of one name from several directories would meet in it: give a relative path, which lies beside each file"},
		{o.DeleteBefore, "deletions before anything else, but by Sync,", "they have to be published before the rest is staged"},
	} {
		if c.on {
			err := fmt.Errorf("stage: %s: %w", c.name, errors.ErrUnsupported)
			if c.hint != "" {
				err = hint.With(err, c.hint)
			}
			return err
		}
	}
	return nil
}
