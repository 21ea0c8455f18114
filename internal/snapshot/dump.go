package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/drsync/drsync/internal/durable"
)

// dumpName is the directory of a snapshot that holds its kept dump (package
// dbrepl/dump), and scratchName that of a capture that has no id yet: a draft,
// so that it goes with the others.
const (
	dumpName    = "database"
	scratchName = "capture" + draftSuffix
)

// Dump is what a record says about the kept dump of a database.
type Dump struct {
	Chunks int   `json:"chunks"`
	Bytes  int64 `json:"bytes"` // on disk
	// Sum is the SHA-256 of its manifest, which has the sums of the rest; "" in records that are older than it.
	Sum string `json:"manifest_sha256,omitempty"`
}

// DumpDir returns where the kept dump of snapshot id is, if it has one.
func (s *Store) DumpDir(id string) string { return filepath.Join(s.dir, id, dumpName) }

// Scratch returns a path for a dump that is made before its snapshot has an id.
// Nothing is there; its parent is empty.
func (s *Store) Scratch() (string, error) {
	dir := filepath.Join(s.dir, scratchName)
	err := os.RemoveAll(dir)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return "", fmt.Errorf("make room for a dump: %w", err)
	}
	return filepath.Join(dir, dumpName), nil
}

// TakeDump moves the dump at Scratch's path into the draft.
func (d *Draft) TakeDump(path string) error {
	err := durable.Rename(path, filepath.Join(d.dir(), dumpName))
	if err == nil {
		err = os.Remove(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("keep the dump: %w", err)
	}
	return nil
}

// TakeOver gives the draft the reference lists and the dump of snapshot id, as
// further names of the same files: neither is ever written to.
func (d *Draft) TakeOver(id string) error {
	if !validID(id) {
		return fmt.Errorf("snapshot %q: %w", id, fs.ErrNotExist)
	}
	from := filepath.Join(d.store.dir, id)
	if err := linkAll(from, d.dir(), func(name string) bool { return strings.HasPrefix(name, "refs-") }); err != nil {
		return fmt.Errorf("take over snapshot %s: %w", id, err)
	}
	to := filepath.Join(d.dir(), dumpName)
	err := os.Mkdir(to, 0o700)
	if err == nil {
		err = linkAll(filepath.Join(from, dumpName), to, func(string) bool { return true })
	}
	if err == nil {
		err = durable.SyncDir(to)
	}
	if err != nil {
		return fmt.Errorf("take over the dump of snapshot %s: %w", id, err)
	}
	return nil
}

// linkAll links the chosen files of one directory into another.
func linkAll(from, to string, chosen func(name string) bool) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Type().IsRegular() && chosen(e.Name()) {
			errs = append(errs, os.Link(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())))
		}
	}
	return errors.Join(errs...)
}
