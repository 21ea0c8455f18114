package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	gomysql "github.com/go-sql-driver/mysql"
)

// server is one of the two servers, with a pool of sessions that are all set
// up alike. It is the pool's driver.Connector.
type server struct {
	role  string // "active" or "standby"
	spec  Server
	limit Timeouts
	db    *sql.DB
	kills pending               // of sessions that were abandoned in the middle
	given atomic.Pointer[error] // why a connection was last given up
	noCTE atomic.Bool           // it knows no WITH: MySQL 5.7, which only tests run with
}

const maxIdle = 4 // sessions in the pool

func newServer(role string, spec Server, limit Timeouts) *server {
	s := &server{role: role, spec: spec, limit: limit}
	s.db = sql.OpenDB(s)
	s.db.SetMaxIdleConns(maxIdle)
	s.db.SetConnMaxIdleTime(time.Minute)
	return s
}

func (s *server) close() {
	_ = s.db.Close() // a session that ends in error has ended as well
	s.kills.wait()
}

// conn is what the driver's connections can do; wrapping one must not lose any of it.
type conn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
	driver.NamedValueChecker
}

// pooled marks its network connection before it closes in good order, which
// tells that from a connection that is dropped in the middle of a statement.
type pooled struct {
	conn
	net *watchedConn
}

func (p *pooled) Close() error {
	p.net.orderly.Store(true)
	return p.conn.Close()
}

// Driver is part of driver.Connector.
func (s *server) Driver() driver.Driver { return gomysql.MySQLDriver{} }

// Connect opens a session for the pool.
func (s *server) Connect(parent context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(parent, s.limit.Connect, errSilent)
	defer cancel()
	w := &watchedConn{quiet: s.limit.Quiet}
	c, err := s.handshake(ctx, w)
	if err != nil {
		return nil, s.connectError(ctx, err)
	}
	id, err := s.setUp(ctx, c)
	if err != nil {
		w.orderly.Store(true)
		c.Close()
		return nil, s.connectError(ctx, err)
	}
	w.alive = func() error {
		err := s.ask(id)
		if err != nil {
			s.given.Store(&err)
		}
		return err
	}
	w.abandoned = func() { s.kill(id) }
	return &pooled{conn: c, net: w}, nil
}

// handshake dials, logs in and hands the network connection to w.
func (s *server) handshake(ctx context.Context, w *watchedConn) (conn, error) {
	raw, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	w.Conn = raw
	c := gomysql.NewConfig()
	c.User, c.Passwd, c.TLS = s.spec.User, s.spec.Password, s.spec.TLS
	c.Net, c.Addr = s.network(), s.spec.Address
	c.DialFunc = func(context.Context, string, string) (net.Conn, error) { return w, nil }
	c.Collation = "utf8mb4_general_ci"
	c.InterpolateParams = true
	c.Logger = silent{} // whatever happens is also returned
	connector, err := gomysql.NewConnector(c)
	if err != nil {
		raw.Close()
		return nil, err
	}
	inner, err := connector.Connect(ctx)
	if err != nil {
		raw.Close()
		return nil, err
	}
	full, ok := inner.(conn)
	if !ok {
		inner.Close()
		return nil, errors.New("internal error: the driver's connections have changed")
	}
	return full, nil
}

func (s *server) network() string {
	if strings.HasPrefix(s.spec.Address, "/") {
		return "unix"
	}
	return "tcp"
}

func (s *server) dial(ctx context.Context) (net.Conn, error) {
	if s.spec.Dial != nil {
		return s.spec.Dial(ctx, s.network(), s.spec.Address)
	}
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4}}
	return d.DialContext(ctx, s.network(), s.spec.Address)
}

type silent struct{}

func (silent) Print(...any) {}

// sqlMode lets every value in that a table may hold, as it is: id 0, zero dates
// and 30 February. Definitions keep their engine or fail.
func sqlMode(role string) string {
	mode := "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION"
	if role == "standby" {
		mode += ",NO_DIR_IN_CREATE" // the active's directories mean nothing here
	}
	return mode
}

// setUp makes the session fit for long copies that change no value, and
// returns its id.
func (s *server) setUp(ctx context.Context, c conn) (id string, err error) {
	row, err := firstRow(ctx, c, "SELECT CONNECTION_ID(), VERSION()")
	if err != nil {
		return "", err
	}
	if len(row) != 2 {
		return "", errors.New("malformed answer to the first question")
	}
	id = row[0]
	if number, err := parseVersion(row[1]); err == nil {
		s.noCTE.Store(!isMariaDB(row[1]) && number[0] < 8)
	}
	// Few statements: each is a round trip, and a far active is asked by many sessions.
	values := fmt.Sprintf("SET SESSION time_zone='+00:00', sql_mode='%s', autocommit=1, foreign_key_checks=0, sql_quote_show_create=1, "+
		"character_set_client=utf8mb4, character_set_results=utf8mb4, character_set_connection=utf8mb4, collation_connection=utf8mb4_general_ci, "+ // whatever was agreed on: init_connect comes later
		"max_error_count=64, unique_checks=1, sql_auto_is_null=0, sql_big_selects=1, sql_safe_updates=0, completion_type=0, "+
		"sql_select_limit=18446744073709551615, "+ // DEFAULT would be the server's, which cuts every table and list without a word
		"wait_timeout=%d, net_read_timeout=86400, net_write_timeout=86400, lock_wait_timeout=%d",
		sqlMode(s.role), noTimeout, max(1, int(s.limit.Lock/time.Second)))
	if isMariaDB(row[1]) {
		values += ", max_statement_time=0, idle_transaction_timeout=0, idle_readonly_transaction_timeout=0, idle_write_transaction_timeout=0, check_constraint_checks=0"
	} else {
		values += ", max_execution_time=0"
	}
	transaction := "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"
	// What the account may lack the right for. On the active sql_log_bin matters
	// although nothing is written there: with it MariaDB holds on to every table
	// that was read until the snapshot ends.
	may := []string{"SET SESSION sql_log_bin=0"}
	if !isMariaDB(row[1]) { // MySQL 8.0: sizes of tables as they are
		may = append(may, "SET SESSION information_schema_stats_expiry=0")
	}
	if s.role == "active" {
		transaction += ", READ ONLY"
	} else {
		transaction += ", READ WRITE"
		may = append(may, "SET SESSION innodb_strict_mode=0")
		if isMariaDB(row[1]) {
			may = append(may, "SET SESSION alter_algorithm='DEFAULT'", "SET SESSION enforce_storage_engine=NULL")
		} else {
			may = append(may, "SET SESSION sql_generate_invisible_primary_key=0")
		}
	}
	for _, statement := range []string{values, transaction} {
		if _, err := c.ExecContext(ctx, statement, nil); err != nil {
			return "", err
		}
	}
	for _, statement := range may {
		if _, err := c.ExecContext(ctx, statement, nil); err != nil && !isServerError(err) {
			return "", err
		}
	}
	return id, nil
}

// firstRow returns the first row of a query as text.
func firstRow(ctx context.Context, c conn, query string) ([]string, error) {
	rows, err := c.QueryContext(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	values := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(values); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	row := make([]string, len(values))
	for i, v := range values {
		if b, ok := v.([]byte); ok {
			row[i] = string(b)
		} else if v != nil {
			row[i] = fmt.Sprint(v)
		}
	}
	return row, nil
}

// ask says over another connection whether the session id still exists.
func (s *server) ask(id string) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.limit.Connect, errSilent)
	defer cancel()
	c, err := s.handshake(ctx, &watchedConn{})
	if isServerError(err) {
		return nil // too many connections, for instance: it lives
	}
	if err != nil {
		return s.connectError(ctx, err)
	}
	defer c.Close()
	row, err := firstRow(ctx, c, "SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = "+id)
	if err != nil {
		return s.connectError(ctx, err)
	}
	if row == nil {
		return fmt.Errorf("the %s database server no longer knows the connection", s.role)
	}
	return nil
}

// killTime bounds how long a cancelled command goes on to end its statements.
const killTime = 1500 * time.Millisecond

// kill ends the session id on the server, which would otherwise only notice
// that nobody listens when its statement is done. An account may always end
// its own sessions. It returns at once; kills waits until it is over.
func (s *server) kill(id string) {
	s.kills.start(func() {
		ctx, cancel := context.WithTimeout(context.Background(), killTime)
		defer cancel()
		c, err := s.handshake(ctx, &watchedConn{})
		if err != nil {
			return // the server is gone, and the session with it
		}
		defer c.Close()
		_, _ = c.ExecContext(ctx, "KILL "+id, nil) // it may have ended by itself
	})
}

// noTimeout is the longest that a session may be idle, in seconds.
const noTimeout = 2147483

// session takes a connection out of the pool and makes schema its default; ""
// leaves it as it is. The caller closes it.
func (s *server) session(ctx context.Context, schema string) (*sql.Conn, error) {
	c, err := s.living(ctx)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	if schema != "" {
		if _, err := c.ExecContext(ctx, "USE "+quote(schema)); err != nil {
			c.Close()
			return nil, s.explain(ctx, err)
		}
	}
	return c, nil
}

// living takes a connection out of the pool that was not closed while nobody
// used it, as those of a server that was restarted are.
func (s *server) living(ctx context.Context) (*sql.Conn, error) {
	for try := 1; ; try++ {
		c, err := s.db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		if err = c.PingContext(ctx); err == nil {
			return c, nil
		}
		c.Close()
		if !errors.Is(err, driver.ErrBadConn) || try > maxIdle {
			return nil, err
		}
	}
}
