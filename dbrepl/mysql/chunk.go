package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
)

// chunkBytes is how large a table must be, by the server's estimate, to be
// worth reading in several parts.
const chunkBytes = 64 << 20

// share decides which tables are read in parts: those that would still be
// copied when all others are done, and have at least so many bytes. One that
// arrives in the order of its key has fuller pages.
func share(tables []table, workers int, least int64) (parts map[string]int) {
	var total int64
	for _, t := range tables {
		total += t.size
	}
	parts = make(map[string]int)
	for _, t := range tables {
		fair := total / int64(workers)
		if t.sequence || t.size < least || t.size <= fair+fair/8 || workers < 2 {
			continue
		}
		parts[t.name] = int(min(256, max(int64(2*workers), t.size/least)))
	}
	return parts
}

var hexadecimal = regexp.MustCompile(`^[0-9a-f]{32,}$`)

// chunks returns conditions that divide the rows of a table: every row meets
// exactly one, whatever its key. Only the evenness is a guess, from the lowest and
// the highest key: numbers are divided evenly, hexadecimal hashes by their first digits.
// A table with any other key stays whole.
func chunks(ctx context.Context, c *sql.Conn, t table, parts int) ([]string, error) {
	whole := []string{""}
	if t.key == "" {
		return whole, nil
	}
	r, err := one(ctx, c, "SELECT MIN("+quote(t.key)+") lo, MAX("+quote(t.key)+") hi FROM "+quote(t.name))
	if err != nil {
		return nil, err
	}
	var bounds []string
	i := slices.IndexFunc(t.columns, func(c column) bool { return c.name == t.key })
	if i < 0 {
		return whole, nil
	}
	switch t.columns[i].kind {
	case "tinyint", "smallint", "mediumint", "int", "bigint":
		bounds = numberBounds(r.get("lo"), r.get("hi"), parts)
	case "char", "varchar":
		if hexadecimal.MatchString(r.get("lo")) && hexadecimal.MatchString(r.get("hi")) {
			bounds = hexBounds(parts)
		}
	}
	return between(quote(t.key), bounds), nil
}

// numberBounds divides lo to hi into equal parts.
func numberBounds(lo, hi string, parts int) (bounds []string) {
	a, ok := new(big.Int).SetString(lo, 10)
	b, ok2 := new(big.Int).SetString(hi, 10)
	if !ok || !ok2 {
		return nil // no rows
	}
	span := new(big.Int).Sub(b, a)
	for i := 1; i < parts; i++ {
		at := new(big.Int).Mul(span, big.NewInt(int64(i)))
		at.Div(at, big.NewInt(int64(parts))).Add(at, a)
		if text := at.String(); at.Cmp(a) > 0 && (len(bounds) == 0 || bounds[len(bounds)-1] != text) {
			bounds = append(bounds, text)
		}
	}
	return bounds
}

// hexBounds divides hashes evenly by their first two digits.
func hexBounds(parts int) (bounds []string) {
	for i := 1; i < parts; i++ {
		text := fmt.Sprintf("'%02x'", 256*i/parts)
		if 256*i/parts > 0 && (len(bounds) == 0 || bounds[len(bounds)-1] != text) {
			bounds = append(bounds, text)
		}
	}
	return bounds
}

// between turns ascending bounds into conditions, the first and last of which
// are open.
func between(key string, bounds []string) []string {
	if len(bounds) == 0 {
		return []string{""}
	}
	conditions := []string{key + " < " + bounds[0]}
	for i := 1; i < len(bounds); i++ {
		conditions = append(conditions, strings.Join([]string{key, ">=", bounds[i-1], "AND", key, "<", bounds[i]}, " "))
	}
	return append(conditions, key+" >= "+bounds[len(bounds)-1])
}
