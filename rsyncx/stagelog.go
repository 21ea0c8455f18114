package rsyncx

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"

	"github.com/drsync/drsync/rsyncx/delta"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// stageLog says, in the staging directory, what was staged for which file of the
// source, so that the next Stage can take it over when this one does not come to its
// end. Whoever reads it trusts no record further than its sum.
//
// It begins with the boot id; then come records in the order of the walk, once for
// each pass over the files.
type stageLog struct{ *spool }

const (
	logFile = "log"
	// logFlush is how much of the log a kill may lose, in bytes.
	logFlush = 4096
	// maxLogRuns bounds how many passes of one log are read.
	maxLogRuns = 16
	// maxTreeBlock bounds the blocks of a tree in a log, in bytes.
	maxTreeBlock = 1 << 50
)

// logged is one file of the log.
type logged struct {
	half  bool // begun; how far it came is the length of what is there
	path  string
	size  int64 // of the source's file, like mtime and ino
	mtime Time
	ino   uint64
	at    place
	sum   contentSum // zero of a half
}

// contentSum is the sum of a file's content: XXH3-128, or that of a tree of blocks
// of so many bytes.
type contentSum struct {
	sum   [16]byte
	block int64
}

func (l *logged) append(b []byte) []byte {
	start := len(b)
	half := byte(0)
	if l.half {
		half = 1
	}
	b = appendText(append(b, half), l.path)
	b = binary.AppendUvarint(b, uint64(l.size))
	b = appendTime(b, l.mtime)
	for _, v := range []uint64{l.ino, l.at.tree.number, uint64(l.at.tree.top), l.at.number} {
		b = binary.AppendUvarint(b, v)
	}
	b = binary.AppendUvarint(append(b, l.sum.sum[:]...), uint64(l.sum.block))
	return binary.BigEndian.AppendUint64(b, xxh3.Hash(b[start:]))
}

func parseLogged(record []byte) (logged, error) {
	if len(record) < 8 {
		return logged{}, errFormat
	}
	body := record[:len(record)-8]
	if binary.BigEndian.Uint64(record[len(body):]) != xxh3.Hash(body) {
		return logged{}, errFormat
	}
	d := decoder{b: body}
	l := logged{half: d.byte() != 0, path: d.text()}
	l.size, l.mtime, l.ino = int64(d.uint()), d.time(), d.uint()
	l.at.tree.number, l.at.tree.top, l.at.number = d.uint(), int(d.uint()), d.uint()
	copy(l.sum.sum[:], d.take(len(l.sum.sum)))
	l.sum.block = int64(d.uint())
	top := l.at.tree.top
	switch {
	case d.bad || len(d.b) > 0, l.size < 0, l.sum.block != 0 && (l.sum.block < delta.TreeBlock || l.sum.block&(l.sum.block-1) != 0 || l.sum.block > maxTreeBlock), l.path == "" || CheckPath(l.path) != nil:
		return logged{}, errFormat
	case !l.at.tree.none() && (top <= 0 || top >= len(l.path) || l.path[top] != '/'):
		return logged{}, errFormat
	}
	return l, nil
}

// openLog begins the log of this Stage.
func (s *stager) openLog() error {
	if !s.o.resumes() || s.pretends() || s.o.Append {
		return nil
	}
	list, err := s.newSpool(logFile)
	if err != nil {
		return err
	}
	s.log = &stageLog{list}
	return s.log.add(func(b []byte) []byte { return append(b, bootID()...) })
}

// note adds a file whose content is staged. It is no loss when a racy one is left out.
func (s *stager) note(w *wish, e *Entry, at place, sum contentSum) error {
	if s.log == nil || s.racy != nil && !e.Mtime.before(s.racy.threshold()) {
		return nil
	}
	l := logged{path: w.path, size: e.Size, mtime: e.Mtime, ino: e.Ino, at: at, sum: sum}
	if err := s.log.add(l.append); err != nil || s.log.w.Buffered() < logFlush {
		return err
	}
	return s.log.flush()
}

// noteHalf adds a long file before its content comes.
func (s *stager) noteHalf(w *wish, e *Entry, at place) error {
	if s.log == nil {
		return nil
	}
	l := logged{half: true, path: w.path, size: e.Size, mtime: e.Mtime, ino: e.Ino, at: at}
	if err := s.log.add(l.append); err != nil {
		return err
	}
	return s.log.flush()
}

func (l *stageLog) close() {
	if l != nil && l.f != nil {
		_ = l.flush() // what is lost is fetched again
		l.spool.close()
	}
}

// logReader reads one pass of a log.
type logReader struct {
	records *records
	now     logged
	ended   bool
}

func (r *logReader) advance() {
	record, err := r.records.next()
	if err == nil {
		r.now, err = parseLogged(record)
	}
	r.ended = err != nil
}

// at returns what the log has of path, after whatever comes before it in a walk.
func (r *logReader) at(path string) []logged {
	for !r.ended && walksBefore(r.now.path, path) {
		r.advance()
	}
	var all []logged
	for !r.ended && r.now.path == path {
		all = append(all, r.now)
		r.advance()
	}
	return all
}

// walksBefore reports whether the file a comes before b in a walk: a directory's
// files come before those of the directories in it.
func walksBefore(a, b string) bool {
	dirA, nameA := splitPath(a)
	dirB, nameB := splitPath(b)
	if dirA == dirB {
		return nameA < nameB
	}
	return dirA == "" || dirB != "" && comesAfter(dirA, dirB)
}

// readLog opens a log that may be damaged, cut short or hostile to memory, and
// returns its boot id and its passes.
func readLog(f *os.File) (boot string, passes []*logReader, err error) {
	st, err := statFd(int(f.Fd()))
	if err != nil {
		return "", nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", nil, ErrNotRegular
	}
	part := func(from, to int64) *records {
		return &records{r: bufio.NewReaderSize(io.NewSectionReader(f, from, to-from), 16<<10)}
	}
	r := part(0, st.Size)
	head, err := r.next()
	if err != nil {
		return "", nil, errors.Join(errFormat, err)
	}
	boot = string(head)
	off := recordBytes(head)
	from, last := off, ""
	for {
		record, err := r.next()
		var l logged
		if err == nil {
			l, err = parseLogged(record)
		}
		if end := err != nil; end || last != "" && walksBefore(l.path, last) {
			if off > from {
				passes = append(passes, &logReader{records: part(from, off)})
			}
			if from = off; end || len(passes) == maxLogRuns {
				break
			}
		}
		last = l.path
		off += recordBytes(record)
	}
	for _, p := range passes {
		p.advance()
	}
	return boot, passes, nil
}

// recordBytes is the length of a record in a spool.
func recordBytes(record []byte) int64 {
	var head [binary.MaxVarintLen64]byte
	return int64(binary.PutUvarint(head[:], uint64(len(record))) + len(record))
}
