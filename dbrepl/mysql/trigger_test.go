package mysql

import (
	"strings"
	"testing"
)

func TestReadTrigger(t *testing.T) {
	const set = "SET NEW.v = 1"
	for _, c := range []struct{ statement, mode, on, body string }{
		{"CREATE DEFINER=`a`@`b` trigger tr before insert on t for each row " + set, "", "BEFORE INSERT", set},
		{"CREATE DEFINER=`a`@`b` trigger tr before insert on t for each row " + set + " ; \n", "", "BEFORE INSERT", set},
		{"CREATE OR REPLACE DEFINER=`role` trigger if not exists a . tr/*y*/after/**/delete on a.t\nfor -- x 'y\n each # \"z\n row" + " " + set, "", "AFTER DELETE", set},
		{"CREATE trigger `for each row` before update on `row` for each row " + set, "", "BEFORE UPDATE", set},
		{"CREATE trigger `on``on`.`x` before update on row.`a``b` for each row precedes`for each row`" + set, "", "BEFORE UPDATE", set},
		{"CREATE trigger tr before update on t for each row FOLLOWS other " + set, "", "BEFORE UPDATE", set},
		{"CREATE trigger tr before update on t for each row FOLLOWS: BEGIN END", "", "BEFORE UPDATE", "FOLLOWS: BEGIN END"},
		{"CREATE trigger tr before update on t for each row/* precedes x */ " + set, "", "BEFORE UPDATE", "/* precedes x */ " + set},
		{"CREATE trigger tr before update on t for each row-- x\n" + set, "", "BEFORE UPDATE", "-- x\n" + set},
		{"CREATE DEFINER=\"a\"@\"b\" trigger \"for each \"\"row\" before insert on \"row\" for each row " + set, "REAL_AS_FLOAT,ANSI_QUOTES", "BEFORE INSERT", set},
		{"CREATE trigger tr before update on t for each row" + "`x`: begin end", "", "BEFORE UPDATE", "`x`: begin end"},
		{"CREATE trigger é€ before insert on 1日本 for each row " + `SET NEW.v = REPLACE('\\', 'for each row it\'s')`, "", "BEFORE INSERT", `SET NEW.v = REPLACE('\\', 'for each row it\'s')`},
		{"CREATE DEFINER='a\\'b'@'c' trigger tr before insert on t for each row " + set, "", "BEFORE INSERT", set},
		{"CREATE DEFINER='a\\'@'c' trigger tr before insert on t for each row " + set, "NO_BACKSLASH_ESCAPES", "BEFORE INSERT", set},
		{"CREATE trigger tr before insert or update of a, `on` on t for each row " + set, "", "before insert or update of a, `on`", set},
		// What is not known is never guessed.
		{"CREATE trigger \"tr\" before insert on t for each row " + set, "", "", ""},
		{"CREATE trigger tr before insert on t for each /*!50000 row */ " + set, "", "", ""},
		{"CREATE trigger tr before insert on t for each row /*M!50000 precedes x */ " + set, "", "", ""},
		{"CREATE trigger tr before insert on t for each /* row " + set, "", "", ""},
		{"CREATE trigger tr before insert on t for each `row` " + set, "", "", ""},
		{"CREATE trigger tr before insert on `t for each row " + set, "", "", ""},
		{"CREATE trigger tr before insert on t for each row ; ", "", "", ""},
		{"CREATE trigger tr before insert on t for each row", "", "", ""},
		{"CREATE trigger tr instead of insert on t for each row " + set, "", "", ""},
		{"CREATE trigger tr before insert or", "", "", ""},
		{"", "", "", ""},
	} {
		got, err := readTrigger(c.statement, c.mode)
		if (err == nil) != (c.body != "") || err == nil && (got.on != c.on || got.body != c.body) {
			t.Errorf("%s\nwas read as %q %q, %v", c.statement, got.on, got.body, err)
		}
	}
}

func FuzzReadTrigger(f *testing.F) {
	f.Add("CREATE TRIGGER a.b before insert on t for each row set x = 'é😀'", "")
	f.Add("CREATE DEFINER=\"a\" TRIGGER b -- x\nbefore insert on t for each row follows x", "ANSI_QUOTES")
	f.Fuzz(func(t *testing.T, statement, mode string) {
		got, err := readTrigger(statement, mode)
		if err != nil {
			return
		}
		if got.body == "" || !strings.HasPrefix(statement, got.head+got.body) || ended(statement) != got.head+got.body {
			t.Errorf("%q was read as %q and %q", statement, got.head, got.body)
		}
		if again, err := readTrigger(got.head+got.body, mode); err != nil || again != got {
			t.Errorf("%q was read as %+v and then %+v, %v", statement, got, again, err)
		}
	})
}
