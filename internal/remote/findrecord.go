package remote

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
)

// findFormat makes GNU find print one record: fields that each end with a NUL.
// The times are those of the modification and of the inode, the path is as find was
// given it: "." and "./" are the root, whatever else begins with "./".
const findFormat = `%y\0%m\0%s\0%T@\0%C@\0%D\0%i\0%n\0%U\0%G\0%u\0%g\0%l\0%p\0`

// findFields is how many there are; the first is a letter that the caller of find
// puts before the format.
const findFields = 15

// maxField bounds one field, in bytes.
const maxField = 8 << 10

// Letters of a record.
const (
	listed     = 'l'
	unreadable = 'u' // a directory that must not be looked into
	finished   = 'e' // two fields: this and find's exit status
)

// findRecord is what find says about one name, as it came.
type findRecord struct {
	kind byte
	path []byte
	// facts are the fields between, with their NULs.
	facts []byte
}

// readRecord reads one record into r. It returns io.EOF at the end of the input
// only; a record that is cut short is another error.
func readRecord(in *bufio.Reader, r *findRecord) error {
	first, err := in.ReadByte()
	if err != nil {
		return err
	}
	r.kind = first
	n := findFields
	switch first {
	case listed, unreadable:
	case finished:
		n = 2
	default:
		return fmt.Errorf("%w: %q where a record of find begins", rsyncx.ErrHostile, first)
	}
	r.facts = r.facts[:0]
	last := 0
	for i := range n {
		last = len(r.facts)
		if err := appendField(in, &r.facts); err != nil {
			return err
		}
		if i == 0 && len(r.facts) != 1 {
			return fmt.Errorf("%w: a record of find without its letter", rsyncx.ErrHostile)
		}
	}
	r.path, r.facts = r.facts[last:len(r.facts)-1], r.facts[1:last]
	if first == finished {
		return nil
	}
	if r.path = bytes.TrimPrefix(r.path, []byte("./")); string(r.path) == "." {
		r.path = nil
	}
	return rsyncx.CheckPath(string(r.path))
}

// appendField adds the bytes up to a NUL, and that.
func appendField(in *bufio.Reader, to *[]byte) error {
	for n := 0; ; {
		part, err := in.ReadSlice(0)
		*to = append(*to, part...)
		n += len(part)
		switch {
		case err == nil && n <= maxField:
			return nil
		case err == nil, errors.Is(err, bufio.ErrBufferFull) && n > maxField:
			return fmt.Errorf("%w: a field of more than %d bytes", rsyncx.ErrHostile, maxField)
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

// described is an entry with what tells one state of a file from the next.
type described struct {
	rsyncx.Entry
	changed rsyncx.Time // of the inode
}

// parseFacts makes an entry of a record's facts.
func parseFacts(facts []byte) (described, error) {
	var d described
	f := bytes.Split(facts, []byte{0})
	if len(f) != findFields-1 { // without letter and path, with what follows the last NUL
		return d, fmt.Errorf("%w: a record of find with %d fields", rsyncx.ErrHostile, len(f))
	}
	p := fields{}
	kind, err := fileType(f[0])
	if err != nil {
		return d, err
	}
	d.Mode = kind | uint32(p.uint(f[1], 8, 12))
	if kind == unix.S_IFREG {
		d.Size = int64(p.uint(f[2], 10, 63))
	}
	d.Mtime, d.changed = p.time(f[3]), p.time(f[4])
	d.Dev, d.Ino, d.Nlink = p.uint(f[5], 10, 64), p.uint(f[6], 10, 64), p.uint(f[7], 10, 64)
	d.UID, d.GID = uint32(p.uint(f[8], 10, 32)), uint32(p.uint(f[9], 10, 32))
	d.User, d.Group = ownerName(f[10], f[8]), ownerName(f[11], f[9])
	if kind == unix.S_IFLNK {
		d.Target = string(f[12])
		if len(d.Target) > 4095 {
			p.err = fmt.Errorf("%w: the target of a link", rsyncx.ErrHostile)
		}
	}
	return d, p.err
}

// ownerName is "" where find prints the number because there is no name.
func ownerName(name, id []byte) string {
	if bytes.Equal(name, id) || len(name) > 255 {
		return ""
	}
	return string(name)
}

func fileType(letter []byte) (uint32, error) {
	switch string(letter) {
	case "f":
		return unix.S_IFREG, nil
	case "d":
		return unix.S_IFDIR, nil
	case "l":
		return unix.S_IFLNK, nil
	case "p":
		return unix.S_IFIFO, nil
	case "s":
		return unix.S_IFSOCK, nil
	case "b":
		return unix.S_IFBLK, nil
	case "c":
		return unix.S_IFCHR, nil
	}
	return 0, fmt.Errorf("find does not tell what kind of file it is: %q", letter)
}

// fields parses numbers and keeps the first error.
type fields struct{ err error }

func (p *fields) uint(text []byte, base, bits int) uint64 {
	n, err := strconv.ParseUint(string(text), base, bits)
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("%w: the number %q of find", rsyncx.ErrHostile, text)
	}
	return n
}

// time parses what find makes of a time: the seconds, which may be negative, a
// dot, and nine digits of nanoseconds after them, to be added.
func (p *fields) time(text []byte) rsyncx.Time {
	sec, frac, _ := bytes.Cut(text, []byte("."))
	s, err := strconv.ParseInt(string(sec), 10, 64)
	frac = frac[:min(len(frac), 9)]
	var nsec uint64
	if err == nil && len(frac) > 0 {
		nsec, err = strconv.ParseUint(string(frac), 10, 32)
		for range 9 - len(frac) {
			nsec *= 10
		}
	}
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("%w: the time %q of find", rsyncx.ErrHostile, text)
	}
	return rsyncx.Time{Sec: s, Nsec: int32(nsec)}
}
