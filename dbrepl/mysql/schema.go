package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// schema is the definition of a database at one moment.
type schema struct {
	charset, collation string
	tables             []table // sequences first
	objects            []object
}

// table is a base table or a sequence.
type table struct {
	name     string
	sequence bool
	ddl      string
	size     int64    // bytes of its rows, as the server estimates
	key      string   // the first column of its primary key, or ""
	columns  []column // that a row is made of: without the generated ones
	stored   []column // generated ones whose values are stored: they are compared, not copied
}

// column is one column of a table.
type column struct {
	name, kind, charset string
	autoIncrement       bool
	defaultTo           string // the expression, if it draws from a sequence
	computed            string // the expression, of a generated column
}

// errChanged says that the active's definitions changed under a capture.
var errChanged = errors.New("definitions changed on the active database")

// markerTable names the table that says which generation a schema holds.
const markerTable = "drsync_generation"

// readSchema reads the definition of a schema, which is the session's default.
func readSchema(ctx context.Context, c *sql.Conn, name string) (schema, error) {
	r, err := records(ctx, c, `SELECT DEFAULT_CHARACTER_SET_NAME cs, DEFAULT_COLLATION_NAME co
		FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?`, name)
	if err != nil {
		return schema{}, err
	}
	if len(r) != 1 {
		return schema{}, fmt.Errorf("there is no database %s", name)
	}
	s := schema{charset: r[0].get("cs"), collation: r[0].get("co")}
	if s.tables, err = readTables(ctx, c, name); err != nil {
		return schema{}, err
	}
	s.objects, err = readObjects(ctx, c, name)
	return s, err
}

func readTables(ctx context.Context, c *sql.Conn, schemaName string) ([]table, error) {
	all, err := records(ctx, c, `SELECT TABLE_NAME name, TABLE_TYPE type, DATA_LENGTH size FROM information_schema.TABLES
		WHERE TABLE_SCHEMA = ? AND TABLE_TYPE <> 'VIEW' AND TABLE_NAME <> ?`, schemaName, markerTable)
	if err != nil {
		return nil, err
	}
	columns, stored, err := readColumns(ctx, c, schemaName)
	if err != nil {
		return nil, err
	}
	keys, err := readKeys(ctx, c, schemaName)
	if err != nil {
		return nil, err
	}
	var tables []table
	for _, r := range all {
		t := table{name: r.get("name"), sequence: r.get("type") == "SEQUENCE", columns: columns[r.get("name")], stored: stored[r.get("name")], key: keys[r.get("name")]}
		t.size, _ = strconv.ParseInt(r.get("size"), 10, 64) // an estimate: none is 0
		if t.ddl, err = readDDL(ctx, c, t); err != nil {
			if hasNumber(err, errNoSuchTable) {
				err = fmt.Errorf("%w: table %s is gone", errChanged, t.name)
			}
			return nil, fmt.Errorf("definition of table %s: %w", t.name, err)
		}
		tables = append(tables, t)
	}
	slices.SortFunc(tables, func(a, b table) int {
		if a.sequence != b.sequence {
			if a.sequence {
				return -1
			}
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
	return tables, nil
}

// readKeys returns the first column of each table's primary key.
func readKeys(ctx context.Context, c *sql.Conn, schemaName string) (map[string]string, error) {
	all, err := records(ctx, c, `SELECT TABLE_NAME t, COLUMN_NAME name FROM information_schema.STATISTICS
		WHERE TABLE_SCHEMA = ? AND INDEX_NAME = 'PRIMARY' AND SEQ_IN_INDEX = 1`, schemaName)
	keys := make(map[string]string, len(all))
	for _, r := range all {
		keys[r.get("t")] = r.get("name")
	}
	return keys, err
}

// readDDL returns the statement that creates a table of the default schema.
func readDDL(ctx context.Context, c asker, t table) (string, error) {
	kind := "TABLE"
	if t.sequence {
		kind = "SEQUENCE"
	}
	r, err := one(ctx, c, "SHOW CREATE "+kind+" "+quote(t.name))
	if err != nil {
		return "", err
	}
	ddl := r.get("create table")
	if ddl == "" {
		return "", fmt.Errorf("the server shows no definition")
	}
	return ddl, nil
}

// readColumns returns the columns of each table that are not generated, and those
// that are generated and stored.
func readColumns(ctx context.Context, c *sql.Conn, schemaName string) (columns, stored map[string][]column, err error) {
	all, err := records(ctx, c, `SELECT TABLE_NAME t, COLUMN_NAME name, DATA_TYPE kind, CHARACTER_SET_NAME cs, EXTRA extra,
		COLUMN_DEFAULT def, GENERATION_EXPRESSION ge FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? ORDER BY TABLE_NAME, ORDINAL_POSITION`, schemaName)
	if err != nil {
		return nil, nil, err
	}
	columns, stored = make(map[string][]column), make(map[string][]column)
	for _, r := range all {
		extra := strings.ToUpper(r.get("extra"))
		col := column{
			name:          r.get("name"),
			kind:          strings.ToLower(r.get("kind")),
			charset:       strings.ToLower(r.get("cs")),
			autoIncrement: strings.Contains(extra, "AUTO_INCREMENT"),
		}
		if strings.Contains(strings.ReplaceAll(extra, "DEFAULT_GENERATED", ""), "GENERATED") { // by the server
			col.computed = r.get("ge")
			if _, err := col.transport(); err == nil && strings.Contains(extra, "STORED") {
				stored[r.get("t")] = append(stored[r.get("t")], col)
			}
			continue
		}
		if strings.Contains(r.get("def"), "nextval(") {
			col.defaultTo = r.get("def")
		}
		columns[r.get("t")] = append(columns[r.get("t")], col)
	}
	return columns, stored, nil
}

var autoIncrementNow = regexp.MustCompile(` AUTO_INCREMENT=\d+`)

// shape is a table's definition without what changes with its rows.
func shape(ddl string) string {
	if i := strings.LastIndex(ddl, "\n)"); i >= 0 { // the table's own options follow
		return ddl[:i] + autoIncrementNow.ReplaceAllString(ddl[i:], "")
	}
	return ddl
}

// difference says what differs between two readings of a schema, or "".
func (s schema) difference(now schema) string {
	if s.charset != now.charset || s.collation != now.collation {
		return "the character set of the database"
	}
	before, after := make(map[string]string), make(map[string]string)
	for _, t := range s.tables {
		before["table "+t.name] = shape(t.ddl)
	}
	for _, t := range now.tables {
		after["table "+t.name] = shape(t.ddl)
	}
	for _, o := range s.objects {
		before[o.String()] = o.fingerprint()
	}
	for _, o := range now.objects {
		after[o.String()] = o.fingerprint()
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if after[name] != before[name] {
			return name
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[name]; !ok {
			return name
		}
	}
	return ""
}

// partitionClause begins the clause in what MariaDB shows; MySQL puts it in a
// comment. Within a definition a line break in a text is written as an escape.
const partitionClause = "\n PARTITION BY "

// partitioned says whether a definition is of a partitioned table of MariaDB.
func partitioned(ddl string) bool { return strings.Contains(ddl, partitionClause) }

func withoutPartitions(ddl string) string {
	ddl, _, _ = strings.Cut(ddl, partitionClause)
	return ddl
}

// inOnePiece says what becomes of partitioned tables. MariaDB moves each of
// their files by itself: a crash in the middle of a RENAME TABLE leaves a table
// of which neither side has all, and the statement is not rolled back.
func inOnePiece(tables []string) string {
	return "MariaDB can lose a partitioned table when it crashes while that is renamed, so the standby keeps all rows in one piece: " + someOf(tables)
}
