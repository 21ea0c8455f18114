package mysql

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drsync/drsync/dbrepl"
)

// Check asks both servers what would stop or spoil a run.
func (r *Replica) Check(ctx context.Context) ([]dbrepl.Finding, error) {
	defer r.e.settle()
	p, err := r.inspect(ctx)
	if err == nil {
		err = r.inspectAccount(ctx, p)
	}
	if err == nil {
		err = r.e.inspectAlone(ctx, p)
	}
	if err != nil {
		return nil, fmt.Errorf("check database %s: %w", r.e.opt.Name, err)
	}
	r.e.checked.keep(p)
	return p.findings, nil
}

// inspected is what Check has just found out, or else inspect does.
func (r *Replica) inspected(ctx context.Context) (*pair, error) {
	if p := r.e.checked.take(); p != nil {
		return p, nil
	}
	return r.inspect(ctx)
}

// inspect adds to what a copy needs what replication needs.
func (r *Replica) inspect(ctx context.Context) (p *pair, err error) {
	defer func() {
		if p != nil {
			p.unlog()
		}
	}()
	p, err = r.e.inspect(ctx)
	if err != nil || dbrepl.Refuse(p.findings) != nil {
		return p, err
	}
	if p.standby.MariaDB && !p.standby.atLeast(10, 5, 2) {
		p.fatal("standby server", p.standby.String()+" has no privileges of its own for replication", "use MariaDB 10.6.1 or newer")
		return p, nil
	}
	l, err := r.link(ctx)
	if err != nil {
		return nil, err
	}
	defer l.close()
	for _, step := range []func(context.Context, *link, *pair) error{
		r.inspectSource, r.inspectTarget, r.inspectRights,
	} {
		if err := step(ctx, l, p); err != nil {
			return nil, err
		}
		if dbrepl.Refuse(p.findings) != nil {
			return p, nil // the next step may need what is missing
		}
	}
	for _, step := range []func(context.Context, *link, *pair) error{
		r.inspectChannels, r.inspectErrant, r.inspectWriters, r.inspectRetention,
	} {
		if err := step(ctx, l, p); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// variables asks for global variables by name; one that the server does not
// know is left out.
func variables(ctx context.Context, c asker, names ...string) (record, error) {
	all, err := records(ctx, c, "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('"+strings.Join(names, "','")+"')")
	values := make(record)
	for _, r := range all {
		values[strings.ToLower(r.get("variable_name"))] = r["value"]
	}
	return values, err
}

// inspectSource looks at the active's server.
func (r *Replica) inspectSource(ctx context.Context, l *link, p *pair) error {
	c, err := r.e.active.session(ctx, "")
	if err != nil {
		return err
	}
	defer c.Close()
	v, err := variables(ctx, c, "log_bin", "binlog_format", "server_id", "gtid_strict_mode", "gtid_mode")
	if err != nil {
		return r.e.active.explain(ctx, err)
	}
	const active = "active server"
	if v.get("log_bin") != "ON" {
		p.fatal(active, "it has no binary log, so nothing can be replicated", "start the active's server with log_bin")
		return nil
	}
	if f := v.get("binlog_format"); f != "ROW" {
		p.fatal(active, "binlog_format is "+f+"; statements can do something else on the standby", "SET GLOBAL binlog_format=ROW; also in the server's configuration; sessions that are open keep theirs")
	}
	if l.say.mariaDB && v.get("gtid_strict_mode") != "ON" {
		p.note(active, "gtid_strict_mode is off, so GTIDs out of order are not refused", "SET GLOBAL gtid_strict_mode=1, also in the server's configuration")
	}
	if !l.say.mariaDB && v.get("gtid_mode") != "ON" {
		p.fatal(active, "gtid_mode is "+v.get("gtid_mode"), "switch gtid_mode and enforce_gtid_consistency on, on both servers")
	}
	if l.say.mariaDB {
		partitions, err := partitionedTables(ctx, c, r.e.opt.Name)
		if err != nil {
			return r.e.active.explain(ctx, err)
		}
		if partitions != nil {
			p.note("active database "+r.e.opt.Name, "a statement about partitions there cannot be applied on the standby, which has none, so the run after it copies the whole database: "+someOf(partitions), "")
		}
	}
	if err := r.compareShapes(ctx, c, l, p); err != nil {
		return err
	}
	here, err := l.ask(ctx, "@@GLOBAL.server_id")
	if err != nil {
		return err
	}
	if here == v.get("server_id") {
		p.fatal("standby server", "it has the active's server_id "+here, "give it another server_id in its configuration and start it anew")
	}
	return nil
}

// shapes are settings by which a statement means another table on another server:
// which it is written to the log without.
var shapes = []string{"default_storage_engine", "enforce_storage_engine", "old_mode", "explicit_defaults_for_timestamp"}

// compareShapes refuses a standby on which a statement that is applied would make
// another table than on the active.
func (r *Replica) compareShapes(ctx context.Context, active asker, l *link, p *pair) error {
	theirs, err := variables(ctx, active, shapes...)
	if err != nil {
		return r.e.active.explain(ctx, err)
	}
	ours, err := variables(ctx, l.conn, shapes...)
	if err != nil {
		return r.e.standby.explain(ctx, err)
	}
	for _, name := range shapes {
		want, got := theirs.get(name), ours.get(name)
		if strings.EqualFold(want, got) {
			continue
		}
		value := text(want)
		if want == "" && name == "enforce_storage_engine" {
			value = "NULL"
		}
		p.fatal("standby server", fmt.Sprintf("%s is %q, on the active %q, so a statement that is applied here makes another table", name, got, want),
			"SET GLOBAL "+name+"="+value+" -- and in the configuration of the standby's server")
	}
	return nil
}

// inspectTarget looks at the settings of the standby's server that would let
// it apply something else, or forget what it received.
func (r *Replica) inspectTarget(ctx context.Context, l *link, p *pair) error {
	v, err := variables(ctx, l.conn, "log_bin", "gtid_strict_mode", "gtid_mode", "relay_log_recovery", "slave_skip_errors", "replica_skip_errors",
		"master_info_repository", "relay_log_info_repository", "slave_run_triggers_for_rbr", "slave_exec_mode", "replica_exec_mode", "skip_replica_start", "skip_slave_start", "log_slave_updates", "log_replica_updates",
		"innodb_flush_log_at_trx_commit", "innodb_doublewrite", "sync_binlog")
	if err != nil {
		return r.e.standby.explain(ctx, err)
	}
	const standby = "standby server"
	must := func(name, want, why string) {
		if got, ok := v[name]; ok && got.String != want {
			p.fatal(standby, fmt.Sprintf("%s is %s, %s", name, got.String, why), "set "+name+"="+want+" in its configuration and start it anew")
		}
	}
	for _, prefix := range []string{"slave", "replica"} {
		must(prefix+"_skip_errors", "OFF", "so changes that fail would be left out quietly")
		must(prefix+"_exec_mode", "STRICT", "so rows that are missing would go unnoticed")
	}
	must("slave_run_triggers_for_rbr", "NO", "so what triggers did on the active would be done twice")
	for _, f := range undurable(l.say.mariaDB, v) {
		f.Subject = standby
		p.findings = append(p.findings, f)
	}
	must("relay_log_recovery", "OFF", "so a server that starts throws away what it received, and a publish that a crash interrupted could only be finished with the active")
	if !l.say.mariaDB {
		must("gtid_mode", "ON", "so there are no positions to go by")
		for _, repository := range []string{"master_info_repository", "relay_log_info_repository"} {
			must(repository, "TABLE", "so a channel cannot have a name, and a crash can leave a wrong position")
		}
		must("skip_replica_start", "ON", "so a server that starts would apply more than the snapshot")
		must("skip_slave_start", "ON", "so a server that starts would apply more than the snapshot")
		if _, told := v["skip_slave_start"]; !told && !p.standby.atLeast(8, 0, 24) {
			p.note(standby, "it does not tell whether it was started with skip_slave_start; without, a server that starts applies more than the snapshot", "start it with skip_slave_start")
		}
		if !l.say.shared {
			p.note(standby, "drsync's tests run with MySQL 5.7, whose statements for replication have other names: try a failover with this version", "")
		}
		if r.source.tls && r.source.ca == "" {
			p.fatal(standby, "MySQL verifies the active's certificate with a file of certificates only", "set ca of database.replication to a file that the standby's server can read")
		}
	}
	if v.get("log_bin") != "ON" {
		p.note(standby, "it has no binary log, so what somebody writes here by mistake cannot be told from what was replicated", "start it with log_bin and log_slave_updates, which a failback needs as well")
	} else if v.get("log_slave_updates") == "OFF" || v.get("log_replica_updates") == "OFF" {
		p.note(standby, "log_slave_updates is off, so after a promotion other servers cannot follow from before it", "start it with log_slave_updates")
	}
	if !l.say.mariaDB {
		return nil
	}
	if v.get("gtid_strict_mode") != "ON" {
		p.note(standby, "gtid_strict_mode is off, so GTIDs out of order are not refused", "SET GLOBAL gtid_strict_mode=1, also in the server's configuration")
	}
	engine, err := records(ctx, l.conn, "SELECT ENGINE e FROM information_schema.TABLES WHERE TABLE_SCHEMA='mysql' AND TABLE_NAME LIKE 'gtid\\_slave\\_pos%' AND ENGINE <> 'InnoDB'")
	if err != nil {
		return r.e.standby.explain(ctx, err)
	}
	if len(engine) > 0 {
		p.fatal(standby, "mysql.gtid_slave_pos is not an InnoDB table, so after a crash the position can be a wrong one", "ALTER TABLE mysql.gtid_slave_pos ENGINE=InnoDB")
	}
	return nil
}

// undurable finds settings of a standby's server with which a crash takes back what
// it has applied. An apply goes on from the position that the server tells, and that is
// only right if the rows and it come back together.
func undurable(mariaDB bool, v record) (all []dbrepl.Finding) {
	must := func(name string, fatal bool, want, problem string) {
		all = append(all, dbrepl.Finding{Fatal: fatal, Advice: !fatal, Problem: name + " is " + v.get(name) + ", " + problem,
			Fix: "SET GLOBAL " + name + "=" + want + " -- and in the configuration of the standby's server"})
	}
	// 3, which only MariaDB has, is as safe as 1.
	if f := v.get("innodb_flush_log_at_trx_commit"); f == "0" || f == "2" {
		must("innodb_flush_log_at_trx_commit", true, "1", "so a crash can take back rows of which the position says that they are applied, and an interrupted publish could not be finished")
	}
	logs := v.get("log_slave_updates") == "ON" || v.get("log_replica_updates") == "ON"
	if !mariaDB && v.get("log_bin") == "ON" && logs && v.get("sync_binlog") != "1" {
		// Where it writes what it applies to its binary log, that is where it has its GTIDs from.
		must("sync_binlog", true, "1", "so a loss of power can let it forget GTIDs whose rows it keeps, and an interrupted publish could not be finished")
	}
	if d := v.get("innodb_doublewrite"); d == "OFF" || d == "DETECT_ONLY" {
		all = append(all, dbrepl.Finding{Advice: true, Problem: "innodb_doublewrite is " + d + ", so pages that a loss of power leaves half written are lost with their tables, unless the file system writes pages whole",
			Fix: "start it with innodb_doublewrite=ON"})
	}
	return all
}

// unlog keeps what mends the standby out of its binary log, where a replica would have
// a transaction of its own.
func (p *pair) unlog() {
	for i, f := range p.findings {
		comment, statement := "", f.Fix
		if strings.HasPrefix(f.Fix, "-- ") {
			if price, s, ok := strings.Cut(f.Fix, ": "); ok {
				comment, statement = price+": ", s
			}
		}
		verb, _, _ := strings.Cut(statement, " ")
		if strings.HasPrefix(f.Subject, "standby") && slices.Contains([]string{"GRANT", "CREATE", "ALTER", "DROP"}, verb) {
			p.findings[i].Fix = comment + "SET sql_log_bin=0; " + statement
		}
	}
}

// replicaRights are what the standby's account needs beside those for a copy.
func replicaRights(id identity) []string {
	if id.MariaDB {
		return []string{"REPLICATION SLAVE ADMIN", "SLAVE MONITOR", "RELOAD", "READ_ONLY ADMIN", "BINLOG ADMIN"}
	}
	return []string{"REPLICATION_SLAVE_ADMIN", "REPLICATION CLIENT", "RELOAD", "CONNECTION_ADMIN", "SYSTEM_VARIABLES_ADMIN"}
}

func (r *Replica) inspectRights(ctx context.Context, l *link, p *pair) error {
	all, err := readPrivileges(ctx, l.conn)
	if err != nil {
		return r.e.standby.explain(ctx, err)
	}
	var missing []string
	for _, right := range replicaRights(p.standby) {
		if !mayDo(all, p.standby, right) {
			missing = append(missing, right)
		}
	}
	if missing != nil {
		p.fatal("standby account "+p.standby.User, "it may not direct replication: it lacks "+strings.Join(missing, ", "), grantStatement(missing, "*.*", p.standby.User))
		return nil
	}
	if off, err := l.ask(ctx, "@@SESSION.sql_log_bin"); err != nil || off == "0" {
		return err
	}
	p.fatal("standby server", "drsync's sessions write to the binary log, against which replication would stumble", grantStatement([]string{binlogRight(p.standby)}, "*.*", p.standby.User))
	return nil
}

// inspectChannels looks for other replication on the standby's server, which
// would share the position.
func (r *Replica) inspectChannels(ctx context.Context, l *link, p *pair) error {
	all, err := l.channels(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.name == channel {
			continue
		}
		name := "'" + s.name + "'"
		p.fatal("standby server", fmt.Sprintf("it already replicates from %s:%s, connection %s", s.host, s.port, name),
			decide("give drsync a server of its own; or, on the standby, if nobody needs that replication", fmt.Sprintf("STOP SLAVE %s; RESET SLAVE %s ALL", name, name)))
	}
	return nil
}

// inspectErrant looks for transactions that the standby's server wrote by itself.
func (r *Replica) inspectErrant(ctx context.Context, l *link, p *pair) error {
	s, err := l.standing(ctx)
	if err != nil {
		return err
	}
	if s.marker == nil || s.applied == "" {
		return nil // there is no replica that they could have spoiled
	}
	self, err := l.ask(ctx, l.say.self())
	if err != nil {
		return err
	}
	written, err := l.ask(ctx, l.say.written())
	if err != nil {
		return err
	}
	if own := errant(l.say.mariaDB, written, self, s.gtid); own != nil {
		p.fatal("standby server", "it has transactions of its own, which the active knows nothing of: "+someOf(own),
			"look at them with mariadb-binlog in the standby's binary log; whoever wrote them should not be able to. To give them up and copy the whole database anew: "+
				l.say.giveUp()+" on the standby's server, and then drsync now")
	} else if s.lost != "" {
		p.note("standby server", "the next run copies the whole database: "+s.lost, "")
	}
	return nil
}

// errant returns the transactions that a server wrote by itself. On MySQL those
// that the snapshot has too, from when it was the active, are none.
func errant(mariaDB bool, written, self, snapshot string) []string {
	var own []string
	for item := range strings.SplitSeq(strings.ReplaceAll(written, "\n", ""), ",") {
		item = strings.TrimSpace(item)
		if mariaDB {
			if parts := strings.Split(item, "-"); len(parts) == 3 && parts[1] == self {
				own = append(own, item)
			}
			continue
		}
		if !strings.HasPrefix(strings.ToLower(item), strings.ToLower(self)) {
			continue
		}
		mine, err := parsePosition(false, item)
		known, kerr := parsePosition(false, snapshot)
		if err != nil || kerr != nil || !known.covers(mine) {
			own = append(own, item)
		}
	}
	return own
}

// inspectWriters looks for who could write on the standby in spite of read_only.
func (r *Replica) inspectWriters(ctx context.Context, l *link, p *pair) error {
	if p.standby.Scheduler == "ON" {
		enabled, err := records(ctx, l.conn, "SELECT CONCAT(EVENT_SCHEMA, '.', EVENT_NAME) n FROM information_schema.EVENTS WHERE STATUS='ENABLED'")
		if err != nil {
			return r.e.standby.explain(ctx, err)
		}
		if len(enabled) > 0 {
			p.note("standby server", "event_scheduler is on, and events are enabled here: "+someOf(valuesOf(enabled, "n")), "ALTER EVENT … DISABLE, or SET GLOBAL event_scheduler=0 until promotion")
		}
	}
	right, also := readOnlyRight(p.standby), ""
	if !l.say.mariaDB {
		also = ", 'SUPER'"
	}
	who := "SELECT DISTINCT GRANTEE n FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE IN (?" + also + ") AND GRANTEE NOT LIKE ? ORDER BY 1"
	at := max(0, strings.LastIndexByte(p.standby.User, '@'))
	all, err := records(ctx, l.conn, who, right, "'"+p.standby.User[:at]+"'@%")
	if err != nil {
		return r.e.standby.explain(ctx, err)
	}
	var others []string
	for _, n := range valuesOf(all, "n") {
		if !strings.HasPrefix(n, "'root'@") && !strings.HasPrefix(n, "'mariadb.sys'@") && !strings.HasPrefix(n, "'mysql") {
			others = append(others, n)
		}
	}
	if others != nil {
		p.note("standby server", "accounts that may write although read_only is on: "+someOf(others), "REVOKE "+right+" ON *.* FROM …")
	}
	return nil
}

// inspectRetention compares how long the active keeps its binary logs with the
// pause between two runs and with the age of the last snapshot.
func (r *Replica) inspectRetention(ctx context.Context, l *link, p *pair) error {
	c, err := r.e.active.session(ctx, "")
	if err != nil {
		return err
	}
	defer c.Close()
	v, err := variables(ctx, c, "binlog_expire_logs_seconds", "expire_logs_days")
	if err != nil {
		return r.e.active.explain(ctx, err)
	}
	now, err := serverTime(ctx, c)
	if err != nil {
		return r.e.active.explain(ctx, err)
	}
	marker, err := readMarker(ctx, l.conn, r.e.opt.Name, r.e.opt.Name)
	if err != nil {
		return r.e.standby.explain(ctx, err)
	}
	var age time.Duration
	if marker != nil {
		age = now.Sub(marker.Point.Time)
	}
	if problem := retention(v, age, r.pause); problem != "" {
		p.note("active server", problem, enoughRetention(v, r.pause))
	}
	return nil
}

// enoughRetention is the statement that lets the active keep its binary logs for
// twice the longest pause between runs.
func enoughRetention(v record, pause time.Duration) string {
	where := ", also in the server's configuration"
	if pause == 0 {
		return "SET GLOBAL binlog_expire_logs_seconds=…, several times the longest pause between runs" + where
	}
	if _, newer := v["binlog_expire_logs_seconds"]; !newer {
		const day = 24 * time.Hour
		return fmt.Sprintf("SET GLOBAL expire_logs_days=%d%s", (2*pause+day-1)/day, where)
	}
	return fmt.Sprintf("SET GLOBAL binlog_expire_logs_seconds=%d%s", int64((2 * pause).Seconds()), where)
}

// retention says what is wrong with how long binary logs are kept; age is that
// of the last snapshot, pause the longest time between two runs.
func retention(v record, age, pause time.Duration) string {
	seconds, _ := strconv.ParseFloat(v.get("binlog_expire_logs_seconds"), 64)
	if days, _ := strconv.ParseFloat(v.get("expire_logs_days"), 64); seconds == 0 {
		seconds = days * 24 * 60 * 60
	}
	keep := time.Duration(seconds) * time.Second
	switch {
	case keep == 0: // for ever
	case age > keep:
		return fmt.Sprintf("it keeps its binary log for %v, and the last snapshot is %v old: the next run may have to copy the whole database", keep, age.Round(time.Second))
	case pause >= keep:
		return fmt.Sprintf("it keeps its binary log for %v, and up to %v pass between two runs: such a run has to copy the whole database", keep, pause)
	case pause > keep/2:
		return fmt.Sprintf("it keeps its binary log for %v, and up to %v pass between two runs: one that fails may let the next copy the whole database", keep, pause)
	case age > keep/2:
		return fmt.Sprintf("it keeps its binary log for %v, and the last snapshot is already %v old", keep, age.Round(time.Second))
	}
	return ""
}

// inspectAccount logs in to the active as the standby's server will. It comes
// from this host, which the active may see as another one.
func (r *Replica) inspectAccount(ctx context.Context, p *pair) error {
	spec := r.e.opt.Active
	spec.User, spec.Password = r.source.user, r.source.password
	if spec.Dial == nil && !strings.HasPrefix(spec.Address, "/") {
		spec.Address = r.source.address()
	}
	s := newServer("active", spec, r.e.opt.Timeouts)
	defer s.close()
	account := "active account " + r.source.user
	c, err := s.session(ctx, "")
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		what := "replication cannot log in to the active"
		if spec.Dial != nil {
			what = "replication could not be tried through the tunnel"
		}
		fix := "the account that database.replication names has to exist there, with this password, for the standby's address: SELECT User, Host FROM mysql.user WHERE User = '" + r.source.user + "'"
		p.findings = append(p.findings, dbrepl.Finding{Fatal: spec.Dial == nil, Subject: account, Problem: what + ": " + err.Error(), Fix: fix})
		return nil
	}
	defer c.Close()
	all, err := readPrivileges(ctx, c)
	if err != nil {
		return s.explain(ctx, err)
	}
	if !mayDo(all, p.active, "REPLICATION SLAVE") {
		id, err := s.identify(ctx, c)
		if err != nil {
			return s.explain(ctx, err)
		}
		p.fatal(account, "it lacks REPLICATION SLAVE", grantStatement([]string{"REPLICATION SLAVE"}, "*.*", id.User))
	}
	return nil
}
