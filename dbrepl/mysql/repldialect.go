package mysql

import (
	"fmt"
	"net"
	"strings"
)

// channel names drsync's replication connection, apart from any other.
const channel = "drsync"

// farAway is the longest delay of an applier, in seconds. A MariaDB server that
// starts also starts its replication, whatever was stopped before: with this
// delay it applies nothing by itself.
const farAway = 2147483647

// source is where the standby's server receives from.
type source struct {
	host, port     string
	user, password string
	tls            bool
	ca             string // a file that the standby's server can read
}

func newSource(o ReplicaSource) (source, error) {
	host, port, err := net.SplitHostPort(o.Address)
	if err != nil || host == "" || port == "" {
		return source{}, fmt.Errorf("the address %q, where the standby's server reaches the active's, is not host:port", o.Address)
	}
	if strings.HasPrefix(host, "/") {
		return source{}, fmt.Errorf("the address %q: replication does not go through a socket", o.Address)
	}
	return source{host, port, o.User, o.Password, o.TLS, o.CA}, nil
}

// place is a position in a relay log.
type place struct {
	file string
	pos  uint64
}

// dialect words what replication needs in a server's own statements. All of it
// is text: nothing is asked and nothing is done here.
type dialect struct {
	mariaDB bool
	shared  bool // MySQL 5.7, which only tests run with: a filter is for all channels
	renamed bool // MySQL 8.0.23: source and replica
	dropped bool // MySQL 8.2: RESET BINARY LOGS AND GTIDS
}

func dialectOf(id identity) dialect {
	if id.MariaDB {
		return dialect{mariaDB: true}
	}
	return dialect{shared: !id.atLeast(8, 0, 1), renamed: id.atLeast(8, 0, 23), dropped: id.atLeast(8, 2, 0)}
}

func (d dialect) replica() string {
	if d.renamed {
		return "REPLICA"
	}
	return "SLAVE"
}

// command words a statement about the channel: MariaDB names it in the middle.
func (d dialect) command(verb, rest string) string {
	if d.mariaDB {
		return strings.TrimSpace(verb + " SLAVE '" + channel + "' " + rest)
	}
	if rest != "" {
		rest += " "
	}
	return verb + " " + d.replica() + " " + rest + "FOR CHANNEL '" + channel + "'"
}

// change words a change of the channel's settings, which are named as MySQL 8
// names them.
func (d dialect) change(settings ...string) string {
	if d.renamed {
		return "CHANGE REPLICATION SOURCE TO " + strings.Join(settings, ", ") + " FOR CHANNEL '" + channel + "'"
	}
	for i, s := range settings {
		settings[i] = strings.Replace(s, "SOURCE_", "MASTER_", 1)
	}
	if d.mariaDB {
		return "CHANGE MASTER '" + channel + "' TO " + strings.Join(settings, ", ")
	}
	return "CHANGE MASTER TO " + strings.Join(settings, ", ") + " FOR CHANNEL '" + channel + "'"
}

// configure makes the channel. It holds the password.
func (d dialect) configure(s source) string {
	settings := []string{
		"SOURCE_HOST=" + text(s.host), "SOURCE_PORT=" + s.port,
		"SOURCE_USER=" + text(s.user), "SOURCE_PASSWORD=" + text(s.password),
		"SOURCE_CONNECT_RETRY=5", "SOURCE_HEARTBEAT_PERIOD=10",
	}
	if s.tls {
		settings = append(settings, "SOURCE_SSL=1", "SOURCE_SSL_VERIFY_SERVER_CERT=1")
		if s.ca != "" {
			settings = append(settings, "SOURCE_SSL_CA="+text(s.ca))
		}
	} else {
		settings = append(settings, "SOURCE_SSL=0")
	}
	switch {
	case d.mariaDB:
		settings = append(settings, "MASTER_USE_GTID=slave_pos", fmt.Sprintf("SOURCE_DELAY=%d", farAway))
	case d.shared:
		settings = append(settings, "SOURCE_AUTO_POSITION=1")
	default:
		settings = append(settings, "SOURCE_AUTO_POSITION=1", "GET_SOURCE_PUBLIC_KEY=1")
	}
	return d.change(settings...)
}

// only lets the channel apply one schema. It needs a stopped applier.
func (d dialect) only(schema string) string {
	pattern := text(strings.NewReplacer(`\`, `\\`, `_`, `\_`, `%`, `\%`).Replace(schema) + ".%")
	if d.mariaDB {
		return "SET GLOBAL " + channel + ".replicate_wild_do_table=" + pattern
	}
	filter := "CHANGE REPLICATION FILTER REPLICATE_WILD_DO_TABLE=(" + pattern + ")"
	if d.shared {
		return filter
	}
	return filter + " FOR CHANNEL '" + channel + "'"
}

// receive starts to receive and to apply nothing: until T, where MariaDB can
// stop by itself, or from then on. On MariaDB it is the delay that applies
// nothing, since a receiver alone cannot be told where to stop.
func (d dialect) receive(until string, continuous bool) string {
	switch {
	case !d.mariaDB:
		return d.command("START", "IO_THREAD")
	case continuous:
		return d.command("START", "")
	}
	return d.command("START", "UNTIL master_gtid_pos="+text(until))
}

// apply makes the applier go from one place in the relay logs to another, which
// is T. MariaDB would throw the relay logs away if it began by GTID; MySQL knows
// by itself where to begin.
func (d dialect) apply(from, to place, until string) []string {
	if !d.mariaDB {
		return []string{d.command("START", "SQL_THREAD UNTIL SQL_AFTER_GTIDS="+text(until))}
	}
	return []string{
		d.change("MASTER_USE_GTID=no", "SOURCE_DELAY=0", "RELAY_LOG_FILE="+text(from.file), fmt.Sprintf("RELAY_LOG_POS=%d", from.pos)),
		d.command("START", fmt.Sprintf("SQL_THREAD UNTIL RELAY_LOG_FILE=%s, RELAY_LOG_POS=%d", text(to.file), to.pos)),
	}
}

func (d dialect) stop() string   { return d.command("STOP", "") }
func (d dialect) forget() string { return d.command("RESET", "ALL") }

// status asks for the state of all channels.
func (d dialect) status() string {
	if d.mariaDB {
		return "SHOW ALL SLAVES STATUS"
	}
	return "SHOW " + d.replica() + " STATUS"
}

// flush makes what was received durable: the current relay log is synced and
// another one begun.
func (d dialect) flush() string {
	if d.mariaDB {
		return "FLUSH RELAY LOGS '" + channel + "'"
	}
	return "FLUSH RELAY LOGS FOR CHANNEL '" + channel + "'"
}

// events lists what a relay log holds; "" is the first.
func (d dialect) events(file string) string {
	if file != "" {
		file = " IN " + text(file)
	}
	if d.mariaDB {
		return "SHOW RELAYLOG '" + channel + "' EVENTS" + file
	}
	return "SHOW RELAYLOG EVENTS" + file + " FOR CHANNEL '" + channel + "'"
}

// applied is the expression of what the standby has applied.
func (d dialect) applied() string {
	if d.mariaDB {
		return "@@GLOBAL.gtid_slave_pos"
	}
	return "@@GLOBAL.gtid_executed"
}

// written is the expression that shows what the standby has written by itself.
func (d dialect) written() string {
	if d.mariaDB {
		return "@@GLOBAL.gtid_binlog_state"
	}
	return "@@GLOBAL.gtid_executed"
}

// self is the expression of how a server is named in its own GTIDs.
func (d dialect) self() string {
	if d.mariaDB {
		return "@@GLOBAL.server_id"
	}
	return "@@GLOBAL.server_uuid"
}

// wait asks for T to be applied within some seconds.
func (d dialect) wait(until string, seconds int) string {
	if d.mariaDB {
		return fmt.Sprintf("SELECT MASTER_GTID_WAIT(%s, %d) w", text(until), seconds)
	}
	return fmt.Sprintf("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %d) w", text(until), seconds)
}

// begin makes a position the one from which replication goes on. The server
// forgets its own binary log, which would contradict it.
func (d dialect) begin(position string) []string {
	reset := "RESET MASTER"
	if d.dropped {
		reset = "RESET BINARY LOGS AND GTIDS"
	}
	if d.mariaDB {
		return []string{reset, "SET GLOBAL gtid_slave_pos=" + text(position)}
	}
	return []string{reset, "SET GLOBAL gtid_purged=" + text(position)}
}

// giveUp is what an operator does to let go of a replica.
func (d dialect) giveUp() string {
	return strings.Join(append([]string{d.stop(), d.forget()}, d.begin("")...), "; ") + ";"
}

// channelStatus is the state of one channel, under whichever names its columns have.
type channelStatus struct {
	name, host, port, user string
	receiving              string // Yes, No, Connecting, Preparing
	applying               bool
	received               string // position
	byGTID                 bool
	delay                  string
	bytes                  string // of the relay logs
	place                  string // in the active's binary log
	receiveError           string
	receiveNumber          string
	applyError             string
	applyNumber            string
	idle                   bool // the applier has read all that was received
}

func readStatus(r record) channelStatus {
	get := func(names ...string) string {
		for _, n := range names {
			if v, ok := r[n]; ok {
				return v.String
			}
		}
		return ""
	}
	return channelStatus{
		name:          get("connection_name", "channel_name"),
		host:          get("source_host", "master_host"),
		port:          get("source_port", "master_port"),
		user:          get("source_user", "master_user"),
		receiving:     get("replica_io_running", "slave_io_running"),
		applying:      get("replica_sql_running", "slave_sql_running") == "Yes",
		received:      get("gtid_io_pos", "retrieved_gtid_set"),
		byGTID:        get("using_gtid") == "Slave_Pos" || get("auto_position") == "1",
		delay:         get("sql_delay"),
		bytes:         get("relay_log_space"),
		place:         get("source_log_file", "master_log_file") + ":" + get("read_source_log_pos", "read_master_log_pos"),
		receiveError:  oneLine(get("last_io_error")),
		receiveNumber: get("last_io_errno"),
		applyError:    oneLine(get("last_sql_error")),
		applyNumber:   get("last_sql_errno"),
		idle:          strings.Contains(get("replica_sql_running_state", "slave_sql_running_state"), "has read all relay log"),
	}
}

// oneLine makes one line of what a server says, which repeats statements as they were sent.
func oneLine(s string) string {
	const most = 500
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " …"
	}
	return s
}
