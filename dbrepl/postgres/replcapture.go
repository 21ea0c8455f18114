package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// Capture fixes a point and brings the next cluster to it.
func (r *Replica) Capture(ctx context.Context, o dbrepl.CaptureOptions) (dbrepl.Captured, error) {
	if o.Dump != "" {
		return nil, r.failed("capture", fmt.Errorf("keep a dump, with replication: %w", errors.ErrUnsupported))
	}
	if o.Verify {
		return nil, r.failed("capture", hint.With(fmt.Errorf("verify before the publish, with replication: %w", errors.ErrUnsupported),
			"compare after it: drsync verify --db"))
	}
	p, err := r.capture(ctx)
	if err != nil {
		if r.claimed() { // otherwise what runs may be another configuration's
			err = errors.Join(err, r.endStaging())
		}
		return nil, r.failed("capture", err)
	}
	return &replica{r: r, p: p}, nil
}

func (r *Replica) capture(ctx context.Context) (*replicaPoint, error) {
	f, err := r.inspect(ctx)
	if err != nil {
		return nil, err
	}
	if err := dbrepl.Refuse(f.findings); err != nil {
		return nil, err
	}
	if err := r.makeWork(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(r.reset(), r.tryExchange()); err != nil {
		return nil, err
	}
	if err := r.endLost(ctx); err != nil {
		return nil, err
	}
	l, lost, err := r.choose(ctx, f)
	if err != nil {
		return nil, err
	}
	if lost == "" {
		p, err := r.advance(ctx, f, l, false)
		var gone *lostError
		if !errors.As(err, &gone) {
			return p, err
		}
		lost = gone.reason
	}
	if p, err := r.visible.point(r.e.opt.Name); err != nil {
		return nil, err
	} else if p != nil {
		r.e.warn("the replica has to be made anew, by a copy of the active's whole server: %s", lost)
	}
	if err := r.endStaging(); err != nil {
		return nil, err
	}
	if l, err = r.seed(ctx, f); err != nil {
		return nil, err
	}
	return r.advance(ctx, f, l, true)
}

// endLost ends what earlier runs have left on the active: one that receives its
// log keeps the slot from being used.
func (r *Replica) endLost(ctx context.Context) error {
	c, err := r.e.active.connect(ctx, r.e.opt.Name)
	if err != nil {
		return err
	}
	defer end(c)
	return r.e.endLost(ctx, c)
}

// choose finds the cluster that can be brought on, or says why there is none.
func (r *Replica) choose(ctx context.Context, f *facts) (l *receivedLog, lost string, err error) {
	if l, err = openLog(r.logDir()); err != nil {
		return nil, "", err
	}
	for _, c := range []cluster{r.next(), r.spare()} {
		if there, err := c.exists(); err != nil {
			return nil, "", err
		} else if !there {
			continue
		}
		why, err := r.usable(ctx, c, f, l)
		if err != nil {
			return nil, "", err
		}
		if why != "" {
			lost = why
			if err := os.RemoveAll(c.dir); err != nil {
				return nil, "", err
			}
			continue
		}
		if c != r.next() {
			if err := os.Rename(c.dir, r.next().dir); err != nil {
				return nil, "", err
			}
		}
		return l, "", nil
	}
	if lost == "" {
		lost = "there is no second cluster that could be brought on"
	}
	return nil, lost, nil
}

// usable says why a cluster cannot be brought on, or "".
func (r *Replica) usable(ctx context.Context, c cluster, f *facts, l *receivedLog) (string, error) {
	known, err := r.control(ctx, c)
	if err != nil {
		return "", err
	}
	begins, err := c.begins(known)
	switch {
	case err != nil:
		return "", err
	case !c.follows():
		return c.dir + " is no replica any more", nil
	case known.System != f.history.System:
		return "the active is another server than before", nil
	case known.Timeline != f.history.Timeline:
		return fmt.Sprintf("the active is on timeline %d, the replica on %d", f.history.Timeline, known.Timeline), nil
	case l == nil || !l.covers(f.history, begins) || known.Minimum > l.state.to:
		return fmt.Sprintf("what was received of the active's log does not go on from %v", begins), nil
	case l.state.to > f.flushed:
		return fmt.Sprintf("the active's log ends at %v, before %v, which was received from it", f.flushed, l.state.to), nil
	}
	return "", nil
}

// advances is how often a later point is taken where the replica lets nobody read.
const advances = 6

// advance takes a point and brings the next cluster to it.
func (r *Replica) advance(parent context.Context, f *facts, l *receivedLog, seeded bool) (*replicaPoint, error) {
	ctx, stop := r.e.active.guard(parent, r.e.opt.Name)
	defer stop()
	var bytes int64
	for attempt := 1; ; attempt++ {
		p, err := r.takePoint(ctx, f)
		if err != nil {
			return nil, err
		}
		n, err := r.receive(ctx, l, p.end)
		if err != nil {
			return nil, err
		}
		bytes += n
		err = r.replay(ctx, f, l, p.end)
		if errors.Is(err, errUnreadable) && attempt < advances {
			if err := r.endStaging(); err != nil {
				return nil, err
			}
			continue // the active tells now and again which transactions are open
		}
		if errors.Is(err, errUnreadable) {
			err = hint.With(err, "a transaction of the active has more than 64 subtransactions (savepoints); capture when it has ended")
		}
		if err != nil {
			return nil, err
		}
		if p.Counts, err = r.count(ctx, f, seeded); err != nil {
			return nil, err
		}
		p.Counts.Bytes = bytes + f.copied
		if r.e.during != nil {
			r.e.during("replayed")
		}
		return p, r.next().mark(r.owner, p)
	}
}

// takePoint reads the active's time and then where its log is: whatever was
// committed before that time is before that place.
func (r *Replica) takePoint(ctx context.Context, f *facts) (*replicaPoint, error) {
	c, err := r.e.active.connect(ctx, r.e.opt.Name)
	if err != nil {
		return nil, err
	}
	defer end(c)
	clock, err := readClock(ctx, c)
	if err != nil {
		return nil, r.e.active.explain(ctx, err)
	}
	var micros int64
	var text string
	if err := c.QueryRow(ctx, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").Scan(&micros); err != nil {
		return nil, r.e.active.explain(ctx, err)
	}
	if err := c.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		return nil, r.e.active.explain(ctx, err)
	}
	at, err := parseLSN(text)
	if err != nil {
		return nil, err
	}
	at = f.history.recordEnd(at)
	return &replicaPoint{
		Format: tokenFormat, Engine: replicaEngine, Name: r.e.opt.Name, ID: rand.Text(), History: f.history, end: at,
		Point: dbrepl.Point{
			Time: time.UnixMicro(micros).UTC(), Position: fmt.Sprintf("WAL %v, timeline %d", at, f.history.Timeline),
			Server: f.active.String(), Skew: clock.skew, SkewError: clock.within,
		},
	}, nil
}

// replay gives the next cluster its log up to end and lets a server replay it.
// The server runs on, so that it can be asked.
func (r *Replica) replay(ctx context.Context, f *facts, l *receivedLog, end lsn) error {
	next := r.next()
	known, err := r.control(ctx, next)
	if err != nil {
		return err
	}
	begins, err := next.begins(known)
	if err != nil {
		return err
	}
	if err := l.hand(next.path("pg_wal"), r.owner, begins, end); err != nil {
		return err
	}
	needs := greatest(known.Needs, f.needs)
	if err := next.configure(r.owner, r.visible, needs); err != nil {
		return err
	}
	if r.server, err = r.startStaging(next, needs); err != nil {
		return err
	}
	if r.e.during != nil {
		r.e.during("replay")
	}
	return r.server.reach(ctx, end)
}

func greatest(a, b map[string]int64) map[string]int64 {
	all := make(map[string]int64)
	for _, m := range []map[string]int64{a, b} {
		for name, v := range m {
			all[name] = max(all[name], v)
		}
	}
	return all
}

// count counts the tables and, if rows is set, what is in them. It warns of what
// does not come along.
func (r *Replica) count(ctx context.Context, f *facts, rows bool) (n dbrepl.Counts, err error) {
	c, err := r.staging.standby.connect(ctx, r.e.opt.Name)
	if err != nil {
		return n, err
	}
	defer end(c)
	tables, err := readTables(ctx, c)
	if err == nil {
		err = r.warnOf(ctx, c, f)
	}
	if err == nil && rows {
		var found contents
		found, err = countAll(ctx, []querier{c}, tables, false)
		n.Rows = found.rows()
	}
	n.Tables = len(tables)
	return n, r.staging.standby.explain(ctx, err)
}

// warnOf names what is otherwise on this host than on the active's.
func (r *Replica) warnOf(ctx context.Context, c *pgx.Conn, f *facts) error {
	if f.active.major() < 15 {
		return nil // it does not know
	}
	differ, err := column(ctx, c, `SELECT format('%s has %s, this host has %s', datname, datcollversion, pg_database_collation_actual_version(oid))
		FROM pg_database WHERE datallowconn AND datcollversion <> pg_database_collation_actual_version(oid) ORDER BY 1`)
	if err == nil && differ != nil {
		r.e.warn("this host's library sorts texts by another version's rules than the active's (%s): indexes on texts may be wrong here; install the same version of the system, or REINDEX after a failover", some(differ, ""))
	}
	return err
}
