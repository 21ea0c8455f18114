package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/drsync/drsync/internal/hint"
	"golang.org/x/sys/unix"
)

// GuardError is why a source was refused by Options.Marker, MinEntries,
// SameSource, MaxDelete or MaxDeleteFraction. Nothing was changed then.
type GuardError struct{ Reason string }

func (e *GuardError) Error() string { return e.Reason }

func refused(format string, args ...any) error {
	return &GuardError{fmt.Sprintf(format, args...)}
}

// sourceFile, in drsync's own directory, says which directory the source's root was.
const sourceFile = "source"

// remembered are the files of the staging directory that Publish puts into
// drsync's own; an empty one takes away what is there.
var remembered = []string{sourceFile, racyFile}

// CheckSource refuses what Stage would refuse because of o.Marker and
// o.SameSource, and changes nothing.
func CheckSource(ctx context.Context, src Source, dst *Root, o Options) error {
	s := &stager{src: src, dst: dst, o: o}
	return s.guards(ctx)
}

// guards refuses a source that cannot be the one that is meant, before anything is staged.
func (s *stager) guards(ctx context.Context) error {
	if s.o.Marker != "" {
		if err := s.marker(ctx); err != nil {
			return err
		}
	}
	if s.o.SameSource || s.o.NewSource {
		return s.sameSource(ctx)
	}
	return nil
}

func (s *stager) marker(ctx context.Context) error {
	if err := CheckPath(s.o.Marker); err != nil {
		return fmt.Errorf("the marker of the source: %w", err)
	}
	e, err := s.src.Lstat(ctx, s.o.Marker)
	if errors.Is(err, fs.ErrNotExist) || err == nil && isSymlink(&e) { // which may lead nowhere
		return hint.With(refused("the source has no %s", Printable(s.o.Marker)),
			"see whether its file system is mounted; the marker has to be there for anything to be synced")
	}
	if err != nil {
		return fmt.Errorf("look for the marker of the source: %w", err)
	}
	return nil
}

// fewest refuses a source that is emptier than it can be.
func (s *stager) fewest() error {
	if s.stats.Entries >= s.o.MinEntries {
		return nil
	}
	return hint.With(refused("the source has %d entries, fewer than the %d that it must have", s.stats.Entries, s.o.MinEntries),
		"see whether it is complete and mounted; if it is meant to be so small, lower the limit")
}

// sameSource compares the inode of the source's root with that of the last
// time. The device is left out: its number changes from one start of the kernel to the next.
func (s *stager) sameSource(ctx context.Context) error {
	root, err := s.src.Lstat(ctx, "")
	if err != nil {
		return fmt.Errorf("look at the source's root: %w", err)
	}
	if root.Ino == 0 {
		return hint.With(fmt.Errorf("tell whether the source is the same as the last time: %w: it does not know inodes", errors.ErrUnsupported),
			"do without this guard, or use another transport")
	}
	last, err := s.lastSource()
	if s.o.NewSource || errors.Is(err, fs.ErrNotExist) {
		s.known = knownSource{}
		s.source = root.Ino
		return nil
	}
	if err == nil && last.ino == root.Ino {
		s.known, s.source = last, root.Ino
		return s.stillMounted(ctx, &root, last.mounts)
	}
	if err == nil {
		err = refused("the source is another directory than the last time: its inode was %d and is %d", last.ino, root.Ino)
	}
	return hint.With(err, "see whether its file system is mounted; if the source was moved or restored on purpose, accept it as new for one run (--new-source)")
}

// lastSource returns what Publish remembered.
func (s *stager) lastSource() (knownSource, error) {
	text, err := s.dst.readState(sourceFile, maxSourceFile)
	if err != nil {
		return knownSource{}, err
	}
	known, ok := parseKnownSource(string(text))
	if !ok {
		return knownSource{}, fmt.Errorf("what is remembered of the source, in %s/%s/%s, is damaged", s.dst.path, stateDir, sourceFile)
	}
	return known, nil
}

// remember leaves what is to be known the next time for Publish.
func (s *stager) remember() error {
	if s.o.DryRun {
		return nil
	}
	now := knownSource{ino: s.source, mounts: s.mounts.paths}
	if s.source != 0 && (s.known.ino != now.ino || !slices.Equal(s.known.mounts, now.mounts)) {
		if err := s.out.leave(sourceFile, now.text(), Time{}); err != nil {
			return err
		}
	}
	if s.racy == nil {
		return nil
	}
	text, since := s.racy.result()
	if len(text) == 0 && !s.racy.had {
		return nil
	}
	return s.out.leave(racyFile, text, since)
}

// leave writes a file that Publish will put into drsync's own directory.
func (s *Staged) leave(name string, text []byte, mtime Time) error {
	fd, err := s.root.create(s.stage, name, 0o600)
	if err == nil {
		err = s.root.do("write", func() error { return writeAll(fd, text) })
		if err == nil && mtime != (Time{}) {
			err = s.root.setTime(fd, mtime)
		}
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("write %s/%s/%s in %s: %w", stateDir, stageDir, name, s.root.path, err)
	}
	return nil
}

// carry puts those files in their place. It may be done again.
func (s *Staged) carry() error {
	for _, name := range remembered {
		st, err := statAt(s.stage, name)
		switch {
		case err != nil:
		case st.Size == 0:
			err = errors.Join(notThere(s.root.unlink(s.state, name)), s.root.unlink(s.stage, name))
		default:
			err = s.root.rename(s.stage, name, s.state, name)
		}
		if notThere(err) != nil {
			return fmt.Errorf("write %s/%s in %s: %w", stateDir, name, s.root.path, err)
		}
	}
	return nil
}

// readState reads a small file of drsync's own directory.
func (r *Root) readState(name string, limit int64) ([]byte, error) {
	state, err := r.openPrivate(r.fd, stateDir)
	if err != nil {
		return nil, err
	}
	defer unix.Close(state)
	text, err := readRegularAt(state, name, limit)
	if err != nil {
		return nil, fmt.Errorf("read %s/%s in %s: %w", stateDir, name, r.path, err)
	}
	return text, nil
}
