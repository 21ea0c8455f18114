package testenv

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	sequenceTable = regexp.MustCompile(`\bseq_(\d+)_to_(\d+)\b`)
	orReplace     = regexp.MustCompile(`\bCREATE OR REPLACE (USER|DATABASE) ([^\s;]+)`)
	sequence      = regexp.MustCompile(`\b(CREATE|DROP) SEQUENCE [^;]*(;|$)`)
)

// translate turns what tests say in MariaDB's words into MySQL's: tables of
// numbers are made, sequences, which MySQL lacks, are left out.
func (m *MySQLServer) translate(t testing.TB, statements string) string {
	t.Helper()
	statements = orReplace.ReplaceAllString(statements, "DROP $1 IF EXISTS $2; CREATE $1 $2")
	statements = sequence.ReplaceAllString(statements, "")
	for _, s := range sequenceTable.FindAllStringSubmatch(statements, -1) {
		m.numbers(t, s[0], s[1], s[2])
	}
	return sequenceTable.ReplaceAllString(statements, "numbers.$0")
}

// numbers makes a table with a column seq of the numbers from low to high. It
// leaves no trace in the binary log.
func (m *MySQLServer) numbers(t testing.TB, name, low, high string) {
	t.Helper()
	from, err := strconv.Atoi(low)
	if err != nil {
		t.Fatal(err)
	}
	to, err := strconv.Atoi(high)
	if err != nil {
		t.Fatal(err)
	}
	m.made.Lock()
	defer m.made.Unlock()
	db := m.open("")
	defer db.Close()
	table := "numbers." + name
	if _, err := db.Exec("SELECT 1 FROM " + table + " LIMIT 0"); err == nil {
		return
	}
	var all strings.Builder
	all.WriteString("SET sql_log_bin=0; CREATE DATABASE IF NOT EXISTS numbers; CREATE TABLE " + table + " (seq INT PRIMARY KEY) ENGINE=InnoDB;")
	fmt.Fprintf(&all, "INSERT INTO %s VALUES (%d);", table, from)
	for n := 1; n < to-from+1; n *= 2 {
		fmt.Fprintf(&all, "INSERT INTO %s SELECT seq + %d FROM %[1]s WHERE seq + %[2]d <= %d;", table, n, to)
	}
	if _, err := db.Exec(all.String()); err != nil {
		t.Fatal(err)
	}
}
