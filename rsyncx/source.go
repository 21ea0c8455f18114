// Package rsyncx copies trees from an active host by rsync's rules.
//
// It owns one invariant: nothing is ever written, renamed or removed outside
// the destination Root, whatever a Source says, and a name shows either its old
// or its new content with its metadata, never a half.
//
// A Source answers what is there and gives its bytes; this package decides on
// the standby which names, filters, deletes and order apply.
package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/drsync/drsync/rsyncx/delta"
	"github.com/drsync/drsync/rsyncx/filter"
)

// Source is a directory on the active: local, through an agent, or through
// SFTP. Paths are relative to it, separated by '/', without a leading or
// trailing one; the directory itself is "". Names are bytes, not text.
//
// A Source never follows a symbolic link below its root and changes nothing. Its
// methods may be called from several goroutines at once; each iterator belongs
// to one goroutine. When ctx is cancelled they end with context.Cause(ctx).
type Source interface {
	// Abilities says what this source can tell; it does not change.
	Abilities() Abilities

	// Lstat describes one name. A missing one wraps fs.ErrNotExist.
	Lstat(ctx context.Context, path string) (Entry, error)

	// Walk yields every directory that the filter lets in, parents before
	// children and siblings in byte order, depth first. A long directory may come in
	// pieces: several Dirs with its path, one directly after the other and before its
	// subdirectories; see Piece. A directory that is
	// listed in its parent but whose content was not looked at (unreadable, on
	// another file system with OneFileSystem) is not yielded; unless it is another file
	// system's, or Only and Flat keep the walk out, a *PathError with its path says why, and
	// wraps fs.ErrNotExist when it is gone. An error that is a *PathError says
	// that one name could not be read, and the walk goes on after it; any other
	// error is the last thing yielded.
	Walk(ctx context.Context, o WalkOptions) iter.Seq2[Dir, error]

	// Read yields the regular files named by want, in that order, one for
	// each. What is wrong with one file is in File.Err; an error of the
	// iterator ends it. want is drawn ahead of what is yielded, possibly from
	// another goroutine.
	Read(ctx context.Context, want iter.Seq[Want]) iter.Seq2[File, error]

	// Sums yields what is asked of the content of regular files, in that order,
	// one for each, like Read; the content itself does not travel. A source
	// whose Abilities lack Sums yields one error that wraps errors.ErrUnsupported.
	Sums(ctx context.Context, want iter.Seq[SumWant]) iter.Seq2[FileSums, error]

	Close() error
}

// Abilities says which facts a source carries. What it lacks is reported once
// per run and not compared.
type Abilities struct {
	Nanoseconds bool // modification times finer than a second
	OwnerNames  bool // Entry.User and Entry.Group
	HardLinks   bool // Entry.Dev, Entry.Ino and Entry.Nlink
	Devices     bool // Entry.Rdev
	Xattrs      bool // Entry.Xattrs, access control lists among them
	Sums        bool // Source.Sums
	Views       bool // a View that is not the zero one
	Digests     bool // WalkOptions.Same is asked
	Holes       bool // a File.Body may be a Holes
}

// WalkOptions bounds a walk. Filter is applied by the source to spare the wire
// and once more by the reader, who does not trust it.
type WalkOptions struct {
	Filter *filter.Rules
	// OneFileSystem lists the directories that other file systems are mounted on
	// and does not enter them; with OmitMounts they are not listed either.
	OneFileSystem bool
	OmitMounts    bool
	// MaxEntries ends the walk with ErrTooMany when more names than this were
	// listed. 0 means DefaultMaxEntries.
	MaxEntries int64
	// Only, unless it is nil, restricts the walk to these paths, what is below
	// them, and the directories that lead to them; it ascends strictly in the order of a walk.
	// A directory of which not everything is listed for that reason is Partial.
	// One that is missing is a *PathError that wraps fs.ErrNotExist.
	Only []string
	// Flat keeps the walk out of the directories that are listed, other than the
	// root when Only is nil or begins with it, and those that lead to Only. What is
	// missing below a root that is listed whole is not told of.
	Flat   bool
	Xattrs bool // fill Entry.Xattrs, without access control lists
	ACLs   bool // fill Entry.Xattrs with access control lists
	// Hidden lists also the names that Filter leaves out, for a reader who applies it
	// himself and says so. Directories among them are not entered. A source that
	// cannot do that leaves them out.
	Hidden bool

	// Same, unless it is nil, is asked whether the entries of a directory, or of a piece of
	// one, that Digest covers are what the reader of the walk has. When it
	// says so they are not sent: Dir.Same is set. It is called ahead of what is
	// yielded, from several goroutines at once, and not for every directory.
	Same   func(p Piece, d DirDigest) bool
	Digest DigestOptions
}

// View says what a Source shows in place of symbolic links: what they lead to.
// The zero value shows the links. What a link leads to must lie in what the
// source may read.
type View struct {
	CopyLinks       bool // -L: of all links
	CopyDirLinks    bool // -k: of links to directories
	CopyUnsafeLinks bool // of links that lead out of the tree
}

// DefaultMaxEntries is far above any real home, and stops an endless listing.
const DefaultMaxEntries = 200_000_000

// maxPath is the longest path that a kernel takes, in bytes.
const maxPath = 4095

// MaxDirBytes bounds the names, link targets and owner names of one directory.
const MaxDirBytes = 256 << 20

// Time is a modification time as stat gives it. Seconds may be negative.
type Time struct {
	Sec  int64
	Nsec int32
}

// Entry is one name in a directory.
type Entry struct {
	Name   string // one path component; "" for the root itself
	Mode   uint32 // st_mode: type and permission bits
	Size   int64  // bytes; of a regular file
	Mtime  Time
	UID    uint32
	GID    uint32
	User   string // "" when unknown
	Group  string // "" when unknown
	Rdev   uint64 // of a device
	Target string // of a symbolic link
	Dev    uint64 // 0 when unknown, like Ino and Nlink
	Ino    uint64
	Nlink  uint64
	Xattrs string // extended attributes as AppendXattr encodes them; "" is none
}

// Piece is a directory, as far as its names lie after After and not after Upto; each
// of these is no bound when it is "". They need not be names that are there.
// The first piece of a directory begins without a bound, each of the next where the one
// before ended, and the last ends without one. Most directories are one piece.
type Piece struct {
	Path        string
	After, Upto string
}

// whole reports whether p is all of its directory.
func (p Piece) whole() bool { return p.After == "" && p.Upto == "" }

// Dir is one directory, or a piece of a long one, with what is in it. Self is the
// directory's own entry, the same in every piece. Entries ascend strictly by name and are already filtered.
type Dir struct {
	Path        string
	After, Upto string // of a piece; see there
	Self        Entry
	Entries     []Entry
	// Same says that WalkOptions.Same said so: Self (but for the root) and Entries are empty.
	Same bool
	// Partial says that the directory has more than was looked at, so that what is
	// not among Entries may well be there.
	Partial bool
}

// Piece tells what of its directory d is.
func (d *Dir) Piece() Piece { return Piece{Path: d.Path, After: d.After, Upto: d.Upto} }

// Want is one file to be read, or some of it.
type Want struct {
	Path string
	Size int64 // bytes, as listed; a hint for spreading the work; -1 when unknown
	// Ranges, unless it is nil, are the parts to read: ascending, apart from each
	// other, not empty. What lies behind the end of the file makes it ErrTorn.
	Ranges []Range
	// Soon, unless it is "", is a file that will be wanted whole before long: a
	// source may have the disk begin with it. It changes no answer.
	Soon string
}

// Range is a part of a file, in bytes.
type Range struct{ Off, Len int64 }

// Wants asks for whole files of unknown size.
func Wants(paths iter.Seq[string]) iter.Seq[Want] {
	return func(yield func(Want) bool) {
		for path := range paths {
			if !yield(Want{Path: path, Size: -1}) {
				return
			}
		}
	}
}

// SumWant asks for sums of one file.
type SumWant struct {
	Path string
	Size int64 // bytes, as listed; a hint; -1 when unknown
	// Block is the length of the blocks whose sums are wanted, in bytes; 0 wants none.
	Block int64
	Weak  bool // rolling sums as well
	// Ranges, unless it is nil, are the parts to look at: multiples of Block but for
	// the end of the file. FileSums.Whole is not told then.
	Ranges []Range
	// Kind asks for another sum of the whole beside FileSums.Whole; not with Ranges.
	Kind SumKind
}

// NoSums is embedded by a Source without the ability.
type NoSums struct{}

func (NoSums) Sums(context.Context, iter.Seq[SumWant]) iter.Seq2[FileSums, error] {
	return func(yield func(FileSums, error) bool) {
		yield(FileSums{}, fmt.Errorf("sums of files: %w by this source", errors.ErrUnsupported))
	}
}

// FileSums is the answer to one SumWant.
type FileSums struct {
	Path  string
	Entry Entry // as of opening
	// Whole is the XXH3-128 of the content, or for blocks of delta.TreeBlock and more
	// without Weak that of a tree, as delta.Summer makes it.
	Whole [16]byte
	Other []byte     // the sum of SumWant.Kind, if that is another one
	Sums  delta.Sums // of the blocks that were asked for, one behind the other
	Err   error      // wraps ErrTorn when the file changed meanwhile
}

// File is the answer to one wanted path. Body is valid until the iterator's
// next turn; reading it may be left off. When Err is set, Body is nil.
type File struct {
	Path  string
	Entry Entry // as of opening: Size is what Body will give of a whole file, unless that shrinks
	Body  io.Reader
	Err   error
}

// PathError is what is wrong with one path of a source.
type PathError struct {
	Path string
	Err  error
}

func (e *PathError) Error() string { return fmt.Sprintf("%s: %v", Printable(e.Path), e.Err) }
func (e *PathError) Unwrap() error { return e.Err }

var (
	// ErrTooMany ends a walk that lists more than it may.
	ErrTooMany = errors.New("the listing is longer than allowed")
	// ErrNoListing says that a source ended a walk before it said anything.
	ErrNoListing = errors.New("it sent no listing")
	// ErrTorn is returned by File.Body when the file changed while it was read.
	ErrTorn = errors.New("changed while being read")
	// ErrNotRegular says that a path to be read is no regular file.
	ErrNotRegular = errors.New("not a regular file")
	// ErrHostile is wrapped by errors about a peer that breaks the rules of a
	// listing: names that are no single component, duplicates, wrong order.
	ErrHostile = errors.New("the source sent something it must not")
)

// CheckName returns an error that wraps ErrHostile unless name is one path
// component that a directory can hold.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
	case len(name) > 255:
	case strings.IndexByte(name, '/') >= 0 || strings.IndexByte(name, 0) >= 0:
	default:
		return nil
	}
	if len(name) > 255 {
		name = name[:255] + "…"
	}
	return fmt.Errorf("%w: the name %s", ErrHostile, Printable(fmt.Sprintf("%q", name)))
}

// CheckPath applies CheckName to every component of a relative path; "" is the root.
func CheckPath(path string) error {
	if path == "" {
		return nil
	}
	if len(path) > maxPath {
		return fmt.Errorf("%w: a path of %d bytes", ErrHostile, len(path))
	}
	for name := range strings.SplitSeq(path, "/") {
		if err := CheckName(name); err != nil {
			return err
		}
	}
	return nil
}

// Printable makes a name safe to show: control bytes and bytes that are not
// UTF-8 become \#ooo, as rsync writes them, and so does the backslash before a '#'
// that would look like one.
func Printable(name string) string {
	clean := true
	for i := range len(name) {
		if name[i] < 0x20 || name[i] >= 0x7f || name[i] == '\\' {
			clean = false
			break
		}
	}
	if clean {
		return name
	}
	var b strings.Builder
	for i, r := range name {
		switch {
		case r == '\uFFFD' && name[i] != 0xEF, r < 0x20, r >= 0x7f && r < 0xa0:
			n := 1
			if r >= 0x80 && r != '\uFFFD' {
				n = 2
			}
			for k := range n {
				fmt.Fprintf(&b, `\#%03o`, name[i+k])
			}
		case r == '\\' && strings.HasPrefix(name[i:], `\#`):
			b.WriteString(`\#134`)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
