package mysql

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	gomysql "github.com/go-sql-driver/mysql"
)

type seenEvent struct{ kind, info string }

// TestLookout judges what was received: whatever is not understood leads to a copy.
func TestLookout(t *testing.T) {
	t.Parallel()
	const m = "SET @@SESSION.GTID_NEXT= '" + uuidA
	rows := []seenEvent{{"Query", "BEGIN"}, {"Annotate_rows", "DROP TABLE x"}, {"Table_map", ""}, {"Write_rows_v1", ""}, {"Update_rows_compressed_v1", ""}, {"Delete_rows", ""}, {"Xid", ""}}
	with := func(gtid string, events ...seenEvent) []seenEvent {
		return append([]seenEvent{{"Format_desc", ""}, {"Gtid", gtid}}, events...)
	}
	for name, c := range map[string]struct {
		mariaDB   bool
		at, until string
		events    []seenEvent
		err       error
		says      string // "" is harmless
	}{
		"rows":            {true, "0-1-5", "0-1-6", with("BEGIN GTID 0-1-6", rows...), nil, ""},
		"a statement":     {true, "0-1-5", "0-1-6", with("GTID 0-1-6 ddl", seenEvent{"Query_compressed", "use `o`; CREATE EVENT e"}), nil, "transaction 0-1-6 has a statement that may not work on the standby: CREATE EVENT"},
		"before":          {true, "0-1-6", "0-1-6", with("GTID 0-1-6", seenEvent{"Query", "nonsense"}), nil, ""},
		"behind":          {true, "0-1-4", "0-1-5", with("GTID 0-1-6", seenEvent{"Query", "nonsense"}), nil, ""},
		"an incident":     {true, "0-1-5", "0-1-6", with("GTID 0-1-6", seenEvent{"Incident", ""}), nil, "Incident"},
		"LOAD DATA":       {true, "0-1-5", "0-1-6", with("BEGIN GTID 0-1-6", seenEvent{"Execute_load_query", ""}), nil, "Execute_load_query"},
		"a variable":      {true, "0-1-5", "0-1-6", with("BEGIN GTID 0-1-6", seenEvent{"Intvar", ""}), nil, "Intvar"},
		"a great one":     {true, "0-1-5", "0-1-6", with("GTID 0-1-6", seenEvent{"Query", strings.Repeat(" ", maxStatement+1)}), nil, "bytes"},
		"XA":              {true, "0-1-5", "0-1-6", with("XA START X'61',X'',1 GTID 0-1-6"), nil, "0-1-6 is a distributed one"},
		"no GTID":         {true, "0-1-5", "0-1-6", with("G"), nil, "without a GTID"},
		"a lost relay":    {true, "0-1-5", "0-1-6", nil, &gomysql.MySQLError{Number: 1, Message: "two\nlines"}, "two lines"},
		"too much":        {true, "0-1-5", "0-1-6", nil, gomysql.ErrPktTooLarge, "cannot be looked at"},
		"MySQL":           {false, uuidA + ":1-5", uuidA + ":1-7", append(with(m+":6'", rows...), with(m+":7'", rows...)...), nil, ""},
		"MySQL, XA":       {false, uuidA + ":1-5", uuidA + ":1-6", with(m+":6'", seenEvent{"XA_prepare", ""}), nil, "distributed"},
		"MySQL, a gap":    {false, uuidA + ":1-5", uuidA + ":1-7", with(m+":7'", rows...), nil, "whole"},
		"MySQL, no GTID":  {false, uuidA + ":1-5", uuidA + ":1-6", []seenEvent{{"Anonymous_Gtid", "SET @@SESSION.GTID_NEXT= 'ANONYMOUS'"}}, nil, "without a GTID"},
		"MySQL, a target": {false, uuidA + ":1-5", uuidA + ":1-6", with(m+":6'", seenEvent{"Query", "use `art`; DROP TABLE other.x"}), nil, "DROP TABLE"},
	} {
		o := &lookout{mariaDB: c.mariaDB, schema: "art", at: mustPosition(t, c.mariaDB, c.at), until: mustPosition(t, c.mariaDB, c.until), seen: make(position)}
		for _, e := range c.events {
			o.event(e.kind, []byte(e.info))
		}
		err := o.judge(c.err)
		var lost *lostError
		if errors.As(err, &lost) != (c.says != "") || c.says == "" && err != nil || c.says != "" && (!strings.Contains(lost.reason, c.says) || strings.Contains(lost.reason, "\n")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := errors.New("the connection is gone")
	if err := (&lookout{}).judge(fmt.Errorf("look: %w", other)); !errors.Is(err, other) {
		t.Errorf("an error of the connection: %v", err)
	}
	var none *lookout
	none.event("Query", nil)
	if err := none.judge(nil); err != nil {
		t.Error(err)
	}
	if got := oneLine(" a\n\tb " + strings.Repeat("ü", 400)); strings.ContainsAny(got, "\n\t") || len(got) > 510 || !strings.HasPrefix(got, "a b ü") {
		t.Errorf("one line is %q", got)
	}
}
