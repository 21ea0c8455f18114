package mysql

import (
	"context"
	"strings"
)

func grantStatement(rights []string, on, user string) string {
	return "GRANT " + strings.Join(rights, ", ") + " ON " + on + " TO " + asAccount(user)
}

func readPrivileges(ctx context.Context, c asker) (privileges, error) {
	all, err := records(ctx, c, "SHOW GRANTS")
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, r := range all {
		for _, v := range r { // the only column
			lines = append(lines, v.String)
		}
	}
	return parseGrants(lines), nil
}

// mayDo says whether the account has a right to administer the server, which
// SUPER used to include, except for those that were there beside it at all times.
func mayDo(all privileges, id identity, right string) bool {
	super := all.has("SUPER", "*") && !(id.MariaDB && id.atLeast(10, 11, 0)) && right != "RELOAD" && right != "REPLICATION SLAVE"
	return super || all.has(right, "*")
}

func seesRoutines(all privileges, id identity, name string) (sees bool, fix string) {
	if !id.MariaDB {
		right := "SHOW_ROUTINE"
		if !id.atLeast(8, 0, 20) {
			right = "SELECT"
		}
		return all.has(right, "*") || all.has("SELECT", "*"), grantStatement([]string{right}, "*.*", id.User)
	}
	if all.hasTable("SELECT", "mysql", "proc") {
		return true, ""
	}
	if id.atLeast(11, 3, 0) {
		return all.has("SHOW CREATE ROUTINE", name), grantStatement([]string{"SHOW CREATE ROUTINE"}, asPattern(name)+".*", id.User)
	}
	return false, grantStatement([]string{"SELECT"}, "mysql.proc", id.User)
}

// The right to write while read_only is on.
func readOnlyRight(id identity) string {
	if id.MariaDB {
		return "READ_ONLY ADMIN"
	}
	return "CONNECTION_ADMIN"
}

// The rights to create objects of other accounts, also of such as do not exist.
func definerRights(id identity) []string {
	switch {
	case id.MariaDB:
		return []string{"SET USER"}
	case id.atLeast(8, 2, 0):
		return []string{"SET_ANY_DEFINER", "ALLOW_NONEXISTENT_DEFINER"}
	}
	return []string{"SET_USER_ID"}
}

// The right to switch sql_log_bin.
func binlogRight(id identity) string {
	if id.MariaDB {
		return "BINLOG ADMIN"
	}
	return "SYSTEM_VARIABLES_ADMIN"
}
