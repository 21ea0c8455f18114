package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// contents is what Check knows of the active's schema.
type contents struct {
	objects []object
	size    int64    // bytes, of rows and indexes
	largest int64    // bytes, of the indexes of one table
	keyless []string // tables without a primary key
	unsafe  []string // functions that a server with a binary log refuses
}

// misfit is something that cannot be captured, why, and what would mend that.
type misfit struct{ name, why, fix string }

func namesOf(all []misfit) []string {
	names := make([]string, len(all))
	for i, m := range all {
		names[i] = m.name
	}
	return names
}

// fixOf joins the statements for the first of all, as many as someOf names.
func fixOf(all []misfit) string {
	var fixes []string
	for _, m := range all[:min(10, len(all))] {
		if m.fix != "" {
			fixes = append(fixes, m.fix)
		}
	}
	return strings.Join(fixes, "; ")
}

// byReason groups what cannot be captured by why, in the order of first mention.
func byReason(all []misfit) (groups [][]misfit) {
	at := make(map[string]int)
	for _, m := range all {
		i, ok := at[m.why]
		if !ok {
			i = len(groups)
			at[m.why] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], m)
	}
	return groups
}

// decide words statements that change the active's own data or definitions, or destroy
// something, as a comment: whoever pastes what Check proposes must not have done it.
// price says what they cost.
func decide(price, statements string) string {
	if statements == "" {
		return "-- " + price
	}
	return "-- " + price + ": " + statements
}

const (
	whyUnsnapped = "only InnoDB tables have consistent snapshots"
	whyVersioned = "tables with system versioning keep the history of their rows, whose times no server lets another one write"
	whyBroken    = "tables cannot be read"
	whyComputed  = "tables with nothing but generated columns have no values that could be copied"
)

// prices of what would mend each of them, on the active.
var prices = map[string]string{
	whyUnsnapped: "on the active, where each table is rebuilt and cannot be written meanwhile",
	whyVersioned: "on the active, if the history of these tables is not needed, which this deletes; or move them to another database",
	whyComputed:  "on the active, where it adds a column",
	whyBroken:    "on the active, after a copy of the table's files: this can lose rows",
}

// refused lists the tables of the active that cannot be captured as of one
// point, each with the reason.
func refused(ctx context.Context, c *sql.Conn, schemaName string) ([]misfit, error) {
	all, err := records(ctx, c, `SELECT TABLE_NAME name, TABLE_TYPE type, ENGINE engine FROM information_schema.TABLES
		WHERE TABLE_SCHEMA = ? AND TABLE_TYPE <> 'VIEW' AND TABLE_NAME <> ? ORDER BY TABLE_NAME`, schemaName, markerTable)
	if err != nil {
		return nil, err
	}
	found, err := records(ctx, c, `SELECT TABLE_NAME name FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ?
		GROUP BY TABLE_NAME HAVING SUM(COALESCE(GENERATION_EXPRESSION, '') = '') = 0`, schemaName)
	if err != nil {
		return nil, err
	}
	computed := valuesOf(found, "name")
	var bad []misfit
	for _, r := range all {
		name := r.get("name")
		alter := "ALTER TABLE " + quote(schemaName) + "." + quote(name)
		switch engine := r.get("engine"); {
		case r.get("type") == "SEQUENCE":
		case r.get("type") == "SYSTEM VERSIONED":
			bad = append(bad, misfit{name, whyVersioned, alter + " DROP SYSTEM VERSIONING"})
		case r.get("type") != "BASE TABLE":
			bad = append(bad, misfit{fmt.Sprintf("%s (%s)", name, strings.ToLower(r.get("type"))), whyUnsnapped, ""})
		case engine == "":
			bad = append(bad, misfit{name, whyBroken, "REPAIR TABLE " + quote(schemaName) + "." + quote(name)})
		case !strings.EqualFold(engine, "InnoDB"):
			bad = append(bad, misfit{fmt.Sprintf("%s (%s)", name, engine), whyUnsnapped, alter + " ENGINE=InnoDB"})
		case slices.Contains(computed, name):
			bad = append(bad, misfit{name, whyComputed, alter + " ADD COLUMN stored INT"})
		}
	}
	return bad, nil
}

// outside lists the foreign keys that point out of the schema.
func outside(ctx context.Context, c *sql.Conn, schemaName string) ([]misfit, error) {
	all, err := records(ctx, c, `SELECT DISTINCT TABLE_NAME t, REFERENCED_TABLE_SCHEMA s, REFERENCED_TABLE_NAME r, CONSTRAINT_NAME k
		FROM information_schema.KEY_COLUMN_USAGE
		WHERE TABLE_SCHEMA = ? AND REFERENCED_TABLE_SCHEMA <> TABLE_SCHEMA ORDER BY 1, 2, 3, 4`, schemaName)
	if err != nil {
		return nil, err
	}
	var bad []misfit
	for _, r := range all {
		bad = append(bad, misfit{fmt.Sprintf("%s → %s.%s", r.get("t"), r.get("s"), r.get("r")), "foreign keys point into other databases",
			fmt.Sprintf("ALTER TABLE %s.%s DROP FOREIGN KEY %s", quote(schemaName), quote(r.get("t")), quote(r.get("k")))})
	}
	return bad, nil
}

// measure fills in how much there is, and what some settings of a standby would refuse.
func (k *contents) measure(ctx context.Context, c *sql.Conn, schemaName string) error {
	r, err := one(ctx, c, `SELECT CAST(COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) AS CHAR) n, CAST(COALESCE(MAX(INDEX_LENGTH), 0) AS CHAR) x
		FROM information_schema.TABLES WHERE TABLE_SCHEMA = ?`, schemaName)
	if err != nil {
		return err
	}
	if k.size, err = strconv.ParseInt(r.get("n"), 10, 64); err != nil {
		return err
	}
	if k.largest, err = strconv.ParseInt(r.get("x"), 10, 64); err != nil {
		return err
	}
	all, err := records(ctx, c, `SELECT t.TABLE_NAME n FROM information_schema.TABLES t LEFT JOIN information_schema.STATISTICS s
		ON s.TABLE_SCHEMA = t.TABLE_SCHEMA AND s.TABLE_NAME = t.TABLE_NAME AND s.INDEX_NAME = 'PRIMARY'
		WHERE t.TABLE_SCHEMA = ? AND t.TABLE_TYPE = 'BASE TABLE' AND s.TABLE_NAME IS NULL ORDER BY 1`, schemaName)
	if err != nil {
		return err
	}
	k.keyless = valuesOf(all, "n")
	all, err = records(ctx, c, `SELECT ROUTINE_NAME n FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = ? AND ROUTINE_TYPE = 'FUNCTION'
		AND IS_DETERMINISTIC = 'NO' AND SQL_DATA_ACCESS IN ('CONTAINS SQL', 'MODIFIES SQL DATA') ORDER BY 1`, schemaName)
	for _, name := range valuesOf(all, "n") {
		k.unsafe = append(k.unsafe, "function "+name)
	}
	return err
}
