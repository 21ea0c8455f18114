// Package config reads drsync's YAML file.
//
// Its invariants: loading has no side effect; a Config that Parse returns holds
// only values that this version can honour; and no secret is ever part of a
// Config, of an error about it, or of the source line shown with the error.
// Secrets are references, resolved by Secret.Resolve when they are needed.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/drsync/drsync/internal/hint"
)

// MaxSize bounds a configuration file, in bytes.
const MaxSize = 64 << 10

// Config is a checked configuration file. It does not change after Parse and
// may be read from several goroutines at once.
type Config struct {
	File        string      `json:"file"`
	Active      Active      `json:"active"`
	Standby     Standby     `json:"standby"`
	Application Application `json:"application"`
	Database    Database    `json:"database"`
	Files       Files       `json:"files"`
	// Schedule is zero when the file has none: then only `now` runs, from cron.
	Schedule  Schedule      `json:"schedule"`
	RPO       time.Duration `json:"rpo_ns"` // 0 is no target
	Verify    Verify        `json:"verify,omitzero"`
	Snapshots Snapshots     `json:"snapshots"`
	Prune     Prune         `json:"prune"`
	Failover  Failover      `json:"failover"`

	source *source
}

// Active says how the serving host is reached.
type Active struct {
	Host       string    `json:"host,omitempty"`        // name, address or Host of ~/.ssh/config; "" with TransportLocal
	User       string    `json:"user,omitempty"`        // "" leaves it to ~/.ssh/config
	Port       int       `json:"port,omitempty"`        // 0 leaves it to ~/.ssh/config
	Identity   string    `json:"identity,omitempty"`    // absolute path, or ""
	KnownHosts string    `json:"known_hosts,omitempty"` // absolute path, or ""
	Home       string    `json:"home"`                  // absolute path on the active
	Transport  Transport `json:"transport"`
	// Agent is the command that starts drsync there, in words, and Roots are
	// directories beside Home that it may read: a filestore elsewhere. Only with
	// TransportAgent.
	Agent []string `json:"agent,omitempty"`
	Roots []string `json:"roots,omitempty"` // absolute paths
	// Install copies drsync to the login's cache on an active that lacks it. Only
	// with TransportAgent.
	Install   bool  `json:"install,omitempty"`
	Bandwidth int64 `json:"bandwidth_limit,omitempty"` // bytes per second from the active; 0 is no limit
}

// Transport is how files travel.
type Transport string

const (
	TransportAgent Transport = "agent" // drsync itself, started on the active through SSH
	TransportExec  Transport = "exec"  // GNU find and tar on the active
	TransportSFTP  Transport = "sftp"
	TransportLocal Transport = "local" // the active's home is a directory of this host
)

// Standby describes this host.
type Standby struct {
	Home  string `json:"home"`  // absolute path
	State string `json:"state"` // absolute path of the state directory
	// Filestore are directories outside Home where blobs may be written.
	Filestore []string `json:"filestore,omitempty"` // absolute paths
}

// Application names a profile of what a home holds.
type Application string

const (
	Artifactory Application = "artifactory"
	Custom      Application = "custom" // the whole home is one tree
)

// Database says which database is captured.
type Database struct {
	Engine  Engine   `json:"engine"`
	Mode    Mode     `json:"mode,omitempty"` // "" with EngineNone
	Name    string   `json:"name,omitempty"` // of the schema or database; EngineMySQL and EnginePostgres only
	Active  Endpoint `json:"active"`
	Standby Endpoint `json:"standby"`

	// With ModeReplication the section "replication" is one of these: Replication
	// with EngineMySQL, Replica with EnginePostgres.
	Replication Replication `json:"replication,omitzero"`
	Replica     Replica     `json:"replica,omitzero"`
}

// Verify says what a scheduled run proves from time to time.
type Verify struct {
	// Database is when the next run compares the database with the active's; zero is never.
	Database Schedule `json:"database"`
}

// Engine is a database product.
type Engine string

const (
	EngineMySQL    Engine = "mysql" // also MariaDB
	EnginePostgres Engine = "postgres"
	EngineSQLite   Engine = "sqlite"
	EngineNone     Engine = "none"
)

// Mode is how a database is brought over.
type Mode string

const (
	// ModeDump copies the whole database in each run.
	ModeDump Mode = "dump"
	// ModeReplication brings what changed since the last run by the servers' own
	// replication; EngineMySQL and EnginePostgres only.
	ModeReplication Mode = "replication"
)

// Replication is how the standby's server, not drsync, reaches the active's.
type Replication struct {
	Address    string `json:"address"` // HOST:PORT
	User       string `json:"user"`
	Password   Secret `json:"password"`
	TLS        TLS    `json:"tls"`
	CA         string `json:"ca,omitempty"` // absolute path of a PEM file that the standby's server can read
	Continuous bool   `json:"continuous"`   // receive between runs too
}

// Replica says how drsync keeps the standby's whole server, whose data directory
// it exchanges.
type Replica struct {
	DataDirectory string   `json:"data_directory"` // absolute path
	Account       string   `json:"account"`        // of the operating system, that the server runs as
	Slot          string   `json:"slot"`           // replication slot on the active, this standby's alone
	Start         []string `json:"start"`          // program and arguments that start the server, no shell
	Stop          []string `json:"stop"`
}

// Endpoint is one side's database: Path with EngineSQLite, the other fields
// with EngineMySQL and EnginePostgres.
type Endpoint struct {
	Address  string `json:"address,omitempty"` // HOST:PORT, or the absolute path of a socket; with EnginePostgres also of its directory
	User     string `json:"user,omitempty"`
	Password Secret `json:"password,omitzero"` // zero is no password
	Via      Via    `json:"via,omitempty"`     // "" on the standby's side, which is always direct
	TLS      TLS    `json:"tls,omitempty"`
	CA       string `json:"ca,omitempty"`   // absolute path of a PEM file; only with TLSVerify; "" trusts the system's
	Path     string `json:"path,omitempty"` // absolute path of the database file, on that side
}

// Via is the way to the active's database server.
type Via string

const (
	ViaSSH    Via = "ssh"    // Address is reached from the active host, through its SSH server
	ViaDirect Via = "direct" // Address is reached from this host
)

// TLS says whether a database connection is encrypted by the database protocol.
type TLS string

const (
	TLSOff    TLS = "off"
	TLSVerify TLS = "verify" // certificate and host name are checked
)

// Files says by which rules trees are synced.
type Files struct {
	Rsync       []string `json:"rsync"`                  // an rsync command line's options, as separate words
	Exclude     []string `json:"exclude,omitempty"`      // patterns, before those of ExcludeFrom
	ExcludeFrom string   `json:"exclude_from,omitempty"` // absolute path, or ""
	LogFile     string   `json:"log_file,omitempty"`     // absolute path, or ""
}

// Snapshots says how many snapshots are kept. KeepLast is at least 1.
type Snapshots struct {
	KeepLast    int `json:"keep_last"`
	KeepDaily   int `json:"keep_daily"`
	KeepWeekly  int `json:"keep_weekly"`
	KeepMonthly int `json:"keep_monthly"`
	// Dumps keeps with each snapshot a dump of its database, for drsync restore.
	Dumps bool `json:"dumps"`
}

// Prune bounds what pruning may remove.
type Prune struct {
	MinAge      time.Duration `json:"min_age_ns"`
	MaxFraction float64       `json:"max_fraction"` // 0 to 1
	Quarantine  time.Duration `json:"quarantine_ns"`
}

// Failover says what a takeover does on this host.
type Failover struct {
	Service Service `json:"service"`
}

// Service is how the application is started. Start is empty when
// the file says nothing; then a takeover starts no service.
type Service struct {
	Start   []string      `json:"start,omitempty"` // program and arguments, no shell
	Timeout time.Duration `json:"timeout_ns"`      // of each command
}

// Load reads and parses the file at path.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = hint.With(err, "name the file with --config; packaging/drsync.yaml is a commented sample")
		}
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse checks a configuration. name is the file's path: it stands in messages,
// and relative paths inside are relative to its directory. The error is an
// *Error with every problem, ordered by line.
func Parse(name string, data []byte) (*Config, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	r := &reader{source: newSource(name, data), dir: filepath.Dir(abs)}
	c := &Config{File: abs, source: r.source}
	if top := r.document(data); top != nil {
		c.decode(top)
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// Problem returns an error about the value at path ("files.rsync") found by the
// code that uses it, with the file's name, line and source line. It keeps the hints of
// err; its chain has an *Error.
func (c *Config) Problem(path string, err error) error {
	return hint.With(&Error{Problems: []Problem{c.source.problem(path, err.Error())}}, hint.Of(err))
}
