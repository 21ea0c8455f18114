package mysql

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// settings are variables of a server by their names.
type settings map[string]string

func readSettings(ctx context.Context, c asker) (settings, error) {
	all, err := records(ctx, c, `SHOW GLOBAL VARIABLES WHERE Variable_name IN ('max_allowed_packet', 'log_bin_trust_function_creators', 'super_read_only',
		'innodb_buffer_pool_size', 'innodb_file_per_table', 'innodb_page_size', 'innodb_force_recovery', 'innodb_read_only', 'innodb_default_row_format',
		'innodb_force_primary_key', 'sql_require_primary_key', 'tmpdir', 'innodb_tmpdir')`)
	if err != nil {
		return nil, err
	}
	s := make(settings)
	for _, r := range all {
		s[strings.ToLower(r.get("variable_name"))] = r.get("value")
	}
	return s, nil
}

func (s settings) on(name string) bool { return s[name] == "ON" || s[name] == "1" }

func (s settings) number(name string) int64 {
	n, err := strconv.ParseInt(s[name], 10, 64)
	if err != nil {
		return 0 // a server that has no such variable
	}
	return n
}

// inspectSettings compares what two servers are set to. A comment in a fix is
// one in SQL: it can be executed as it stands.
func (e *Engine) inspectSettings(p *pair, a, s settings, k contents, standby privileges) {
	const server = "standby server"
	set := func(name, value string) string {
		return "SET GLOBAL " + name + "=" + value + " -- and in the configuration of the standby's server"
	}
	if s.on("super_read_only") {
		p.fatal(server, "super_read_only is on, which stops drsync too", "SET GLOBAL super_read_only=0 -- read_only=1 keeps applications out")
	}
	if n := s.number("innodb_force_recovery"); n > 0 {
		p.fatal(server, fmt.Sprintf("it runs with innodb_force_recovery=%d, which stops writing or makes it unsafe", n), "start the standby's server without innodb_force_recovery")
	}
	if s.on("innodb_read_only") {
		p.fatal(server, "it runs with innodb_read_only", "start the standby's server without innodb_read_only")
	}
	for _, name := range []string{"innodb_force_primary_key", "sql_require_primary_key"} {
		if s.on(name) && len(k.keyless) > 0 {
			p.fatal(server, name+" is on, and these tables have no primary key: "+someOf(k.keyless), set(name, "0"))
		}
	}
	e.inspectTrust(p, s, k, standby)
	if x, y := a["innodb_page_size"], s["innodb_page_size"]; x != y {
		p.note(server, fmt.Sprintf("innodb_page_size is %s, on the active %s: a row or an index that fits there may not fit here", y, x), "initialise the standby's server with innodb_page_size="+x)
	}
	if x, y := a["innodb_default_row_format"], s["innodb_default_row_format"]; x != y {
		p.note(server, fmt.Sprintf("innodb_default_row_format is %s, on the active %s: tables that name none are made otherwise here", y, x), set("innodb_default_row_format", x))
	}
	if x, y := a.number("max_allowed_packet"), s.number("max_allowed_packet"); y < x {
		p.note(server, fmt.Sprintf("max_allowed_packet is %d, on the active %d: a row or a statement that is accepted there may be refused here", y, x), set("max_allowed_packet", strconv.FormatInt(x, 10)))
	}
	if !s.on("innodb_file_per_table") {
		p.note(server, "innodb_file_per_table is off: what a replaced generation took is never given back to the disk", set("innodb_file_per_table", "1"))
	}
	if x, y := a.number("innodb_buffer_pool_size"), s.number("innodb_buffer_pool_size"); y < x/2 {
		p.note(server, fmt.Sprintf("innodb_buffer_pool_size is %s, on the active %s: loading is slower, and so is the application after a failover", megabytes(y), megabytes(x)), set("innodb_buffer_pool_size", strconv.FormatInt(x, 10)))
	}
	if !p.standby.LocalInfile && !standby.has("SUPER", "*") && !standby.has("SYSTEM_VARIABLES_ADMIN", "*") {
		p.note(server, "local_infile is off, so rows are inserted, which is slower", set("local_infile", "1"))
	}
	if p.active.Scheduler == "ON" && p.standby.Scheduler != "ON" {
		enabled := 0
		for _, o := range k.objects {
			if o.Enabled {
				enabled++
			}
		}
		fix := set("event_scheduler", "ON")
		if p.standby.Scheduler == "DISABLED" {
			fix = "start the standby's server with event_scheduler=ON"
		}
		if enabled > 0 {
			p.note(server, fmt.Sprintf("event_scheduler is %s: after a failover the %d enabled events of the database would not run (until then drsync keeps them disabled)", p.standby.Scheduler, enabled), fix)
		}
	}
}

// inspectTrust finds what a server with a binary log lets only trusted accounts
// create: functions that may write something else on another server, and triggers.
func (e *Engine) inspectTrust(p *pair, s settings, k contents, standby privileges) {
	if !p.standby.BinaryLog || s.on("log_bin_trust_function_creators") {
		return
	}
	refused := k.unsafe
	// The right to keep work out of the log does not help, nor does having done so.
	if !standby.has("SUPER", "*") {
		refused = nil
		for _, o := range k.objects {
			if o.Kind == "FUNCTION" || o.Kind == "TRIGGER" {
				refused = append(refused, o.String())
			}
		}
	}
	if len(refused) > 0 {
		p.fatal("standby server", "its binary log is on and log_bin_trust_function_creators is off, so it refuses to create "+someOf(refused),
			"SET GLOBAL log_bin_trust_function_creators=1 -- and in the configuration of the standby's server")
	}
}
