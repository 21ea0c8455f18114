package rsyncx

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

// inTurn looks whether d goes on where the Dir before it ended.
func (s *stager) inTurn(d *Dir) error {
	if d.After != s.piece.Upto || d.After != "" && d.Path != s.piece.Path {
		return hostile(d.Path, "a piece of %q is missing before it", Printable(s.piece.Path))
	}
	s.piece = d.Piece()
	n := len(d.Entries)
	if d.After != "" && !d.Same {
		n = max(n, 1) // pieces without anything in them are not for ever
	}
	return s.mayList(n)
}

// mayList counts what the source lists.
func (s *stager) mayList(n int) error {
	if s.listed += int64(n); s.listed > s.o.MaxEntries {
		return fmt.Errorf("list the source: %w: %d names and more", ErrTooMany, s.o.MaxEntries)
	}
	return nil
}

// needsWhole reports whether something has to be decided about a directory from all
// of its entries, so that the pieces of a long one have to be put together, whatever memory that takes.
func (s *stager) needsWhole() bool {
	o := &s.o
	return o.Fuzzy || o.Delete && !o.deleted && o.DeleteLimited || o.Filter.PerDirectory() && o.DeleteAfter && !o.DryRun
}

// gather puts the pieces of a directory together, and returns it after the last one.
func (s *stager) gather(d *Dir) (*Dir, error) {
	if d.Same {
		all, err := s.same.relist(d.Piece())
		if err != nil {
			return nil, err
		}
		d.Entries = shown(nil, all)
		if err := s.mayList(len(d.Entries)); err != nil {
			return nil, err
		}
	}
	if d.After == "" {
		s.whole = *d
		s.whole.Entries = slices.Clone(d.Entries)
	} else {
		s.whole.Entries = append(s.whole.Entries, d.Entries...)
	}
	s.whole.Partial = s.whole.Partial || d.Partial
	if s.whole.Same, s.whole.Upto = false, d.Upto; d.Upto != "" {
		return nil, nil
	}
	all := s.whole
	s.whole = Dir{}
	return &all, nil
}

// list reads the destination's directory, of a long one the names.
func (s *stager) list(f *frame, d *Dir) (err error) {
	if f.fd < 0 {
		return nil
	}
	p := d.Piece()
	seen := 0
	if d.After == "" {
		defer func() { s.destSeen += int64(seen) }()
	}
	if d.After == "" && !p.whole() {
		if f.long, err = s.longNames(f); err != nil {
			return err
		}
		seen = f.long.len()
	}
	all, kept := s.same.arrived(p)
	if !kept && d.Same {
		all, err = s.same.relist(p)
		kept = true
	}
	switch {
	case err != nil:
	case kept && f.long != nil:
		f.dst, f.at = all, f.long.upTo(p.Upto)
	case kept:
		f.dst, seen = all, len(all)
	case f.long == nil:
		if f.dst, f.long, err = s.lister.list(f.fd, f.path); f.long != nil {
			seen = f.long.len()
		}
		seen += len(f.dst)
		if s.gathers && f.long != nil {
			f.dst, err = s.lister.describe(f.fd, f.path, f.long.span(0, f.long.len()))
			f.long = nil
		}
	}
	return err
}

// longNames returns the names of a directory of which the source lists pieces.
func (s *stager) longNames(f *frame) (*longNames, error) {
	if names := s.same.namesOf(f.path); names != nil {
		return names, nil
	}
	return s.lister.names(f.fd, f.path)
}

// meet goes through what the destination has up to name, or when that is "" up to the
// bound of a piece, and returns what it has under that name, or nil. What lies before goes to extra.
func (s *stager) meet(f *frame, upto, name string, extra func(*frame, *info) error) (here *info, err error) {
	for {
		if len(f.dst) == 0 && f.long != nil {
			if err := s.describe(f, upto); err != nil {
				return nil, err
			}
		}
		if len(f.dst) == 0 || name != "" && f.dst[0].Name > name {
			return nil, nil
		}
		here := &f.dst[0]
		if f.dst = f.dst[1:]; here.Name == name {
			return here, nil
		}
		if err := extra(f, here); err != nil {
			return nil, err
		}
	}
}

// describe fills f.dst with what follows in a long directory, up to the bound of a piece.
func (s *stager) describe(f *frame, upto string) (err error) {
	for end := f.long.upTo(upto); len(f.dst) == 0 && f.at < end && err == nil; {
		from := f.at
		f.at = min(from+s.lister.reader.piece(), end)
		f.dst, err = s.lister.describe(f.fd, f.path, f.long.span(from, f.at))
	}
	return err
}

// destLister lists directories of the destination. It belongs to one goroutine.
type destLister struct {
	reader dirReader
	stat   unix.Statx_t
}

// list describes what is in a directory, or returns the names of a long one.
func (l *destLister) list(fd int, path string) ([]info, *longNames, error) {
	names, long, err := l.reader.read(fd)
	if err != nil {
		return nil, nil, listError(path, err)
	}
	if long != nil {
		return nil, long, nil
	}
	all, err := l.describe(fd, path, names)
	return all, nil, err
}

// names returns the names of a directory as those of a long one, however many they are.
func (l *destLister) names(fd int, path string) (*longNames, error) {
	names, err := l.reader.readLong(fd)
	if err != nil {
		return nil, listError(path, err)
	}
	return names, nil
}

func listError(path string, err error) error {
	return fmt.Errorf("list the directory %s of the destination: %w", Printable(path), err)
}

// describe describes some names of a directory, in their order.
func (l *destLister) describe(fd int, path string, names []dirent) ([]info, error) {
	all := make([]info, 0, len(names))
	for i := range names {
		n := &names[i]
		if path == "" && n.name == stateDir {
			continue
		}
		all = append(all, info{})
		err := n.infoAt(fd, &l.stat, &all[len(all)-1])
		if errors.Is(err, fs.ErrNotExist) {
			all = all[:len(all)-1]
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("stat %s in the destination: %w", Printable(joinPath(path, n.name)), err)
		}
	}
	return all, nil
}

// each describes everything in a directory in the order of deletion, and returns how much
// that was. Of a long one no more than a piece is in memory.
func (l *destLister) each(fd int, path string, do func(*info) error) (n int64, err error) {
	all, long, err := l.list(fd, path)
	if err != nil {
		return 0, err
	}
	if long != nil {
		return l.eachOf(fd, path, long, indexes(0, long.len()), do)
	}
	deletionOrder(all)
	for i := range all {
		if err := do(&all[i]); err != nil {
			return 0, err
		}
	}
	return int64(len(all)), nil
}

// eachOf is each for some names of a long directory.
func (l *destLister) eachOf(fd int, path string, long *longNames, which []uint32, do func(*info) error) (n int64, err error) {
	for some := range slices.Chunk(long.deletionOrder(which), l.reader.piece()) {
		all, err := l.describe(fd, path, long.cut(some))
		if err != nil {
			return n, err
		}
		n += int64(len(all))
		for i := range all {
			if err := do(&all[i]); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}
