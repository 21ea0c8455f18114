package sqlite

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// generation describes one captured database. It is the Token of a capture and,
// once published, the content of the sidecar file.
type generation struct {
	Format      int           `json:"format"`
	Generation  string        `json:"generation"` // random; tells captures of equal content apart
	Time        time.Time     `json:"time"`
	SQLite      string        `json:"sqlite"`
	JournalMode string        `json:"journal_mode"`
	Length      int64         `json:"length"` // bytes
	SHA256      string        `json:"sha256"`
	Skew        time.Duration `json:"skew_ns"`
	SkewError   time.Duration `json:"skew_error_ns"`
}

func randomName() string { return rand.Text() }

func (g generation) point() dbrepl.Point {
	return dbrepl.Point{
		Time: g.Time.UTC(), Position: "sha256 " + g.SHA256, Server: "SQLite " + g.SQLite,
		Skew: g.Skew, SkewError: g.SkewError,
	}
}

func parseGeneration(data []byte) (generation, error) {
	var g generation
	if err := json.Unmarshal(data, &g); err != nil {
		return generation{}, err
	}
	if g.Format != 1 {
		return generation{}, fmt.Errorf("format %d is not one this drsync knows", g.Format)
	}
	if hash, err := hex.DecodeString(g.SHA256); g.Generation == "" || err != nil || len(hash) != sha256.Size || g.Length <= 0 {
		return generation{}, errors.New("generation, hash or length is missing")
	}
	if err := errors.Join(validVersion(g.SQLite), validMode(g.JournalMode)); err != nil {
		return generation{}, err
	}
	return g, nil
}

// published reads which generation is visible. Before the first publish it
// wraps dbrepl.ErrNoDatabase, also when the application made a database of its own.
func (e *Engine) published() (generation, error) {
	data, err := os.ReadFile(e.f.sidecar)
	if errors.Is(err, fs.ErrNotExist) {
		return generation{}, fmt.Errorf("%s: %w", e.f.live, dbrepl.ErrNoDatabase)
	}
	if err != nil {
		return generation{}, fmt.Errorf("read the published generation: %w", err)
	}
	g, err := parseGeneration(data)
	if err != nil {
		return generation{}, hint.With(fmt.Errorf("read the published generation: %s: %w", e.f.sidecar, err),
			"the file is damaged; remove it and run drsync now, which publishes anew")
	}
	return g, nil
}

// captured is a database received and verified, beside the visible one.
type captured struct {
	*view
	e      *Engine
	g      generation
	counts dbrepl.Counts
	// begun says that Publish was called: from then on only Recover may take the staged file away.
	begun, discarded bool
}

var _ dbrepl.Captured = (*captured)(nil)

func (c *captured) Point() dbrepl.Point   { return c.g.point() }
func (c *captured) Counts() dbrepl.Counts { return c.counts }

func (c *captured) Token() dbrepl.Token {
	data, err := json.Marshal(c.g)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return data
}

// Publish implements dbrepl.Captured.
func (c *captured) Publish(ctx context.Context) error {
	if c.discarded {
		return fmt.Errorf("publish %s: the capture was discarded", c.e.f.live)
	}
	c.begun = true
	if err := c.e.rollForward(ctx, c.g, true); err != nil {
		return fmt.Errorf("publish %s: %w", c.e.f.live, err)
	}
	return nil
}

// Discard implements dbrepl.Captured.
func (c *captured) Discard(context.Context) error {
	if c.begun {
		return nil
	}
	c.discarded = true
	if err := os.Remove(c.e.f.staged); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("discard the captured database: %w", err)
	}
	return nil
}
