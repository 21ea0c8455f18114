package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/hint"
)

// lsn is a place in a server's log, in bytes from its beginning.
type lsn uint64

func parseLSN(s string) (lsn, error) {
	high, low, ok := strings.Cut(s, "/")
	h, herr := strconv.ParseUint(high, 16, 32)
	l, lerr := strconv.ParseUint(low, 16, 32)
	if !ok || herr != nil || lerr != nil {
		return 0, fmt.Errorf("%q is no place in a log", s)
	}
	return lsn(h<<32 | l), nil
}

func (l lsn) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint64(l)&0xffffffff) }

// How a log is laid out: pages with a header, which is longer in the first page
// of a segment.
const (
	logPage         = 8192
	pageHeader      = 24
	segmentHeader   = 40
	smallestSegment = 1 << 20
	largestSegment  = 1 << 30
)

// history is one unbroken log: that of a server, on a timeline of it, in
// segments of one size.
type history struct {
	System   string `json:"system"` // the server's own number for itself
	Timeline uint32 `json:"timeline"`
	Segment  int64  `json:"segment"` // bytes
}

func (h history) valid() error {
	if h.System == "" || h.Timeline == 0 || h.Segment < smallestSegment || h.Segment > largestSegment || h.Segment&(h.Segment-1) != 0 {
		return fmt.Errorf("%+v is no log", h)
	}
	return nil
}

// recordEnd is where the record ended behind which the server would write the
// next one at l: a server that is about to begin a page says where the page's
// header ends.
func (h history) recordEnd(l lsn) lsn {
	switch {
	case int64(l)%h.Segment == segmentHeader:
		return l - segmentHeader
	case l%logPage == pageHeader:
		return l - pageHeader
	}
	return l
}

// begin is where the segment that holds the byte at l begins.
func (h history) begin(l lsn) lsn { return l - l%lsn(h.Segment) }

// name is the file name of the segment that begins at l.
func (h history) name(l lsn) string {
	n, per := int64(l)/h.Segment, int64(1<<32)/h.Segment
	return fmt.Sprintf("%08X%08X%08X", h.Timeline, n/per, n%per)
}

var segmentName = regexp.MustCompile(`^[0-9A-F]{24}$`)

// receivedLog is a directory with the segments of a log that were received from
// the active. Its state, a small file that is written last, says which part of
// them is whole and on the disk; what else the directory holds does not count.
type receivedLog struct {
	dir   string
	state logState
}

type logState struct {
	Format  int `json:"format"`
	History history
	From    string `json:"from"` // the beginning of a segment
	To      string `json:"to"`

	from, to lsn
}

const (
	logFormat    = 1
	logStateFile = "state.json"
)

// openLog returns nil if there is none.
func openLog(dir string) (*receivedLog, error) {
	data, err := os.ReadFile(filepath.Join(dir, logStateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l := &receivedLog{dir: dir}
	s := &l.state
	if err = json.Unmarshal(data, s); err == nil {
		err = s.History.valid()
	}
	if err == nil && s.Format != logFormat {
		err = fmt.Errorf("it has format %d; this drsync knows %d", s.Format, logFormat)
	}
	if err == nil {
		s.from, err = parseLSN(s.From)
	}
	if err == nil {
		s.to, err = parseLSN(s.To)
	}
	if err == nil && (s.from > s.to || s.History.begin(s.from) != s.from) {
		err = fmt.Errorf("it goes from %v to %v", s.from, s.to)
	}
	if err != nil {
		return nil, hint.With(fmt.Errorf("the state of the log in %s: %w", dir, err), "remove that directory; the next run copies the active's server anew")
	}
	return l, nil
}

// newLog begins a log that holds nothing yet, in place of what was there.
func newLog(dir string, h history, from lsn) (*receivedLog, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	l := &receivedLog{dir: dir, state: logState{Format: logFormat, History: h, from: h.begin(from), to: h.begin(from)}}
	return l, l.save()
}

func (l *receivedLog) save() error {
	l.state.From, l.state.To = l.state.from.String(), l.state.to.String()
	data, err := json.Marshal(l.state)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(l.dir, logStateFile), data, 0o600)
}

// covers says whether the log holds everything from where l's segment begins.
func (l *receivedLog) covers(h history, at lsn) bool {
	return l != nil && l.state.History == h && l.state.from <= h.begin(at) && at <= l.state.to
}

// forget removes the segments before the one that holds the byte at l.
func (l *receivedLog) forget(at lsn) error {
	h := l.state.History
	first := h.begin(min(at, l.state.to))
	if first <= l.state.from {
		return nil
	}
	l.state.from = first
	if err := l.save(); err != nil {
		return err
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if segmentName.MatchString(e.Name()) && e.Name() < h.name(first) {
			if err := os.Remove(filepath.Join(l.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// logWriter adds to a log what comes next.
type logWriter struct {
	log  *receivedLog
	at   lsn
	file *os.File
}

func (l *receivedLog) writer() *logWriter { return &logWriter{log: l, at: l.state.to} }

func (w *logWriter) write(data []byte) error {
	h := w.log.state.History
	for len(data) > 0 {
		offset := int64(w.at) % h.Segment
		if w.file == nil {
			f, err := os.OpenFile(filepath.Join(w.log.dir, h.name(h.begin(w.at))), os.O_WRONLY|os.O_CREATE, 0o600)
			if err != nil {
				return err
			}
			w.file = f
		}
		n := min(int64(len(data)), h.Segment-offset)
		if _, err := w.file.WriteAt(data[:n], offset); err != nil {
			return err
		}
		w.at, data = w.at+lsn(n), data[n:]
		if offset+n == h.Segment {
			if err := w.closeFile(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *logWriter) closeFile() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Sync()
	if cerr := w.file.Close(); err == nil {
		err = cerr
	}
	w.file = nil
	return err
}

// finish makes what was written count.
func (w *logWriter) finish() error {
	if err := w.closeFile(); err != nil {
		return err
	}
	if err := durable.SyncDir(w.log.dir); err != nil {
		return err
	}
	w.log.state.to = w.at
	return w.log.save()
}

// abandon ends the writing; nothing of it counts.
func (w *logWriter) abandon() {
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
}

// hand puts what a server needs to go from one place to the other into its
// directory of segments, and nothing beyond: the last segment has zeros there, at
// which a server stops whatever it is told to do. The server must not run.
func (l *receivedLog) hand(dir string, owner owner, from, to lsn) error {
	h := l.state.History
	if !l.covers(h, from) || to > l.state.to || h.begin(from) >= to {
		return fmt.Errorf("internal error: the log goes from %v to %v, wanted is %v to %v", l.state.from, l.state.to, from, to)
	}
	last := ""
	for at := h.begin(from); at < to; at += lsn(h.Segment) {
		last = h.name(at)
		if err := l.handSegment(dir, owner, last, min(h.Segment, int64(to-at))); err != nil {
			return fmt.Errorf("hand over %s: %w", last, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		// What a server has set aside for later use has names of segments to come.
		if segmentName.MatchString(e.Name()) && e.Name() > last || strings.HasPrefix(e.Name(), handing) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return durable.SyncDir(dir)
}

const handing = "drsync-handing-"

// handSegment copies the first n bytes of a segment.
func (l *receivedLog) handSegment(dir string, owner owner, name string, n int64) (err error) {
	from, err := os.Open(filepath.Join(l.dir, name))
	if err != nil {
		return err
	}
	defer from.Close()
	draft := filepath.Join(dir, handing+name)
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	to, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // the directory is another account's
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := io.CopyN(to, from, n); err != nil {
		return err
	}
	if err := to.Truncate(l.state.History.Segment); err != nil {
		return err
	}
	if err := owner.own(draft); err != nil {
		return err
	}
	if err := to.Sync(); err != nil {
		return err
	}
	return os.Rename(draft, filepath.Join(dir, name))
}
