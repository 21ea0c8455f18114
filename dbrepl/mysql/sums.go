package mysql

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// fingerprint is what a range of rows comes to: how many they are, and the sums
// of the two halves of a hash of each. Sums and not XORs, so that a row that is
// there twice does not vanish; of a hash that is no linear one, so that two rows
// that exchange a value show.
type fingerprint struct {
	rows  int64
	a, b  string // decimal
	empty bool   // no sums
}

// sumPlan is how the rows of one table are summed on one side.
type sumPlan struct {
	name  string
	row   string    // an expression: the SHA-1 of a row, in hexadecimal
	index string    // that key is of, or "" where it has none
	key   []keyPart // by which ranges are bounded; none: the table is one range
}

// keyPart is a column of a key.
type keyPart struct {
	column
	index string
}

// bound is a key of a table, one value for each part: the bytes of a text in
// hexadecimal, everything else as the server shows it. nil is an open end.
type bound []string

// rowHash returns the expression for the hash of a row of these columns. What it
// hashes can be taken apart again in one way only: which values are NULL, then
// each other value, those of variable content behind their length. Long values
// go in as hashes of their own, for what is put together must fit into a packet.
func rowHash(columns []column) (string, error) {
	if len(columns) == 0 {
		return "SHA1('')", nil
	}
	var nulls, values []string
	for _, c := range columns {
		name := quote(c.name)
		nulls = append(nulls, "ISNULL("+name+")")
		t, err := c.transport()
		if err != nil {
			return "", err
		}
		bytes := name
		switch c.kind {
		case "char", "varchar", "tinytext", "text", "mediumtext", "longtext":
			if c.charset == "latin1" {
				bytes = "CONVERT(" + name + " USING utf8mb4)"
			}
			bytes = "CAST(" + bytes + " AS BINARY)"
		}
		switch c.kind {
		case "char", "varchar", "binary", "varbinary":
			values = append(values, "LENGTH("+bytes+")", bytes)
		case "tinytext", "text", "mediumtext", "longtext", "tinyblob", "blob", "mediumblob", "longblob", "json",
			"geometry", "point", "linestring", "polygon",
			"multipoint", "multilinestring", "multipolygon", "geometrycollection", "geomcollection":
			values = append(values, "SHA1("+bytes+")")
		default:
			values = append(values, t.read)
		}
	}
	return "SHA1(CONCAT_WS(',',CONCAT(" + strings.Join(nulls, ",") + ")," + strings.Join(values, ",") + "))", nil
}

// usable says whether a column can bound ranges: whether its order is that of
// its literals, and the same everywhere. That of a UUID is not: MariaDB's index
// and its comparison disagree about some of them.
func (c column) usable() bool {
	switch c.kind {
	case "tinyint", "smallint", "mediumint", "int", "bigint", "decimal",
		"date", "time", "datetime", "timestamp", "year", "binary", "varbinary", "inet4", "inet6":
		return true
	case "char", "varchar":
		return charsetName.MatchString(c.charset)
	}
	return false
}

var (
	charsetName   = regexp.MustCompile(`^[a-z0-9_]+$`)
	decimalNumber = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`)
	hexText       = regexp.MustCompile(`^([0-9A-Fa-f]{2})*$`)
)

// boundRead is the expression to select for a bound.
func (c column) boundRead() string {
	switch c.kind {
	case "char", "varchar", "binary", "varbinary":
		return "HEX(" + quote(c.name) + ")"
	case "year":
		return quote(c.name) + "+0"
	}
	return quote(c.name)
}

// literal writes a value of a bound for a statement. It comes from the other
// server, which is not trusted to send what it should.
func (c column) literal(value string) (string, error) {
	ok := true
	literal := value
	switch c.kind {
	case "char", "varchar":
		ok, literal = hexText.MatchString(value), "_"+c.charset+" x'"+value+"'"
	case "binary", "varbinary":
		ok, literal = hexText.MatchString(value), "_binary x'"+value+"'"
	case "tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year":
		ok = decimalNumber.MatchString(value)
	default:
		literal = text(value)
	}
	if !ok {
		return "", fmt.Errorf("the server shows %q for a value of the %s column %s", value, c.kind, c.name)
	}
	return literal, nil
}

// literals writes a bound for a statement.
func (p sumPlan) literals(b bound) ([]string, error) {
	if b == nil {
		return nil, nil
	}
	all := make([]string, len(b))
	for i, v := range b {
		var err error
		if all[i], err = p.key[i].literal(v); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// beyond is the condition that a key comes after (op ">") or before ("<") a
// bound, or at it if at is true. The first comparison says nothing new: it shows
// the server where in the index to begin or end.
func (p sumPlan) beyond(from int, bound []string, op string, at bool) string {
	last := len(bound) - 1
	end := op
	if at {
		end += "="
	}
	condition := quote(p.key[last].name) + end + bound[last]
	for i := last - 1; i >= from; i-- {
		name := quote(p.key[i].name)
		condition = "(" + name + op + bound[i] + " OR (" + name + "=" + bound[i] + " AND " + condition + "))"
	}
	if from < last {
		condition = quote(p.key[from].name) + op + "=" + bound[from] + " AND " + condition
	}
	return condition
}

// within is the condition that a key lies from lo to before hi; with strictly,
// after lo.
func (p sumPlan) within(lo, hi bound, strictly bool) (string, error) {
	low, err := p.literals(lo)
	if err != nil {
		return "", err
	}
	high, err := p.literals(hi)
	if err != nil {
		return "", err
	}
	var all []string
	same := 0 // parts that both ends have in common
	if low != nil && high != nil {
		for same < len(low)-1 && low[same] == high[same] {
			all = append(all, quote(p.key[same].name)+"="+low[same])
			same++
		}
	}
	if low != nil {
		all = append(all, p.beyond(same, low, ">", !strictly))
	}
	if high != nil {
		all = append(all, p.beyond(same, high, "<", false))
	}
	if all == nil {
		return "", nil
	}
	return " WHERE " + strings.Join(all, " AND "), nil
}

const (
	halfA = "SUM(CAST(CONV(LEFT(%[1]s,16),16,10) AS UNSIGNED)) a"
	halfB = "SUM(CAST(CONV(SUBSTR(%[1]s,17,16),16,10) AS UNSIGNED)) b"
)

// sum returns the fingerprint of the rows from lo to before hi.
func (p sumPlan) sum(ctx context.Context, c *sql.Conn, lo, hi bound) (fingerprint, error) {
	where, err := p.within(lo, hi, false)
	if err != nil {
		return fingerprint{}, err
	}
	// A limit makes the server keep the hashes of a range in memory instead of
	// computing each of them twice. Those of a whole table may be too many.
	from, hash := quote(p.name), p.row
	if len(p.key) > 0 {
		from, hash = "(SELECT "+p.row+" h FROM "+from+where+" LIMIT 18446744073709551615) x", "h"
	}
	r, err := one(ctx, c, fmt.Sprintf("SELECT COUNT(*) n, COUNT(%[1]s) k, "+halfA+", "+halfB+" FROM %[2]s", hash, from))
	if err != nil {
		return fingerprint{}, err
	}
	if r.get("n") != r.get("k") {
		return fingerprint{}, fmt.Errorf("the server has no hash for some of %s rows", r.get("n"))
	}
	f := fingerprint{a: r.get("a"), b: r.get("b"), empty: !r["a"].Valid}
	_, err = fmt.Sscan(r.get("n"), &f.rows)
	return f, err
}

// walk returns the key that n rows after lo begin before, or nil when there are
// fewer before hi. It is always beyond lo.
func (p sumPlan) walk(ctx context.Context, c *sql.Conn, lo, hi bound, n int64) (bound, error) {
	where, err := p.within(lo, hi, true)
	if err != nil {
		return nil, err
	}
	var reads, names []string
	for i, k := range p.key {
		reads = append(reads, fmt.Sprintf("%s k%d", k.boundRead(), i))
		names = append(names, quote(k.name))
	}
	force := ""
	if p.index != "" {
		force = " FORCE INDEX (" + quote(p.index) + ")"
	}
	all, err := records(ctx, c, fmt.Sprintf("SELECT %s FROM %s%s%s ORDER BY %s LIMIT 1 OFFSET %d",
		strings.Join(reads, ","), quote(p.name), force, where, strings.Join(names, ","), n))
	if err != nil || len(all) == 0 {
		return nil, err
	}
	var b bound
	for i := range p.key {
		b = append(b, all[0].get(fmt.Sprintf("k%d", i)))
	}
	return b, nil
}

// shown writes a bound for people, as an SQL literal.
func (p sumPlan) shown(b bound) string {
	var all []string
	for i, v := range b {
		c := p.key[i].column
		literal, err := c.literal(v)
		if err != nil {
			literal = text(v)
		}
		if c.kind == "char" || c.kind == "varchar" {
			if s, ok := plainText(v, c.charset); ok {
				literal = text(s)
			}
		}
		all = append(all, literal)
	}
	if len(all) == 1 {
		return all[0]
	}
	if all == nil {
		return ""
	}
	return "(" + strings.Join(all, ", ") + ")"
}

// plainText reads the hexadecimal bytes of a text if they are plain UTF-8.
func plainText(value, charset string) (string, bool) {
	b, err := hex.DecodeString(value)
	if err != nil {
		return "", false
	}
	s := string(b)
	printable := !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd })
	switch charset {
	case "utf8mb4", "utf8mb3", "utf8":
		return s, printable
	case "utf16", "utf16le", "utf32", "ucs2":
		return "", false
	}
	return s, printable && isASCII(s)
}

// orderKeys returns for each table the columns that ranges of its rows can be
// bounded by: the leading ones of its primary key or, without one, of another
// unique key without NULL.
func orderKeys(ctx context.Context, c *sql.Conn, schemaName string, columns map[string][]column) (map[string][]keyPart, error) {
	all, err := records(ctx, c, `SELECT TABLE_NAME t, INDEX_NAME i, COLUMN_NAME c, SUB_PART p, NULLABLE n FROM information_schema.STATISTICS
		WHERE TABLE_SCHEMA = ? AND NON_UNIQUE = 0 ORDER BY TABLE_NAME, INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX`, schemaName)
	if err != nil {
		return nil, err
	}
	nullable := make(map[[2]string]bool)
	for _, r := range all {
		if r.get("n") == "YES" {
			nullable[[2]string{r.get("t"), r.get("i")}] = true
		}
	}
	keys := make(map[string][]keyPart)
	closed := make(map[[2]string]bool) // whose further columns do not count
	for _, r := range all {
		t, id := r.get("t"), [2]string{r.get("t"), r.get("i")}
		if nullable[id] || closed[id] || len(keys[t]) > 0 && keys[t][0].index != r.get("i") {
			continue
		}
		found := false
		for _, col := range columns[t] {
			if col.name == r.get("c") && col.usable() && !r["p"].Valid {
				keys[t] = append(keys[t], keyPart{col, r.get("i")})
				found = true
			}
		}
		closed[id] = !found
	}
	return keys, nil
}
