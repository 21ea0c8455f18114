package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/durable"
)

// Store is the directory of all snapshots. Its methods may be called by one
// goroutine at a time; changes need the host-wide lock.
type Store struct{ dir string }

const draftSuffix = ".draft"

// Open opens the store below the state directory stateDir, which it creates if need be.
func Open(stateDir string) (*Store, error) {
	dir := filepath.Join(stateDir, "snapshots")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	return &Store{dir: dir}, nil
}

// List returns the records of all snapshots in the order of NewestFirst: the
// first is the visible one, also when its T is not the latest.
func (s *Store) List() ([]Record, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var all []Record
	for _, e := range entries {
		if !validID(e.Name()) {
			continue
		}
		r, err := s.Get(e.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	slices.SortFunc(all, NewestFirst)
	return all, nil
}

// Get returns the record of snapshot id. An unknown id wraps fs.ErrNotExist.
func (s *Store) Get(id string) (Record, error) {
	if !validID(id) {
		return Record{}, fmt.Errorf("snapshot %q: %w", id, fs.ErrNotExist)
	}
	path := filepath.Join(s.dir, id, "record.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return Record{}, fmt.Errorf("snapshot %s: %w", id, err)
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("snapshot %s: %s: %w", id, path, err)
	}
	if r.Format != 1 {
		return Record{}, fmt.Errorf("snapshot %s: format %d is newer than this drsync", id, r.Format)
	}
	return r, nil
}

// Refs returns the blobs that snapshot id's database names in the given set,
// ascending. A damaged or truncated list ends in an error, so that a consumer
// that needs the whole list (prune) never mistakes a part for it.
func (s *Store) Refs(id, set string) iter.Seq2[blob.Ref, error] {
	return readRefs(filepath.Join(s.dir, id, refsName(set)))
}

// CheckList compares the reference list of one set with its sum in the record of
// its snapshot: a list of another one may be whole, and be of as many blobs.
func (s *Store) CheckList(r Record, set string) error {
	for _, b := range r.BlobSets {
		if b.Name != set || b.ListSum == "" {
			continue
		}
		sum, err := sumOfFile(filepath.Join(s.dir, r.ID, refsName(set)))
		if err != nil {
			return fmt.Errorf("snapshot %s: its list of %s: %w", r.ID, set, err)
		}
		if sum != b.ListSum {
			return fmt.Errorf("snapshot %s: its list of %s is not the one that was written with it", r.ID, set)
		}
	}
	return nil
}

// Remove deletes snapshot id: first its final name, then its content.
func (s *Store) Remove(id string) error {
	if !validID(id) {
		return fmt.Errorf("remove snapshot %q: %w", id, fs.ErrNotExist)
	}
	doomed := filepath.Join(s.dir, id+draftSuffix)
	if err := os.RemoveAll(doomed); err != nil {
		return fmt.Errorf("remove snapshot %s: %w", id, err)
	}
	if err := durable.Rename(filepath.Join(s.dir, id), doomed); err != nil {
		return fmt.Errorf("remove snapshot %s: %w", id, err)
	}
	return os.RemoveAll(doomed)
}

// Begin starts a draft. Its id is want, or want with -2, -3, … if that exists.
func (s *Store) Begin(want string) (*Draft, error) {
	id := want
	for n := 2; ; n++ {
		_, err := os.Lstat(filepath.Join(s.dir, id))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("begin snapshot: %w", err)
		}
		id = fmt.Sprintf("%s-%d", want, n)
	}
	if !validID(id) {
		return nil, fmt.Errorf("internal error: %q is no snapshot id", id)
	}
	d := &Draft{ID: id, store: s}
	if err := os.RemoveAll(d.dir()); err != nil {
		return nil, fmt.Errorf("begin snapshot: %w", err)
	}
	if err := os.Mkdir(d.dir(), 0o755); err != nil {
		return nil, fmt.Errorf("begin snapshot: %w", err)
	}
	return d, nil
}

// Draft returns the draft with the given id, which a run that crashed left behind.
func (s *Store) Draft(id string) *Draft { return &Draft{ID: id, store: s} }

// DiscardDrafts removes every draft.
func (s *Store) DiscardDrafts() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("discard drafts: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), draftSuffix) {
			if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
				return fmt.Errorf("discard drafts: %w", err)
			}
		}
	}
	return nil
}

// Draft is a snapshot that does not exist yet.
type Draft struct {
	ID    string
	store *Store
}

func (d *Draft) dir() string { return filepath.Join(d.store.dir, d.ID+draftSuffix) }

// WriteRefs writes the list of one set and returns how many it holds and their
// total length. refs must ascend strictly and be well formed.
func (d *Draft) WriteRefs(set string, refs iter.Seq2[blob.Ref, error]) (count, bytes int64, err error) {
	return writeRefs(filepath.Join(d.dir(), refsName(set)), refs)
}

// Refs reads back what WriteRefs wrote.
func (d *Draft) Refs(set string) iter.Seq2[blob.Ref, error] {
	return readRefs(filepath.Join(d.dir(), refsName(set)))
}

// ListSum is what BlobSet.ListSum is to say of a list.
func (d *Draft) ListSum(set string) (string, error) {
	sum, err := sumOfFile(filepath.Join(d.dir(), refsName(set)))
	if err != nil {
		return "", fmt.Errorf("sum up reference list: %w", err)
	}
	return sum, nil
}

// Sync makes the lists written so far durable.
func (d *Draft) Sync() error { return durable.SyncDir(d.dir()) }

// Commit writes the record and gives the snapshot its name, which is what makes
// it exist. It may be repeated: a snapshot that is already there is left alone.
func (d *Draft) Commit(r Record) error {
	final := filepath.Join(d.store.dir, d.ID)
	if _, err := os.Lstat(final); err == nil {
		return nil
	}
	r.Format, r.ID = 1, d.ID
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(d.dir(), "record.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	if err := durable.Rename(d.dir(), final); err != nil {
		return fmt.Errorf("commit snapshot %s: %w", d.ID, err)
	}
	return nil
}

// Discard removes the draft.
func (d *Draft) Discard() error { return os.RemoveAll(d.dir()) }

// Read returns the records of all snapshots below the state directory stateDir,
// in the order of List, and creates nothing: without the directory there are none.
func Read(stateDir string) ([]Record, error) {
	s := Store{dir: filepath.Join(stateDir, "snapshots")}
	all, err := s.List()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return all, err
}
