// Package prune decides which blobs of a store no kept snapshot names, and
// takes them away: first into quarantine, later for good.
//
// Its invariant: a blob that a kept snapshot names is never moved or deleted,
// and when the reference lists cannot be trusted to be whole, nothing is.
//
// Deciding and doing are apart. Decide reads every list once and writes its
// decisions into a Plan, which is what a dry run prints and what Do carries
// out: the very blobs that the guards counted. A plan keeps its items in an
// unlinked temporary file, so that memory does not grow with the store, and the
// store, whose listing is the slow part, is listed once. (Listing twice, first to
// count and then to act, would act on other blobs than were counted.)
package prune

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/filestore"
	"github.com/drsync/drsync/internal/hint"
)

// Policy bounds what may go. The zero Policy removes nothing.
type Policy struct {
	// MinAge keeps blobs that came to the store less than this ago.
	MinAge time.Duration
	// MaxFraction of the stored blobs may go at once, from 0 to 1; more refuses the whole plan.
	MaxFraction float64
	// Quarantine is how long a blob stays aside before it is deleted.
	Quarantine time.Duration
	// DeleteAtOnce must be set, and Quarantine be 0, to delete without quarantine.
	DeleteAtOnce bool
	// MinShare is the least share of the previous kept snapshot's blobs that
	// the newest must name, from 0 to 1. 0 means 0.5.
	MinShare float64
}

func (p Policy) check() error {
	switch {
	case p.MinAge < 0:
		return fmt.Errorf("minimum age %s is negative", p.MinAge)
	case !(p.MaxFraction >= 0 && p.MaxFraction <= 1):
		return fmt.Errorf("maximum fraction %g is not between 0 and 1", p.MaxFraction)
	case !(p.MinShare >= 0 && p.MinShare <= 1):
		return fmt.Errorf("minimum share %g is not between 0 and 1", p.MinShare)
	case p.Quarantine < 0:
		return fmt.Errorf("quarantine %s is negative", p.Quarantine)
	case p.Quarantine == 0 && !p.DeleteAtOnce:
		return hint.New("no quarantine, but deleting at once was not asked for", "set a quarantine such as 7d")
	case p.Quarantine > 0 && p.DeleteAtOnce:
		return errors.New("both a quarantine and deleting at once")
	}
	return nil
}

// Names is the reference list of one kept snapshot: strictly ascending, and
// ended by an error if it is damaged or cut.
type Names struct {
	Snapshot string
	Refs     iter.Seq2[blob.Ref, error]
}

// Input is what Decide looks at, for one blob set and its store.
type Input struct {
	Kept []Names // every kept snapshot, newest first
	// PreviousNamed is how many blobs the snapshot before the newest named,
	// also when it is not kept any more; 0 when there was none.
	PreviousNamed int64

	Stored      iter.Seq2[filestore.Info, error]
	Quarantined iter.Seq2[filestore.Info, error] // nil when the store has no quarantine
	Policy      Policy
	Now         time.Time
	// Spool is the directory for the plan's temporary file; "" is the system's.
	Spool string
	// Explain, if set, is told every decision, also to keep a blob, in order of names.
	Explain func(Item)
}

// Action is what happens to a blob.
type Action byte

const (
	Keep       Action = 'k' // stays in the store, or in quarantine
	Quarantine Action = 'q' // moves from the store into quarantine
	Delete     Action = 'd' // is deleted from the store, without quarantine
	Restore    Action = 'r' // comes back from quarantine
	Purge      Action = 'p' // is deleted from quarantine
)

func (a Action) String() string {
	switch a {
	case Keep:
		return "keep"
	case Quarantine:
		return "quarantine"
	case Delete:
		return "delete"
	case Restore:
		return "restore"
	case Purge:
		return "purge"
	}
	return fmt.Sprintf("action %q", byte(a))
}

// Why a blob is kept or taken away.
const (
	ReasonNamed       = "named by a kept snapshot"
	ReasonYoung       = "younger than the minimum age"
	ReasonMalformed   = "not a well-formed name"
	ReasonUnnamed     = "named by no kept snapshot"
	ReasonNeeded      = "in quarantine, but named by a kept snapshot"
	ReasonDuplicate   = "named by a kept snapshot, which the store's own copy serves"
	ReasonReplaced    = "the store's copy takes its place in quarantine"
	ReasonRecent      = "not long enough in quarantine"
	ReasonQuarantined = "long enough in quarantine"
)

// Item is the decision about one blob.
type Item struct {
	Action Action
	Ref    blob.Ref // for Restore with the length that the snapshot names
	// InQuarantine says where a kept blob lies.
	InQuarantine bool
	Reason       string
}

// Count is a number of blobs and their total length.
type Count struct {
	Blobs int64 `json:"blobs"`
	Bytes int64 `json:"bytes"`
}

func (c *Count) add(bytes int64) {
	c.Blobs++
	c.Bytes += bytes
}

// ErrRefused is wrapped by Decide's errors when a guard forbids to remove anything.
var ErrRefused = errors.New("nothing is pruned")

func refuse(advice, format string, args ...any) error {
	return hint.With(fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...)), advice)
}
