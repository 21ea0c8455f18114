package mysql

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	gomysql "github.com/go-sql-driver/mysql"
)

// lookout sees what was received before anything of it is applied. What could
// stop the applier half way is found while the old snapshot is whole: then the
// schema is copied instead.
type lookout struct {
	mariaDB   bool
	schema    string
	at, until position

	gtid    string // of the transaction that the events belong to; "" if none or not wanted
	seen    position
	cut     bool   // a relay log could not be read to its end
	problem string // the first thing that is not known to be harmless
}

func (l *link) lookout(at, until position) *lookout {
	return &lookout{mariaDB: l.say.mariaDB, schema: l.e.opt.Name, at: at, until: until, seen: make(position)}
}

// MariaDB's other words beside a GTID tell how its transaction goes.
var anyGTID = regexp.MustCompile(`(?:^| )GTID (\d+)-(\d+)-(\d+)(?: |$)`)

var nextGTID = regexp.MustCompile(`^SET @@SESSION\.GTID_NEXT= '([0-9A-Za-z:_-]+)'$`)

// Events that servers write for themselves, outside of transactions.
var ownEvents = []string{"Format_desc", "Rotate", "Gtid_list", "Previous_gtids", "Binlog_checkpoint", "Stop", "Heartbeat", "Heartbeat_v2", "Ignorable", "Start_encryption"}

// Events that are rows, or belong to them. A payload holds rows only: statements
// are not compressed into one.
var rowEvents = []string{"Xid", "Table_map", "Annotate_rows", "Rows_query", "Transaction_payload", "Transaction_context", "View_change"}

var rowEvent = regexp.MustCompile(`^(Write|Update|Update_partial|Delete)_rows(_compressed)?(_v1)?$`)

// event takes the next event. A nil lookout looks at none.
func (o *lookout) event(kind string, info []byte) {
	switch {
	case o == nil || o.problem != "" || slices.Contains(ownEvents, kind):
	case strings.HasPrefix(kind, "Gtid") || strings.HasPrefix(kind, "Anonymous"):
		o.begin(string(info[:min(len(info), 300)]))
	case o.gtid == "" || slices.Contains(rowEvents, kind) || rowEvent.MatchString(kind):
	case kind == "XA_prepare" || strings.HasPrefix(string(info[:min(len(info), 3)]), "XA "):
		o.problem = o.distributed()
	case kind == "Query" || kind == "Query_compressed":
		if len(info) > maxStatement {
			o.problem = fmt.Sprintf("transaction %s has a statement of %d bytes", o.gtid, len(info))
		} else if s := string(info); !harmless(s, o.schema, o.mariaDB) {
			o.problem = fmt.Sprintf("transaction %s has a statement that may not work on the standby: %s", o.gtid, kindOfStatement(s))
		}
	default:
		o.problem = fmt.Sprintf("transaction %s has something that may not work on the standby: %.40q", o.gtid, kind)
	}
}

// begin takes the beginning of a transaction.
func (o *lookout) begin(info string) {
	o.gtid = ""
	t, name := make(position), ""
	var err error
	if m := anyGTID.FindStringSubmatch(info); o.mariaDB && m != nil {
		name = strings.Join(m[1:], "-")
		if t, err = parsePosition(true, name); err == nil {
			n := t[m[1]][0].to
			t[m[1]] = []span{{from: n, to: n}}
		}
	} else if m := nextGTID.FindStringSubmatch(info); !o.mariaDB && m != nil {
		name = m[1]
		t, err = parsePosition(false, name)
	}
	switch {
	case err != nil || len(t) != 1:
		o.problem = "there is a transaction without a GTID that is understood"
	case !o.at.covers(t) && o.until.covers(t):
		o.gtid = name
		o.saw(t)
		if strings.HasPrefix(info, "XA ") {
			o.problem = o.distributed()
		}
	}
}

// distributed words that a transaction is one of two phases: its first may have
// been before the copy that the replica began with, which does not have it.
func (o *lookout) distributed() string {
	return fmt.Sprintf("transaction %s is a distributed one (XA), which may not work on the standby", o.gtid)
}

// saw notes a transaction; those of one server come one after the other.
func (o *lookout) saw(t position) {
	for key, s := range t {
		all := o.seen[key]
		if n := len(all); n > 0 && s[0].from == all[n-1].to+1 {
			all[n-1].to = s[0].to
		} else {
			o.seen[key] = append(all, s[0])
		}
	}
}

// judge returns a lostError if what was received may stop the applier, or could
// not be looked at whole. err is how the looking ended.
func (o *lookout) judge(err error) error {
	var unreadable bool
	if o != nil && err != nil {
		unreadable = isServerError(err) || errors.Is(err, gomysql.ErrPktTooLarge)
	}
	switch {
	case o != nil && o.problem != "":
		return &lostError{o.problem}
	case unreadable:
		return &lostError{oneLine("what was received cannot be looked at: " + err.Error())}
	case err != nil || o == nil:
		return err
	case o.cut || !o.mariaDB && !o.complete():
		return &lostError{"what was received cannot be looked at whole"}
	}
	return nil
}

// complete says whether every transaction up to the point was seen or is applied.
func (o *lookout) complete() bool {
	all := make(position)
	for _, p := range []position{o.at, o.seen} {
		for key, spans := range p {
			all[key] = joinSpans(append(slices.Clone(all[key]), spans...))
		}
	}
	return all.covers(o.until)
}
