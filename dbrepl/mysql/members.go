package mysql

import (
	"context"
	"database/sql"
)

// membersPrice is what it costs to do without such members.
const membersPrice = "on the active, where the tables are rebuilt and these columns are text from then on, NULL if nothing else is said"

// lostMembers looks for members of ENUM and SET columns that have characters outside
// the Basic Multilingual Plane. Servers show definitions in their own character set,
// of three bytes, with a question mark for each of those, and nothing else shows
// members: so a table that is made from its definition would have another member,
// which its rows, that name it by its number, would then be. lost are columns of which
// a row proves it; open are those where a member has a question mark that may be one.
func lostMembers(ctx context.Context, c *sql.Conn, schemaName string) (lost, open []misfit, err error) {
	all, err := records(ctx, c, `SELECT TABLE_NAME t, COLUMN_NAME c FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND DATA_TYPE IN ('enum', 'set')
		AND COLUMN_TYPE LIKE '%?%' AND CHARACTER_SET_NAME IN ('utf8mb4', 'utf16', 'utf16le', 'utf32', 'gb18030') ORDER BY 1, ORDINAL_POSITION`, schemaName)
	for _, r := range all {
		table, value := quote(schemaName)+"."+quote(r.get("t")), quote(r.get("c"))
		m := misfit{r.get("t") + "." + r.get("c"), "", "ALTER TABLE " + table + " MODIFY " + value + " TEXT CHARACTER SET utf8mb4"}
		found, err := records(ctx, c, "SELECT 1 x FROM "+table+
			" WHERE BINARY CONVERT(CONVERT("+value+" USING ucs2) USING utf8mb4) <> BINARY CONVERT("+value+" USING utf8mb4) LIMIT 1")
		switch {
		case isServerError(err): // a view that is broken, or of a table that may not be read: said elsewhere
		case err != nil:
			return nil, nil, err
		case found != nil:
			lost = append(lost, m)
		default:
			open = append(open, m)
		}
	}
	return lost, open, err
}

// lostDefaults looks for literal defaults with such characters, which a definition
// shows with question marks as well.
func lostDefaults(ctx context.Context, c *sql.Conn, schemaName string) (lost []misfit, err error) {
	all, err := records(ctx, c, `SELECT TABLE_NAME t, COLUMN_NAME c FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND DATA_TYPE NOT IN ('enum', 'set')
		AND COLUMN_DEFAULT LIKE '%?%' AND CHARACTER_SET_NAME IN ('utf8mb4', 'utf16', 'utf16le', 'utf32', 'gb18030') ORDER BY 1, ORDINAL_POSITION`, schemaName)
	for _, r := range all {
		table, column := quote(schemaName)+"."+quote(r.get("t")), quote(r.get("c"))
		value := "CONVERT(DEFAULT(t." + column + ") USING utf8mb4)"
		found, err := records(ctx, c, "SELECT HEX("+value+") x FROM (SELECT 1 n) o LEFT JOIN "+table+" t ON 1 = 0 WHERE BINARY CONVERT(CONVERT("+value+" USING ucs2) USING utf8mb4) <> BINARY "+value)
		if err != nil && !isServerError(err) {
			return nil, err
		}
		for _, f := range found {
			lost = append(lost, misfit{r.get("t") + "." + r.get("c"), "", "ALTER TABLE " + table + " ALTER " + column + " SET DEFAULT (CONVERT(X'" + f.get("x") + "' USING utf8mb4))"})
		}
	}
	return lost, err
}
