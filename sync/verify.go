package sync

import (
	"context"
	"fmt"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/filestore"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/role"
)

// VerifyReport is what Verify found. Problems holds the first MaxProblems.
type VerifyReport struct {
	Deep     bool            `json:"deep"` // hashes were computed
	Named    int64           `json:"named"`
	Bytes    int64           `json:"bytes"`
	Broken   int64           `json:"broken"`
	Problems []VerifyProblem `json:"problems,omitempty"`
}

// VerifyProblem is one blob that the visible database names and this host does
// not have as it should be.
type VerifyProblem struct {
	Set     string   `json:"set"`
	Sum     blob.Sum `json:"sum"`
	Size    int64    `json:"size"`
	Problem string   `json:"problem"`
}

// MaxProblems bounds VerifyReport.Problems.
const MaxProblems = 1000

// Verify asks whether every blob that the standby's visible database names is
// there with its length and, if deep, with its hash. It needs no active and
// changes nothing.
func (r *Runner) Verify(ctx context.Context, deep bool) (VerifyReport, error) {
	report := VerifyReport{Deep: deep}
	if r.Engine == nil {
		return report, nil
	}
	profile, store, err := r.local(true)
	if err != nil {
		return report, err
	}
	if store == nil {
		return report, nil
	}
	defer store.Close()
	view, err := r.Engine.Visible(ctx)
	if err != nil {
		return report, err
	}
	defer view.Close()
	for _, set := range profile.BlobSets {
		named := func(yield func(blob.Ref, error) bool) {
			for ref, err := range view.Refs(ctx, set.Refs) {
				if err == nil {
					report.Named, report.Bytes = report.Named+1, report.Bytes+ref.Size
				}
				if !yield(ref, err) {
					return
				}
			}
		}
		for problem, err := range filestore.Verify(ctx, named, store, deep) {
			if err != nil {
				return report, fmt.Errorf("verify %s: %w", set.Name, err)
			}
			report.Broken++
			if len(report.Problems) < MaxProblems {
				report.Problems = append(report.Problems, VerifyProblem{Set: set.Name, Sum: problem.Ref.Sum, Size: problem.Ref.Size, Problem: problem.String()})
			}
		}
	}
	return report, nil
}

// VerifyDatabase compares the standby's visible database with the active's, as
// it is now. It changes nothing, but takes the lock: a publish meanwhile would
// compare two generations. It fails with *role.LockedError when another command
// is at work.
func (r *Runner) VerifyDatabase(ctx context.Context) (dbrepl.Comparison, error) {
	comparer, ok := r.Engine.(dbrepl.Comparer)
	if !ok {
		what := "no database is configured"
		if r.Engine != nil {
			what = fmt.Sprintf("the database engine %s cannot be compared with the active's", r.EngineName)
		}
		return dbrepl.Comparison{}, hint.New(what, "drsync verify, without --db, checks the blobs that the standby's database names")
	}
	lock, err := role.Acquire(r.StateDir, "verify", r.now())
	if err != nil {
		return dbrepl.Comparison{}, err
	}
	defer func() { _ = lock.Release() }()
	p := &pass{Runner: r}
	var c dbrepl.Comparison
	err = p.walk(ctx, []Step{{"compare", "the standby's database with the active's", func(ctx context.Context) (text string, err error) {
		c, err = comparer.Compare(ctx)
		text = fmt.Sprintf("%d tables, %d rows, %d differences", c.Tables, c.Rows, c.Different)
		if c.Uncompared != nil {
			text += ", some not compared"
		}
		return text, err
	}}})
	return c, err
}
