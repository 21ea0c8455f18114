package mysql

import (
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustPosition(t testing.TB, mariaDB bool, text string) position {
	t.Helper()
	p, err := parsePosition(mariaDB, text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	uuidA = "3E11FA47-71CA-11E1-9E33-C80AA9429562"
	uuidB = "00000000-0000-0000-0000-00000000000b"
)

func TestPositions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mariaDB              bool
		a, b                 string
		aCovers, bCovers, eq bool
	}{
		{true, "", "", true, true, true},
		{true, "0-1-5", "", true, false, false},
		{true, "0-1-5", "0-1-5", true, true, true},
		{true, "0-1-5", "0-2-5", true, true, false},
		{true, "0-1-5", "0-1-4", true, false, false},
		{true, "0-1-5,3-1-2", "3-1-2,0-1-5", true, true, true},
		{true, "0-1-5,3-1-2", "0-1-9", false, false, false},
		{true, "0-1-18446744073709551615", "0-1-1", true, false, false},
		{false, uuidA + ":1-5", uuidA + ":1-5", true, true, true},
		{false, uuidA + ":1-5", strings.ToLower(uuidA) + ":1-3:4-5", true, true, true},
		{false, uuidA + ":1-5:7", uuidA + ":6", false, false, false},
		{false, uuidA + ":1-5:7", uuidA + ":2-3,\n" + uuidA + ":7", true, false, false},
		{false, uuidA + ":1-5," + uuidB + ":1", uuidA + ":1-5", true, false, false},
		{false, uuidA + ":1-5:tag:1-2", uuidA + ":1-5", true, false, false},
		{false, "", uuidA + ":1", false, true, false},
	} {
		a, b := mustPosition(t, c.mariaDB, c.a), mustPosition(t, c.mariaDB, c.b)
		if a.covers(b) != c.aCovers || b.covers(a) != c.bCovers || a.equal(b) != c.eq || b.equal(a) != c.eq {
			t.Errorf("%q and %q: covers %v, is covered %v, equal %v", c.a, c.b, a.covers(b), b.covers(a), a.equal(b))
		}
	}
	for _, bad := range []string{"0-1", "x-1-2", "0-1-", "0-1-2-3", "0-1-2,0-1-3", "0-99999999999-1", "0-1-18446744073709551616", uuidA + ":1"} {
		if p, err := parsePosition(true, bad); err == nil {
			t.Errorf("%q is %v", bad, p)
		}
	}
	for _, bad := range []string{"0-1-2", uuidA, uuidA + ":", uuidA + ":5-1", uuidA + ":1-x", "x:1"} {
		if p, err := parsePosition(false, bad); err == nil {
			t.Errorf("%q is %v", bad, p)
		}
	}
	if g := gtidOf("binlog.000003:7421 0-1-57,1-1-2"); g != "0-1-57,1-1-2" {
		t.Errorf("the GTID is %q", g)
	}
	if g := gtidOf("binlog.000003:7421"); g != "" {
		t.Errorf("the GTID is %q", g)
	}
}

func FuzzPosition(f *testing.F) {
	f.Add(true, "0-1-5,3-1-2", "0-1-9")
	f.Add(false, uuidA+":1-5:7", uuidB+":1-2")
	f.Fuzz(func(t *testing.T, mariaDB bool, x, y string) {
		p, err := parsePosition(mariaDB, x)
		if err != nil {
			return
		}
		if !p.covers(p) || !p.equal(p) || !p.covers(nil) {
			t.Errorf("%q is not equal to itself", x)
		}
		if q, err := parsePosition(mariaDB, y); err == nil && p.equal(q) && !q.covers(p) {
			t.Errorf("%q equals %q and is not covered by it", x, y)
		}
	})
}

// TestDialects holds the statements of each server against its manual.
func TestDialects(t *testing.T) {
	t.Parallel()
	s := source{"db", "3306", "r", `p'w`, true, "/ca.pem"}
	for _, c := range []struct {
		id   identity
		want []string
	}{
		{identity{MariaDB: true, Number: [3]int{10, 11, 6}}, []string{
			`CHANGE MASTER 'drsync' TO MASTER_HOST='db', MASTER_PORT=3306, MASTER_USER='r', MASTER_PASSWORD='p\'w', MASTER_CONNECT_RETRY=5, MASTER_HEARTBEAT_PERIOD=10, ` +
				`MASTER_SSL=1, MASTER_SSL_VERIFY_SERVER_CERT=1, MASTER_SSL_CA='/ca.pem', MASTER_USE_GTID=slave_pos, MASTER_DELAY=2147483647`,
			`SET GLOBAL drsync.replicate_wild_do_table='my\\_art.%'`,
			`START SLAVE 'drsync' UNTIL master_gtid_pos='T'`,
			`START SLAVE 'drsync'`,
			`STOP SLAVE 'drsync'`,
			`FLUSH RELAY LOGS 'drsync'`,
			`CHANGE MASTER 'drsync' TO MASTER_USE_GTID=no, MASTER_DELAY=0, RELAY_LOG_FILE='a.01', RELAY_LOG_POS=4`,
			`START SLAVE 'drsync' SQL_THREAD UNTIL RELAY_LOG_FILE='b.02', RELAY_LOG_POS=9`,
			`SELECT MASTER_GTID_WAIT('T', 1) w`,
			`RESET SLAVE 'drsync' ALL`,
			`RESET MASTER`, `SET GLOBAL gtid_slave_pos='T'`,
			`SHOW ALL SLAVES STATUS`, `@@GLOBAL.gtid_slave_pos`, `@@GLOBAL.gtid_binlog_state`, `@@GLOBAL.server_id`,
		}},
		{identity{Number: [3]int{5, 7, 44}}, []string{
			`CHANGE MASTER TO MASTER_HOST='db', MASTER_PORT=3306, MASTER_USER='r', MASTER_PASSWORD='p\'w', MASTER_CONNECT_RETRY=5, MASTER_HEARTBEAT_PERIOD=10, ` +
				`MASTER_SSL=1, MASTER_SSL_VERIFY_SERVER_CERT=1, MASTER_SSL_CA='/ca.pem', MASTER_AUTO_POSITION=1 FOR CHANNEL 'drsync'`,
			`CHANGE REPLICATION FILTER REPLICATE_WILD_DO_TABLE=('my\\_art.%')`,
			`START SLAVE IO_THREAD FOR CHANNEL 'drsync'`,
			`START SLAVE IO_THREAD FOR CHANNEL 'drsync'`,
			`STOP SLAVE FOR CHANNEL 'drsync'`,
			`FLUSH RELAY LOGS FOR CHANNEL 'drsync'`,
			`START SLAVE SQL_THREAD UNTIL SQL_AFTER_GTIDS='T' FOR CHANNEL 'drsync'`,
			`SELECT WAIT_FOR_EXECUTED_GTID_SET('T', 1) w`,
			`RESET SLAVE ALL FOR CHANNEL 'drsync'`,
			`RESET MASTER`, `SET GLOBAL gtid_purged='T'`,
			`SHOW SLAVE STATUS`, `@@GLOBAL.gtid_executed`, `@@GLOBAL.gtid_executed`, `@@GLOBAL.server_uuid`,
		}},
		{identity{Number: [3]int{8, 4, 0}}, []string{
			`CHANGE REPLICATION SOURCE TO SOURCE_HOST='db', SOURCE_PORT=3306, SOURCE_USER='r', SOURCE_PASSWORD='p\'w', SOURCE_CONNECT_RETRY=5, SOURCE_HEARTBEAT_PERIOD=10, ` +
				`SOURCE_SSL=1, SOURCE_SSL_VERIFY_SERVER_CERT=1, SOURCE_SSL_CA='/ca.pem', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1 FOR CHANNEL 'drsync'`,
			`CHANGE REPLICATION FILTER REPLICATE_WILD_DO_TABLE=('my\\_art.%') FOR CHANNEL 'drsync'`,
			`START REPLICA IO_THREAD FOR CHANNEL 'drsync'`,
			`START REPLICA IO_THREAD FOR CHANNEL 'drsync'`,
			`STOP REPLICA FOR CHANNEL 'drsync'`,
			`FLUSH RELAY LOGS FOR CHANNEL 'drsync'`,
			`START REPLICA SQL_THREAD UNTIL SQL_AFTER_GTIDS='T' FOR CHANNEL 'drsync'`,
			`SELECT WAIT_FOR_EXECUTED_GTID_SET('T', 1) w`,
			`RESET REPLICA ALL FOR CHANNEL 'drsync'`,
			`RESET BINARY LOGS AND GTIDS`, `SET GLOBAL gtid_purged='T'`,
			`SHOW REPLICA STATUS`, `@@GLOBAL.gtid_executed`, `@@GLOBAL.gtid_executed`, `@@GLOBAL.server_uuid`,
		}},
	} {
		d := dialectOf(c.id)
		got := []string{d.configure(s), d.only("my_art"), d.receive("T", false), d.receive("T", true), d.stop(), d.flush()}
		got = append(got, d.apply(place{"a.01", 4}, place{"b.02", 9}, "T")...)
		got = append(got, d.wait("T", 1), d.forget())
		got = append(got, d.begin("T")...)
		got = append(got, d.status(), d.applied(), d.written(), d.self())
		for i := range max(len(got), len(c.want)) {
			if i >= len(got) || i >= len(c.want) || got[i] != c.want[i] {
				t.Errorf("%s: got\n%s\nwant\n%s", c.id.series(), strings.Join(got, "\n"), strings.Join(c.want, "\n"))
				break
			}
		}
	}
	plain := dialectOf(identity{MariaDB: true, Number: [3]int{10, 11, 6}}).configure(source{host: "db", port: "1", user: "r", password: "p"})
	old := dialectOf(identity{Number: [3]int{8, 0, 19}})
	if got := old.configure(s) + old.only("x"); !strings.Contains(got, "CHANGE MASTER TO MASTER_HOST='db'") || !strings.Contains(got, "GET_MASTER_PUBLIC_KEY=1 FOR CHANNEL 'drsync'CHANGE REPLICATION FILTER REPLICATE_WILD_DO_TABLE=('x.%') FOR CHANNEL 'drsync'") {
		t.Errorf("MySQL 8.0.19: %s", got)
	}
	if !strings.Contains(plain, "MASTER_SSL=0") || strings.Contains(plain, "VERIFY") {
		t.Errorf("without TLS: %s", plain)
	}
}

func row(pairs ...string) record {
	r := make(record)
	for i := 0; i < len(pairs); i += 2 {
		r[pairs[i]] = sql.NullString{String: pairs[i+1], Valid: true}
	}
	return r
}

func TestStatusColumns(t *testing.T) {
	t.Parallel()
	maria := readStatus(row("connection_name", "drsync", "master_host", "h", "master_port", "1", "master_user", "u", "slave_io_running", "Yes", "slave_sql_running", "Yes",
		"gtid_io_pos", "0-1-2", "using_gtid", "Slave_Pos", "sql_delay", "5", "relay_log_space", "99", "master_log_file", "b.1", "read_master_log_pos", "7",
		"last_io_errno", "1236", "last_io_error", "io", "last_sql_errno", "1062", "last_sql_error", "sql"))
	modern := readStatus(row("channel_name", "drsync", "source_host", "h", "source_port", "1", "source_user", "u", "replica_io_running", "Yes", "replica_sql_running", "Yes",
		"retrieved_gtid_set", "0-1-2", "auto_position", "1", "sql_delay", "5", "relay_log_space", "99", "source_log_file", "b.1", "read_source_log_pos", "7",
		"last_io_errno", "1236", "last_io_error", "io", "last_sql_errno", "1062", "last_sql_error", "sql"))
	want := channelStatus{"drsync", "h", "1", "u", "Yes", true, "0-1-2", true, "5", "99", "b.1:7", "io", "1236", "sql", "1062"}
	if maria != want || modern != want {
		t.Errorf("MariaDB: %+v\nMySQL: %+v\nwant %+v", maria, modern, want)
	}
}

// TestRelayWalk finds what leads from one position to another.
func TestRelayWalk(t *testing.T) {
	t.Parallel()
	type ev struct {
		file string
		pos  uint64
		kind string
		info string
	}
	const f1, f2 = "r.000001", "r.000002"
	all := []ev{
		{f1, 4, "Format_desc", ""}, {f1, 256, "Rotate", "binlog.000001;pos=4"}, {f1, 300, "Gtid_list", "[]"},
		{f1, 400, "Gtid", "BEGIN GTID 0-1-6"}, {f1, 440, "Table_map", ""}, {f1, 480, "Write_rows_v1", ""}, {f1, 520, "Xid", "COMMIT /* xid=1 */"},
		{f1, 600, "Gtid", "GTID 0-1-7"}, {f1, 640, "Query", "use `a`; create table t (i int)"},
		{f1, 700, "Gtid", "BEGIN GTID 5-1-1 cid=7"}, {f1, 740, "Query", "use `a`; update x"}, {f1, 780, "Query", "use `a`; COMMIT"}, {f1, 800, "Rotate", "r.000002;pos=4"},
		{f2, 4, "Format_desc", ""}, {f2, 256, "Gtid", "BEGIN GTID 0-1-8"}, {f2, 300, "Write_rows_v1", ""}, {f2, 340, "Xid", "COMMIT /* xid=2 */"}, {f2, 400, "Gtid_list", "x"},
	}
	for _, c := range []struct {
		name      string
		at, until string
		events    []ev
		torn      bool // after the first file
		want      relayed
	}{
		{"all", "0-1-5", "0-1-8,5-1-1", all, false, relayed{place{f1, 400}, place{f2, 341}, true, true}},
		{"a part", "0-1-6", "0-1-7,5-1-1", all, false, relayed{place{f1, 600}, place{f1, 781}, true, true}},
		{"one domain", "0-1-5", "0-1-6", all, false, relayed{place{f1, 400}, place{f1, 521}, true, true}},
		{"a definition at the end", "0-1-6", "0-1-7", all, false, relayed{place{f1, 600}, place{f1, 641}, true, true}},
		{"from the middle of a publish", "0-1-7,5-1-1", "0-1-8,5-1-1", all, false, relayed{place{f2, 256}, place{f2, 341}, true, true}},
		{"the last is not whole", "0-1-5", "0-1-8,5-1-1", all[:16], false, relayed{place{f1, 400}, place{f1, 781}, true, false}},
		{"the definition is not there", "0-1-5", "0-1-7", all[:8], false, relayed{place{f1, 400}, place{f1, 521}, true, false}},
		{"a file ends too early", "0-1-5", "0-1-8,5-1-1", all, true, relayed{place{f1, 400}, place{f1, 781}, true, false}},
		{"nothing", "0-1-5", "0-1-6", nil, false, relayed{}},
		{"another server's transaction", "0-1-5", "0-2-6", all, false, relayed{place{f1, 400}, place{f1, 521}, true, false}},
	} {
		w := relayWalk{at: mustPosition(t, true, c.at), until: mustPosition(t, true, c.until), seen: make(position)}
		for _, e := range c.events {
			if e.file == f2 {
				w.torn = c.torn
			}
			w.event(place{e.file, e.pos}, e.kind, []byte(e.info))
		}
		if got := w.result(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	for name, want := range map[string]string{"r.000009": "r.000010", "a.b-relay-bin-drsync.999999": "a.b-relay-bin-drsync.1000000", "none": "", "x.y": ""} {
		if got := nextRelayLog(name); got != want {
			t.Errorf("after %s comes %q, want %q", name, got, want)
		}
	}
}

func TestPositionWithoutAServer(t *testing.T) {
	t.Parallel()
	p, err := parsePosition(false, uuidA+":1-5,"+uuidB+":1-3,"+strings.ToUpper(uuidB)+":tag:7")
	if err != nil {
		t.Fatal(err)
	}
	want, err := parsePosition(false, uuidA+":1-5")
	if err != nil {
		t.Fatal(err)
	}
	if got := p.without(strings.ToUpper(uuidB)); !got.equal(want) || len(got) != 1 {
		t.Errorf("left is %v", got)
	}
	if got := p.without(""); !got.equal(want) {
		t.Errorf("without nothing: %v", got)
	}
}

func TestErrant(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mariaDB                 bool
		written, self, snapshot string
		want                    []string
	}{
		{true, "", "2", "0-1-5", nil},
		{true, "0-1-5", "2", "0-1-5", nil},
		{true, "0-1-5,0-2-6,3-2-1", "2", "0-1-5", []string{"0-2-6", "3-2-1"}},
		{false, uuidA + ":1-5", uuidB, uuidA + ":1-5", nil},
		{false, uuidA + ":1-5,\n" + uuidB + ":1-3", uuidB, uuidA + ":1-5", []string{uuidB + ":1-3"}},
		{false, uuidA + ":1-5," + uuidB + ":1-3", uuidB, uuidA + ":1-5," + uuidB + ":1-3", nil},
	} {
		if got := errant(c.mariaDB, c.written, c.self, c.snapshot); !slices.Equal(got, c.want) {
			t.Errorf("%q of %s: %q, want %q", c.written, c.self, got, c.want)
		}
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, c := range []struct {
		seconds, days string
		age, pause    time.Duration
		want          string
	}{
		{"0", "0", 100 * day, 0, ""},
		{"864000", "10", day, 0, ""},
		{"864000", "10", 6 * day, 0, "already"},
		{"864000", "10", 11 * day, 0, "copy the whole database"},
		{"", "1", 2 * day, 0, "copy the whole database"},
		{"3600", "0", 0, 7 * day, "up to 168h0m0s pass between two runs: such a run"},
		{"864000", "10", 0, 7 * day, "one that fails"},
		{"864000", "10", day, 5 * day, ""},
		{"0", "0", day, 7 * day, ""},
	} {
		got := retention(row("binlog_expire_logs_seconds", c.seconds, "expire_logs_days", c.days), c.age, c.pause)
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestReplicaTokens(t *testing.T) {
	t.Parallel()
	g := &generation{Format: tokenFormat, Engine: tokenEngine, Name: "a", ID: "1", Charset: "c", Collation: "d", Replicated: true}
	g.Point.Position = "b:1 0-1-5"
	token, got, err := parseReplicaToken(replicaToken{From: "0-1-4", Generation: []byte(g.token())}.token(), "a")
	if err != nil || token.Seed || token.From != "0-1-4" || got.ID != "1" || !got.Replicated {
		t.Errorf("%+v, %+v, %v", token, got, err)
	}
	g.Point.Position = "b:1"
	for _, bad := range []string{"", "{}", string(g.token()), string(replicaToken{Generation: []byte(g.token())}.token())} {
		if _, _, err := parseReplicaToken([]byte(bad), "a"); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
}

// TestUnlogged: what mends a replica's server stays out of its binary log, also where it
// is a comment that somebody has to decide about.
func TestUnlogged(t *testing.T) {
	for fix, want := range map[string]string{
		"GRANT SELECT ON mysql.user TO a":               "SET sql_log_bin=0; GRANT SELECT ON mysql.user TO a",
		decide("if nobody needs it", "DROP DATABASE a"): "-- if nobody needs it: SET sql_log_bin=0; DROP DATABASE a",
		"SET GLOBAL read_only=1":                        "SET GLOBAL read_only=1",
		decide("look", ""):                              "-- look",
	} {
		p := &pair{}
		p.fatal("standby server", "", fix)
		p.fatal("active server", "", fix)
		p.unlog()
		if p.findings[0].Fix != want || p.findings[1].Fix != fix {
			t.Errorf("%s becomes %s, on the active %s", fix, p.findings[0].Fix, p.findings[1].Fix)
		}
	}
}

func TestUndurable(t *testing.T) {
	for _, c := range []struct {
		mariaDB bool
		v       record
		want    []bool // of each finding, whether it is fatal
	}{
		{true, row("innodb_flush_log_at_trx_commit", "1", "sync_binlog", "0", "log_bin", "ON", "log_slave_updates", "ON"), nil},
		{true, row("innodb_flush_log_at_trx_commit", "3"), nil},
		{true, row("innodb_flush_log_at_trx_commit", "0"), []bool{true}},
		{false, row("innodb_flush_log_at_trx_commit", "2", "innodb_doublewrite", "DETECT_ONLY"), []bool{true, false}},
		{false, row("innodb_flush_log_at_trx_commit", "1", "sync_binlog", "0", "log_bin", "ON", "log_replica_updates", "ON"), []bool{true}},
		{false, row("innodb_flush_log_at_trx_commit", "1", "sync_binlog", "0", "log_bin", "ON", "log_replica_updates", "OFF"), nil},
	} {
		var got []bool
		for _, f := range undurable(c.mariaDB, c.v) {
			got = append(got, f.Fatal)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("of %v: %v, want %v", c.v, got, c.want)
		}
	}
}
