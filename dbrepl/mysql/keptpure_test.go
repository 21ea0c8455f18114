package mysql

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl/dump"
)

// FuzzKeptLine: what rowSource writes as a line, keptLines reads back.
func FuzzKeptLine(f *testing.F) {
	f.Add([]byte("a\tb\\N\n\x00"), []byte("\\N"), false)
	f.Add([]byte{}, bytes.Repeat([]byte("\\\t"), 100_000), true)
	f.Fuzz(func(t *testing.T, a, b []byte, null bool) {
		send := []encoding{plain, hexed, number}
		want := [][]byte{a, b, nil}
		if !null {
			want[2] = []byte("12")
		}
		var line []byte
		for i, v := range want {
			if i > 0 {
				line = append(line, '\t')
			} else if v == nil {
				v = []byte{}
			}
			if i == 1 && v == nil {
				v = []byte{}
			}
			line = appendField(line, v, send[i])
		}
		line = append(line, '\n')
		k := newKeptLines(bytes.NewReader(append(line, line...)), send, 2)
		for range 2 {
			got, err := k.next()
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				if !bytes.Equal(got[i], want[i]) || (got[i] == nil) != (i == 2 && null) {
					t.Errorf("field %d is %q, want %q", i, got[i], want[i])
				}
			}
		}
		if _, err := k.next(); !errors.Is(err, io.EOF) {
			t.Errorf("at the end: %v", err)
		}
	})
}

// FuzzKeptLines reads anything.
func FuzzKeptLines(f *testing.F) {
	f.Add([]byte("1\t00ff\n\\N\t\\N\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k := newKeptLines(bytes.NewReader(text), []encoding{plain, hexed}, int64(bytes.Count(text, []byte{'\n'})))
		for {
			_, err := k.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				if !errors.Is(err, dump.ErrDamaged) {
					t.Error(err)
				}
				return
			}
		}
	})
}

func TestKeptLinesThatAreNotAsWritten(t *testing.T) {
	for text, rows := range map[string]int64{
		"1\t2\n": 1, "1\n2\n": 1, "1\n": 2, "1": 1, "\\x\n": 1, "\\\n": 1,
	} {
		k := newKeptLines(strings.NewReader(text), []encoding{plain}, rows)
		var err error
		for err == nil {
			_, err = k.next()
		}
		if !errors.Is(err, dump.ErrDamaged) {
			t.Errorf("%q with %d rows: %v", text, rows, err)
		}
	}
}

func TestRenameSchema(t *testing.T) {
	for _, c := range []struct {
		sql, mode, want string
		doubtful        bool
	}{
		{sql: "SELECT * FROM art.x", want: "SELECT * FROM `new`.x"},
		{sql: "SELECT `art` . `x`.`y`, art\n.f(1)", want: "SELECT `new` . `x`.`y`, `new`\n.f(1)"},
		{sql: "SELECT 'art.x', \"art.x\", 'it''s art.x \\' art.x', start.x, artx.y, x.art.y, @art.x -- art.x\n, /* art.x */ 1 # art.x", want: ""},
		{sql: "CREATE DEFINER=`art`@`art` TRIGGER t INSERT INTO art.x", want: "CREATE DEFINER=`art`@`art` TRIGGER t INSERT INTO `new`.x"},
		{sql: "SELECT art.x FROM nodes art", want: "", doubtful: true},
		{sql: "SELECT \"art\".x, \"a\"\"rt\".y", mode: "PIPES_AS_CONCAT,ANSI_QUOTES", want: "SELECT `new`.x, \"a\"\"rt\".y"},
		{sql: `SELECT 'a\', art.x, 'b'`, mode: "NO_BACKSLASH_ESCAPES", want: "SELECT 'a\\', `new`.x, 'b'"},
		{sql: `SELECT 'a\', art.x, 'b'`, want: ""},
		{sql: "SELECT 'é' , art.é, 'unclosed art.x", want: "SELECT 'é' , `new`.é, 'unclosed `new`.x"},
	} {
		if c.want == "" {
			c.want = c.sql
		}
		got, doubtful := renameSchema(object{SQL: c.sql, Mode: c.mode}, "art", "new", false)
		if got != c.want || doubtful != c.doubtful {
			t.Errorf("%s\nbecame %s, %v\nwant   %s, %v", c.sql, got, doubtful, c.want, c.doubtful)
		}
	}
	if got, _ := renameSchema(object{SQL: "SELECT ART.x"}, "art", "new", true); got != "SELECT `new`.x" {
		t.Errorf("in another case: %s", got)
	}
}
