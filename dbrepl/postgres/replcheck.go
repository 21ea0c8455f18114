package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/drsync/drsync/dbrepl"
)

// facts are what is known about the two sides before a capture.
type facts struct {
	pair
	history history
	flushed lsn              // how far the active's log is written
	needs   map[string]int64 // settings of the active that the standby must not have smaller
	slot    slotState
	size    int64 // bytes of the active's databases
	copied  int64 // bytes of a copy that this capture has made
}

// slotState is what the active says of the slot.
type slotState struct {
	exists, physical bool
	reserves         bool   // it has begun to keep the log
	status           string // "" where it is not told
	kept             int64  // bytes of the log
}

// Check asks both sides what would stop or spoil a run.
func (r *Replica) Check(ctx context.Context) ([]dbrepl.Finding, error) {
	looks := *r
	looks.e = r.e.aside()
	f, err := looks.inspect(ctx)
	if err != nil {
		return nil, r.failed("check", err)
	}
	return f.findings, nil
}

func (r *Replica) inspect(ctx context.Context) (*facts, error) {
	if err := interrupted(ctx); err != nil {
		return nil, err
	}
	c, err := r.e.active.connect(ctx, r.e.opt.Name)
	if err != nil {
		return nil, err
	}
	defer end(c)
	f := &facts{}
	if f.active, err = r.e.active.identify(ctx, c); err != nil {
		return nil, err
	}
	if r.e.alter != nil {
		r.e.alter(&f.pair)
	}
	if f.active.major() < oldest {
		f.fatal("active server", fmt.Sprintf("it is %s; drsync knows PostgreSQL %d and newer", f.active, oldest), "upgrade it")
	}
	if f.active.InRecovery {
		f.fatal("active server", "it is a replica itself", "set the address of its primary for the active")
	}
	if f.findings != nil {
		return f, nil
	}
	if err := r.inspectActive(ctx, c, f); err != nil {
		return nil, r.e.active.explain(ctx, err)
	}
	if err := r.inspectLog(ctx, f); err != nil {
		return nil, err
	}
	if err := r.inspectHost(ctx, f); err != nil {
		return nil, err
	}
	return f, r.inspectServer(ctx, c, f)
}

// inspectActive looks at the active's settings and at what would not come along.
func (r *Replica) inspectActive(ctx context.Context, c *pgx.Conn, f *facts) error {
	set, err := settingsOf(ctx, c)
	if err != nil {
		return err
	}
	f.needs = make(map[string]int64)
	for _, name := range needed {
		f.needs[name] = set.number(name)
	}
	f.history.Segment = set.number("wal_segment_size")
	account := "active account " + f.active.User
	if set["wal_level"] == "minimal" {
		f.fatal("active server", "wal_level is minimal: its log does not say enough for a replica", "ALTER SYSTEM SET wal_level = replica, and restart it")
	}
	if n := set.number("max_wal_senders"); n < 2 {
		f.fatal("active server", fmt.Sprintf("max_wal_senders is %d; a first copy needs 2", n), "ALTER SYSTEM SET max_wal_senders = 10, and restart it")
	}
	may, err := column(ctx, c, "SELECT (rolreplication OR rolsuper)::text FROM pg_roles WHERE rolname = current_user")
	if err != nil {
		return err
	}
	if len(may) != 1 || may[0] != "true" {
		f.fatal(account, "it may not replicate", "ALTER ROLE "+quote(f.active.User)+" REPLICATION")
	}
	if err := r.inspectSlot(ctx, c, f, set); err != nil {
		return err
	}
	spaces, err := column(ctx, c, "SELECT spcname::text FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1")
	if err != nil {
		return err
	}
	if spaces != nil {
		f.fatal("active server", "it has the tablespace "+some(spaces, "")+", and replication brings only what is in the data directory", "use mode: dump, or move everything to pg_default and drop it")
	}
	if err := r.inspectReader(ctx, c, f); err != nil {
		return err
	}
	unlogged, err := column(ctx, c, "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relpersistence = 'u' ORDER BY 1")
	if err != nil {
		return err
	}
	if unlogged != nil {
		f.note("active database "+r.e.opt.Name, "the log has nothing of the unlogged table "+some(unlogged, "")+"; it is empty after a failover", "ALTER TABLE … SET LOGGED")
	}
	others, err := column(ctx, c, "SELECT datname::text FROM pg_database WHERE NOT datistemplate AND datname NOT IN (current_database(), 'postgres') ORDER BY 1")
	if err != nil {
		return err
	}
	if others != nil {
		f.note("active server", "replication brings the whole server, with the database "+some(others, ""), "")
	}
	return c.QueryRow(ctx, `SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database WHERE has_database_privilege(oid, 'CONNECT')`).Scan(&f.size)
}

// settings are a server's.
type settings map[string]string

func (s settings) number(name string) (n int64) {
	_, _ = fmt.Sscan(s[name], &n) // a server always has the settings that are asked for; what is no number is 0
	return n
}

func settingsOf(ctx context.Context, c *pgx.Conn) (settings, error) {
	rows, err := c.Query(ctx, `SELECT name, setting FROM pg_settings WHERE name = ANY ($1)`, append([]string{
		"wal_level", "wal_segment_size", "max_replication_slots", "max_slot_wal_keep_size",
	}, slices.Collect(maps.Values(needed))...))
	if err != nil {
		return nil, err
	}
	all := make(settings)
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		all[name] = value
		return nil
	})
	return all, err
}

// inspectSlot looks at the slot, and at what it may do to the active's disk.
func (r *Replica) inspectSlot(ctx context.Context, c *pgx.Conn, f *facts, set settings) error {
	status := "coalesce(wal_status, '')"
	if f.active.major() < 13 {
		status = "''"
	}
	err := c.QueryRow(ctx, "SELECT true, slot_type = 'physical', restart_lsn IS NOT NULL, "+status+`, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
		FROM pg_replication_slots WHERE slot_name = $1`, r.opt.Slot).
		Scan(&f.slot.exists, &f.slot.physical, &f.slot.reserves, &f.slot.status, &f.slot.kept)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	subject := "replication slot " + r.opt.Slot
	if f.slot.exists && !f.slot.physical {
		f.fatal(subject, "it is a logical one, somebody else's", "give database.replication.slot another name")
	}
	if !f.slot.exists {
		used, err := column(ctx, c, "SELECT slot_name::text FROM pg_replication_slots ORDER BY 1")
		if err != nil {
			return err
		}
		if limit := set.number("max_replication_slots"); int64(len(used)) >= limit {
			f.fatal("active server", fmt.Sprintf("all of its %d replication slots are in use (%s)", limit, some(used, "")), "ALTER SYSTEM SET max_replication_slots = 10, and restart it")
		}
	}
	const raise = "ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'; SELECT pg_reload_conf()"
	switch {
	case f.slot.status == "lost":
		f.note(subject, "the active has given up what it kept for this standby; the next run copies its whole server anew", "to let it keep more: "+raise)
	case f.slot.status == "unreserved":
		f.note(subject, fmt.Sprintf("the active keeps %s of its log for this standby and is about to give it up", megabytes(f.slot.kept)), "run drsync now; to let it keep more: "+raise)
	}
	if set["max_slot_wal_keep_size"] == "-1" {
		f.note(subject, fmt.Sprintf("while this standby is away the active keeps its log for it without limit, until its disk is full (now %s)", megabytes(f.slot.kept)),
			"on the active, by its disk: "+raise+". When the standby is gone for good: SELECT pg_drop_replication_slot('"+r.opt.Slot+"')")
	}
	return nil
}

// hidingFrom is row_security_active for another account than the session's own.
const hidingFrom = `c.relrowsecurity AND (c.relforcerowsecurity OR NOT pg_has_role($1::text::name, c.relowner, 'USAGE'))
	AND EXISTS (SELECT FROM pg_roles r WHERE r.rolname = $1::text::name AND NOT r.rolsuper AND NOT r.rolbypassrls)`

// inspectReader looks whether the account by which the standby is read is known
// to the active, from where the replica has its accounts.
func (r *Replica) inspectReader(ctx context.Context, c *pgx.Conn, f *facts) error {
	user := r.e.opt.Standby.User
	account := "standby account " + user
	may, err := column(ctx, c, "SELECT (rolcanlogin AND has_database_privilege(oid, current_database(), 'CONNECT'))::text FROM pg_roles WHERE rolname = $1", user)
	if err != nil {
		return err
	}
	if len(may) == 0 || may[0] != "true" {
		f.fatal(account, "the active has no such account that may log in to the database, and a replica has the active's accounts", "on the active: CREATE ROLE "+quote(user)+" LOGIN PASSWORD '…'")
		return nil
	}
	closed, err := column(ctx, c, strings.NewReplacer("_privilege(", "_privilege($1::text::name, ").Replace(unreadable), user)
	if err != nil {
		return err
	}
	if closed != nil {
		f.fatal(account, "it may not read "+some(closed, ""), "on the active: "+f.reading(user))
	}
	hidden, err := column(ctx, c, strings.Replace(hiding, "row_security_active(c.oid)", hidingFrom, 1), user)
	if err != nil {
		return err
	}
	if hidden != nil {
		f.fatal(account, "row security hides rows from it in "+some(hidden, ""), "on the active: "+bypassing(user))
	}
	return nil
}

// inspectLog logs in as a replica does.
func (r *Replica) inspectLog(ctx context.Context, f *facts) error {
	if dbrepl.Refuse(f.findings) != nil {
		return nil // it could not
	}
	w, err := r.e.active.connectLog(ctx)
	if isServerError(err) && ctx.Err() == nil {
		f.fatal("active server", "it lets "+f.active.User+" not in for replication: "+err.Error(),
			"a line of its pg_hba.conf, and SELECT pg_reload_conf(): host replication "+f.active.User+" ADDRESS/32 scram-sha-256")
		return nil
	}
	if err != nil {
		return r.e.active.connectError(ctx, err)
	}
	defer w.close()
	f.history.System, f.history.Timeline, f.flushed, err = w.identify(ctx)
	if err == nil {
		err = f.history.valid()
	}
	return err
}
