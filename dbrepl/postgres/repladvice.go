package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/hint"
)

// failed says what was being done when err came up, and what can be done about it.
func (r *Replica) failed(what string, err error) error {
	return r.e.failed(what, r.advise(err))
}

// advise adds what can be done about an error that may come from anywhere, unless
// whoever knew more has said it.
func (r *Replica) advise(err error) error {
	if err == nil || hint.Of(err) != "" {
		return err
	}
	var lost *lostError
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), strings.Contains(err.Error(), "No space left on device"):
		return hint.With(err, "make room in "+filepath.Dir(r.visible.dir)+", where two copies of the active's server and what was received of its log lie")
	case errors.Is(err, fs.ErrPermission):
		return hint.With(err, "run drsync as root, or as "+r.opt.Account+" to whom then all of "+r.work+" has to belong")
	case errors.Is(err, unix.EIO), errors.Is(err, unix.EROFS):
		return hint.With(err, "see the kernel's log about the disk of "+r.visible.dir)
	case errors.As(err, &lost):
		return hint.With(err, "run drsync now once more, which copies the active's whole server anew")
	case hasCode(err, codeConfigurationFull):
		return hint.With(err, "on the active: ALTER SYSTEM SET max_replication_slots = 10, and restart it; or drop a slot that nobody uses (pg_replication_slots)")
	case hasCode(err, codeTooMany):
		return hint.With(err, "on the active: end what is left in pg_stat_replication, or ALTER SYSTEM SET max_wal_senders = 10, and restart it")
	case hidesRows(err):
		return hint.With(err, "on the active: "+bypassing(r.e.opt.Standby.User))
	case hasCode(err, codeNoPrivilege):
		return hint.With(err, "on the active: ALTER ROLE "+quote(r.e.opt.Active.User)+" REPLICATION")
	case hasCode(err, codeShutdown, codeCrashed, codeStarting):
		return hint.With(err, "see the log of the server that ended the session, and run drsync again when it is up")
	}
	return err
}

// silent is the error of an active whose log does not come.
func (r *Replica) silent(quiet fmt.Stringer) error {
	return hint.With(fmt.Errorf("nothing of the active's log arrived for %v", quiet),
		fmt.Sprintf("see whether the line or tunnel to %s carries anything, whether the active's server is at work (its log and its disk), and there whether the process that sends to the slot %s waits: SELECT * FROM pg_stat_replication; then run drsync again",
			r.e.opt.Active.Address, r.opt.Slot))
}

// notPostgres is about an active that does not speak as PostgreSQL does.
func notPostgres(err error) error {
	return hint.With(err, "database.active.address has to be PostgreSQL's own, without a pooler or balancer that answers for it")
}

// seeStagingLog points to what the next cluster's server has said.
func (r *Replica) seeStagingLog(err error) error {
	return hint.With(err, "its log is "+r.stagingLog()+"; the visible database is as it was")
}

func (r *Replica) stagingLog() string { return filepath.Join(r.work, "log") }
