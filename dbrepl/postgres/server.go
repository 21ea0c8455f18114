package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is how to reach one of the two servers.
type Server struct {
	// Address is host:port, or the absolute path of a unix socket or of the
	// directory that it is in.
	Address  string
	User     string
	Password string
	TLS      *tls.Config // nil: not encrypted
	// Dial replaces the ordinary way to connect, for instance through an SSH
	// tunnel. It may be called from several goroutines at once.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

const (
	defaultPort  = "5432"
	socketPrefix = ".s.PGSQL."
)

func (s Server) valid(role string) error {
	if s.User == "" {
		return fmt.Errorf("the %s database has no user", role)
	}
	if strings.HasPrefix(s.Address, "/") {
		return nil
	}
	host, port, err := net.SplitHostPort(s.Address)
	if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || host == "" {
		return fmt.Errorf("the %s database's address %q is neither host:port nor the path of a socket", role, s.Address)
	}
	return nil
}

// place is the address as the protocol's libraries take it: a host or the
// directory of a socket, and a port.
func (s Server) place() (host, port string) {
	if !strings.HasPrefix(s.Address, "/") {
		host, port, _ = net.SplitHostPort(s.Address) // valid has seen it
		return host, port
	}
	if dir, base := filepath.Split(s.Address); strings.HasPrefix(base, socketPrefix) {
		return filepath.Clean(dir), strings.TrimPrefix(base, socketPrefix)
	}
	return filepath.Clean(s.Address), defaultPort
}

// Target is the address as net.Dial takes it.
func (s Server) Target() (network, address string) {
	host, port := s.place()
	if strings.HasPrefix(host, "/") {
		return "unix", filepath.Join(host, socketPrefix+port)
	}
	return "tcp", net.JoinHostPort(host, port)
}

// server is one of the two servers. It is safe for use by several goroutines.
type server struct {
	role    string // "active" or "standby"
	name    string // of its sessions
	spec    Server
	limit   Timeouts
	private string // where private directories are made; "" is the usual place, which tests do without
}

func newServer(role string, spec Server, limit Timeouts) *server {
	return &server{role: role, name: sessionWord, spec: spec, limit: limit}
}

func (s *server) dial(ctx context.Context) (net.Conn, error) {
	network, address := s.spec.Target()
	if s.spec.Dial != nil {
		return s.spec.Dial(ctx, network, address)
	}
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4}}
	return d.DialContext(ctx, network, address)
}

// config is the driver's, free of what this process's environment says.
func (s *server) config(database string) (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig("host=localhost port=5432 user=x database=x password=x passfile=/dev/null sslmode=disable target_session_attrs=any")
	if err != nil {
		return nil, err
	}
	host, port := s.spec.place()
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("the port %q: %w", port, err)
	}
	c.Host, c.Port, c.Database = host, uint16(n), database
	c.User, c.Password = s.spec.User, s.spec.Password
	c.TLSConfig, c.Fallbacks = s.spec.TLS, nil
	c.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dial(ctx) }
	c.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil } // whoever dials resolves it
	c.RuntimeParams = map[string]string{"application_name": s.name, "client_encoding": "UTF8", "datestyle": "ISO"}
	c.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	return c, nil
}

// connect opens a session for work on a database, set up so that nothing that
// an administrator has set for others ends it early or changes what it sees.
// The session ends by end.
func (s *server) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	c, err := s.open(ctx, database)
	if err != nil {
		return nil, s.connectError(ctx, err)
	}
	return c, nil
}

func (s *server) open(parent context.Context, database string) (_ *pgx.Conn, err error) {
	ctx, cancel := context.WithTimeoutCause(parent, s.limit.Connect, errSilent)
	defer cancel()
	config, err := s.config(database)
	if err != nil {
		return nil, err
	}
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	if err := s.setUp(ctx, c); err != nil {
		end(c)
		return nil, s.explain(ctx, err)
	}
	return c, nil
}

// settings are those of every session: names of settings, which older servers
// may not have, and values.
func (s *server) settings() [][2]string {
	all := [][2]string{
		{"statement_timeout", "0"},
		{"lock_timeout", strconv.FormatInt(max(1, s.limit.Lock.Milliseconds()), 10)},
		{"idle_in_transaction_session_timeout", "0"}, {"idle_session_timeout", "0"}, {"transaction_timeout", "0"},
		{"row_security", "off"},       // a table that hides rows is an error
		{"search_path", "pg_catalog"}, // what an application has made is named with its schema
		{"synchronize_seqscans", "off"},
		{"bytea_output", "hex"}, {"extra_float_digits", "3"},
	}
	all = slices.Concat(all, sameText, s.peerSettings())
	if s.role == "active" {
		return append(all, [2]string{"default_transaction_read_only", "on"}, [2]string{peerLook, strconv.FormatInt(deadPeerLook.Milliseconds(), 10)})
	}
	return append(all, [2]string{"default_transaction_read_only", "off"}) // a published database has it on
}

// peerLook is a setting that servers of other systems refuse.
const peerLook = "client_connection_check_interval"

func (s *server) setUp(ctx context.Context, c *pgx.Conn) error {
	var names, values []string
	for _, v := range s.settings() {
		names, values = append(names, v[0]), append(values, v[1])
	}
	_, err := c.Exec(ctx, `SELECT pg_catalog.set_config(n, v, false) FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS a (n, v)
		WHERE EXISTS (SELECT FROM pg_catalog.pg_settings s WHERE pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) n)
			AND (n OPERATOR(pg_catalog.<>) $3 OR pg_catalog.version() OPERATOR(pg_catalog.~) 'linux')`, names, values, peerLook)
	return err
}

// farewell bounds how long a session may take to end.
const farewell = 1500 * time.Millisecond

// end ends a session, and waits until a statement that was cut short in it has
// ended on the server.
func end(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	_ = c.Close(ctx) // a session that ends in error has ended as well
	select {
	case <-c.PgConn().CleanupDone():
	case <-ctx.Done():
	}
}

// guard watches over a server that is at work for long: every Quiet it asks
// over a new connection whether it still answers, and ends the context when it
// does not. Deadlines could not tell a dead server from one that sorts for an hour.
func (s *server) guard(parent context.Context, database string) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(s.limit.Quiet)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			c, err := s.open(ctx, database)
			if err == nil {
				end(c)
			} else if !isServerError(err) { // too many connections, for instance: it lives
				cancel(s.connectError(ctx, err))
				return
			}
		}
	}()
	return ctx, func() {
		cancel(errors.New("internal error: the work is over"))
		<-done
	}
}
