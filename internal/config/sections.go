package config

import (
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The defaults, used where the file says nothing.
const (
	DefaultState       = "/var/lib/drsync"
	DefaultAgent       = "drsync"
	DefaultRsync       = "-a --del"
	DefaultKeepLast    = 3
	DefaultMinAge      = 24 * time.Hour
	DefaultMaxFraction = 0.05
	DefaultQuarantine  = 7 * 24 * time.Hour
	DefaultTimeout     = 5 * time.Minute
	DefaultAccount     = "postgres"
	DefaultSlot        = "drsync"
)

// decode reads every section. The order is the one of the problems within a line.
func (c *Config) decode(s *section) {
	c.Active = active(s.sub("active"))
	c.Standby = standby(s.sub("standby"))
	c.Application = Application(s.choice("application", "", []string{"artifactory", "custom"}, "gitea"))
	c.Database = database(s.sub("database"), c.Active.Transport)
	c.Files = files(s.sub("files"))
	c.Schedule = schedule(s, "schedule")
	c.RPO = s.duration("rpo", 0, time.Second)
	c.Verify = verify(s.sub("verify"))
	c.Snapshots = snapshots(s.sub("snapshots"))
	c.Prune = prune(s.sub("prune"))
	c.Failover = failover(s.sub("failover"))
	s.require("active", "standby", "application", "database")
	s.close()
	c.crossCheck(s)
}

func active(s *section) Active {
	a := Active{
		Host:       s.name("host"),
		User:       s.name("user"),
		Port:       s.integer("port", 0, 1, 65535),
		Identity:   s.file("identity"),
		KnownHosts: s.file("known_hosts"),
		Home:       s.directory("home"),
		Transport:  Transport(s.choice("transport", string(TransportAgent), []string{"agent", "exec", "sftp", "local"})),
		Agent:      s.words("agent"),
		Roots:      s.directories("roots"),
		Install:    s.flag("install"),
		Bandwidth:  s.rate("bandwidth_limit"),
	}
	s.require("home")
	switch a.Transport {
	case TransportLocal:
		s.refuse("means nothing with transport: local", "host", "user", "port", "identity", "known_hosts", "agent", "roots", "install", "bandwidth_limit")
	case TransportExec, TransportSFTP:
		s.require("host")
		s.refuse("means nothing with transport: "+string(a.Transport), "agent", "roots", "install")
	case TransportAgent:
		s.require("host")
		if !s.has("agent") {
			a.Agent = []string{DefaultAgent}
		}
	}
	s.close()
	return a
}

func standby(s *section) Standby {
	b := Standby{Home: s.directory("home"), State: s.directory("state"), Filestore: s.directories("filestore")}
	if !s.has("state") {
		b.State = DefaultState
	}
	s.require("home")
	s.close()
	return b
}

func database(s *section, t Transport) Database {
	d := Database{Engine: Engine(s.choice("engine", "", []string{"mysql", "postgres", "sqlite", "none"}))}
	s.require("engine")
	switch d.Engine {
	case EngineNone:
		s.refuse("means nothing with engine: none", "mode", "name", "active", "standby", "replication")
	case EngineMySQL:
		d.Mode = Mode(s.choice("mode", string(ModeDump), []string{"dump", "replication"}))
		d.Name = schemaName(s)
		s.require("name", "active", "standby")
		d.Active = serverEndpoint(s.sub("active"), d.Engine, t, true)
		d.Standby = serverEndpoint(s.sub("standby"), d.Engine, t, false)
		replication(s, d.Mode, func(s *section) { d.Replication = mysqlReplication(s) })
	case EnginePostgres:
		d.Mode = Mode(s.choice("mode", string(ModeDump), []string{"dump", "replication"}))
		d.Name = schemaName(s)
		s.require("name", "active", "standby")
		d.Active = serverEndpoint(s.sub("active"), d.Engine, t, true)
		d.Standby = serverEndpoint(s.sub("standby"), d.Engine, t, false)
		replication(s, d.Mode, func(s *section) { d.Replica = postgresReplica(s) })
	case EngineSQLite:
		d.Mode = Mode(s.choice("mode", string(ModeDump), []string{"dump"}, "replication"))
		s.refuse("means nothing with engine: sqlite; the file is active.path and standby.path", "name", "replication")
		s.require("active", "standby")
		d.Active = sqliteEndpoint(s.sub("active"))
		d.Standby = sqliteEndpoint(s.sub("standby"))
		if t == TransportSFTP || t == TransportExec {
			s.problem("engine", "sqlite needs active.transport: agent or local, since the file is copied by a program beside it")
		}
	default:
		// Which keys belong here depends on the engine, which was reported.
		for _, key := range []string{"mode", "name", "active", "standby", "replication"} {
			s.take(key)
		}
	}
	s.close()
	return d
}

// schemaName is a name that needs no quoting beyond backquotes, and is short
// enough for the schemas that drsync makes beside it.
func schemaName(s *section) string {
	name := s.line("name")
	if len(name) > 48 || strings.ContainsAny(name, "/\\.`\"' ") {
		s.problem("name", "%q cannot be used: at most 48 bytes, without quotes, spaces, dots and slashes", name)
		return ""
	}
	return name
}

func serverEndpoint(s *section, engine Engine, t Transport, isActive bool) Endpoint {
	e := Endpoint{
		Address:  address(s, "address"),
		User:     s.line("user"),
		Password: s.secret(secretKey),
		TLS:      TLS(s.choice("tls", "", []string{"off", "verify"})),
		CA:       s.file("ca"),
	}
	s.require("address", "user")
	s.refuse("means nothing with engine: "+string(engine), "path")
	if isActive {
		byDefault := ViaSSH
		if t == TransportLocal {
			byDefault = ViaDirect
		}
		e.Via = Via(s.choice("via", string(byDefault), []string{"ssh", "direct"}))
		if e.Via == ViaSSH && t == TransportLocal {
			s.problem("via", "ssh needs a host, and active.transport: local has none")
		}
	} else {
		s.refuse("means nothing here; the standby's database is always reached directly", "via")
	}
	if !s.has("tls") {
		e.TLS = TLSOff
		if e.Via != ViaSSH && e.Address != "" && !onThisHost(e.Address) {
			s.problem("tls", "is missing; %s is reached over the network: say verify, or off to send everything in clear", e.Address)
		}
	}
	if s.has("ca") && e.TLS != TLSVerify {
		s.problem("ca", "means nothing without tls: verify")
	}
	s.close()
	return e
}

// replication reads the section of that name, which there is with
// mode: replication only.
func replication(s *section, mode Mode, read func(*section)) {
	switch mode {
	case ModeReplication:
		s.require("replication")
		read(s.sub("replication"))
	case "": // which was reported
		s.take("replication")
	default:
		s.refuse("means nothing without mode: replication", "replication")
	}
}

// postgresReplica is how drsync works on the standby's server.
func postgresReplica(s *section) Replica {
	r := Replica{
		DataDirectory: s.directory("data_directory"),
		Account:       s.name("account"),
		Slot:          s.line("slot"),
		Start:         s.list("start"),
		Stop:          s.list("stop"),
	}
	s.require("data_directory", "start", "stop")
	if r.DataDirectory != "" && filepath.Dir(r.DataDirectory) == "/" {
		s.problem("data_directory", "%s lies in the root directory, and drsync needs another directory beside it", r.DataDirectory)
	}
	if !s.has("account") {
		r.Account = DefaultAccount
	}
	if !s.has("slot") {
		r.Slot = DefaultSlot
	} else if len(r.Slot) > 63 || strings.Trim(r.Slot, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		s.problem("slot", "%q is not of small letters, digits and underscores, 63 at most", r.Slot)
	}
	s.refuse("means nothing with engine: postgres; the active is reached as database.active says", "address", "user", secretKey, "tls", "ca", "continuous")
	s.close()
	return r
}

// mysqlReplication is how the standby's server itself reaches the active's.
func mysqlReplication(s *section) Replication {
	r := Replication{
		Address:    address(s, "address"),
		User:       s.line("user"),
		Password:   s.secret(secretKey),
		TLS:        TLS(s.choice("tls", "", []string{"off", "verify"})),
		CA:         s.file("ca"),
		Continuous: s.flag("continuous"),
	}
	s.require("address", "user", secretKey)
	if filepath.IsAbs(r.Address) {
		s.problem("address", "%s is a socket; replication needs HOST:PORT", r.Address)
	}
	if !s.has("tls") {
		r.TLS = TLSOff
		if r.Address != "" && !onThisHost(r.Address) {
			s.problem("tls", "is missing; %s is reached over the network: say verify, or off to send everything in clear", r.Address)
		}
	}
	if s.has("ca") && r.TLS != TLSVerify {
		s.problem("ca", "means nothing without tls: verify")
	}
	s.close()
	return r
}

func sqliteEndpoint(s *section) Endpoint {
	e := Endpoint{Path: s.absolute("path")}
	s.require("path")
	s.refuse("means nothing with engine: sqlite", "address", "user", secretKey, "via", "tls", "ca")
	s.close()
	return e
}

// address is HOST:PORT or the absolute path of a socket. Its text is not
// repeated: somebody may have put a whole connection string there.
func address(s *section, key string) string {
	text := s.line(key)
	switch {
	case text == "":
		return ""
	case strings.Contains(text, "@"):
		p := s.r.problem(s.at(key), "must be HOST:PORT or the absolute path of a socket; account and password have keys of their own")
		p.Source = ""
		s.r.problems = append(s.r.problems, p)
		return ""
	case filepath.IsAbs(text):
		return filepath.Clean(text)
	}
	host, port, err := net.SplitHostPort(text)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || host == "" || strings.ContainsAny(host, " /") || n < 1 || n > 65535 {
		s.problem(key, "must be HOST:PORT or the absolute path of a socket")
		return ""
	}
	return text
}

func onThisHost(address string) bool {
	if filepath.IsAbs(address) {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

func files(s *section) Files {
	line, ok := s.text("rsync")
	if !ok {
		line = DefaultRsync
	}
	words, err := SplitWords(line)
	if err != nil {
		s.problem("rsync", "%v", err)
	}
	f := Files{Rsync: words, Exclude: s.list("exclude"), ExcludeFrom: s.file("exclude_from"), LogFile: s.file("log_file")}
	s.close()
	return f
}

func schedule(s *section, key string) Schedule {
	spec := s.line(key)
	if spec == "" {
		return Schedule{}
	}
	parsed, err := ParseSchedule(spec)
	if err != nil {
		s.problem(key, "%q: %v", spec, err)
	}
	return parsed
}

func verify(s *section) Verify {
	v := Verify{Database: schedule(s, "database")}
	s.close()
	return v
}

func snapshots(s *section) Snapshots {
	const most = 100_000
	k := Snapshots{
		KeepLast:    s.integer("keep_last", DefaultKeepLast, 1, most),
		KeepDaily:   s.integer("keep_daily", 0, 0, most),
		KeepWeekly:  s.integer("keep_weekly", 0, 0, most),
		KeepMonthly: s.integer("keep_monthly", 0, 0, most),
		Dumps:       s.flag("dumps"),
	}
	s.close()
	return k
}

func prune(s *section) Prune {
	p := Prune{
		MinAge:      s.duration("min_age", DefaultMinAge, 0),
		MaxFraction: s.percent("max_fraction", DefaultMaxFraction),
		Quarantine:  s.duration("quarantine", DefaultQuarantine, 0),
	}
	s.close()
	return p
}

func failover(s *section) Failover {
	f := Failover{Service: service(s.sub("service"))}
	s.close()
	return f
}

func service(s *section) Service {
	v := Service{
		Start:   s.list("start"),
		Timeout: s.duration("timeout", DefaultTimeout, time.Second),
	}
	s.require("start")
	s.close()
	return v
}

// crossCheck looks at values of different sections together. A value that was
// reported already is empty here.
func (c *Config) crossCheck(s *section) {
	a, b := c.Active, c.Standby
	if within(b.State, b.Home) {
		s.problem("standby.state", "%s lies within standby.home, where syncing would delete it", b.State)
	}
	for _, dir := range b.Filestore {
		const key = "standby.filestore"
		switch {
		case within(dir, b.Home):
			s.problem(key, "%s lies within standby.home, where blobs may be written anyway", dir)
		case within(b.Home, dir) || within(b.State, dir) || within(dir, b.State):
			s.problem(key, "%s must not hold standby.home, nor have anything in common with standby.state", dir)
		case a.Transport == TransportLocal && (within(dir, a.Home) || within(a.Home, dir)):
			s.problem(key, "%s and active.home %s must not contain each other", dir, a.Home)
		}
	}
	if a.Transport == TransportLocal && (within(a.Home, b.Home) || within(b.Home, a.Home)) {
		s.problem("standby.home", "%s and active.home %s must not contain each other", b.Home, a.Home)
	}
	if d := c.Database; a.Transport == TransportLocal && d.Engine == EngineSQLite && d.Active.Path != "" && d.Active.Path == d.Standby.Path {
		s.problem("database.standby.path", "is the active's own database")
	}
	if d := c.Database.Replica.DataDirectory; within(d, b.Home) || within(b.Home, d) || within(d, b.State) || within(b.State, d) {
		s.problem("database.replication.data_directory", "%s must have nothing in common with standby.home and standby.state", d)
	}
	if !c.Verify.Database.IsZero() {
		switch {
		case c.Schedule.IsZero():
			s.problem("verify.database", "needs schedule, whose runs do it; drsync now --verify-db does it at any time")
		case c.Database.Engine == EngineNone:
			s.problem("verify.database", "means nothing with database.engine: none")
		case c.Database.Engine == EnginePostgres && c.Database.Mode == ModeReplication:
			s.problem("verify.database", "cannot be honoured with PostgreSQL's replication, which copies the active's pages; drsync verify --db compares")
		}
	}
	if c.Database.Mode == ModeReplication && c.Snapshots.Dumps {
		s.problem("snapshots.dumps", "needs database.mode: dump; with replication no copy of the database travels that could be kept")
	}
}

// within reports whether path is dir or lies below it. Neither is looked up.
func within(path, dir string) bool {
	return path != "" && dir != "" && (path == dir || strings.HasPrefix(path, dir+"/"))
}
