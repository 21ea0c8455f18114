package sync

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/durable"
)

// LastVerify is what is known about comparisons of the database with the active's
// in runs, in verify.json of the state directory.
type LastVerify struct {
	Time time.Time `json:"time"` // of the last one
	// Difference is what it found; "" is none.
	Difference string `json:"difference,omitempty"`
	// Snapshot is what was compared; "" if it was not published, because of the difference.
	Snapshot string    `json:"snapshot,omitempty"`
	Equal    time.Time `json:"equal,omitzero"` // of the last one that found none
}

const lastVerifyName = "verify.json"

// Due says whether the next run is to compare, where that is wanted at the times
// of a schedule. After a difference every run does.
func (l *LastVerify) Due(next func(time.Time) time.Time, now time.Time) bool {
	return l == nil || l.Difference != "" || l.Equal.IsZero() || !next(l.Equal).After(now)
}

// noteVerify writes down how a comparison ended. An error that is no difference
// leaves what is known.
func (p *pass) noteVerify(err error) {
	if err != nil && !errors.Is(err, dbrepl.ErrDiffers) {
		return
	}
	l := LastVerify{Time: p.now().UTC()}
	if p.report.Published {
		l.Snapshot = p.report.Snapshot.ID
	}
	if err == nil {
		l.Equal = l.Time
	} else {
		l.Difference = err.Error()
		if before, rerr := ReadLastVerify(p.StateDir); rerr == nil && before != nil {
			l.Equal = before.Equal
		}
	}
	data, err := json.Marshal(l)
	if err == nil {
		err = durable.WriteFile(filepath.Join(p.StateDir, lastVerifyName), append(data, '\n'), 0o644)
	}
	if err != nil {
		p.warn("", fmt.Sprintf("how the comparison ended cannot be kept: %v", err))
	}
}

// ReadLastVerify returns nil when no run ever compared.
func ReadLastVerify(stateDir string) (*LastVerify, error) {
	data, err := os.ReadFile(filepath.Join(stateDir, lastVerifyName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var l LastVerify
	if err == nil {
		err = json.Unmarshal(data, &l)
	}
	if err != nil {
		return nil, fmt.Errorf("read how the last comparison ended: %w", err)
	}
	return &l, nil
}
