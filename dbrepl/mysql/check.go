package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// Check asks both servers what would stop or spoil a run.
func (e *Engine) Check(ctx context.Context) ([]dbrepl.Finding, error) {
	defer e.settle()
	p, err := e.inspect(ctx)
	if err != nil {
		return nil, fmt.Errorf("check database %s: %w", e.opt.Name, err)
	}
	return p.findings, nil
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

// refuse turns the fatal findings into one error.
func refuse(findings []dbrepl.Finding) error {
	var problems, fixes []string
	for _, f := range findings {
		if !f.Fatal {
			continue
		}
		problems = append(problems, f.Subject+": "+f.Problem)
		if f.Fix != "" {
			fixes = append(fixes, f.Fix)
		}
	}
	if problems == nil {
		return nil
	}
	return hint.With(errors.New(strings.Join(problems, "; ")), strings.Join(fixes, "\n"))
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
	var objects []object
	var size int64
	if readable {
		if objects, size, err = e.inspectContents(ctx, a, p); err != nil {
			return nil, e.active.explain(ctx, err)
		}
	}
	if err := e.inspectStandby(ctx, s, p, objects); err != nil {
		return nil, e.standby.explain(ctx, err)
	}
	e.inspectSpace(p, size)
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
	if !p.standby.atomicRename() {
		p.fatal("standby server", p.standby.String()+" can lose the thread in the middle of a RENAME TABLE when it crashes", "use MariaDB 10.6.1 or MySQL 8.0, or newer")
	}
	if !p.active.BinaryLog {
		p.note("active server", "it has no binary log, so a snapshot's position is not known", "start the active's server with log_bin")
	}
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
	var missing []string
	for _, right := range activeRights {
		if !all.has(right, e.opt.Name) {
			missing = append(missing, right)
		}
	}
	if missing != nil {
		p.fatal(account, fmt.Sprintf("it lacks %s on the database %s", strings.Join(missing, ", "), e.opt.Name),
			grantStatement(missing, asPattern(e.opt.Name)+".*", p.active.User))
	}
	if sees, fix := seesRoutines(all, p.active, e.opt.Name); !sees {
		p.fatal(account, "it may not see the definitions of stored procedures and functions", fix)
	}
	if id := p.active; id.MariaDB && id.BinaryLog && !mayDo(all, id, binlogRight(id)) {
		p.note(account, "it may not keep its reading out of the binary log's sight, so whoever alters a table during a capture waits for its end",
			grantStatement([]string{binlogRight(id)}, "*.*", id.User))
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
	return missing == nil, nil
}

// inspectContents looks at what is to be captured.
func (e *Engine) inspectContents(ctx context.Context, c *sql.Conn, p *pair) ([]object, int64, error) {
	if err := execAll(ctx, c, "USE "+quote(e.opt.Name)); err != nil {
		return nil, 0, err
	}
	bad, err := refused(ctx, c, e.opt.Name)
	if err != nil {
		return nil, 0, err
	}
	if bad != nil {
		p.fatal("active database "+e.opt.Name, "only InnoDB tables have consistent snapshots: "+someOf(bad), "ALTER TABLE … ENGINE=InnoDB")
	}
	if bad, err = outside(ctx, c, e.opt.Name); err != nil {
		return nil, 0, err
	}
	if bad != nil {
		p.fatal("active database "+e.opt.Name, "foreign keys point into other databases: "+someOf(bad), "drop these foreign keys")
	}
	columns, err := readColumns(ctx, c, e.opt.Name)
	if err != nil {
		return nil, 0, err
	}
	for t, all := range columns {
		for _, col := range all {
			if _, err := col.transport(); err != nil {
				p.fatal("active table "+t, err.Error(), "")
			}
		}
	}
	if bad, err = partitionedTables(ctx, c, e.opt.Name); err != nil {
		return nil, 0, err
	}
	if bad != nil && p.active.MariaDB {
		p.note("active database "+e.opt.Name, inOnePiece(bad), "after a failover: ALTER TABLE … PARTITION BY …")
	}
	objects, err := readObjects(ctx, c, e.opt.Name)
	if errors.Is(err, errChanged) {
		err = nil // the capture will see
	}
	if err != nil {
		return nil, 0, err
	}
	if err := hidden(objects); err != nil {
		p.fatal("active account "+p.active.User, err.Error(), hint.Of(err))
	}
	r, err := one(ctx, c, "SELECT CAST(COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) AS CHAR) n FROM information_schema.TABLES WHERE TABLE_SCHEMA = ?", e.opt.Name)
	if err != nil {
		return nil, 0, err
	}
	size, err := strconv.ParseInt(r.get("n"), 10, 64)
	return objects, size, err
}

func partitionedTables(ctx context.Context, c asker, schemaName string) ([]string, error) {
	all, err := records(ctx, c, `SELECT DISTINCT TABLE_NAME t FROM information_schema.PARTITIONS
		WHERE TABLE_SCHEMA = ? AND PARTITION_NAME IS NOT NULL ORDER BY 1`, schemaName)
	if len(all) == 0 {
		return nil, err
	}
	return valuesOf(all, "t"), err
}

// standbyRights are needed on each of the three schemas.
var standbyRights = []string{"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "REFERENCES", "INDEX", "ALTER",
	"CREATE VIEW", "SHOW VIEW", "CREATE ROUTINE", "ALTER ROUTINE", "EXECUTE", "EVENT", "TRIGGER"}

func (e *Engine) inspectStandby(ctx context.Context, c *sql.Conn, p *pair, objects []object) error {
	all, err := readPrivileges(ctx, c)
	if err != nil {
		return err
	}
	id := p.standby
	account := "standby account " + id.User
	for _, name := range []string{e.opt.Name, e.stagingName(), e.prevName()} {
		var missing []string
		for _, right := range standbyRights {
			if !all.has(right, name) {
				missing = append(missing, right)
			}
		}
		if missing != nil {
			p.fatal(account, fmt.Sprintf("it lacks %s on the database %s", strings.Join(missing, ", "), name),
				grantStatement([]string{"ALL PRIVILEGES"}, asPattern(name)+".*", id.User))
		}
	}
	may := func(right string) bool { return mayDo(all, id, right) }
	bad, err := partitionedTables(ctx, c, e.opt.Name)
	if err != nil {
		return err
	}
	if bad != nil && id.MariaDB {
		p.fatal("standby database "+e.opt.Name, "MariaDB can lose a partitioned table when it crashes while that is renamed: "+someOf(bad), "ALTER TABLE … REMOVE PARTITIONING")
	}
	if id.ReadOnly && !may(readOnlyRight(id)) {
		p.fatal(account, "the server is read_only and the account may not write in spite of it", grantStatement([]string{readOnlyRight(id)}, "*.*", id.User))
	}
	if r := definerRight(id); !may(r) {
		var others []string
		for _, o := range objects {
			if o.Definer != id.User {
				others = append(others, fmt.Sprintf("%s of %s", o, o.Definer))
			}
		}
		if others != nil {
			p.fatal(account, "it may not create what belongs to other accounts: "+someOf(others), grantStatement([]string{r}, "*.*", id.User))
		}
	}
	if all.hasTable("SELECT", "mysql", "user") {
		if err := missingDefiners(ctx, c, p, objects); err != nil {
			return err
		}
	}
	if !id.LocalInfile && !all.has("SUPER", "*") && !all.has("SYSTEM_VARIABLES_ADMIN", "*") {
		p.note("standby server", "local_infile is off, so rows are inserted, which is slower", "SET GLOBAL local_infile=1, also in the server's configuration")
	}
	if id.BinaryLog && !may(binlogRight(id)) {
		p.note(account, "it may not leave its own work out of the standby's binary log, which grows by every capture", grantStatement([]string{binlogRight(id)}, "*.*", id.User))
	}
	if !id.MariaDB {
		r, err := one(ctx, c, "SELECT @@GLOBAL.super_read_only r")
		if err != nil {
			return err
		}
		if r.get("r") == "1" {
			p.fatal("standby server", "super_read_only is on, which stops drsync too", "SET GLOBAL super_read_only=0; read_only=1 keeps applications out")
		}
	}
	return nil
}

// missingDefiners finds objects whose owner does not exist on the standby: they
// can be created, but not used.
func missingDefiners(ctx context.Context, c *sql.Conn, p *pair, objects []object) error {
	missing := make(map[string][]string)
	for _, o := range objects {
		missing[o.Definer] = append(missing[o.Definer], o.String())
	}
	for _, owner := range slices.Sorted(maps.Keys(missing)) {
		at := max(strings.LastIndexByte(owner, '@'), 0)
		r, err := records(ctx, c, "SELECT 1 FROM mysql.user WHERE User = ? AND Host = ?", owner[:at], strings.TrimPrefix(owner[at:], "@"))
		if err != nil {
			return err
		}
		if len(r) == 0 {
			p.note("standby server", fmt.Sprintf("it has no account %s, to which %s belongs", owner, someOf(missing[owner])), "create the account there with the same rights as on the active")
		}
	}
	return nil
}
