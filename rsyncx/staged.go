package rsyncx

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"golang.org/x/sys/unix"
)

// The staging directory holds content/ with the fetched files, one file for
// each part of the manifest, and a seal that names their lengths and sums. The
// seal's name tells how far it went:
const (
	sealNew   = "seal.new" // staged; worth nothing after a crash
	sealDone  = "seal"     // staged and durable
	sealBegun = "begun"    // Publish has started and must be finished
)

// maxSeal bounds the seal, in bytes.
const maxSeal = 1 << 20

// Staged is a tree that waits beside its destination to be published. It is
// for one goroutine at a time.
type Staged struct {
	root  *Root
	state int // .drsync
	stage int // .drsync/stage
	parts [parts]*spool
	stats Stats
	notes notes // of Publish
	sink  event.Sink
	fresh freshAttr // of what is made in stage
	dry   bool
	// noSync leaves it to the kernel when things reach the disk.
	noSync bool
	half   bool   // another Stage comes after, which takes what can be resumed
	seal   string // one of the names above, "" when there is nothing to publish
	done   bool   // published
}

// seal is what the seal file says, as JSON.
type seal struct {
	Version int        `json:"version"`
	Parts   []sealPart `json:"parts"`
	Stats   Stats      `json:"stats"`
	// Boot is set when nothing was synced: after another start of the kernel the
	// rest may be anything.
	Boot string `json:"boot,omitempty"`
}

type sealPart struct {
	Name    string `json:"name"`
	Records int64  `json:"records"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
}

func partName(i int) string { return "part-" + strconv.Itoa(i) }

// Stats returns what Stage found, and after Publish also what it had to leave:
// those are added to Skipped and Notes.
func (s *Staged) Stats() Stats {
	all := s.stats
	all.Notes = append(append([]string(nil), s.stats.Notes...), s.notes.lines()...)
	return all
}

// begin takes the lock and an empty staging directory. What an earlier Stage left
// is removed, or set aside when it can be resumed.
func (s *Staged) begin(resume bool) (err error) {
	if err := s.root.lock(); err != nil {
		return err
	}
	if s.state, s.stage, err = s.root.openState(true); err != nil {
		return unwritable(err)
	}
	for _, name := range []string{sealDone, sealBegun} {
		if _, err := statAt(s.stage, name); err == nil {
			s.close()
			return hint.With(fmt.Errorf("stage into %s: %w", s.root.path, ErrStaged), "publish or discard it first")
		}
	}
	if resume {
		err = s.setAside()
	} else {
		err = s.root.removeAll(s.state, resumeDir)
	}
	if err != nil {
		return fmt.Errorf("take over what an earlier run left in %s/%s: %w", s.root.path, stateDir, err)
	}
	if err := s.root.empty(s.stage); err != nil {
		return fmt.Errorf("empty %s/%s in %s: %w", stateDir, stageDir, s.root.path, err)
	}
	if err := s.plain(); err != nil {
		return fmt.Errorf("prepare %s/%s in %s: %w", stateDir, stageDir, s.root.path, err)
	}
	if err := s.root.mkdir(s.stage, contentDir, 0o700); err != nil {
		return fmt.Errorf("make %s/%s in %s: %w", stateDir, stageDir, s.root.path, err)
	}
	return nil
}

// plain takes from the staging directory what new names in it would inherit.
func (s *Staged) plain() error {
	st, err := statFd(s.stage)
	if err == nil && st.Mode&unix.S_ISGID != 0 {
		err = s.root.setMode(s.stage, 0o700)
	}
	if err != nil {
		return err
	}
	err = s.root.do("removexattr", func() error { return unix.Fremovexattr(s.stage, "system.posix_acl_default") })
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// probe finds out what the file system makes of a new file, and tells whether it
// keeps nanoseconds.
func (s *Staged) probe(umask uint32) (nanoseconds bool, err error) {
	const name, nsec, mode = "probe", 123_456_789, 0o666
	fd, err := s.root.create(s.stage, name, mode)
	if err != nil {
		return false, fmt.Errorf("stage below %s: %w", s.root.path, err)
	}
	defer unix.Close(fd)
	timeErr := s.root.setTime(fd, Time{Sec: 1e9, Nsec: nsec})
	st, err := statFd(fd)
	if err = errors.Join(err, s.root.unlink(s.stage, name)); err != nil {
		return false, fmt.Errorf("stage below %s: %w", s.root.path, err)
	}
	s.fresh = freshAttr{uid: st.UID, gid: st.GID, known: true, modes: st.Mode&0o7777 == mode&^umask, umask: umask}
	return timeErr != nil || st.Mtime.Nsec == nsec, nil
}

// finish writes the seal under its first name.
func (s *Staged) finish() error {
	sl := seal{Version: formatVersion, Stats: s.stats}
	if s.noSync {
		sl.Boot = bootID()
	}
	for i, p := range s.parts {
		if err := p.flush(); err != nil {
			return err
		}
		sl.Parts = append(sl.Parts, sealPart{Name: partName(i), Records: p.count, Bytes: p.size, SHA256: hex.EncodeToString(p.sum.Sum(nil))})
	}
	if s.dry {
		return nil
	}
	text, err := json.Marshal(sl)
	if err != nil {
		return fmt.Errorf("write the manifest's seal: %w", err)
	}
	f, err := s.root.createFile(s.stage, sealNew)
	if err == nil {
		_, err = f.Write(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("write the manifest's seal: %w", err)
	}
	s.seal = sealNew
	return nil
}

// Sync makes the staged content and the manifest durable: from here on a crash
// leaves something that OpenStaged finds; with Options.NoSync a crash of the
// process, not one of the host. It may be called again.
func (s *Staged) Sync() error {
	if s.dry || s.seal != sealNew {
		return nil
	}
	if !s.noSync {
		if err := s.root.syncFS(); err != nil {
			return err
		}
	}
	return s.reseal(sealDone)
}

// reseal renames the seal and makes that durable.
func (s *Staged) reseal(to string) error {
	err := s.root.rename(s.stage, s.seal, s.stage, to)
	if err == nil {
		s.seal = to
	}
	if err == nil && !s.noSync {
		err = s.root.do("fsync", func() error { return unix.Fsync(s.stage) })
	}
	if err != nil {
		return fmt.Errorf("seal the manifest in %s: %w", s.root.path, err)
	}
	return nil
}

// OpenStaged returns what an earlier process staged and synced below dst and did
// not finish to publish. Without any the error wraps fs.ErrNotExist.
func OpenStaged(dst *Root) (_ *Staged, err error) {
	s := &Staged{root: dst, state: -1, stage: -1}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.state, s.stage, err = dst.openState(false); err != nil {
		return nil, err
	}
	if err := dst.lock(); err != nil {
		return nil, err
	}
	text, err := s.readSeal()
	if err != nil {
		return nil, err
	}
	if sl, err := parseSeal(text); err == nil && sl.Boot != "" && sl.Boot != bootID() {
		// Not synced, and then the host went down: what is here may be anything.
		if err := s.clean(false); err != nil {
			return nil, fmt.Errorf("remove the staged tree in %s: %w", dst.path, err)
		}
		return nil, fmt.Errorf("a staged tree in %s: %w", dst.path, fs.ErrNotExist)
	}
	if err := s.load(text); err != nil {
		return nil, hint.With(fmt.Errorf("the staged tree in %s: %w", dst.path, err),
			fmt.Sprintf("remove %s/%s/%s and run again: what was not published is fetched anew", dst.path, stateDir, stageDir))
	}
	return s, nil
}

func (s *Staged) readSeal() ([]byte, error) {
	for _, name := range []string{sealBegun, sealDone} {
		text, err := readRegularAt(s.stage, name, maxSeal)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the seal of the staged tree in %s: %w", s.root.path, err)
		}
		s.seal = name
		return text, nil
	}
	return nil, fmt.Errorf("a staged tree in %s: %w", s.root.path, fs.ErrNotExist)
}

// load reads the seal and checks every part against it before anything is done.
func (s *Staged) load(text []byte) error {
	sl, err := parseSeal(text)
	if err != nil {
		return err
	}
	s.stats, s.noSync = sl.Stats, sl.Boot != ""
	for i, want := range sl.Parts {
		fd, err := openat(s.stage, want.Name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", want.Name, err)
		}
		p := newSpool(os.NewFile(uintptr(fd), want.Name))
		p.hash()
		s.parts[i] = p
		n, err := io.Copy(p.sum, io.LimitReader(p.f, want.Bytes+1))
		if err != nil {
			return fmt.Errorf("read %s: %w", want.Name, err)
		}
		if n != want.Bytes || hex.EncodeToString(p.sum.Sum(nil)) != want.SHA256 {
			return fmt.Errorf("%s: %w", want.Name, errFormat)
		}
		p.size, p.count = want.Bytes, want.Records
	}
	return nil
}

func parseSeal(text []byte) (seal, error) {
	var sl seal
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&sl); err != nil {
		return seal{}, fmt.Errorf("%w: %w", errFormat, err)
	}
	if sl.Version != formatVersion {
		return seal{}, fmt.Errorf("its format %d is not known to this version", sl.Version)
	}
	if len(sl.Parts) != parts {
		return seal{}, errFormat
	}
	for i, p := range sl.Parts {
		if p.Name != partName(i) || p.Bytes < 0 || p.Bytes >= 1<<62 || p.Records < 0 {
			return seal{}, errFormat
		}
	}
	return sl, nil
}

// Discard gives up what was staged: nothing of it will be published. With
// Options.Resume the content that was fetched stays for the next Stage, whatever it was
// that failed after this one; otherwise all is removed. After Publish has started that would
// leave half a tree, so it is an error then; after its end it does nothing.
func (s *Staged) Discard() error {
	if s.seal == sealBegun {
		return hint.New("discard the staged tree: its publish has started", "publish it again to finish it")
	}
	if !s.resumable() {
		return s.abandon(false)
	}
	defer s.close()
	if err := s.unseal(); err != nil {
		return fmt.Errorf("discard the staged tree in %s: %w", s.root.path, err)
	}
	return nil
}

// resumable reports whether there is a log with anything in it.
func (s *Staged) resumable() bool {
	if s.stage < 0 || s.dry {
		return false
	}
	st, err := statAt(s.stage, logFile)
	return err == nil && isRegular(&st.Entry) && st.Size > recordBytes([]byte(bootID()))
}

// unseal makes what is staged nothing that anybody would publish.
func (s *Staged) unseal() error {
	if s.seal == "" {
		return nil
	}
	err := s.root.unlink(s.stage, s.seal)
	if notThere(err) == nil {
		s.seal, err = "", nil
	}
	return err
}

// abandon removes what was staged, and what can be resumed unless that is kept.
func (s *Staged) abandon(keepResumable bool) error {
	if s.stage < 0 {
		s.close()
		return nil
	}
	err := s.clean(keepResumable)
	if err != nil {
		err = fmt.Errorf("discard the staged tree in %s: %w", s.root.path, err)
	}
	return err
}

// clean removes the staging directory, the seal first: without it the rest is
// nothing to anybody.
func (s *Staged) clean(keepResumable bool) error {
	defer s.close()
	if err := s.unseal(); err != nil {
		return err
	}
	if err := s.root.empty(s.stage); err != nil {
		return err
	}
	if err := s.root.rmdir(s.state, stageDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !keepResumable {
		if err := s.root.removeAll(s.state, resumeDir); err != nil {
			return err
		}
	}
	return s.root.dropState()
}

func (s *Staged) close() {
	for i, p := range s.parts {
		p.close()
		s.parts[i] = nil
	}
	if s.stage >= 0 {
		unix.Close(s.stage)
	}
	if s.state >= 0 {
		unix.Close(s.state)
	}
	s.stage, s.state = -1, -1
}

// bootID tells one start of the kernel from another.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(id))
}
