package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// Check implements dbrepl.Engine. It asks the active for a description of its
// database, and looks at the standby's directory and file.
func (e *Engine) Check(ctx context.Context) ([]dbrepl.Finding, error) {
	findings := e.checkStandby()
	h, err := e.describeActive(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		f := fatal("active "+e.o.ActivePath, err)
		if f.Fix == "" {
			f.Fix = "check that database.active.path names the database on the active, and that drsync's login there may read it"
		}
		return append(findings, f), nil
	}
	if h.JournalMode != "wal" {
		findings = append(findings, dbrepl.Finding{
			Subject: "active " + e.o.ActivePath,
			Problem: fmt.Sprintf("journal mode %q: the application's writes wait while a snapshot is taken", h.JournalMode),
			Fix:     "PRAGMA journal_mode = WAL",
		})
	}
	if h.Room != nil && *h.Room < h.Length {
		findings = append(findings, fatal("active "+e.o.ActivePath, noRoom("TMPDIR", h.Length, *h.Room)))
	}
	if err := e.enoughSpace(h.Length); err != nil && !errors.Is(err, fs.ErrNotExist) {
		findings = append(findings, fatal("standby "+e.f.dir, err))
	}
	return findings, nil
}

func (e *Engine) describeActive(ctx context.Context) (header, error) {
	r, done, err := e.open(ctx, checkPrefix+e.o.ActivePath)
	if err != nil {
		return header{}, err
	}
	defer done()
	return readCheck(ctx, r)
}

func (e *Engine) checkStandby() []dbrepl.Finding {
	var findings []dbrepl.Finding
	fi, err := os.Stat(e.f.dir)
	if err == nil && !fi.IsDir() {
		err = errors.New("not a directory")
	}
	if err == nil {
		err = unix.Access(e.f.dir, unix.W_OK|unix.X_OK)
	}
	if err != nil {
		return append(findings, fatal("standby "+e.f.dir,
			hint.With(err, "make the directory of the standby's database, owned by the application's account")))
	}
	if fi, err := os.Lstat(e.f.live); err == nil && !fi.Mode().IsRegular() {
		findings = append(findings, fatal("standby "+e.f.live,
			hint.New("not a regular file", "name the database itself, not a link to it")))
	} else if err := e.refuseInUse(); err != nil {
		findings = append(findings, fatal("standby "+e.f.live, err))
	}
	if uid, _, _, err := e.attributes(); err == nil && os.Geteuid() != 0 && uid != os.Geteuid() {
		findings = append(findings, fatal("standby "+e.f.live, hint.With(
			fmt.Errorf("owned by user %d, drsync runs as %d", uid, os.Geteuid()), "run drsync as root or as the application's account")))
	}
	return findings
}

func fatal(subject string, err error) dbrepl.Finding {
	return dbrepl.Finding{Fatal: true, Subject: subject, Problem: err.Error(), Fix: hint.Of(err)}
}
