package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/mysql"
	"github.com/drsync/drsync/dbrepl/postgres"
	"github.com/drsync/drsync/dbrepl/sqlite"
	"github.com/drsync/drsync/failover"
	"github.com/drsync/drsync/internal/app"
	"github.com/drsync/drsync/internal/config"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/remote"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/prune"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/cli"
	"github.com/drsync/drsync/rsyncx/wire"
	drsync "github.com/drsync/drsync/sync"
)

// standby is the configured host with everything wired together.
type standby struct {
	*options
	config *config.Config
	runner *drsync.Runner
	active *lazyHost
	shown  *shown
}

// openStandby reads the configuration and wires the packages. It connects to
// nothing. Everything that is wrong is reported at once.
func openStandby(o *options, f output) (*standby, error) {
	cfg, err := o.load()
	if err != nil {
		return nil, err
	}
	var errs []error
	command, err := cli.Parse(cfg.Files.Rsync)
	if err != nil {
		errs = append(errs, cfg.Problem("files.rsync", err))
	}
	rules, err := fileRules(cfg, command)
	errs = append(errs, err)
	s := &standby{options: o, config: cfg}
	s.active = &lazyHost{dial: func(ctx context.Context) (remote.Host, error) { return dial(ctx, cfg, o.version) }}
	s.shown, err = openShown(o, cfg, command, f)
	errs = append(errs, err)
	sink := event.Tee(s.shown.sink, o.watch)
	if f.changes && errors.Join(errs...) == nil { // its lock would make it; the name that it keeps there is asked for before
		errs = append(errs, os.MkdirAll(cfg.Standby.State, 0o755))
	}
	engine, err := newEngine(cfg, s.active, sink)
	errs = append(errs, err)
	if f.files {
		errs = append(errs, inspectFiles(cfg, command))
	}
	if err := errors.Join(errs...); err != nil {
		if engine != nil {
			_ = engine.Close()
		}
		s.Close()
		return nil, err
	}
	tree := command.Options
	if tree.MaxDeleteFraction == 0 {
		tree.MaxDeleteFraction = maxDeleteFraction
	}
	s.runner = &drsync.Runner{
		StateDir: cfg.Standby.State, Home: cfg.Standby.Home, BlobDirs: cfg.Standby.Filestore, ActiveHome: cfg.Active.Home, Version: o.version,
		Source:  snapshot.Source{Host: hostName(cfg), Home: cfg.Active.Home, Transport: string(cfg.Active.Transport)},
		Connect: func(ctx context.Context) (drsync.Active, error) { return s.active.get(ctx) },
		Engine:  engine, EngineName: string(cfg.Database.Engine), EngineMode: string(cfg.Database.Mode), DatabaseName: databaseName(cfg),
		Profile: profile(cfg), Rules: rules, Tree: tree, NewSource: f.source,
		KeepDumps: cfg.Snapshots.Dumps, VerifyCapture: f.verifyDatabase,
		Retention: snapshot.Policy{
			KeepLast: cfg.Snapshots.KeepLast, KeepDaily: cfg.Snapshots.KeepDaily,
			KeepWeekly: cfg.Snapshots.KeepWeekly, KeepMonthly: cfg.Snapshots.KeepMonthly,
		},
		Prune: prune.Policy{
			MinAge: cfg.Prune.MinAge, MaxFraction: cfg.Prune.MaxFraction, Quarantine: cfg.Prune.Quarantine,
			DeleteAtOnce: cfg.Prune.Quarantine == 0,
		},
		Reserve: reserve, Event: sink, Now: o.now,
	}
	return s, nil
}

const (
	// maxDeleteFraction is how much of the standby's tree one run may delete.
	maxDeleteFraction = 0.5
	// reserve stays free on the home's file system, for the application's first minutes.
	reserve = 64 << 20
)

func (s *standby) Close() {
	if s.runner != nil && s.runner.Engine != nil {
		_ = s.runner.Engine.Close()
	}
	s.active.Close()
	if err := s.shown.Close(); err != nil {
		fmt.Fprintf(s.err, "warning: %s\n", rsyncx.Printable(err.Error()))
	}
}

// finishOutput ends bars and lines, so that what is printed next stands below them.
func (s *standby) finishOutput() { s.shown.finish() }

func hostName(cfg *config.Config) string {
	if cfg.Active.Transport == config.TransportLocal {
		return "this host"
	}
	return cfg.Active.Host
}

func databaseName(cfg *config.Config) string {
	if cfg.Database.Engine == config.EngineSQLite {
		return cfg.Database.Active.Path
	}
	return cfg.Database.Name
}

func profile(cfg *config.Config) func(func(string) (bool, error)) (app.Profile, error) {
	return func(exists func(string) (bool, error)) (app.Profile, error) {
		return app.Lookup(string(cfg.Application), exists)
	}
}

// dial opens the active by the configured transport.
func dial(ctx context.Context, cfg *config.Config, version string) (remote.Host, error) {
	a := cfg.Active
	roots := append([]string{a.Home}, a.Roots...)
	if cfg.Database.Engine == config.EngineSQLite {
		roots = append(roots, filepath.Dir(cfg.Database.Active.Path))
	}
	if a.Transport == config.TransportLocal {
		return remote.LocalHost(map[string]wire.StreamFunc{sqlite.StreamName: sqlite.NewSnapshotHandler(roots)}), nil
	}
	host, err := remote.Dial(ctx, remote.Config{
		Host: a.Host, User: a.User, Port: a.Port, Identity: a.Identity, KnownHosts: a.KnownHosts,
		Transport: string(a.Transport), AgentCommand: a.Agent, Roots: roots, Version: version,
		Install: a.Install, BandwidthLimit: a.Bandwidth,
	})
	return host, adviseDial(a, err)
}

// adviseDial adds what the operator can do about a host that cannot be reached,
// where the connection did not say so itself.
func adviseDial(a config.Active, err error) error {
	var unresolved *net.DNSError
	switch {
	case err == nil || hint.Of(err) != "":
		return err
	case errors.As(err, &unresolved):
		return hint.With(err, "set active.host to a name that this host resolves, to an address, or to a Host of ~/.ssh/config")
	case errors.Is(err, unix.ECONNREFUSED):
		return hint.With(err, "see that sshd runs on the active, and that active.port is its port")
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, os.ErrDeadlineExceeded):
		return hint.With(err, "see that the active is up and that no firewall is in between")
	case errors.Is(err, fs.ErrNotExist):
		return hint.With(err, "drsync config check names the files that are missing")
	}
	return err
}

func newEngine(cfg *config.Config, active *lazyHost, sink event.Sink) (dbrepl.Engine, error) {
	d := cfg.Database
	switch d.Engine {
	case config.EngineSQLite:
		e, err := sqlite.New(sqlite.Options{
			ActivePath: d.Active.Path, StandbyPath: d.Standby.Path, Event: sink, Clock: active.Clock,
			Snapshot: func(ctx context.Context, path string) (io.ReadCloser, error) {
				return active.Stream(ctx, sqlite.StreamName, path)
			},
		})
		return engineOf(cfg, e, err)
	case config.EnginePostgres:
		there, errThere := postgresServer(cfg, "database.active", d.Active)
		here, errHere := postgresServer(cfg, "database.standby", d.Standby)
		if err := errors.Join(errThere, errHere); err != nil {
			return nil, err
		}
		if d.Active.Via == config.ViaSSH {
			there.Dial = active.DialContext
		}
		options := postgres.Options{
			Name: d.Name, Active: there, Standby: here, Scratch: filepath.Join(cfg.Standby.State, "postgres"), Event: sink, Instance: instance(cfg),
		}
		if d.Mode == config.ModeReplication {
			return newPostgresReplica(cfg, options)
		}
		e, err := postgres.New(options)
		return engineOf(cfg, e, err)
	case config.EngineMySQL:
		there, errThere := mysqlServer(cfg, "database.active", d.Active)
		here, errHere := mysqlServer(cfg, "database.standby", d.Standby)
		if err := errors.Join(errThere, errHere); err != nil {
			return nil, err
		}
		if d.Active.Via == config.ViaSSH {
			there.Dial = active.DialContext
		}
		options := mysql.Options{Name: d.Name, Active: there, Standby: here, Event: sink, Instance: instance(cfg)}
		if d.Mode == config.ModeReplication {
			return newReplica(cfg, options)
		}
		e, err := mysql.New(options)
		return engineOf(cfg, e, err)
	}
	return nil, nil
}

// engineOf is an engine, or none beside an error, which is of its configuration: a nil
// pointer would be an engine as well.
func engineOf[E dbrepl.Engine](cfg *config.Config, e E, err error) (dbrepl.Engine, error) {
	if err != nil {
		return nil, cfg.Problem("database", err)
	}
	return e, nil
}

// instance names this standby, the same in each run: by a word that its first run
// makes by chance and keeps in the state directory, and by the host, since that
// directory may be a copy of another's. It is "" where neither can be had: then
// nothing that a lost run left is ended.
func instance(cfg *config.Config) string {
	word, err := role.Word(cfg.Standby.State)
	if err != nil {
		return ""
	}
	host, _ := os.Hostname()                     // without one, the others tell
	machine, _ := os.ReadFile("/etc/machine-id") // which not every system has
	sum := sha256.Sum256([]byte(word + "\x00" + host + "\x00" + string(machine) + "\x00" + cfg.Standby.State))
	return hex.EncodeToString(sum[:8])
}

func newReplica(cfg *config.Config, o mysql.Options) (dbrepl.Engine, error) {
	r := cfg.Database.Replication
	password, err := r.Password.Resolve()
	if err != nil {
		return nil, cfg.Problem("database.replication.password", err)
	}
	e, err := mysql.NewReplica(mysql.ReplicaOptions{
		Options: o, Continuous: r.Continuous, Pause: cfg.Schedule.LongestGap(time.Now()),
		Source: mysql.ReplicaSource{Address: r.Address, User: r.User, Password: password, TLS: r.TLS == config.TLSVerify, CA: r.CA},
	})
	return engineOf(cfg, e, err)
}

func newPostgresReplica(cfg *config.Config, o postgres.Options) (dbrepl.Engine, error) {
	d := cfg.Database.Replica
	command := func(argv []string) func(context.Context) error {
		return func(ctx context.Context) error {
			output, err := failover.Command{Argv: argv}.Run(ctx)
			if said := strings.TrimSpace(output); err != nil && said != "" {
				err = fmt.Errorf("%w: %s", err, said)
			}
			return err
		}
	}
	e, err := postgres.NewReplica(postgres.ReplicaOptions{
		Options: o, DataDirectory: d.DataDirectory, Account: d.Account, Slot: d.Slot, Start: command(d.Start), Stop: command(d.Stop),
	})
	return engineOf(cfg, e, err)
}

func mysqlServer(cfg *config.Config, path string, e config.Endpoint) (mysql.Server, error) {
	password, t, err := credentials(cfg, path, e)
	return mysql.Server{Address: e.Address, User: e.User, Password: password, TLS: t}, err
}

func postgresServer(cfg *config.Config, path string, e config.Endpoint) (postgres.Server, error) {
	password, t, err := credentials(cfg, path, e)
	return postgres.Server{Address: e.Address, User: e.User, Password: password, TLS: t}, err
}

func credentials(cfg *config.Config, path string, e config.Endpoint) (password string, t *tls.Config, err error) {
	if password, err = e.Password.Resolve(); err != nil {
		return "", nil, cfg.Problem(path+".password", err)
	}
	if e.TLS == config.TLSVerify {
		if t, err = verifyTLS(e); err != nil {
			return "", nil, cfg.Problem(path+".ca", err)
		}
	}
	return password, t, nil
}

func verifyTLS(e config.Endpoint) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(e.Address)
	if err != nil {
		return nil, err
	}
	t := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if e.CA == "" {
		return t, nil
	}
	pem, err := os.ReadFile(e.CA)
	if err != nil {
		return nil, err
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", e.CA)
	}
	return t, nil
}

// lazyHost is the active, connected the first time somebody needs it.
type lazyHost struct {
	dial func(context.Context) (remote.Host, error)
	mu   sync.Mutex
	host remote.Host
}

func (l *lazyHost) get(ctx context.Context) (remote.Host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.host != nil {
		return l.host, nil
	}
	h, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	l.host = h
	return h, nil
}

func (l *lazyHost) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	h, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	c, err := h.DialContext(ctx, network, addr)
	if err != nil && hint.Of(err) == "" && (ctx.Err() != nil || errors.Is(err, remote.ErrTimeout) || errors.Is(err, wire.ErrLost)) {
		err = hint.With(err, fmt.Sprintf("the way there leads through ssh (via: ssh): see that the line to %s works, and that %s is reached from there", h.Describe(), addr))
	}
	return c, err
}

func (l *lazyHost) Stream(ctx context.Context, name, arg string) (io.ReadCloser, error) {
	h, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return h.Stream(ctx, name, arg)
}

func (l *lazyHost) Clock(ctx context.Context) (skew, bound time.Duration, err error) {
	h, err := l.get(ctx)
	if err != nil {
		return 0, 0, err
	}
	return h.Clock(ctx)
}

func (l *lazyHost) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.host != nil {
		_ = l.host.Close()
		l.host = nil
	}
}
