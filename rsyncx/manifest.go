package rsyncx

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// opKind is what one operation of a manifest does. The numbers are on disk.
type opKind uint8

const (
	opRemove     opKind = iota + 1 // a name that is no directory
	opRmdir                        // an empty directory
	opTree                         // a staged directory with all that is in it, to its place
	opEnter                        // lets us work in a directory whose mode would not
	opFile                         // a staged file, link, device, pipe or socket to its place
	opLink                         // a hard link to the path target
	opAttr                         // attributes of a name that is no directory
	opDirAttr                      // attributes of a directory
	opPatch                        // what was staged for a file, into it, and its attributes
	opBackupDir                    // the absolute path target is where the following opBackup go
	opBackup                       // the old content of a name to target
	opOldBackups                   // the backups of earlier backups, which come with what is deleted, are made now
	opLast       = opOldBackups
)

// op is one operation. Each may be done again after it was done.
type op struct {
	kind   opKind
	path   string
	target string // opLink: a path; opPatch: the state of the file when deciding
	number uint64 // opFile, opTree, opPatch: of what is staged; opDirAttr: when not 0, a time is not set that is less than so many seconds off
	size   int64  // opFile, opPatch: bytes
	kindOf uint32 // opFile, opAttr: the type bits of st_mode; opPatch: the form of what is staged
	dev    uint64 // opAttr, opPatch, opRemove: with ino, what was looked at when deciding
	ino    uint64 // opTree, opDirAttr: of the new directory; 0 in opDirAttr and opRemove is any
	attr   attr
}

const (
	maxRecord     = 16<<10 + 3*maxXattrs // bytes: two paths and more, lists of extended attributes
	stageDir      = "stage"
	contentDir    = "content"
	formatVersion = 2
)

var errFormat = errors.New("the manifest is damaged")

func (o op) append(b []byte) []byte {
	b = append(b, byte(o.kind), byte(o.attr.set))
	b = appendText(b, o.path)
	b = appendText(b, o.target)
	for _, v := range []uint64{o.number, uint64(o.size), uint64(o.kindOf), o.dev, o.ino} {
		b = binary.AppendUvarint(b, v)
	}
	for _, v := range []uint32{o.attr.mode, o.attr.uid, o.attr.gid} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b = appendTime(b, o.attr.mtime)
	if o.attr.set&(setPlain|setACLs) != 0 {
		b = appendText(b, o.attr.xattrs)
	}
	if o.attr.set&setRuled != 0 {
		b = appendText(b, o.attr.gone)
	}
	return b
}

// parseOp decodes one record. It allocates no more than the record's length.
func parseOp(record []byte) (op, error) {
	d := decoder{b: record}
	o := op{kind: opKind(d.byte()), attr: attr{set: attrSet(d.byte())}}
	o.path, o.target = d.text(), d.text()
	o.number, o.size = d.uint(), int64(d.uint())
	o.kindOf, o.dev, o.ino = d.uint32(), d.uint(), d.uint()
	o.attr.mode, o.attr.uid, o.attr.gid, o.attr.mtime = d.uint32(), d.uint32(), d.uint32(), d.time()
	if o.attr.set&(setPlain|setACLs) != 0 {
		o.attr.xattrs = d.text()
	}
	if o.attr.set&setRuled != 0 {
		o.attr.gone = d.text()
	}
	switch {
	case d.bad || len(d.b) > 0:
		return op{}, errFormat
	case o.kind == 0 || o.kind > opLast, o.attr.set > setMode|setUID|setGID|setTime|setPlain|setACLs|setRuled, o.attr.mode > 0o7777, o.size < 0:
		return op{}, errFormat
	case CheckXattrs(o.attr.xattrs) != nil, CheckXattrs(o.attr.gone) != nil, o.attr.set&setRuled != 0 && o.attr.set&setPlain == 0:
		return op{}, errFormat
	case CheckPath(o.path) != nil, o.path == "" && o.kind != opDirAttr && o.kind != opEnter && o.kind != opBackupDir && o.kind != opOldBackups:
		return op{}, errFormat
	case o.kind == opBackupDir && (checkTarget(o.target) != nil || o.target[0] != '/'):
		return op{}, errFormat
	case o.kind == opBackup && (o.target == "" || CheckPath(o.target) != nil || o.number&backupHow > backupCopy || o.number > backupEarly|backupOutside|backupCopy):
		return op{}, errFormat
	case o.kind == opPatch && o.kindOf > patchFile:
		return op{}, errFormat
	case o.kind == opLink && (o.target == "" || CheckPath(o.target) != nil):
		return op{}, errFormat
	}
	return o, nil
}

func checkTarget(target string) error {
	if target == "" || len(target) > maxPath || strings.IndexByte(target, 0) >= 0 {
		return fmt.Errorf("%w: a symbolic link with a target of %d bytes", ErrHostile, len(target))
	}
	return nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendTime(b []byte, t Time) []byte {
	return binary.AppendUvarint(binary.AppendVarint(b, t.Sec), uint64(t.Nsec))
}

// decoder takes a record apart; after the first mistake everything is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	taken := d.b[:n]
	d.b = d.b[n:]
	return taken
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		n = -1
	}
	if d.take(n) == nil {
		return 0
	}
	return v
}

func (d *decoder) uint32() uint32 {
	v := d.uint()
	if v > 1<<32-1 {
		d.bad = true
	}
	return uint32(v)
}

func (d *decoder) text() string {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.bad = true
	}
	if d.bad {
		return ""
	}
	return string(d.take(int(n)))
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		n = -1
	}
	if d.take(n) == nil {
		return 0
	}
	return v
}

func (d *decoder) time() Time {
	sec, nsec := d.int(), d.uint()
	if nsec >= 1e9 {
		d.bad = true
	}
	return Time{Sec: sec, Nsec: int32(nsec)}
}

// spool is a file of length-prefixed records: written once, then read in order,
// by several readers if need be. It holds what would be too much for memory.
type spool struct {
	f     *os.File
	w     *bufio.Writer
	sum   hash.Hash // of the parts of a manifest
	size  int64     // bytes
	count int64     // records
	buf   []byte
}

func newSpool(f *os.File) *spool {
	return &spool{f: f, w: bufio.NewWriterSize(f, 64<<10)}
}

// hash makes an empty spool one that keeps a sum of what it holds.
func (s *spool) hash() {
	s.sum = sha256.New()
	s.w.Reset(io.MultiWriter(s.f, s.sum))
}

// add appends the record that encode writes behind what it is given.
func (s *spool) add(encode func([]byte) []byte) error {
	s.buf = encode(s.buf[:0])
	var head [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(head[:], uint64(len(s.buf)))
	if len(s.buf) > maxRecord {
		return fmt.Errorf("internal error: a record of %d bytes", len(s.buf))
	}
	_, _ = s.w.Write(head[:n]) // the error stays in w
	if _, err := s.w.Write(s.buf); err != nil {
		return fmt.Errorf("write %s: %w", s.f.Name(), err)
	}
	s.size += int64(n + len(s.buf))
	s.count++
	return nil
}

func (s *spool) flush() error {
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("write %s: %w", s.f.Name(), err)
	}
	return nil
}

// reset drops all records.
func (s *spool) reset() error {
	s.w.Reset(s.f)
	if s.sum != nil {
		s.hash()
	}
	s.size, s.count = 0, 0
	_, err := s.f.Seek(0, io.SeekStart)
	if err == nil {
		err = s.f.Truncate(0)
	}
	if err != nil {
		return fmt.Errorf("empty %s: %w", s.f.Name(), err)
	}
	return nil
}

// base is the name of the spool's file, without its directory.
func (s *spool) base() string { return filepath.Base(s.f.Name()) }

// records reads what was flushed from the beginning.
func (s *spool) records() *records {
	return &records{r: bufio.NewReaderSize(io.NewSectionReader(s.f, 0, s.size), 64<<10)}
}

func (s *spool) close() {
	if s != nil && s.f != nil {
		s.f.Close()
		s.f = nil
	}
}

// records reads length-prefixed records.
type records struct {
	r   *bufio.Reader
	buf []byte
}

// next returns one record, valid until the next call, or io.EOF.
func (r *records) next() ([]byte, error) {
	n, err := binary.ReadUvarint(r.r)
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil || n > maxRecord {
		return nil, errFormat
	}
	if uint64(cap(r.buf)) < n {
		r.buf = make([]byte, n, max(n, 16<<10))
	}
	r.buf = r.buf[:n]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		return nil, errFormat
	}
	return r.buf, nil
}
