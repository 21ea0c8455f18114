package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// How a server finds that the other end of a session is gone. On the active such
// a session holds tables, and whoever alters one of them has to wait for it.
//
// An idle session is asked after deadPeerIdle, and every deadPeerAgain from then
// on, deadPeerCount times in vain. What is sent is given up after deadPeer; Linux
// prefers that to the number of questions, so it bounds both. It counts as well how
// long a peer that lives takes nothing that is sent: pg_dump while this host's disk
// is busy, or a tunnel that waits for its share of a bandwidth limit. That it is
// minutes lets them be slow, and what nobody will ever take up still ends in the
// time in which an operator looks for the reason. The standby's sessions have no
// such limit: whoever reads a list of blobs may copy a large one between two rows.
//
// At the far end of an SSH tunnel the peer is the active's own sshd, which lives
// on when this host is gone. What is lost there, endLost ends.
//
// A limit to how long a transaction may be idle is no help: the leader's is idle
// for as long as pg_dump works, and pg_dump, whose sessions hold the same tables,
// takes such a limit away for itself.
const (
	deadPeerIdle  = 15 * time.Second
	deadPeerAgain = 5 * time.Second
	deadPeerCount = 4
	deadPeer      = 2 * time.Minute
	// deadPeerLook is how often a server looks while it is at work (from PostgreSQL 14 on).
	deadPeerLook = 10 * time.Second
)

// peerSettings are those of PostgreSQL 12 and newer. On a unix socket they
// are taken and mean nothing: there the end of a peer is always noticed.
func (s *server) peerSettings() [][2]string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	all := [][2]string{
		{"tcp_keepalives_idle", number(int64(deadPeerIdle.Seconds()))},
		{"tcp_keepalives_interval", number(int64(deadPeerAgain.Seconds()))},
		{"tcp_keepalives_count", number(deadPeerCount)},
	}
	if s.role == "active" {
		all = append(all, [2]string{"tcp_user_timeout", number(deadPeer.Milliseconds())})
	}
	return all
}

// sameText are settings by which a value or a definition is one text on all
// servers: pg_dump and pg_restore leave these as a server, a database or an
// account has them.
var sameText = [][2]string{
	{"array_nulls", "on"}, {"transform_null_equals", "off"}, {"lc_monetary", "C"}, {"timezone", "UTC"}, {"intervalstyle", "postgres"},
	{"standard_conforming_strings", "on"}, {"xmloption", "content"}, {"quote_all_identifiers", "off"},
}

// sessionOptions are the settings of the sessions that programs have, as their
// environment takes them.
func (s *server) sessionOptions(more ...[2]string) string {
	var all []string
	for _, v := range slices.Concat(s.peerSettings(), sameText, more) {
		all = append(all, "-c "+v[0]+"="+v[1])
	}
	return strings.Join(all, " ")
}

const (
	sessionWord     = "drsync"
	longestInstance = 16 // bytes: with the word, two blanks and rand.Text far below the 63 that a server keeps
)

// instancePrefix is how the names of all sessions begin that runs of one standby
// have on the active.
func instancePrefix(instance string) string {
	if instance == "" {
		return sessionWord + " "
	}
	return sessionWord + " " + instance + " "
}

func sessionName(instance string) string { return instancePrefix(instance) + rand.Text() }

func validInstance(instance string) error {
	if len(instance) > longestInstance {
		return fmt.Errorf("the instance %q has more than %d characters", instance, longestInstance)
	}
	for _, c := range instance {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return fmt.Errorf("the instance %q is not of letters and digits", instance)
		}
	}
	return nil
}

// aside is the engine with another name on the active, for commands that only look
// and so hold no lock of this host: what they have there is not lost when a run begins.
func (e *Engine) aside() *Engine {
	looks, active := *e, *e.active
	active.name = sessionName("")
	looks.active = &active
	return &looks
}

// lostSessions are those of this standby's account and name which are not this
// process's. A server's own replication is not among them: it has its cluster's
// name, and by drsync no server of the standby follows the active.
const lostSessions = ` FROM pg_stat_activity WHERE starts_with(application_name, $1) AND application_name <> $2 AND pid <> pg_backend_pid()
	AND usesysid = (SELECT oid FROM pg_roles WHERE rolname = session_user)`

// endLost ends what earlier runs of this standby have left on the active, and
// waits until it is gone. The caller's host-wide lock says that no other command
// of this standby is at work. A capture that leaves it there is as good as any, so
// it goes on where that may not be ended.
func (e *Engine) endLost(ctx context.Context, c *pgx.Conn) error {
	if e.opt.Instance == "" {
		return nil
	}
	var left []string
	gone, err := until(ctx, e.opt.Lock, func() (_ bool, err error) {
		ask := func(what string) ([]string, error) {
			return column(ctx, c, "SELECT "+what+lostSessions, instancePrefix(e.opt.Instance), e.active.name)
		}
		if left, err = ask("pid::text"); err == nil && left != nil {
			_, err = ask("pg_terminate_backend(pid)::text")
		}
		return left == nil, err
	})
	why := ""
	if isServerError(err) && ctx.Err() == nil {
		err, why = nil, ": "+err.Error()
	}
	if err != nil {
		return fmt.Errorf("end the sessions of an earlier run on the active: %w", e.active.explain(ctx, err))
	}
	if !gone {
		e.warn("sessions of an earlier run do not end on the active (process %s)%s; whoever alters a table there may have to wait for them", some(left, ""), why)
	}
	return nil
}
