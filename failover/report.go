package failover

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
	"github.com/drsync/drsync/internal/snapshot"
)

// Report is what a failover did. It is kept in the state directory as
// failover.json, where it also says whether the service was started.
type Report struct {
	Format   int       `json:"format"`
	Began    time.Time `json:"began"`
	Host     string    `json:"host"`
	Reason   string    `json:"reason,omitempty"`
	Forced   bool      `json:"forced"`
	Resumed  bool      `json:"resumed"`  // an earlier attempt had taken the epoch
	Evidence string    `json:"evidence"` // what was seen of the old active
	Epoch    uint64    `json:"epoch"`    // 0 until it is taken

	Snapshot string    `json:"snapshot"`
	Time     time.Time `json:"time"` // T of the snapshot, on the old active's clock
	// LossSeconds is from T to the begin of this failover, on the old active's
	// clock: what was written there since is lost. It is off by at most
	// LossErrorSeconds when ClockMeasured, and by the unknown difference of the
	// clocks otherwise.
	LossSeconds      float64 `json:"loss_seconds"`
	LossErrorSeconds float64 `json:"loss_error_seconds"`
	ClockMeasured    bool    `json:"clock_measured"`

	Presence  *Presence    `json:"presence,omitempty"` // nil when the blobs could not be counted
	Positions []string     `json:"positions,omitempty"`
	Service   Service      `json:"service"`
	Output    string       `json:"output,omitempty"` // of the start command, at most its last MaxOutput bytes
	Warnings  []string     `json:"warnings,omitempty"`
	Steps     []StepReport `json:"steps"`
}

// StepReport is how one step went.
type StepReport struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
}

// Service is how far the service is.
type Service string

const (
	ServicePending Service = "pending" // about to be started, or the process died meanwhile
	ServiceFailed  Service = "failed"
	ServiceStarted Service = "started"
	ServiceManual  Service = "manual" // no command is configured
)

// Loss is LossSeconds as a duration.
func (r Report) Loss() time.Duration { return time.Duration(r.LossSeconds * float64(time.Second)) }

// describe fills in what the snapshot's record says.
func (r *Report) describe(s snapshot.Record) {
	r.Snapshot, r.Time, r.ClockMeasured = s.ID, s.Time, s.Clock.Measured
	r.LossSeconds = r.Began.Sub(s.Time).Seconds()
	if s.Clock.Measured {
		// Began is of this host's clock; the old active's shows Skew more.
		r.LossSeconds += s.Clock.Skew
		r.LossErrorSeconds = s.Clock.Error
	}
}

const fileName = "failover.json"

func (r *Report) save(stateDir string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(stateDir, fileName), append(data, '\n'), 0o644)
}

// Last returns the report of the last failover that became active, and false if there was none.
func Last(stateDir string) (Report, bool, error) {
	path := filepath.Join(stateDir, fileName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Report{}, false, nil
	}
	var r Report
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil && r.Format != 1 {
		err = fmt.Errorf("format %d is newer than this drsync", r.Format)
	}
	if err != nil {
		return Report{}, false, hint.With(fmt.Errorf("read the last failover: %s: %w", path, err),
			"the file only says whether the service was started; if it runs, remove the file")
	}
	return r, true, nil
}

// lastService returns how far the service is in the given epoch, or "" if
// another epoch's failover was the last one that was recorded.
func lastService(stateDir string, epoch uint64) (Service, error) {
	r, ok, err := Last(stateDir)
	if err != nil || !ok || r.Epoch != epoch {
		return "", err
	}
	return r.Service, nil
}
