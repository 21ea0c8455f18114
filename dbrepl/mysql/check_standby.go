package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// standbyRights are needed on each of the three schemas.
var standbyRights = []string{"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "REFERENCES", "INDEX", "ALTER",
	"CREATE VIEW", "SHOW VIEW", "CREATE ROUTINE", "ALTER ROUTINE", "EXECUTE", "EVENT", "TRIGGER", "LOCK TABLES"}

func (e *Engine) inspectStandby(ctx context.Context, c *sql.Conn, p *pair, objects []object) (privileges, error) {
	all, err := readPrivileges(ctx, c)
	if err != nil {
		return nil, err
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
		return nil, err
	}
	if bad != nil && id.MariaDB {
		fixes := make([]misfit, len(bad))
		for i, t := range bad {
			fixes[i].fix = "ALTER TABLE " + quote(e.opt.Name) + "." + quote(t) + " REMOVE PARTITIONING"
		}
		p.fatal("standby database "+e.opt.Name, "MariaDB can lose a partitioned table when it crashes while that is renamed: "+someOf(bad), fixOf(fixes))
	}
	if err := e.inspectConflict(ctx, c, p, all); err != nil {
		return nil, err
	}
	if id.ReadOnly && !may(readOnlyRight(id)) {
		p.fatal(account, "the server is read_only and the account may not write in spite of it", grantStatement([]string{readOnlyRight(id)}, "*.*", id.User))
	}
	lacks := slices.DeleteFunc(definerRights(id), may)
	if len(lacks) > 0 {
		var others []string
		for _, o := range objects {
			if o.Definer != id.User {
				others = append(others, fmt.Sprintf("%s of %s", o, o.Definer))
			}
		}
		if others != nil {
			p.fatal(account, "it may not create what belongs to other accounts: "+someOf(others), grantStatement(lacks, "*.*", id.User))
		}
	}
	hides := func(o object) bool { return o.isRoutine() && o.Definer != id.User }
	if sees, fix := seesRoutines(all, id, e.opt.Name); !sees && slices.ContainsFunc(objects, hides) {
		p.advise(account, "it may not see the definitions of stored procedures and functions of other accounts, so verify --db cannot compare them", fix)
	}
	if err := e.inspectDefiners(ctx, c, p, objects, all); err != nil {
		return nil, err
	}
	if id.BinaryLog && !may(binlogRight(id)) {
		p.advise(account, "it may not leave its own work out of the standby's binary log, which grows by every capture", grantStatement([]string{binlogRight(id)}, "*.*", id.User))
	}
	return all, nil
}

// inspectConflict finds a database of the same name that somebody else made.
func (e *Engine) inspectConflict(ctx context.Context, c *sql.Conn, p *pair, all privileges) error {
	if !all.has("SELECT", e.opt.Name) {
		return nil // which is missing anyway
	}
	g, err := readMarker(ctx, c, e.opt.Name, e.opt.Name)
	if isServerError(err) {
		return err
	}
	if err != nil {
		p.fatal("standby database "+e.opt.Name, err.Error(), decide("on the standby, if nobody needs what is in it", "DROP DATABASE "+quote(e.opt.Name)))
		return nil
	}
	there, err := relations(ctx, c, e.opt.Name)
	if err != nil {
		return err
	}
	if g == nil && len(there) > 0 {
		p.note("standby database "+e.opt.Name, fmt.Sprintf("it was not made by drsync: the first run moves its tables (%s) to %s, and the second drops them", someOf(there), e.prevName()),
			decide("on the standby, after what is wanted of it was moved elsewhere", "DROP DATABASE "+quote(e.opt.Name)))
	}
	return nil
}

// inspectDefiners finds objects whose owner does not exist on the standby: they
// can be created, but not used.
func (e *Engine) inspectDefiners(ctx context.Context, c *sql.Conn, p *pair, objects []object, all privileges) error {
	owned := make(map[string][]string)
	for _, o := range objects {
		if o.Definer != p.standby.User {
			owner := strings.TrimSuffix(o.Definer, "@") // of a role, which is shown in both ways
			owned[owner] = append(owned[owner], o.String())
		}
	}
	if len(owned) == 0 {
		return nil
	}
	if !all.hasTable("SELECT", "mysql", "user") {
		p.advise("standby account "+p.standby.User, "it may not see whether these accounts exist, to which objects of the database belong: "+someOf(slices.Sorted(maps.Keys(owned))),
			grantStatement([]string{"SELECT"}, "mysql.user", p.standby.User))
		return nil
	}
	for _, owner := range slices.Sorted(maps.Keys(owned)) {
		user, host := owner, "" // a role
		if at := strings.LastIndexByte(owner, '@'); at >= 0 {
			user, host = owner[:at], owner[at+1:]
		}
		r, err := records(ctx, c, "SELECT 1 FROM mysql.user WHERE User = ? AND Host = ?", user, host)
		if err != nil {
			return err
		}
		if len(r) > 0 {
			continue
		}
		// Nobody can log in as the owner: it is only there for its rights.
		account, create := asAccount(owner), "CREATE USER "+asAccount(owner)+" ACCOUNT LOCK"
		if host == "" {
			account, create = quote(user), "CREATE ROLE "+quote(user)
		}
		p.note("standby server", fmt.Sprintf("it has no account %s, to which %s belongs", owner, someOf(owned[owner])),
			create+"; GRANT ALL PRIVILEGES ON "+asPattern(e.opt.Name)+".* TO "+account+" -- or with the rights that it has on the active")
	}
	return nil
}
