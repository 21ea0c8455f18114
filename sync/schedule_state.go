package sync

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/drsync/drsync/internal/durable"
)

// ScheduleState is what the scheduler remembers, in schedule.json of the state
// directory. Times are zero if there was none.
type ScheduleState struct {
	Format        int       `json:"format"`
	LastScheduled time.Time `json:"last_scheduled,omitzero"` // the schedule's time that the last run was for
	LastStarted   time.Time `json:"last_started,omitzero"`
	LastSuccess   time.Time `json:"last_success,omitzero"` // when the last run without an error ended
	// Considered is the cursor: every time of the schedule up to it was served or skipped.
	Considered time.Time `json:"considered,omitzero"`
}

const scheduleFile = "schedule.json"

// LoadScheduleState reads what the scheduler of a state directory remembers. A
// missing file is the zero state.
func LoadScheduleState(stateDir string) (ScheduleState, error) {
	path := filepath.Join(stateDir, scheduleFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ScheduleState{Format: 1}, nil
	}
	if err != nil {
		return ScheduleState{}, fmt.Errorf("read schedule state: %w", err)
	}
	var s ScheduleState
	if err := json.Unmarshal(data, &s); err != nil {
		return ScheduleState{}, fmt.Errorf("read schedule state: %s: %w", path, err)
	}
	if s.Format != 1 {
		return ScheduleState{}, fmt.Errorf("read schedule state: %s: format %d is newer than this drsync", path, s.Format)
	}
	return s, nil
}

func saveScheduleState(stateDir string, s ScheduleState) error {
	s.Format = 1
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(stateDir, scheduleFile), append(data, '\n'), 0o644)
}
