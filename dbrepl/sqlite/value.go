package sqlite

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// datum is a value as SQLite keeps it: nil, int64, float64, string (a text, its bytes
// whatever they are) or []byte.
type datum any

// sameDatum says whether two values are the same in storage class and content. 1 and
// 1.0 and '1' are three, and so are 0.0 and -0.0, where a file has both.
func sameDatum(a, b datum) bool {
	switch a := a.(type) {
	case nil:
		return b == nil
	case int64:
		b, ok := b.(int64)
		return ok && a == b
	case float64:
		b, ok := b.(float64)
		return ok && math.Float64bits(a) == math.Float64bits(b)
	case string:
		b, ok := b.(string)
		return ok && a == b
	case []byte:
		b, ok := b.([]byte)
		return ok && bytes.Equal(a, b)
	}
	return false
}

// keyPart is how a column of a key is ordered.
type keyPart struct {
	column    int // of the row
	collation string
	down      bool
}

// orders says whether this program knows the order of the key's collations. An
// application may have made others.
func orders(key []keyPart, encoding string) bool {
	for _, k := range key {
		switch strings.ToUpper(k.collation) {
		case "NOCASE", "RTRIM":
		case "BINARY":
			if encoding != "UTF-8" { // the bytes that are compared are not those that are read
				return false
			}
		default:
			return false
		}
	}
	return true
}

// compareKeys orders two rows as SQLite does: NULL, numbers, texts, blobs.
func compareKeys(key []keyPart, a, b []datum) int {
	for _, k := range key {
		c := compareData(a[k.column], b[k.column], k.collation)
		if k.down {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

func compareData(a, b datum, collation string) int {
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	switch a := a.(type) {
	case string:
		return collate(a, b.(string), collation)
	case []byte:
		return bytes.Compare(a, b.([]byte))
	case int64:
		if b, ok := b.(int64); ok {
			return cmp.Compare(a, b)
		}
		return compareNumbers(a, b.(float64))
	case float64:
		if b, ok := b.(int64); ok {
			return -compareNumbers(b, a)
		}
		return cmp.Compare(a, b.(float64))
	}
	return 0
}

func rank(v datum) int {
	switch v.(type) {
	case nil:
		return 0
	case int64, float64:
		return 1
	case string:
		return 2
	}
	return 3
}

// compareNumbers compares without rounding, as a float64 of a large integer would.
func compareNumbers(i int64, f float64) int {
	switch {
	case f < -(1 << 63):
		return 1
	case f >= 1<<63:
		return -1
	}
	whole := math.Trunc(f)
	if c := cmp.Compare(i, int64(whole)); c != 0 {
		return c
	}
	return cmp.Compare(whole, f)
}

func collate(a, b, collation string) int {
	switch strings.ToUpper(collation) {
	case "NOCASE":
		return compareFolded(a, b)
	case "RTRIM":
		return strings.Compare(strings.TrimRight(a, " "), strings.TrimRight(b, " "))
	}
	return strings.Compare(a, b)
}

// compareFolded is SQLite's NOCASE: the letters of ASCII are folded, what stands behind
// a NUL does not count, and then the shorter text is the smaller.
func compareFolded(a, b string) int {
	for i := range min(len(a), len(b)) {
		x, y := fold(a[i]), fold(b[i])
		if x != y {
			return cmp.Compare(x, y)
		}
		if x == 0 {
			break
		}
	}
	return cmp.Compare(len(a), len(b))
}

func fold(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// maxLiteral bounds, in bytes, how much of a value a literal shows.
const maxLiteral = 200

// literal shows a value as SQL does. What is too long ends with an ellipsis.
func literal(v datum) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return realLiteral(v)
	case string:
		return textLiteral(v)
	case []byte:
		return "x'" + fmt.Sprintf("%x", v[:min(len(v), maxLiteral)]) + "'" + ellipsis(len(v))
	}
	return fmt.Sprint(v)
}

// textLiteral shows a text that no literal can have by its bytes.
func textLiteral(s string) string {
	shown := s
	if len(s) > maxLiteral {
		for shown = s[:maxLiteral]; shown != "" && !utf8.ValidString(shown); {
			shown = shown[:len(shown)-1]
			if maxLiteral-len(shown) > utf8.UTFMax { // it is not the cut that is invalid
				shown = s[:maxLiteral]
				break
			}
		}
	}
	if !utf8.ValidString(shown) || strings.ContainsFunc(shown, unicode.IsControl) {
		return fmt.Sprintf("CAST(x'%x' AS TEXT)", shown) + ellipsis(len(s))
	}
	return "'" + strings.ReplaceAll(shown, "'", "''") + "'" + ellipsis(len(s))
}

func ellipsis(length int) string {
	if length > maxLiteral {
		return "…"
	}
	return ""
}

func realLiteral(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "9e999"
	case math.IsInf(f, -1):
		return "-9e999"
	}
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}
