// Package demo makes a small laboratory in one directory: an active with an
// Artifactory home and its database, and a standby that has nothing yet but
// its own host-specific files.
//
// It owns one invariant: what Check says about the standby is found out
// without a line of the code that filled it. So this package imports none of
// drsync's own packages.
package demo

import (
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// Lab is the laboratory below Dir. Its methods are for one goroutine.
type Lab struct {
	Dir          string // absolute
	ActiveHome   string
	ActiveDB     string // SQLite, in WAL mode
	StandbyHome  string
	StandbyDB    string // not there until the first run
	StandbyState string

	// Artifacts and Bytes are what the active's database names now.
	Artifacts int
	Bytes     int64

	db      *sql.DB // the active's application, so to say: it stays connected
	random  *rand.ChaCha8
	nodeID  int64
	folders map[string]bool // repository and path of every folder's node
	round   int             // calls of Change
}

// NewLab fills dir, which must be empty or absent. Two labs have the same
// content, names and rows; only the times differ.
func NewLab(dir string) (*Lab, error) {
	return newLab(dir, content{small: 520, medium: 24, large: 16})
}

func newLab(dir string, c content) (_ *Lab, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the lab's directory: %w", err)
	}
	if there, err := os.ReadDir(dir); err == nil && len(there) > 0 {
		return nil, fmt.Errorf("make the lab: %s is not empty", dir)
	}
	l := &Lab{
		Dir:          dir,
		ActiveHome:   filepath.Join(dir, "active", "home"),
		ActiveDB:     filepath.Join(dir, "active", "artdb.sqlite"),
		StandbyHome:  filepath.Join(dir, "standby", "home"),
		StandbyDB:    filepath.Join(dir, "standby", "artdb.sqlite"),
		StandbyState: filepath.Join(dir, "standby", "state"),
		folders:      map[string]bool{},
		random:       rand.NewChaCha8([32]byte{1}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make the lab: %w", err), l.Close())
		}
	}()
	if err := l.makeActive(c); err != nil {
		return nil, err
	}
	return l, l.makeStandby()
}

func (l *Lab) makeActive(c content) error {
	if err := os.MkdirAll(l.ActiveHome, 0o755); err != nil {
		return err
	}
	if err := writeHome(l.ActiveHome); err != nil {
		return err
	}
	if err := l.openDatabase(); err != nil {
		return err
	}
	return l.fill(c)
}

func (l *Lab) makeStandby() error {
	if err := os.MkdirAll(l.StandbyState, 0o750); err != nil {
		return err
	}
	for path, text := range standbyHostFiles() {
		if err := writeFile(l.StandbyHome, homeFile{path: path, mode: 0o640, text: text}); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the connection to the active's database. The files stay.
func (l *Lab) Close() error {
	if l.db == nil {
		return nil
	}
	err := l.db.Close()
	l.db = nil
	return err
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
