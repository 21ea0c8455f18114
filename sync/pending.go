package sync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/hint"
)

// Pending is a publish that has begun and not ended.
type Pending struct {
	ID   string
	Time time.Time // T of the snapshot
	// Failure says why the last attempt to finish it failed, at Failed; "" if none has.
	Failure string
	Failed  time.Time
}

// PublishPending returns the publish that the state directory says has begun
// and not ended, or nil.
func PublishPending(stateDir string) (*Pending, error) {
	j, err := readJournal(stateDir)
	if j == nil || err != nil {
		return nil, err
	}
	p := &Pending{ID: j.Snapshot, Time: j.Record.Time}
	f, err := readFailure(stateDir)
	if f.Snapshot == j.Snapshot {
		p.Failure, p.Failed = f.Error, f.Time
	}
	return p, err
}

// failure is what became of the last attempt to finish a publish. It is only
// told: nothing is decided by it.
type failure struct {
	Format   int       `json:"format"`
	Snapshot string    `json:"snapshot"`
	Time     time.Time `json:"time"`
	Error    string    `json:"error"`
}

const (
	failureName = "publish-failure.json"
	// maxFailure bounds what is kept of an error's text.
	maxFailure = 1000 // bytes
)

// readFailure returns the zero failure when none is written down.
func readFailure(stateDir string) (f failure, err error) {
	path := filepath.Join(stateDir, failureName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return failure{}, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err != nil {
		return failure{}, fmt.Errorf("read why a publish failed: %s: %w", path, err)
	}
	return f, nil
}

// finish rolls the journal forward. When that fails it says that the publish is
// pending, and writes down why, for whoever asks for the status.
func (p *pass) finish(ctx context.Context, j journal) (string, error) {
	text, err := p.rollForward(ctx, j)
	if err == nil || errors.Is(err, dbrepl.ErrCaptureGone) {
		return text, err
	}
	if ctx.Err() == nil && !errors.Is(err, dbrepl.ErrBusy) {
		p.noteFailure(j.Snapshot, err)
	}
	pending := "the publish of " + j.Snapshot + " has begun and is pending: drsync now, or a failover, finishes it, without the active"
	if h := hint.Of(err); h != "" {
		pending = h + "\n" + pending
	}
	return "", hint.With(err, pending)
}

func (p *pass) noteFailure(id string, err error) {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if len(text) > maxFailure {
		text = text[:maxFailure]
	}
	data, jerr := json.MarshalIndent(failure{Format: 1, Snapshot: id, Time: p.now().UTC(), Error: text}, "", "  ")
	if jerr == nil {
		jerr = durable.WriteFile(filepath.Join(p.StateDir, failureName), append(data, '\n'), 0o644)
	}
	if jerr != nil {
		p.warn("", "why the publish failed could not be written down: "+jerr.Error())
	}
}

// closeJournal ends a publish.
func (p *pass) closeJournal() error {
	err := durable.Remove(p.journalPath())
	if err != nil {
		return fmt.Errorf("close the publish journal: %w", err)
	}
	if err := os.Remove(filepath.Join(p.StateDir, failureName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.warn("", "of a publish that is over: "+err.Error())
	}
	return nil
}
