package rsyncx

import (
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/rsyncx/filter"
)

// Options says what of a tree is carried over and what may go. The zero value
// copies regular files and directories and deletes nothing.
type Options struct {
	Filter *filter.Rules

	Links     bool // -l: symbolic links as links
	Perms     bool // -p
	Times     bool // -t
	Owner     bool // -o; honoured as root only
	Group     bool // -g
	Devices   bool // --devices, half of -D; as root only
	Specials  bool // --specials: named pipes and sockets, the other half of -D
	HardLinks bool // -H

	NumericIDs    bool // --numeric-ids
	OneFileSystem bool // -x

	Checksum    bool // -c: compare by content
	SizeOnly    bool // --size-only
	IgnoreTimes bool // -I

	Delete bool // any --delete form: remove what the source has not
	// DeleteExcluded is --delete-excluded: it implies Delete. What it makes of the
	// rules is settled when Filter is built (filter.Options).
	DeleteExcluded bool
	// MaxDelete refuses the whole Stage when more entries would be deleted; 0 is no limit.
	MaxDelete int64
	// MaxDeleteFraction refuses it when more than this part (0 to 1) of the
	// destination's entries would be deleted and they are more than 20; 0 is no limit.
	MaxDeleteFraction float64

	DryRun bool
	// Reserve is how many bytes must stay free on the destination's file system.
	Reserve int64
	// MaxEntries bounds the source's listing; 0 is DefaultMaxEntries.
	MaxEntries int64

	Event event.Sink
}

// Archive returns the options of rsync's -a: -rlptgoD.
func Archive() Options {
	return Options{Links: true, Perms: true, Times: true, Owner: true, Group: true, Devices: true, Specials: true}
}

// Stats counts what Stage found and what Publish will have done.
type Stats struct {
	Entries          int64 // of the source, after filtering
	Bytes            int64 // total length of its regular files
	Created          int64
	Transferred      int64 // regular files fetched
	TransferredBytes int64
	Deleted          int64
	Torn             int64    // changed while read, on every try; the last content was taken
	Vanished         int64    // listed, gone when asked for
	Unreadable       int64    // names of the source that could not be read; any of them switches deletion off
	Skipped          int64    // could not be carried as they are: owners without root, devices, no way to make place
	Notes            []string // one line for each kind of loss, for the operator
}
