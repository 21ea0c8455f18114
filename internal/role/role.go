// Package role owns two facts about a host: which part it plays (standby,
// promoting or active) with a rising epoch, and which command is at work.
//
// Both live in the state directory. The role file changes only under the lock.
package role

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/hint"
)

// Role is the part a host plays.
type Role string

const (
	Standby   Role = "standby"
	Promoting Role = "promoting"
	Active    Role = "active"
)

// State is the content of the role file. The zero epoch means that no failover
// ever happened. An epoch only rises.
type State struct {
	Format int       `json:"format"`
	Role   Role      `json:"role"`
	Epoch  uint64    `json:"epoch"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
	Host   string    `json:"host,omitempty"` // in a Marker only: which host wrote it
}

const fileName = "role.json"

// ErrWrongRole is wrapped by errors about a command that this host's role forbids.
var ErrWrongRole = errors.New("wrong role")

// Load reads the role of the host whose state directory is dir. A missing file
// is a standby of epoch 0: a host that was never promoted. An unreadable or
// malformed file is an error, never a guess.
func Load(dir string) (State, error) {
	path := filepath.Join(dir, fileName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return State{Format: 1, Role: Standby}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("read role: %w", err)
	}
	s, err := parse(data)
	if err != nil {
		return State{}, fmt.Errorf("read role: %s: %w", path, err)
	}
	return s, nil
}

// parse accepts one JSON object with a known format and role, and nothing after it.
func parse(data []byte) (State, error) {
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, err
	}
	if s.Format != 1 {
		return State{}, fmt.Errorf("format %d is newer than this drsync", s.Format)
	}
	switch s.Role {
	case Standby, Promoting, Active:
	default:
		return State{}, fmt.Errorf("unknown role %q", s.Role)
	}
	return s, nil
}

// Save writes the role durably. It refuses to lower the epoch. The caller holds the Lock.
func Save(dir string, s State) error {
	old, err := Load(dir)
	if err != nil {
		return err
	}
	if s.Epoch < old.Epoch {
		return fmt.Errorf("internal error: epoch would fall from %d to %d", old.Epoch, s.Epoch)
	}
	s.Format = 1
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, fileName), append(data, '\n'), 0o644)
}

// RequireStandby returns an error that wraps ErrWrongRole unless s is a standby.
func RequireStandby(s State) error {
	if s.Role == Standby {
		return nil
	}
	return hint.With(
		fmt.Errorf("%w: this host is %s since %s (epoch %d); only a standby may pull", ErrWrongRole, s.Role, s.Since.Format(time.RFC3339), s.Epoch),
		"if this is an old cron entry of the former standby, remove it")
}
