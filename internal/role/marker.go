package role

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drsync/drsync/internal/durable"
)

// MarkerPath is where a promoted host writes its role, relative to the
// application's home: there it outlives the state directory, and another
// standby can read it before it pulls.
const MarkerPath = ".drsync/role.json"

// maxMarker bounds what is read of a marker, which may come from a peer.
const maxMarker = 64 << 10

// ReadMarker reads the content of a marker. It may come from a peer: whatever
// it holds is either a State or an error.
func ReadMarker(data []byte) (State, error) {
	if len(data) > maxMarker {
		return State{}, fmt.Errorf("read role marker: %d bytes, at most %d are read", len(data), maxMarker)
	}
	s, err := parse(data)
	if err != nil {
		return State{}, fmt.Errorf("read role marker: %w", err)
	}
	return s, nil
}

// LoadMarker reads the marker of home. A home without one yields false.
func LoadMarker(home string) (State, bool, error) {
	f, err := os.Open(filepath.Join(home, MarkerPath))
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, false, nil
	}
	if err != nil {
		return State{}, false, fmt.Errorf("read role marker: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxMarker+1))
	if err != nil {
		return State{}, false, fmt.Errorf("read role marker: %w", err)
	}
	s, err := ReadMarker(data)
	if err != nil {
		return State{}, false, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return s, true, nil
}

// SaveMarker writes the role and the name of this host durably into home. It
// refuses to lower the epoch, and to follow a symbolic link out of the home. The
// caller holds the Lock.
func SaveMarker(home, host string, s State) error {
	old, _, err := LoadMarker(home)
	if err != nil {
		return err
	}
	if s.Epoch < old.Epoch {
		return fmt.Errorf("internal error: epoch of the marker would fall from %d to %d", old.Epoch, s.Epoch)
	}
	dir := filepath.Join(home, filepath.Dir(MarkerPath))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("write role marker: %w", err)
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("write role marker: %w", err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("write role marker: %s is not a directory", dir)
	}
	s.Format, s.Host = 1, host
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(home, MarkerPath), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return durable.SyncDir(home)
}
