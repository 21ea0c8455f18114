// Package status says how a host stands: what it would lose if it had to take
// over now, whether it could, and why not.
//
// Its invariant: it is pure and only repeats what was measured. What could not
// be read is listed as such, and is never taken for a good sign.
package status

import (
	"fmt"
	"slices"
	"time"

	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/internal/snapshot"
)

// Input is what a Status is made of. The caller reads it; nothing here does.
type Input struct {
	Now  time.Time
	Host string // this host's name
	Role role.State
	// Holder is who holds the lock; nil if nobody does.
	Holder *role.Holder
	// Snapshots are all snapshots, in any order.
	Snapshots []snapshot.Record
	// Publish is the publish that the journal says has begun and not ended; nil if none.
	Publish *Publish
	RPO     time.Duration // 0 is no target
	NextRun time.Time     // zero if no scheduler has a next run
	Prune   *Prune        // nil if pruning never ran
	Verify  *Verify       // nil if no run ever compared the database with the active's
	// VerifyBy is when the next comparison that finds no difference must have
	// come; zero is never.
	VerifyBy time.Time
	// Unreadable says what of the above could not be read: one line each.
	Unreadable []string
	Version    string
}

// Publish is a publish that has begun.
type Publish struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"` // T of the snapshot that is being published
	// Failure says why the last attempt to finish it failed, at Failed.
	Failure string    `json:"failure,omitempty"`
	Failed  time.Time `json:"failed,omitzero"`
}

// Prune is what is known about pruning.
type Prune struct {
	Last             time.Time `json:"last"` // when it last ended without an error
	QuarantinedFiles int64     `json:"quarantined_files"`
	QuarantinedBytes int64     `json:"quarantined_bytes"`
}

// Verify is what is known about comparisons of the database with the active's.
type Verify struct {
	Last       time.Time `json:"last"`
	Difference string    `json:"difference,omitempty"` // that the last one found
	Snapshot   string    `json:"snapshot,omitempty"`   // that was compared; absent if it was not published
	Equal      time.Time `json:"equal,omitzero"`       // when one last found no difference
	Overdue    bool      `json:"overdue"`
}

// Status is how a host stands. It is the object that `drsync status --json`
// prints; fields are only ever added. Times are UTC, lengths of time seconds.
type Status struct {
	Format  int       `json:"format"`
	Time    time.Time `json:"time"` // when it was taken, on this host's clock
	Host    string    `json:"host"`
	Version string    `json:"drsync_version"`

	Role  role.Role `json:"role"`
	Epoch uint64    `json:"epoch"`
	Since time.Time `json:"since,omitzero"` // when the host took this role
	// Running is the command that holds the lock.
	Running *Running `json:"running,omitempty"`

	// Last is the snapshot that a takeover would promote: the last published one.
	Last      *Snapshot `json:"last_snapshot,omitempty"`
	Snapshots int       `json:"snapshots"`
	RPO       *RPO      `json:"rpo,omitempty"`
	// Publish is a publish that has begun. It is Interrupted if nothing runs;
	// then the next run, or a takeover, finishes it.
	Publish     *Publish  `json:"publish,omitempty"`
	Interrupted bool      `json:"publish_interrupted"`
	NextRun     time.Time `json:"next_run,omitzero"`
	Prune       *Prune    `json:"prune,omitempty"`
	Verify      *Verify   `json:"database_verify,omitempty"`

	Failover   Failover `json:"failover"`
	Unreadable []string `json:"unreadable,omitempty"`
}

// Running is the command that holds the lock.
type Running struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

// Snapshot is a published snapshot, seen from now.
type Snapshot struct {
	ID        string    `json:"id"`
	Time      time.Time `json:"time"` // T, on the active's clock
	Published time.Time `json:"published"`
	// Age is the time since T on the active's clock, which is this host's clock
	// corrected by the skew measured when the snapshot was taken; AgeError is how
	// exactly that is known.
	Age         float64 `json:"age_seconds"`
	AgeError    float64 `json:"age_error_seconds"`
	AgeAdjusted bool    `json:"age_adjusted"` // false if the skew is not known
	// FromFuture says that T lies ahead of the corrected clock: one of the clocks
	// was changed since, and Age counts from Published instead.
	FromFuture bool  `json:"from_future"`
	Complete   bool  `json:"complete"`
	Missing    int64 `json:"missing"` // blobs that neither side has
	Warnings   int   `json:"warnings"`
}

// RPO compares what would be lost with the target.
type RPO struct {
	Target float64 `json:"target_seconds"`
	Met    bool    `json:"met"`
}

// Failover says whether a takeover is possible.
type Failover struct {
	Can bool `json:"can"`
	// Unsure is that it could not be done when it was last tried, which is the only
	// reason: what was in the way may have gone.
	Unsure bool `json:"unsure,omitempty"`
	// Reasons are why not; Notes are what to know before.
	Reasons []string `json:"reasons,omitempty"`
	Notes   []string `json:"notes,omitempty"`
	// ExpectedLoss is how much of the active's latest changes would be lost, in
	// seconds; absent if there is no snapshot.
	ExpectedLoss *float64 `json:"expected_loss_seconds,omitempty"`
}

// Build makes a Status. It is pure.
func Build(in Input) Status {
	s := Status{
		Format: 1, Time: in.Now.UTC(), Host: in.Host, Version: in.Version,
		Role: in.Role.Role, Epoch: in.Role.Epoch, Since: in.Role.Since.UTC(),
		Snapshots: len(in.Snapshots), Publish: in.Publish, NextRun: in.NextRun.UTC(), Prune: in.Prune,
		Unreadable: in.Unreadable,
	}
	if in.Holder != nil {
		s.Running = &Running{PID: in.Holder.PID, Command: in.Holder.Command, Since: in.Holder.Since.UTC()}
	}
	s.Interrupted = in.Publish != nil && in.Holder == nil
	if in.Verify != nil {
		v := *in.Verify
		v.Overdue = !in.VerifyBy.IsZero() && in.Now.After(in.VerifyBy)
		s.Verify = &v
	}
	var clock snapshot.Clock
	if r, ok := Visible(in.Snapshots); ok {
		clock = r.Clock
		v := view(r, in.Now)
		s.Last = &v
	}
	s.Failover = failover(s, clock)
	if in.RPO > 0 {
		loss := s.Failover.ExpectedLoss
		s.RPO = &RPO{Target: in.RPO.Seconds(), Met: loss != nil && *loss <= in.RPO.Seconds()}
		if loss != nil && !s.RPO.Met && s.Role == role.Standby {
			s.Failover.Notes = append(s.Failover.Notes, fmt.Sprintf("the loss is above the target of %s", show.Duration(in.RPO)))
		}
	}
	return s
}

// Visible returns the snapshot that is the standby's state: the one published
// last, which is not the one with the latest T if the active's clock was set back.
func Visible(all []snapshot.Record) (snapshot.Record, bool) {
	if len(all) == 0 {
		return snapshot.Record{}, false
	}
	return slices.MinFunc(all, snapshot.NewestFirst), true
}

func view(r snapshot.Record, now time.Time) Snapshot {
	since := age(r.Time, r.Clock, now)
	slack := clockSlack
	if !r.Clock.Measured {
		slack = unmeasuredSlack
	}
	v := Snapshot{
		ID: r.ID, Time: r.Time.UTC(), Published: r.Published.UTC(),
		Age: max(0, since), AgeError: r.Clock.Error, AgeAdjusted: r.Clock.Measured,
		FromFuture: since < -(slack.Seconds() + r.Clock.Error),
		Complete:   r.Complete, Missing: missing(r), Warnings: len(r.Warnings),
	}
	if v.FromFuture {
		v.Age = max(0, now.Sub(r.Published).Seconds())
	}
	return v
}

// How far T may lie ahead of this host's clock before a clock is suspected.
const (
	clockSlack      = 2 * time.Second
	unmeasuredSlack = time.Minute
)

// age is the seconds since t, which was read on the active's clock. It is
// negative if t lies in the future.
func age(t time.Time, c snapshot.Clock, now time.Time) float64 {
	skew := 0.0
	if c.Measured {
		skew = c.Skew
	}
	return now.Sub(t).Seconds() + skew
}

func missing(r snapshot.Record) int64 {
	var n int64
	for _, b := range r.BlobSets {
		n += b.Missing
	}
	return n
}

func failover(s Status, clock snapshot.Clock) Failover {
	var f Failover
	no := func(format string, args ...any) { f.Reasons = append(f.Reasons, fmt.Sprintf(format, args...)) }
	note := func(format string, args ...any) { f.Notes = append(f.Notes, fmt.Sprintf(format, args...)) }

	for _, u := range s.Unreadable {
		no("not known: %s", u)
	}
	switch s.Role {
	case role.Active:
		no("this host is the active")
	case role.Promoting:
		note("a failover was begun; drsync failover goes on with it")
	}
	if s.Last == nil && s.Publish == nil && len(s.Unreadable) == 0 {
		no("there is no published snapshot")
	}
	failed := s.Interrupted && s.Publish.Failure != ""
	if failed {
		no("the publish of %s has to be finished first, and that failed %s ago: %s", s.Publish.ID, show.Duration(max(0, s.Time.Sub(s.Publish.Failed))), s.Publish.Failure)
	}
	f.Can, f.Unsure = len(f.Reasons) == 0, failed && len(f.Reasons) == 1
	if s.Running != nil {
		note("%q (pid %d) is running and must end or be stopped first", s.Running.Command, s.Running.PID)
	}
	switch {
	case failed:
		note("drsync now and drsync failover both try again, without the active")
	case s.Interrupted:
		note("the interrupted publish of %s is finished first; if that fails, the failover does too", s.Publish.ID)
	}
	if s.Last != nil && !s.Last.Complete {
		if s.Last.Missing > 0 {
			note("the snapshot is incomplete: %s that the active could not serve either", show.Plural(s.Last.Missing, "blob is missing", "blobs are missing"))
		} else {
			note("the snapshot is incomplete; see drsync snapshots %s", s.Last.ID)
		}
	}
	if s.Verify != nil && s.Verify.Difference != "" {
		note("the last comparison with the active's database found differences")
	}
	if s.Last != nil && !s.Last.AgeAdjusted {
		note("the active's clock was not compared with this host's; the age may be off by as much as they differ")
	}
	if s.Last != nil && s.Last.FromFuture {
		note("the snapshot's time lies in the future: the active's clock or this host's was changed, and the loss may be larger")
	}
	switch {
	case s.Role == role.Active: // nothing would be taken over
	case s.Publish != nil && s.Interrupted:
		loss := max(0, age(s.Publish.Time, clock, s.Time))
		f.ExpectedLoss = &loss
	case s.Last != nil:
		loss := s.Last.Age
		f.ExpectedLoss = &loss
	}
	return f
}
