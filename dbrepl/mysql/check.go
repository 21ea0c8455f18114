package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// Check asks both servers what would stop or spoil a run.
func (e *Engine) Check(ctx context.Context) ([]dbrepl.Finding, error) {
	defer e.settle()
	p, err := e.inspect(ctx)
	if err == nil {
		err = e.inspectAlone(ctx, p)
	}
	if err != nil {
		return nil, fmt.Errorf("check database %s: %w", e.opt.Name, err)
	}
	e.checked.keep(p)
	return p.findings, nil
}

// recent is what Check has found out, for the capture that comes just after it:
// to ask all of that again takes some forty round trips.
type recent struct {
	pair *pair
	at   time.Time
}

// freshFor is how long what was found out counts, and then once.
const freshFor = 30 * time.Second

// keep keeps nothing that refuses a capture: somebody may mend it meanwhile.
func (r *recent) keep(p *pair) {
	if r.pair = nil; dbrepl.Refuse(p.findings) == nil {
		r.pair, r.at = p, time.Now()
	}
}

func (r *recent) take() *pair {
	p := r.pair
	r.pair = nil
	if time.Since(r.at) > freshFor {
		return nil
	}
	return p
}

// inspected is what Check has just found out, or else inspect does.
func (e *Engine) inspected(ctx context.Context) (*pair, error) {
	if p := e.checked.take(); p != nil {
		return p, nil
	}
	return e.inspect(ctx)
}

// pair is what is known about the two servers before a capture.
type pair struct {
	active, standby identity
	findings        []dbrepl.Finding
}

func (p *pair) fatal(subject, problem, fix string) {
	p.findings = append(p.findings, dbrepl.Finding{Fatal: true, Subject: subject, Problem: problem, Fix: fix})
}

func (p *pair) note(subject, problem, fix string) {
	p.findings = append(p.findings, dbrepl.Finding{Subject: subject, Problem: problem, Fix: fix})
}

// advise notes what could be better, where nothing is wrong with a run.
func (p *pair) advise(subject, problem, fix string) {
	p.findings = append(p.findings, dbrepl.Finding{Advice: true, Subject: subject, Problem: problem, Fix: fix})
}

func (e *Engine) inspect(ctx context.Context) (*pair, error) {
	a, err := e.active.session(ctx, "")
	if err != nil {
		return nil, err
	}
	defer a.Close()
	s, err := e.standby.session(ctx, "")
	if err != nil {
		return nil, err
	}
	defer s.Close()
	p := &pair{}
	if p.active, err = e.active.identify(ctx, a); err != nil {
		return nil, err
	}
	if p.standby, err = e.standby.identify(ctx, s); err != nil {
		return nil, err
	}
	e.compareServers(p)
	same, err := sameServer(ctx, a, s)
	if err != nil {
		return nil, e.active.explain(ctx, err)
	}
	if same {
		p.fatal("standby server", "it is the active server itself", "set the address of this host's own server for the standby")
		return p, nil
	}
	readable, err := e.inspectActive(ctx, a, p)
	if err != nil {
		return nil, e.active.explain(ctx, err)
	}
	var k contents
	if readable {
		if k, err = e.inspectContents(ctx, a, p); err != nil {
			return nil, e.active.explain(ctx, err)
		}
	}
	if err := e.inspectViews(ctx, a, s, p, k.objects); err != nil {
		return nil, err
	}
	theirs, err := readSettings(ctx, a)
	if err != nil {
		return nil, e.active.explain(ctx, err)
	}
	ours, err := readSettings(ctx, s)
	if err != nil {
		return nil, e.standby.explain(ctx, err)
	}
	all, err := e.inspectStandby(ctx, s, p, k.objects)
	if err != nil {
		return nil, e.standby.explain(ctx, err)
	}
	e.inspectSettings(p, theirs, ours, k, all)
	e.inspectSpace(p, ours, k)
	return p, nil
}

// compareServers finds what two servers must have in common.
func (e *Engine) compareServers(p *pair) {
	if a, s := p.active.series(), p.standby.series(); a != s {
		p.fatal("standby server", fmt.Sprintf("it is %s, the active is %s; definitions and data are only exchanged between the same series", s, a), "install "+a+" on the standby")
	}
	if a, s := p.active.LowerCase, p.standby.LowerCase; a != s {
		p.fatal("standby server", fmt.Sprintf("lower_case_table_names is %s, on the active it is %s", s, a), "start the standby's server with lower_case_table_names="+a)
	}
	if err := e.mayRename(p.standby); err != nil {
		p.fatal("standby server", err.Error(), hint.Of(err))
	}
	if !p.active.BinaryLog {
		p.note("active server", "it has no binary log, so a snapshot's position is not known", "start the active's server with log_bin")
	}
}

// mayRename refuses servers that cannot exchange two generations safely.
func (e *Engine) mayRename(id identity) error {
	if id.atomicRename() || e.anyRename {
		return nil
	}
	return hint.With(fmt.Errorf("%s can leave a RENAME TABLE half done when it crashes, and not start again", id),
		"use MariaDB 10.6.1 or MySQL 8.0, or newer, on both hosts")
}

// lacking finds which rights an account lacks on a schema, and says whether it lacks any.
func (p *pair) lacking(all privileges, subject, account, name string, rights []string) bool {
	var missing []string
	for _, right := range rights {
		if !all.has(right, name) {
			missing = append(missing, right)
		}
	}
	if missing != nil {
		p.fatal(subject, fmt.Sprintf("it lacks %s on the database %s", strings.Join(missing, ", "), name),
			grantStatement(missing, asPattern(name)+".*", account))
	}
	return missing != nil
}

// activeRights are needed on the whole schema: without one of them the server
// does not refuse, it hides what the account may not see.
var activeRights = []string{"SELECT", "SHOW VIEW", "TRIGGER", "EVENT"}

// inspectActive looks at the account on the active. readable says whether the
// schema can be looked at.
func (e *Engine) inspectActive(ctx context.Context, c *sql.Conn, p *pair) (readable bool, err error) {
	all, err := readPrivileges(ctx, c)
	if err != nil {
		return false, err
	}
	account := "active account " + p.active.User
	lacks := p.lacking(all, account, p.active.User, e.opt.Name, activeRights)
	if sees, fix := seesRoutines(all, p.active, e.opt.Name); !sees {
		p.fatal(account, "it may not see the definitions of stored procedures and functions", fix)
	}
	if id := p.active; id.MariaDB && id.BinaryLog && !mayDo(all, id, binlogRight(id)) {
		p.advise(account, "it may not keep its reading out of the binary log's sight, so whoever alters a table during a capture waits for its end",
			grantStatement([]string{binlogRight(id)}, "*.*", id.User))
	}
	e.inspectSnapshotRights(p, all, account)
	if id := p.active; !id.MariaDB && !all.has("PROCESS", "*") {
		p.note(account, "it may not see which table a name stands for, so tables of one definition and of one second that exchange their names during a capture are not noticed",
			grantStatement([]string{"PROCESS"}, "*.*", id.User))
	}
	if !all.has("SELECT", e.opt.Name) {
		return false, nil
	}
	found, err := records(ctx, c, "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?", e.opt.Name)
	if err != nil {
		return false, err
	}
	if len(found) == 0 {
		p.fatal("active server", "it has no database "+e.opt.Name, "set the name of the application's database")
		return false, nil
	}
	return !lacks, nil
}

// inspectSnapshotRights finds what stands in the way of several sessions that
// see one moment, and of knowing its position.
func (e *Engine) inspectSnapshotRights(p *pair, all privileges, account string) {
	id := p.active
	if !id.MariaDB && id.BinaryLog && !mayDo(all, id, "REPLICATION CLIENT") {
		p.note(account, "it may not see the binary log's position, so a snapshot's position is not known", grantStatement([]string{"REPLICATION CLIENT"}, "*.*", id.User))
	}
	if id.MariaDB && id.BinaryLog || all.has("RELOAD", "*") || all.has("LOCK TABLES", e.opt.Name) {
		return
	}
	problem := "the sessions that read at once see one moment by a lock that lasts milliseconds, which the account may not take"
	fix := grantStatement([]string{"RELOAD"}, "*.*", id.User)
	if id.BinaryLog { // often its GTIDs prove it
		p.note(account, "without GTIDs, or when the active commits all the time, "+problem, fix)
		return
	}
	p.fatal(account, problem, fix)
}

// inspectContents looks at what is to be captured.
func (e *Engine) inspectContents(ctx context.Context, c *sql.Conn, p *pair) (k contents, err error) {
	if err := execAll(ctx, c, "USE "+quote(e.opt.Name)); err != nil {
		return k, err
	}
	subject := "active database " + e.opt.Name
	misfits, err := refused(ctx, c, e.opt.Name)
	if err != nil {
		return k, err
	}
	for _, group := range byReason(misfits) {
		p.fatal(subject, group[0].why+": "+someOf(namesOf(group)), decide(prices[group[0].why], fixOf(group)))
	}
	if misfits, err = outside(ctx, c, e.opt.Name); err != nil {
		return k, err
	}
	if misfits != nil {
		p.fatal(subject, misfits[0].why+": "+someOf(namesOf(misfits)), decide("on the active, if the application can do without these foreign keys", fixOf(misfits)))
	}
	columns, stored, err := readColumns(ctx, c, e.opt.Name)
	if err != nil {
		return k, err
	}
	for t, all := range columns {
		for _, col := range all {
			if _, err := col.transport(); err != nil {
				p.fatal("active table "+t, err.Error(), "")
			}
		}
	}
	lost, open, err := lostMembers(ctx, c, e.opt.Name)
	if err != nil {
		return k, err
	}
	if lost != nil {
		p.fatal(subject, "ENUM or SET columns have members with characters of four bytes, which the server shows to nobody as they are: "+someOf(namesOf(lost)), decide(membersPrice, fixOf(lost)))
	}
	if open != nil {
		p.advise(subject, "ENUM or SET columns have members with a question mark: "+someOf(namesOf(open))+". Where that stands for a character of four bytes, which the server shows to nobody, the standby's columns have a question mark",
			decide(membersPrice, fixOf(open)))
	}
	if lost, err = lostDefaults(ctx, c, e.opt.Name); err != nil {
		return k, err
	}
	if lost != nil {
		p.fatal(subject, "columns have defaults with characters of four bytes, which the server shows to nobody as they are: "+someOf(namesOf(lost)), decide("on the active, the same defaults as expressions, which changes no row", fixOf(lost)))
	}
	for t, all := range stored {
		for _, col := range all {
			if strings.Contains(col.computed, "/") {
				p.note("active table "+t, fmt.Sprintf("the stored column %s is computed by a division, so its value depends on the div_precision_increment of whoever writes the row, and the standby may compute another", col.name),
					"round the division in its expression, or make it VIRTUAL")
			}
			if of := col.zoned(columns[t]); of != "" {
				p.note("active table "+t, fmt.Sprintf("the stored column %s is computed from %s, a TIMESTAMP, so its value depends on the time zone of whoever writes the row, and the standby may compute another", col.name, of),
					"compute it from a DATETIME column, or make it VIRTUAL")
			}
		}
	}
	bad, err := partitionedTables(ctx, c, e.opt.Name)
	if err != nil {
		return k, err
	}
	if bad != nil && p.active.MariaDB {
		p.note(subject, inOnePiece(bad), "after a failover: ALTER TABLE … PARTITION BY …")
		if err := e.inspectExchange(ctx, c, p); err != nil {
			return k, err
		}
	}
	k.objects, err = readObjects(ctx, c, e.opt.Name)
	if errors.Is(err, errChanged) {
		err = nil // the capture will see
	}
	if err != nil {
		return k, err
	}
	if err := hidden(k.objects); err != nil {
		p.fatal("active account "+p.active.User, err.Error(), hint.Of(err))
	}
	return k, k.measure(ctx, c, e.opt.Name)
}

// inspectExchange says what it takes to notice that a partition of MariaDB was exchanged.
func (e *Engine) inspectExchange(ctx context.Context, c *sql.Conn, p *pair) error {
	all, err := readPrivileges(ctx, c)
	if err == nil && !all.has("PROCESS", "*") {
		p.note("active account "+p.active.User, "it may not see which table a partition is, so an EXCHANGE PARTITION during a capture is not noticed",
			grantStatement([]string{"PROCESS"}, "*.*", p.active.User))
	}
	return err
}

func partitionedTables(ctx context.Context, c asker, schemaName string) ([]string, error) {
	all, err := records(ctx, c, `SELECT DISTINCT TABLE_NAME t FROM information_schema.PARTITIONS
		WHERE TABLE_SCHEMA = ? AND PARTITION_NAME IS NOT NULL ORDER BY 1`, schemaName)
	if len(all) == 0 {
		return nil, err
	}
	return valuesOf(all, "t"), err
}
