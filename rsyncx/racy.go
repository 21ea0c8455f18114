package rsyncx

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// A file that was read within racyWindow of its modification time may change once
// more without another time, and then size and time do not tell. Such files are
// remembered, and compared by content the next time.
const (
	racyFile = "racy"
	// racyAgain is how long after the list was written a file on it, unchanged and
	// compared again, is one no more: whatever time it is on the source, so much went by.
	racyAgain = 4 * time.Second
	// clockSkew is how far the clock of a source that cannot tell its time may be from ours.
	clockSkew = 3600 // seconds

	maxRacy      = 1 << 16  // files that are remembered; what is beyond is trusted as rsync does
	maxRacyBytes = 16 << 20 // of the list
	racyMagic    = "drsync racy 1\n"
)

// Clock is a Source that knows what time it is where it reads. Without it
// Stage takes the newest modification time that was listed, or what our own clock
// allows for.
type Clock interface {
	Now(ctx context.Context) (Time, error)
}

// racyFacts are those by which a file would be taken for unchanged.
type racyFacts struct {
	size  int64
	mtime Time
}

// racy is what one Stage knows of them. Methods that only ask may be called from
// several goroutines while the walk goes on.
type racy struct {
	had     bool                 // there is a list from the last time
	old     map[string]racyFacts // that list
	dirs    map[string]struct{}  // that hold a file of it
	written time.Time            // when, by our clock
	// all, when the list was damaged, takes every file for one of it that is not
	// older than since: the list has that as its own modification time.
	all   bool
	since Time

	restricted bool // not all of the source is looked at
	asked      map[string]struct{}
	started    time.Time
	now        Time // the source's, or something before
	newest     Time // listed
	told       bool // now is the source's own
	seen       map[string]racyFacts
	bytes      int
}

// openRacy reads the list. One that is not there or not readable is no error:
// then size and time decide, as they do for rsync.
func (s *stager) openRacy(ctx context.Context) error {
	if !s.o.Racy {
		return nil
	}
	r := &racy{started: time.Now(), restricted: s.o.Only != nil || s.o.Flat, asked: map[string]struct{}{}, seen: map[string]racyFacts{}}
	s.racy, s.racyDir = r, s.racyIn
	r.now.Sec = r.started.Unix() - clockSkew
	if clock, ok := s.src.(Clock); ok {
		now, err := clock.Now(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("ask the source for its time: %w", err)
		}
		if err == nil {
			r.now, r.told = now, true
		}
	}
	text, err := s.dst.readState(racyFile, maxRacyBytes+64)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	r.had = true
	if err == nil {
		err = r.parse(text)
	}
	if err != nil {
		r.old, r.dirs, r.all = nil, nil, true
		s.notes.add("the list of files to look at again was damaged: all that are not older were compared by content")
		if r.since, err = s.dst.stateTime(racyFile); err != nil {
			r.since = Time{}
		}
	}
	return nil
}

// stateTime is the modification time of a file of drsync's own directory.
func (r *Root) stateTime(name string) (Time, error) {
	state, err := r.openPrivate(r.fd, stateDir)
	if err != nil {
		return Time{}, err
	}
	defer unix.Close(state)
	st, err := statAt(state, name)
	return st.Mtime, err
}

// parse reads a list: the magic, when it was written, the files, and a sum of all that.
func (r *racy) parse(text []byte) error {
	body, sum := text[:max(0, len(text)-16)], text[max(0, len(text)-16):]
	want := xxh3.Hash128(body).Bytes()
	if !bytes.HasPrefix(body, []byte(racyMagic)) || !bytes.Equal(sum, want[:]) {
		return errFormat
	}
	d := decoder{b: body[len(racyMagic):]}
	r.written = time.Unix(d.int(), 0)
	r.old, r.dirs = map[string]racyFacts{}, map[string]struct{}{}
	for len(d.b) > 0 && len(r.old) < maxRacy {
		path := d.text()
		facts := racyFacts{size: d.int(), mtime: d.time()}
		if d.bad {
			return errFormat
		}
		dir, _ := splitPath(path)
		r.old[path], r.dirs[dir] = facts, struct{}{}
	}
	return nil
}

// result returns the list for the next time, empty when there is nothing in it,
// and the modification time that it shall have.
func (r *racy) result() ([]byte, Time) {
	if r.restricted {
		for path, facts := range r.old {
			if _, asked := r.asked[path]; !asked {
				r.add(path, facts)
			}
		}
	}
	since := r.threshold()
	if len(r.seen) == 0 {
		return nil, since
	}
	b := binary.AppendVarint([]byte(racyMagic), r.started.Unix())
	for path, f := range r.seen {
		b = appendTime(binary.AppendVarint(appendText(b, path), f.size), f.mtime)
	}
	sum := xxh3.Hash128(b).Bytes()
	return append(b, sum[:]...), since
}

func (r *racy) add(path string, f racyFacts) {
	if size := len(path) + 32; len(r.seen) < maxRacy && r.bytes+size <= maxRacyBytes {
		r.seen[path] = f
		r.bytes += size
	}
}

// threshold is the time from which on files may have changed while they were read.
func (r *racy) threshold() Time {
	t := r.now
	if !r.told && t.before(r.newest) {
		t = r.newest
	}
	t.Sec -= int64(racyWindow / time.Second)
	return t
}

// listed notes a time of the source. What lies in our future is no measure of its clock.
func (r *racy) listed(t Time) {
	if r != nil && !r.told && r.newest.before(t) && t.Sec < r.started.Unix()+clockSkew {
		r.newest = t
	}
}

// suspect reports whether a file that seems to be unchanged has to be compared.
func (r *racy) suspect(path string, e *Entry) bool {
	if r == nil {
		return false
	}
	if r.all {
		return !e.Mtime.before(r.since)
	}
	facts, ok := r.old[path]
	if ok && r.restricted {
		r.asked[path] = struct{}{}
	}
	return ok && facts == racyFacts{size: e.Size, mtime: e.Mtime}
}

// read notes a file whose content was read, as it was when that began.
func (r *racy) read(path string, e *Entry) {
	if r == nil || e.Mtime.before(r.threshold()) {
		return
	}
	facts := racyFacts{size: e.Size, mtime: e.Mtime}
	if old, ok := r.old[path]; ok && old == facts && r.started.Sub(r.written) >= racyAgain {
		return
	}
	r.add(path, facts)
}

// racyIn reports whether the directory dir holds a file that has to be compared
// by content although it seems to be unchanged. It may be called from several
// goroutines at once.
func (s *stager) racyIn(dir string) bool {
	if s.racy == nil {
		return false
	}
	_, ok := s.racy.dirs[dir]
	return ok || s.racy.all
}

// Now is the time of this host.
func (l *local) Now(context.Context) (Time, error) {
	now := time.Now()
	return Time{Sec: now.Unix(), Nsec: int32(now.Nanosecond())}, nil
}

var _ Clock = (*local)(nil)
