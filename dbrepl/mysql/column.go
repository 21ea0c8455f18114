package mysql

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// encoding is how a value travels in a line of LOAD DATA.
type encoding int

const (
	plain  encoding = iota // as text in UTF-8
	hexed                  // bytes in hexadecimal
	number                 // as the decimal number that is stored
	member                 // as the number of a member of an ENUM
)

// transport is how the values of one column are read, sent and stored so that
// they arrive unchanged. The text that a server shows for a value is not
// always the value: a FLOAT is rounded to six digits, a YEAR 0000 read back is
// 2000, bytes and rare character sets do not survive as UTF-8, the invalid
// member of an ENUM looks like the empty one, and an AUTO_INCREMENT column
// renumbers id 0 if it is loaded directly.
type transport struct {
	read string // the expression to select
	send encoding
	set  string // the expression to store, of %s, the value sent; "" stores it as it is
}

func (c column) transport() (transport, error) {
	name := quote(c.name)
	asText := transport{read: name}
	if c.autoIncrement {
		asText.set = "%s"
	}
	switch c.kind {
	case "enum":
		return transport{read: name + "+0", send: member, set: "CAST(%s AS UNSIGNED)"}, nil
	case "set": // +0 makes a negative number of the last of 64 members, and on MySQL one of few digits
		return transport{read: name + "|0", send: number, set: "CAST(%s AS UNSIGNED)"}, nil
	case "bit", "year":
		return transport{read: name + "+0", send: number, set: "CAST(%s AS UNSIGNED)"}, nil
	case "float":
		return transport{read: name + "+0e0", send: plain, set: "%s"}, nil
	case "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob",
		"geometry", "point", "linestring", "polygon",
		"multipoint", "multilinestring", "multipolygon", "geometrycollection", "geomcollection":
		return transport{read: name, send: hexed, set: "UNHEX(%s)"}, nil
	case "char", "varchar", "tinytext", "text", "mediumtext", "longtext":
		if exactInUTF8(c.charset) {
			return asText, nil
		}
		return transport{read: "CAST(" + name + " AS BINARY)", send: hexed, set: "UNHEX(%s)"}, nil
	case "tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "double",
		"date", "time", "datetime", "timestamp", "json", "inet4", "inet6", "uuid":
		return asText, nil
	}
	return transport{}, fmt.Errorf("column %s has the type %s, which is not supported", c.name, c.kind)
}

// zoned returns which TIMESTAMP column a generated column is computed from, or "".
// What a session sees of one goes by its time zone.
func (c column) zoned(others []column) string {
	for _, o := range others {
		if o.kind == "timestamp" && strings.Contains(strings.ToLower(c.computed), strings.ToLower(quote(o.name))) {
			return o.name
		}
	}
	return ""
}

// exactInUTF8 says whether every stored text of a character set comes back the
// same from UTF-8.
func exactInUTF8(charset string) bool {
	switch charset {
	case "utf8mb4", "utf8mb3", "utf8", "latin1", "":
		return true
	}
	return false
}

// inUTF8 says whether the stored bytes of a column are those that travel, so that
// the server need not convert them. Of an address or UUID it would take the text
// for the value.
func (c column) inUTF8() bool {
	switch c.kind {
	case "inet4", "inet6", "uuid", "json":
		return false
	}
	switch c.charset {
	case "utf8mb4", "utf8mb3", "utf8", "":
		return true
	}
	return false
}

// appendField appends a value, or nil for NULL, as a field of LOAD DATA.
func appendField(line, value []byte, send encoding) []byte {
	if value == nil {
		return append(line, '\\', 'N')
	}
	if send == hexed {
		return hex.AppendEncode(line, value)
	}
	for _, b := range value {
		switch b {
		case '\t':
			line = append(line, '\\', 't')
		case '\n':
			line = append(line, '\\', 'n')
		case '\\':
			line = append(line, '\\', '\\')
		case 0:
			line = append(line, '\\', '0')
		default:
			line = append(line, b)
		}
	}
	return line
}

// plan is how the rows of a table travel.
type plan struct {
	table table
	send  []encoding
	query string // reads the rows
	set   string // the character set that LOAD DATA is told the lines are in
	into  string // the column list of LOAD DATA, with its SET clause
	names string // the column list of INSERT
	store []string
}

func planOf(t table) (plan, error) {
	p := plan{table: t, set: "binary"}
	var reads, targets, sets, names []string
	for i, c := range t.columns {
		tr, err := c.transport()
		if err != nil {
			return plan{}, fmt.Errorf("table %s: %w", t.name, err)
		}
		if tr.send == plain && !c.inUTF8() {
			p.set = "utf8mb4"
		}
		reads = append(reads, tr.read)
		names = append(names, quote(c.name))
		p.send = append(p.send, tr.send)
		p.store = append(p.store, tr.set)
		if tr.set == "" {
			targets = append(targets, quote(c.name))
			continue
		}
		v := fmt.Sprintf("@v%d", i)
		targets = append(targets, v)
		sets = append(sets, quote(c.name)+"="+fmt.Sprintf(tr.set, v))
	}
	if len(t.columns) == 0 { // every column is generated: only the number of rows matters
		return plan{}, fmt.Errorf("table %s has only generated columns, which is not supported", t.name)
	}
	p.query = "SELECT " + strings.Join(reads, ",") + " FROM " + quote(t.name)
	p.names = "(" + strings.Join(names, ",") + ")"
	p.into = "(" + strings.Join(targets, ",") + ")"
	if len(sets) > 0 {
		p.into += " SET " + strings.Join(sets, ",")
	}
	return p, nil
}
