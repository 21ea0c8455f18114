package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
)

// taken is what a capture has taken from the active.
type taken struct {
	point      dbrepl.Point
	properties properties
	tables     []table
	contents   contents
	parts      []part    // the definitions, if they are to be compared
	bytes      int64     // of the dump
	began      time.Time // when the tables were locked; zero if there are none
	locked     time.Duration
}

// errChanged says that somebody altered what the active's database consists of,
// where nothing that the capture holds could make him wait.
var errChanged = errors.New("definitions changed on the active meanwhile")

// take dumps the active's database as of one snapshot into the scratch
// directory, and counts it in the same snapshot meanwhile.
func (e *Engine) take(parent context.Context, p *pair, o dbrepl.CaptureOptions) (*taken, error) {
	ctx, stop := e.active.guard(parent, e.opt.Name)
	defer stop()
	side, err := e.active.connect(ctx, e.opt.Name)
	if err != nil {
		return nil, err
	}
	defer end(side)
	leader, err := e.active.connect(ctx, e.opt.Name)
	if err != nil {
		return nil, err
	}
	defer end(leader)
	if err := e.endLost(ctx, side); err != nil {
		return nil, err
	}
	t, snapshot, err := e.snapshot(ctx, side, leader)
	if err != nil {
		return nil, e.active.explain(ctx, err)
	}
	t.point.Server = p.active.String()
	before, err := readVersions(ctx, leader)
	if err != nil {
		return nil, e.active.explain(ctx, err)
	}
	if o.Verify {
		// Before the dump, since a sequence obeys no snapshot and may only go on.
		if t.parts, err = readDefinitions(ctx, leader); err != nil {
			return nil, e.active.explain(ctx, err)
		}
	}
	if e.during != nil {
		e.during("snapshot")
	}
	work, ctx := errgroup.WithContext(ctx)
	dumped, finished := context.WithCancel(ctx)
	defer finished()
	work.Go(func() (err error) {
		defer finished()
		t.bytes, err = e.dump(ctx, p.programs, snapshot, o.Dump != "")
		return err
	})
	work.Go(func() (err error) {
		t.contents, err = countAll(ctx, []querier{leader}, t.tables, o.Verify)
		return err
	})
	work.Go(func() error { return e.standAside(dumped, side) })
	err = work.Wait()
	if err != nil {
		err = e.active.explain(ctx, err)
	}
	if parent.Err() == nil && !errors.Is(err, errInTheWay) {
		err = e.changedSince(parent, before, err)
	}
	if err != nil {
		return nil, err
	}
	end(leader) // which lets the tables go
	if !t.began.IsZero() {
		t.locked = time.Since(t.began)
	}
	e.opt.Event.Emit(event.Event{Kind: event.Progress, Step: "capture", Name: e.opt.Name, Items: t.contents.rows(), Bytes: t.bytes})
	return t, nil
}

// snapshot begins the leader's transaction and takes the snapshot in it. The
// tables are locked before: a TRUNCATE between the snapshot and the lock would
// show as an empty table, since it obeys no snapshot.
func (e *Engine) snapshot(ctx context.Context, side, leader *pgx.Conn) (*taken, string, error) {
	clock, err := readClock(ctx, leader)
	if err != nil {
		return nil, "", err
	}
	before, err := readTables(ctx, side)
	if err != nil {
		return nil, "", err
	}
	if e.during != nil {
		e.during("tables")
	}
	if _, err := leader.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return nil, "", err
	}
	t := &taken{point: dbrepl.Point{Skew: clock.skew, SkewError: clock.within}}
	if len(before) > 0 {
		t.began = time.Now()
		names := make([]string, len(before))
		for i, t := range before {
			names[i] = t.quoted()
		}
		if _, err := leader.Exec(ctx, "LOCK TABLE ONLY "+strings.Join(names, ", ONLY ")+" IN ACCESS SHARE MODE"); hasCode(err, codeNoTable, codeNoSchema, codeWrongObject) {
			return nil, "", fmt.Errorf("%w: %w", errChanged, err)
		} else if err != nil {
			return nil, "", fmt.Errorf("lock the tables against changes of their definition: %w", err)
		}
	}
	var snapshot, micros string
	// In one message, so that the statement's time is the one before its snapshot.
	err = leader.QueryRow(ctx, "SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint::text, pg_export_snapshot(), 'WAL ' || pg_current_wal_lsn()",
		pgx.QueryExecModeSimpleProtocol).Scan(&micros, &snapshot, &t.point.Position)
	if err != nil {
		return nil, "", fmt.Errorf("take a snapshot: %w", err)
	}
	at, err := strconv.ParseInt(micros, 10, 64)
	if err != nil {
		return nil, "", fmt.Errorf("the snapshot's time: %w", err)
	}
	t.point.Time = time.UnixMicro(at).UTC()
	if t.tables, err = readTables(ctx, leader); err != nil {
		return nil, "", err
	}
	same := func(all []table) []table {
		all = slices.Clone(all)
		slices.SortFunc(all, func(a, b table) int { return int(int64(a.OID) - int64(b.OID)) })
		return all
	}
	if !slices.EqualFunc(same(before), same(t.tables), func(a, b table) bool { return a.OID == b.OID && a.String() == b.String() }) {
		return nil, "", errChanged
	}
	t.properties, err = readProperties(ctx, leader)
	return t, snapshot, err
}

// dump runs pg_dump in the snapshot and returns how much it wrote. A dump that
// is kept is compressed; one that is not is read once, right away. pg_dump waits
// for a table longer than standAside lets anybody else wait for it.
func (e *Engine) dump(ctx context.Context, p programs, snapshot string, kept bool) (int64, error) {
	a, err := e.active.access(ctx)
	if err != nil {
		return 0, err
	}
	defer a.close()
	level := "0"
	if kept {
		level = "1"
	}
	_, err = run(ctx, a.env, p.dump,
		"--format=directory", "--file="+e.dumpDir(), "--jobs="+strconv.Itoa(e.opt.Jobs), "--snapshot="+snapshot,
		"--compress="+level, "--no-sync", "--no-password", "--no-subscriptions", "--no-tablespaces", "--encoding=UTF8",
		"--quote-all-identifiers", fmt.Sprintf("--lock-wait-timeout=%d", 3*e.opt.Lock.Milliseconds()), "--dbname="+conninfo(e.opt.Name))
	if err != nil {
		return 0, adviseDump(fmt.Errorf("dump: %w", err), e.dumpDir())
	}
	return sizeOf(e.dumpDir())
}

// adviseDump adds what can be done about an error of pg_dump.
func adviseDump(err error, dir string) error {
	if strings.Contains(err.Error(), "No space left on device") {
		return hint.With(err, "make room in "+filepath.Dir(dir)+", where the dump lies until it is loaded, then run drsync again")
	}
	return err
}

// conninfo names a database to a client program, with the keepalives that
// notice a peer which is gone.
func conninfo(database string) string {
	quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(database)
	return "dbname='" + quoted + "' keepalives_idle=15 keepalives_interval=5 keepalives_count=4"
}

func sizeOf(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// standAside watches until the dump is over whether anybody waits for one of
// this engine's sessions. One who alters a table has to, and whoever needs
// that table then waits behind him, so the capture makes way.
func (e *Engine) standAside(ctx context.Context, c *pgx.Conn) error {
	tick := time.NewTicker(min(time.Second, e.opt.Lock/4))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // the dump is over, or has failed by itself
		case <-tick.C:
		}
		who, err := column(ctx, c, `SELECT format('process %s of %s', a.pid, coalesce(a.usename::text, '?')) || coalesce(' (' || left(nullif(a.query, ''), 80) || ')', '')
			FROM pg_stat_activity a WHERE a.wait_event_type = 'Lock' AND now() - a.query_start > $1 * interval '1 microsecond'
				AND pg_blocking_pids(a.pid) && ARRAY(SELECT pid FROM pg_stat_activity WHERE application_name = $2) ORDER BY 1`,
			e.opt.Lock.Microseconds(), e.active.name)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look who waits: %w", err)
		}
		if who != nil {
			return fmt.Errorf("%w: %s", errInTheWay, some(who, ""))
		}
	}
}
