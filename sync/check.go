package sync

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/drsync/drsync/internal/app"
	"github.com/drsync/drsync/internal/hint"
)

// CheckResult is what one guard says about the next run.
type CheckResult struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"`
	Fix     string `json:"fix,omitempty"`
}

// Check asks, without changing anything and without the lock, whether a run
// would be refused now. It asks every guard, also when one refuses; when the
// active cannot be reached, what depends on it is left out. The warnings are
// what a run would warn of, and advice.
func (r *Runner) Check(ctx context.Context) (results []CheckResult, warnings []string, err error) {
	p := &pass{Runner: r, dryRun: true, checking: true}
	defer p.close()
	add := func(name string, err error) {
		c := CheckResult{Name: name, OK: err == nil}
		if err != nil {
			c.Problem, c.Fix = err.Error(), hint.Of(err)
		}
		results = append(results, c)
	}
	_, err = p.checkRole(ctx)
	add("role", err)
	_, err = p.connect(ctx)
	add("connect", err)
	guards := p.guards()
	if err != nil {
		guards = nil
		if p.Engine != nil {
			guards = []Guard{{"database", p.guardDatabase}}
		}
	}
	for _, g := range guards {
		add(g.Name, g.Check(ctx))
	}
	if err == nil {
		if err := p.compareSettings(ctx); err != nil {
			p.warn(p.profile.SystemFile, err.Error())
		}
	}
	if ctx.Err() != nil {
		return results, p.record.Warnings, context.Cause(ctx)
	}
	return results, p.record.Warnings, nil
}

// compareSettings warns of the settings of the host-specific file that should
// be equal all the same, by name only: values may be secrets.
func (p *pass) compareSettings(ctx context.Context) error {
	if p.profile.SystemFile == "" {
		return nil
	}
	theirs, err := p.readActive(ctx)(p.profile.SystemFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ours, err := p.readHome(p.profile.SystemFile)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the active has one and this host has not: write one for this host, it does not travel")
	}
	if err != nil {
		return err
	}
	keys, err := app.CompareSystemYAML(theirs, ours)
	if err != nil {
		return err
	}
	if len(keys) > 0 {
		p.warn(p.profile.SystemFile, "these settings differ from the active's: "+strings.Join(keys, ", "))
	}
	return nil
}
