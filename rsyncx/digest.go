package rsyncx

import (
	"encoding/binary"
	"math"
	"sync"
	"time"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// DirDigest stands for the entries of one directory, as far as DigestOptions
// cover them: two directories with the same digest have, in that regard, the
// same entries.
type DirDigest [16]byte

// DigestOptions say which facts of its entries a directory's digest covers,
// beside names, types, lengths of regular files, targets of links and numbers
// of devices.
type DigestOptions struct {
	Perms       bool
	Owner       bool
	Group       bool
	NumericIDs  bool // owners by number; otherwise by name where there is one
	Times       bool
	Nanoseconds bool // times with these
	// OmitDirTimes and OmitLinkTimes leave out the times of directories and of
	// symbolic links, which Times would cover.
	OmitDirTimes  bool
	OmitLinkTimes bool
	// HardLinks keeps directories apart that hold a file with several names: their
	// entries are always sent.
	HardLinks bool
}

// racyWindow is how long after its modification time a file may be changed once
// more and show the same time: clocks of file systems tick, some by two seconds.
const racyWindow = 2 * time.Second

// RacyEntries reports whether the content of a regular file among entries may
// have changed, or may yet change, without that its modification time tells.
// Whoever walks asks it with its own clock, and sends such a directory whole.
func RacyEntries(entries []Entry, now time.Time) bool {
	edge := now.Add(-racyWindow)
	limit := Time{Sec: edge.Unix(), Nsec: int32(edge.Nanosecond())}
	for i := range entries {
		if e := &entries[i]; isRegular(e) && !e.Mtime.before(limit) {
			return true
		}
	}
	return false
}

func (t Time) before(u Time) bool { return t.Sec < u.Sec || t.Sec == u.Sec && t.Nsec < u.Nsec }

// digestBuffers keeps what DigestEntries writes into.
var digestBuffers = sync.Pool{New: func() any { return new([]byte) }}

// maxDigestBuffer bounds what is kept of one, in bytes.
const maxDigestBuffer = 1 << 20

// DigestEntries returns the digest of a directory with these entries, which
// ascend by name as in a Dir. It is the same on both sides of a connection. False
// says that the directory has none, and is to be sent whole. DigestEntries may be
// called from several goroutines at once.
func DigestEntries(entries []Entry, o DigestOptions) (DirDigest, bool) {
	buf := digestBuffers.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= maxDigestBuffer {
			digestBuffers.Put(buf)
		}
	}()
	b := binary.LittleEndian.AppendUint16(append((*buf)[:0], digestVersion), o.bits())
	for i := range entries {
		e := &entries[i]
		if o.HardLinks && e.Nlink > 1 && !isDir(e) {
			return DirDigest{}, false
		}
		b = o.append(b, e)
	}
	*buf = b
	return xxh3.Hash128(b).Bytes(), true
}

// digestVersion is the first byte of what is digested.
const digestVersion = 2

func (o *DigestOptions) bits() (b uint16) {
	for i, on := range []bool{o.Perms, o.Owner, o.Group, o.NumericIDs, o.Times, o.Nanoseconds, o.HardLinks, o.OmitDirTimes, o.OmitLinkTimes} {
		if on {
			b |= 1 << i
		}
	}
	return b
}

// append adds what is covered of one entry, in a form that can be taken apart
// again: different facts never look the same.
func (o *DigestOptions) append(b []byte, e *Entry) []byte {
	mode := e.Mode & unix.S_IFMT
	if o.Perms && !isSymlink(e) {
		mode |= e.Mode & 0o7777
	}
	b = appendDigestText(b, e.Name)
	b = binary.LittleEndian.AppendUint16(b, uint16(mode))
	switch {
	case isRegular(e):
		b = binary.LittleEndian.AppendUint64(b, uint64(e.Size))
	case isSymlink(e):
		b = appendDigestText(b, e.Target)
	case isDevice(e.Mode):
		b = binary.LittleEndian.AppendUint64(b, e.Rdev)
	}
	if o.Owner {
		b = o.appendOwner(b, e.UID, e.User)
	}
	if o.Group {
		b = o.appendOwner(b, e.GID, e.Group)
	}
	if o.Times && !(o.OmitDirTimes && isDir(e)) && !(o.OmitLinkTimes && isSymlink(e)) {
		b = binary.LittleEndian.AppendUint64(b, uint64(e.Mtime.Sec))
		if o.Nanoseconds {
			b = binary.LittleEndian.AppendUint32(b, uint32(e.Mtime.Nsec))
		}
	}
	return b
}

// appendOwner adds what decides who the owner is on the other side: the name, but
// never that of 0, or the number where there is none.
func (o *DigestOptions) appendOwner(b []byte, id uint32, name string) []byte {
	if o.NumericIDs || id == 0 || name == "" {
		return binary.LittleEndian.AppendUint32(append(b, math.MaxUint8), id)
	}
	return appendDigestText(append(b, 0), name)
}

func appendDigestText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}
