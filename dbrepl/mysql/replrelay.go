package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// relayed is the part of the relay logs that leads from what was applied to the
// point.
type relayed struct {
	from, to place // to is behind the beginning of the last event
	found    bool  // of at least one transaction
	reached  bool  // the point
}

// errRelayLog says that a relay log does not exist or cannot be read.
const errRelayLog = 1220

// relayed looks through the relay logs for the way to the point. look, if not nil,
// sees all that they hold.
func (l *link) relayed(ctx context.Context, at, until position, look *lookout) (relayed, error) {
	w := relayWalk{at: at, until: until, seen: make(position)}
	_, err := l.eachRelayed(ctx, func(at place, kind string, info []byte) {
		w.event(at, kind, info)
		look.event(kind, info)
	}, func(closed bool) { w.torn = w.torn || !closed })
	return w.result(), err
}

// eachRelayed goes through the relay logs, of which the server tells one after the
// other, beginning with the first that it still has. ended hears of the end of
// each: whether it says itself that it is one. It returns false when one could not
// be read to its end.
func (l *link) eachRelayed(ctx context.Context, event func(at place, kind string, info []byte), ended func(closed bool)) (bool, error) {
	name := ""
	for {
		last, err := l.walk(ctx, l.say.events(name), event, ended)
		if hasNumber(err, errRelayLog) {
			return last == "", nil // there is no further one, or this one cannot be read on
		}
		if err != nil {
			return false, fmt.Errorf("look through the relay logs: %w", l.e.standby.explain(ctx, err))
		}
		if name = nextRelayLog(last); name == "" {
			return true, nil
		}
	}
}

func (l *link) walk(ctx context.Context, query string, event func(at place, kind string, info []byte), ended func(closed bool)) (file string, err error) {
	rows, err := l.conn.QueryContext(ctx, query)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	closed := false
	var name, pos, kind, server, end, info sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&name, &pos, &kind, &server, &end, &info); err != nil {
			return file, err
		}
		n, err := strconv.ParseUint(string(pos), 10, 64)
		if err != nil {
			return file, fmt.Errorf("a position of %s: %w", name, err)
		}
		if file == "" {
			file = string(name)
		}
		event(place{file, n}, string(kind), info)
		closed = string(kind) == "Rotate" || string(kind) == "Stop"
	}
	ended(closed)
	return file, rows.Err()
}

// nextRelayLog counts up the number that a relay log's name ends with.
func nextRelayLog(name string) string {
	dot := strings.LastIndexByte(name, '.')
	n, err := strconv.ParseUint(name[dot+1:], 10, 64)
	if dot < 0 || err != nil {
		return ""
	}
	return fmt.Sprintf("%s.%0*d", name[:dot], len(name)-dot-1, n+1)
}

// relayWalk goes through the events of the relay logs.
type relayWalk struct {
	at, until position

	r       relayed
	torn    bool     // a relay log ended without saying so; what follows may not be all
	seen    position // transactions that are there, whole
	current string   // the domain of the transaction that the events belong to; "" if none or not wanted
	gtid    span
	begun   bool // it began with BEGIN, so it has an end
	events  int
}

var relayGTID = regexp.MustCompile(`^(BEGIN )?GTID (\d+)-(\d+)-(\d+)`)

// event takes the next event. Those that the servers write for themselves
// belong to no transaction.
func (w *relayWalk) event(at place, kind string, info []byte) {
	switch kind {
	case "Gtid":
		w.current = ""
		m := relayGTID.FindSubmatch(info)
		if m == nil {
			return
		}
		n, err := strconv.ParseUint(string(m[4]), 10, 64)
		if err != nil {
			return
		}
		domain := string(m[2])
		t := position{domain: {{from: n, to: n}}}
		if w.at.covers(t) || !w.until.covers(t) || w.torn {
			return
		}
		w.current, w.gtid, w.begun, w.events = domain, span{0, n, string(m[3])}, len(m[1]) > 0, 0
		if !w.r.found {
			w.r.found, w.r.from = true, at
		}
	case "Format_desc", "Rotate", "Gtid_list", "Binlog_checkpoint", "Stop", "Heartbeat", "Ignorable", "Start_encryption":
	default:
		if w.current == "" {
			return
		}
		w.events++
		if !w.begun && w.events == 1 || kind == "Xid" || kind == "XA_prepare" || kind == "Query" && endsTransaction(info) {
			w.seen[w.current] = []span{w.gtid}
			w.r.to = place{at.file, at.pos + 1}
		} else if !w.begun {
			w.r.to = place{at.file, at.pos + 1}
		}
	}
}

func endsTransaction(info []byte) bool {
	s := string(info)
	if _, statement, ok := strings.Cut(s, "; "); ok && strings.HasPrefix(s, "use ") {
		s = statement
	}
	return s == "COMMIT" || s == "ROLLBACK"
}

// result says whether all that leads to the point is there and whole.
func (w *relayWalk) result() relayed {
	w.r.reached = w.r.found
	for domain, want := range w.until {
		if w.at.covers(position{domain: want}) {
			continue
		}
		got := w.seen[domain]
		if len(got) != 1 || got[0] != want[0] {
			w.r.reached = false
		}
	}
	return w.r
}
