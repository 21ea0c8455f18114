package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/drsync/drsync/rsyncx/delta"
	"golang.org/x/sys/unix"
)

const (
	// resumeDir holds, in drsync's own directory, staging directories of Stages that
	// did not come to their end, under ascending numbers.
	resumeDir = "resume"
	// maxResumed is how many of them are kept: a Stage that is killed before it took
	// over what the one before it left makes one more.
	maxResumed = 4
)

func (o *Options) resumes() bool { return o.Resume || o.PartialDir != "" }

// setAside makes the staging directory of a Stage that was killed or failed one
// to take from. Without a log there is nothing to be had from it.
func (s *Staged) setAside() error {
	if _, err := statAt(s.stage, logFile); err != nil {
		return notThere(err)
	}
	if err := s.root.mkdir(s.state, resumeDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir, err := s.root.openPrivate(s.state, resumeDir)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	numbers, err := numbered(dir)
	if err != nil {
		return err
	}
	for len(numbers) >= maxResumed {
		if err := s.root.removeAll(dir, strconv.Itoa(numbers[0])); err != nil {
			return err
		}
		numbers = numbers[1:]
	}
	next := 1
	if len(numbers) > 0 {
		next = numbers[len(numbers)-1] + 1
	}
	if err := s.root.rename(s.state, stageDir, dir, strconv.Itoa(next)); err != nil {
		return err
	}
	unix.Close(s.stage)
	s.stage = -1
	if err := s.root.mkdir(s.state, stageDir, 0o700); err != nil {
		return err
	}
	s.stage, err = s.root.openPrivate(s.state, stageDir)
	return err
}

// numbered lists the names in dir that are numbers, ascending.
func numbered(dir int) ([]int, error) {
	list, err := openDir(dir, ".")
	if err != nil {
		return nil, err
	}
	defer unix.Close(list)
	names, err := readNames(list, make([]byte, 8<<10))
	var numbers []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil && n > 0 && strconv.Itoa(n) == name {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, err
}

// giveUp ends a Stage that failed. What it staged stays for the next one when
// that was asked for, unless it comes from a source that breaks the rules.
func (s *stager) giveUp(cause error) error {
	if s.log == nil || s.log.count < 2 || errors.Is(cause, ErrHostile) {
		return s.out.abandon(s.o.resumes() && !errors.Is(cause, ErrHostile))
	}
	s.out.close()
	return nil
}

// earlier is what Stages left that did not come to their end.
type earlier struct {
	dirs   []*earlierDir
	halves []half
}

type earlierDir struct {
	at     descent
	log    *os.File
	passes []*logReader
	// trusted says that the kernel did not start anew meanwhile: what was written is there.
	trusted bool
}

func (e *earlier) close() {
	for _, d := range e.dirs {
		d.at.close()
		unix.Close(d.at.root)
		d.log.Close()
	}
}

// openEarlier opens them, the newest first. One that cannot be read has nothing for us.
func (s *stager) openEarlier() (*earlier, error) {
	e := &earlier{}
	dir, err := s.dst.openPrivate(s.out.state, resumeDir)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	numbers, err := numbered(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s/%s in %s: %w", stateDir, resumeDir, s.dst.path, err)
	}
	slices.Reverse(numbers)
	boot := bootID()
	for _, n := range numbers {
		fd, err := s.dst.openPrivate(dir, strconv.Itoa(n))
		if err != nil {
			continue
		}
		d := &earlierDir{at: descent{root: fd}}
		log, err := openat(fd, logFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			unix.Close(fd)
			continue
		}
		d.log = os.NewFile(uintptr(log), logFile)
		e.dirs = append(e.dirs, d)
		then, passes, err := readLog(d.log)
		if err == nil {
			d.passes, d.trusted = passes, then == boot
		}
	}
	return e, nil
}

// reuse takes from list the files whose content an earlier Stage fetched, and
// returns what is left. What nobody takes is removed then.
func (s *stager) reuse(ctx context.Context, list *spool) (rest *spool, err error) {
	if s.log == nil {
		return list, nil
	}
	e, err := s.openEarlier()
	if err != nil {
		return nil, err
	}
	defer e.close()
	if len(e.dirs) == 0 && s.o.PartialDir == "" {
		return list, nil
	}
	if rest, err = s.newSpool("not-reused"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			rest.close()
		}
	}()
	if err := s.match(ctx, list, rest, e); err != nil {
		return nil, err
	}
	if err := s.finishHalves(ctx, e.halves, rest); err != nil {
		return nil, err
	}
	if err := s.dst.removeAll(s.out.state, resumeDir); err != nil {
		return nil, fmt.Errorf("remove %s/%s in %s: %w", stateDir, resumeDir, s.dst.path, err)
	}
	return rest, rest.flush()
}

// match goes through list and the logs beside each other; both are in the order of a walk.
func (s *stager) match(ctx context.Context, list, rest *spool, e *earlier) error {
	if err := list.flush(); err != nil {
		return err
	}
	at := &descent{root: s.dst.fd}
	defer at.close()
	for r := list.records(); ; {
		record, err := r.next()
		if err != nil {
			return endOf(err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w, err := parseWish(record)
		if err != nil {
			return err
		}
		done, err := s.fromEarlier(&w, e)
		if err == nil && !done {
			done, err = s.fromPartialDir(at, &w, e)
		}
		if err == nil && !done {
			err = rest.add(w.append)
		}
		if err != nil {
			return err
		}
	}
}

// fromEarlier looks for w in the logs. Half a file is put aside for finishHalves.
func (s *stager) fromEarlier(w *wish, e *earlier) (bool, error) {
	var halves []half // the likeliest last
	for _, d := range slices.Backward(e.dirs) {
		for _, pass := range d.passes {
			for _, l := range pass.at(w.path) {
				switch {
				case !s.stillIs(w, &l):
				case l.half:
					halves = append(halves, half{wish: *w, dir: d, at: l.at})
				default:
					if done, err := s.takeOver(w, d, &l); err != nil || done {
						return done, err
					}
				}
			}
		}
	}
	for _, h := range slices.Backward(halves) {
		if len(e.halves) >= maxHalves || !h.dir.trusted && !s.can.Sums {
			continue
		}
		if done, err := s.takeHalf(&h, e); err != nil || done {
			return done, err
		}
	}
	return false, nil
}

// stillIs reports whether what was staged is what is wanted, as far as a listing tells.
func (s *stager) stillIs(w *wish, l *logged) bool {
	return !w.compare && !w.mount && !s.o.Checksum && !s.o.IgnoreTimes &&
		l.size == w.entry.Size && l.mtime == w.entry.Mtime && (l.ino == w.entry.Ino || l.ino == 0 || w.entry.Ino == 0)
}

// stagedAt returns where l lies below an earlier staging directory.
func stagedAt(p place, path string) string {
	if p.tree.none() {
		return contentDir + "/" + contentDirName(p.number) + "/" + contentName(p.number)
	}
	return p.tree.path(path)
}

// takeOver moves a whole file from an earlier staging directory into this one.
func (s *stager) takeOver(w *wish, d *earlierDir, l *logged) (bool, error) {
	fd, dir, name, err := d.open(l.at, w.path, unix.O_RDONLY)
	if err != nil {
		return false, nil
	}
	defer unix.Close(fd)
	st, err := statFd(fd)
	if err != nil || !isRegular(&st.Entry) || st.Size != l.size || st.Nlink != 1 && w.group < 0 {
		return false, nil
	}
	if !d.trusted || st.Nlink != 1 {
		sum, err := sumOf(fd, l.sum.block)
		if err != nil || sum != l.sum {
			return false, nil
		}
	}
	var at place
	set := s.freshFile(w, &w.entry)
	if st.Nlink == 1 {
		if at, err = s.moveIn(w, dir, name); err == nil {
			err = s.dst.apply(fd, s.out.fresh.all(set, &st))
		}
	} else {
		// A second name may be one in the destination, which its attributes would reach.
		at, err = s.copyIn(w, fd, l.size, set)
	}
	if err != nil {
		return false, stagingError(w.path, err)
	}
	s.stats.Reused += l.size
	s.resumed += l.size
	return true, s.arrived(w, &w.entry, at, l.size, l.sum, wholeFile)
}

// arrived notes a file that has its place and all its attributes.
func (s *stager) arrived(w *wish, e *Entry, at place, size int64, sum contentSum, form uint32) error {
	s.fetched(w, e, size, at)
	if form == wholeFile {
		if err := s.note(w, e, at, sum); err != nil {
			return err
		}
	}
	return s.put(w, e, at, size, form)
}

// open opens what lies at p.
func (d *earlierDir) open(p place, path string, flags int) (fd, dir int, name string, err error) {
	dir, name, err = d.at.parent(stagedAt(p, path))
	if err == nil {
		fd, err = openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	}
	return fd, dir, name, err
}

// moveIn gives a file of another directory of ours its place.
func (s *stager) moveIn(w *wish, dir int, name string) (place, error) {
	l := &s.content.lanes[0]
	at := l.place(w.tree)
	to, toName, err := l.open(at, w.path)
	if err == nil {
		err = s.dst.rename(dir, name, to, toName)
	}
	return at, err
}

// copyIn stages a copy of a file of another directory of ours.
func (s *stager) copyIn(w *wish, fd int, size int64, set attr) (place, error) {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return place{}, err
	}
	from := os.NewFile(uintptr(fd), w.path)
	defer from.Close()
	return s.content.copyOwn(from, size, w.tree, w.path, set)
}

// all is what has to be set so that a file which may have anything gets a, and
// otherwise what a new one has.
func (f freshAttr) all(a attr, now *info) attr {
	if a.set&setUID == 0 && now.UID != f.uid {
		a.set, a.uid = a.set|setUID, f.uid
	}
	if a.set&setGID == 0 && now.GID != f.gid {
		a.set, a.gid = a.set|setGID, f.gid
	}
	if a.set&setTime == 0 {
		a.set, a.mtime = a.set|setTime, Time{Sec: time.Now().Unix()}
	}
	return a
}

// sumOf reads a whole file from where its descriptor stands.
func sumOf(fd int, block int64) (contentSum, error) {
	s := delta.NewSummer(block, false, true)
	if _, err := io.Copy(s, fdReader(fd)); err != nil {
		return contentSum{}, err
	}
	return contentSum{s.Whole(), block}, nil
}
