package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/hint"
)

// ReplicaOptions says what is replicated from where to where.
type ReplicaOptions struct {
	Options
	Source ReplicaSource
	// Continuous receives between the runs too, so that a run has less to receive
	// and the standby has more than its snapshot when the active is lost. What is
	// applied is the same: up to the point of a run, in that run's publish.
	Continuous bool
	// Pause is the longest time between two runs, as they are scheduled, for which
	// the active has to keep its binary logs unless Continuous; 0 is not known.
	Pause time.Duration
}

// ReplicaSource is how the standby's server reaches the active's.
type ReplicaSource struct {
	Address  string // host:port
	User     string // with REPLICATION SLAVE
	Password string
	TLS      bool   // encrypted, and the active's certificate is verified
	CA       string // the file, on the standby's server, that it is verified with
}

// Replica keeps the standby's schema up to date by the server's replication. It
// implements dbrepl.Engine, dbrepl.ActiveAsker and dbrepl.Comparer.
//
// Its invariants: the standby's server applies nothing but in a publish, and
// then exactly up to the captured point; before a publish begins, everything up
// to that point is in the standby's relay logs, so that it can be finished
// without the active. The marker table names the point that the schema shows:
// as long as that is what the server says it has applied, the schema is at
// this point and not between two.
//
// The first run, and one that finds the replica lost, copies the schema as
// Engine does.
type Replica struct {
	e          *Engine
	source     source
	continuous bool
	pause      time.Duration // that the active's binary logs have to last for; 0 is not known
}

var (
	_ dbrepl.Engine      = (*Replica)(nil)
	_ dbrepl.ActiveAsker = (*Replica)(nil)
	_ dbrepl.Comparer    = (*Replica)(nil)
)

// NewReplica makes an engine. It connects to nothing yet.
func NewReplica(o ReplicaOptions) (*Replica, error) {
	e, err := New(o.Options)
	if err != nil {
		return nil, err
	}
	s, err := newSource(o.Source)
	if err == nil && s.user == "" {
		err = errors.New("replication has no user")
	}
	if err != nil {
		_ = e.Close()
		return nil, err
	}
	r := &Replica{e: e, source: s, continuous: o.Continuous}
	if !o.Continuous { // which receives all the time
		r.pause = o.Pause
	}
	return r, nil
}

// Describe says what is replicated from where.
func (r *Replica) Describe() string {
	return fmt.Sprintf("database %s from %s to %s (MySQL or MariaDB, replication)", r.e.opt.Name, r.e.opt.Active.Address, r.e.opt.Standby.Address)
}

// Close closes all connections.
func (r *Replica) Close() error { return r.e.Close() }

// StillNamed asks the active which blobs it names now.
func (r *Replica) StillNamed(ctx context.Context, query string, sums []blob.Sum) (map[blob.Sum]bool, error) {
	return r.e.StillNamed(ctx, query, sums)
}

// Compare compares the visible schema with the active's.
func (r *Replica) Compare(ctx context.Context) (dbrepl.Comparison, error) {
	defer r.e.settle()
	if _, err := r.whole(ctx); err != nil {
		return dbrepl.Comparison{}, fmt.Errorf("compare database %s: %w", r.e.opt.Name, err)
	}
	return r.e.Compare(ctx)
}

// Capture fixes a point and receives everything up to it.
func (r *Replica) Capture(ctx context.Context, o dbrepl.CaptureOptions) (dbrepl.Captured, error) {
	if o.Dump != "" {
		return nil, fmt.Errorf("capture database %s: keep a dump, with replication: %w", r.e.opt.Name, errors.ErrUnsupported)
	}
	defer r.e.settle()
	c, err := r.capture(ctx, o.Verify)
	if err != nil {
		return nil, fmt.Errorf("capture database %s: %w", r.e.opt.Name, err)
	}
	return c, nil
}

func (r *Replica) capture(ctx context.Context, verify bool) (dbrepl.Captured, error) {
	if err := r.e.beAlone(ctx); err != nil {
		return nil, err
	}
	p, err := r.inspected(ctx)
	if err != nil {
		return nil, err
	}
	if err := dbrepl.Refuse(p.findings); err != nil {
		return nil, err
	}
	l, err := r.link(ctx)
	if err != nil {
		return nil, err
	}
	defer l.close()
	standing, err := l.standing(ctx)
	if err != nil {
		return nil, err
	}
	reason := standing.lost
	if reason == "" {
		c, err := r.follow(ctx, l, p.active, standing, verify)
		var lost *lostError
		switch {
		case err == nil && verify:
			return &verifiable{c}, nil
		case err == nil:
			return c, nil
		case !errors.As(err, &lost):
			return nil, err
		}
		reason = lost.reason
	}
	if standing.marker != nil {
		r.e.warn("the replica has to be made anew, by a copy of the whole database: %s", reason)
	}
	return r.seed(ctx, verify)
}

// lostError says that replication cannot go on from where the standby is.
type lostError struct{ reason string }

func (e *lostError) Error() string { return "the replica is lost: " + e.reason }

// seed captures a copy of the schema, from whose GTID replication goes on.
func (r *Replica) seed(ctx context.Context, verify bool) (dbrepl.Captured, error) {
	g, err := r.e.capture(ctx, dbrepl.CaptureOptions{Verify: verify})
	if err != nil {
		return nil, err
	}
	if gtidOf(g.Point.Position) == "" {
		return nil, errors.Join(errNoGTID(g.Point.Position), r.e.dropStaging(ctx))
	}
	return &seeded{captured{r.e, g}, r}, nil
}

func errNoGTID(position string) error {
	return hint.With(fmt.Errorf("the active's server tells no GTID with its position %q", position),
		"it needs a binary log with at least one transaction in it, on MySQL with gtid_mode=ON, and there RELOAD for drsync's account when it commits all the time")
}

// link is the session on the standby that replication is directed from.
type link struct {
	*Replica
	conn *sql.Conn
	id   identity
	say  dialect
	self string // the standby's name in its own GTIDs, where they are among those it has applied: on MySQL
}

func (r *Replica) link(ctx context.Context) (*link, error) {
	c, err := r.e.standby.session(ctx, "")
	if err != nil {
		return nil, err
	}
	id, err := r.e.standby.identify(ctx, c)
	if err != nil {
		c.Close()
		return nil, err
	}
	l := &link{Replica: r, conn: c, id: id, say: dialectOf(id)}
	if !l.say.mariaDB {
		if l.self, err = l.ask(ctx, l.say.self()); err != nil {
			c.Close()
			return nil, err
		}
	}
	return l, nil
}

func (l *link) close() { l.conn.Close() }

// ask returns the value of an expression.
func (l *link) ask(ctx context.Context, expression string) (string, error) {
	r, err := one(ctx, l.conn, "SELECT "+expression+" v")
	if err != nil {
		return "", l.e.standby.explain(ctx, err)
	}
	return r.get("v"), nil
}

// applied is what the standby's server has applied.
func (l *link) applied(ctx context.Context) (text string, p position, err error) {
	if text, err = l.ask(ctx, l.say.applied()); err == nil {
		p, err = l.parse(text)
	}
	return text, p, err
}

// parse reads a position. What the standby's server wrote by itself is left out:
// it is looked for before each run, and after a promotion it is what the
// application does.
func (l *link) parse(text string) (position, error) {
	p, err := parsePosition(l.say.mariaDB, text)
	return p.without(l.self), err
}

// channel returns the state of drsync's channel, or nil if there is none.
func (l *link) channel(ctx context.Context) (*channelStatus, error) {
	all, err := l.channels(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.name == channel {
			return &s, nil
		}
	}
	return nil, nil
}

func (l *link) channels(ctx context.Context) ([]channelStatus, error) {
	all, err := records(ctx, l.conn, l.say.status())
	if err != nil {
		return nil, fmt.Errorf("state of the standby's replication: %w", l.e.standby.explain(ctx, err))
	}
	var states []channelStatus
	for _, r := range all {
		states = append(states, readStatus(r))
	}
	return states, nil
}

// standing is where the standby is.
type standing struct {
	marker  *generation
	gtid    string // of the marker
	applied string
	at      position
	lost    string // why replication cannot go on from here
}

func (l *link) standing(ctx context.Context) (standing, error) {
	var s standing
	var err error
	if s.marker, err = readMarker(ctx, l.conn, l.e.opt.Name, l.e.opt.Name); err != nil {
		return s, l.e.standby.explain(ctx, err)
	}
	if s.applied, s.at, err = l.applied(ctx); err != nil {
		return s, err
	}
	if s.marker == nil {
		s.lost = "nothing has been published"
		return s, nil
	}
	s.gtid = gtidOf(s.marker.Point.Position)
	want, err := l.parse(s.gtid)
	switch {
	case err != nil:
		return s, err
	case !s.marker.Replicated:
		s.lost = "the visible database was copied without replication"
	case s.applied == "":
		s.lost = "the standby's server does not know its GTID position any more"
	case !s.at.equal(want):
		s.lost = fmt.Sprintf("the standby's server stands at GTID %s, the last snapshot at %s", s.applied, s.gtid)
	}
	return s, nil
}

// forget ends and removes drsync's channel, with what it received.
func (l *link) forget(ctx context.Context, do func(context.Context, string) error) error {
	s, err := l.channel(ctx)
	if err != nil || s == nil {
		return err
	}
	if err := do(ctx, l.say.stop()); err != nil {
		return err
	}
	return do(ctx, l.say.forget())
}

// run executes a statement.
func (l *link) run(ctx context.Context, statement string) error {
	_, err := l.conn.ExecContext(ctx, statement)
	return l.e.standby.explain(ctx, err)
}

// runStep is run for what changes something in a publish.
func (l *link) runStep(ctx context.Context, statement string) error {
	if l.e.before != nil {
		if err := l.e.before(statement); err != nil {
			return err
		}
	}
	return l.run(ctx, statement)
}
