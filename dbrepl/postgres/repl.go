package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/hint"
)

// ReplicaOptions says what is replicated from where to where.
type ReplicaOptions struct {
	Options // Scratch and Jobs are not needed
	// DataDirectory is the absolute path of the standby's server's. Beside it the
	// engine keeps a directory of the same name and ".drsync".
	DataDirectory string
	// Account is the account of the operating system that the server runs as
	// ("postgres"). This process is its or root's.
	Account string
	// Slot is the name of the replication slot on the active ("drsync"), which is
	// this standby's alone.
	Slot string
	// Start and Stop start and stop the standby's server, and return when that is
	// done or under way.
	Start, Stop func(ctx context.Context) error
}

// Replica keeps the standby's whole server up to date by the active's log. It
// implements dbrepl.Engine, dbrepl.ActiveAsker and dbrepl.Comparer.
//
// Its invariants: there are two clusters, the visible one in the server's data
// directory and the next one beside it, and they change places by one rename.
// The log that a cluster has ends at its point, with zeros behind it, and its
// server has nowhere to get more from: whoever ends its recovery, by whatever
// means, has the database at that point. A cluster that becomes visible has
// replayed its log to the end and been stopped in order, so that nobody can read
// it at an earlier place either.
//
// The point is a place in the active's log, taken together with the active's
// time. What the database was there is read from the next cluster.
type Replica struct {
	e       *Engine
	staging *Engine // the same, with the next cluster's server as its standby
	opt     ReplicaOptions
	owner   owner
	visible cluster
	work    string // the engine's own directory
	bin     string // the directory of the server's programs, once they were found
	major   int    // their version

	server *stagingServer // that runs, nil if none does

	careless bool // for tests: what a killed process has written stays, so nothing need be synced
}

var (
	_ dbrepl.Engine      = (*Replica)(nil)
	_ dbrepl.ActiveAsker = (*Replica)(nil)
	_ dbrepl.Comparer    = (*Replica)(nil)
)

const workSuffix = ".drsync"

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// NewReplica makes an engine. It connects to nothing yet.
func NewReplica(o ReplicaOptions) (*Replica, error) {
	if o.Account == "" {
		o.Account = "postgres"
	}
	if o.Slot == "" {
		o.Slot = "drsync"
	}
	var errs []error
	if !filepath.IsAbs(o.DataDirectory) || filepath.Clean(o.DataDirectory) != o.DataDirectory || filepath.Dir(o.DataDirectory) == "/" {
		errs = append(errs, fmt.Errorf("the data directory %q is not a plain absolute path below another directory", o.DataDirectory))
	}
	if !slotName.MatchString(o.Slot) {
		errs = append(errs, fmt.Errorf("the replication slot %q is not of small letters, digits and underscores, 63 at most", o.Slot))
	}
	if o.Start == nil || o.Stop == nil {
		errs = append(errs, errors.New("it is not said how the standby's server is started and stopped"))
	}
	r := &Replica{opt: o, visible: cluster{o.DataDirectory}, work: o.DataDirectory + workSuffix}
	o.Scratch = filepath.Join(r.work, "scratch")
	var err error
	r.e, err = New(o.Options)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	private := *r.e
	private.standby = newServer("standby", Server{Address: r.socketDir(), User: o.Standby.User}, r.e.opt.Timeouts)
	r.staging = &private
	return r, nil
}

// Describe says what is replicated from where.
func (r *Replica) Describe() string {
	return fmt.Sprintf("database %s from %s to %s (PostgreSQL, replication)", r.e.opt.Name, r.e.opt.Active.Address, r.e.opt.Standby.Address)
}

// Close ends what a capture that was neither published nor discarded has running.
func (r *Replica) Close() error { return r.endStaging() }

func (r *Replica) endStaging() error {
	s := r.server
	r.server = nil
	if err := s.stop(); err != nil {
		return err
	}
	return endServer(r.next())
}

// next is the cluster that takes the next capture. spare is a second copy of it
// as it came from the active, for when next has become the visible one.
func (r *Replica) next() cluster  { return cluster{filepath.Join(r.work, "next")} }
func (r *Replica) spare() cluster { return cluster{filepath.Join(r.work, "spare")} }

// seedDir is where copies are made. Nobody but this process gets in there.
func (r *Replica) seedDir() string { return filepath.Join(r.work, "seed") }
func (r *Replica) logDir() string  { return filepath.Join(r.work, "wal") }

// StillNamed asks the active which blobs it names now.
func (r *Replica) StillNamed(ctx context.Context, query string, sums []blob.Sum) (map[blob.Sum]bool, error) {
	return r.e.StillNamed(ctx, query, sums)
}

// Capture fixes a point and brings the next cluster to it.
func (r *Replica) Capture(ctx context.Context, o dbrepl.CaptureOptions) (dbrepl.Captured, error) {
	if o.Dump != "" {
		return nil, r.e.failed("capture", fmt.Errorf("keep a dump, with replication: %w", errors.ErrUnsupported))
	}
	if o.Verify {
		return nil, r.e.failed("capture", hint.With(fmt.Errorf("verify before the publish, with replication: %w", errors.ErrUnsupported),
			"compare after it: drsync verify --db"))
	}
	p, err := r.capture(ctx)
	if err != nil {
		return nil, r.e.failed("capture", errors.Join(err, r.endStaging()))
	}
	return &replica{r: r, p: p}, nil
}

func (r *Replica) capture(ctx context.Context) (*replicaPoint, error) {
	f, err := r.inspect(ctx)
	if err != nil {
		return nil, err
	}
	if err := refuse(f.findings); err != nil {
		return nil, err
	}
	if err := r.reset(); err != nil {
		return nil, err
	}
	if err := r.makeWork(); err != nil {
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

// reset takes back what an earlier capture has made: the next cluster stays,
// but it is no capture any more.
func (r *Replica) reset() error {
	if err := r.endStaging(); err != nil {
		return err
	}
	if err := r.next().unmark(); err != nil {
		return err
	}
	return os.RemoveAll(r.seedDir())
}

func (r *Replica) makeWork() error {
	err := os.Mkdir(r.work, 0o711)
	if err == nil {
		err = os.Chmod(r.work, 0o711) // whatever the umask is
	}
	if errors.Is(err, os.ErrExist) {
		var info os.FileInfo
		if info, err = os.Lstat(r.work); err == nil && (!info.IsDir() || !ownedByUs(info)) {
			err = fmt.Errorf("%s is not a directory of the account that drsync runs as", r.work)
		}
	}
	return err
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
