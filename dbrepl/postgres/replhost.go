package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/hint"
)

// inspectHost looks at the standby's directories.
func (r *Replica) inspectHost(ctx context.Context, f *facts) error {
	broken := func(subject string, err error) { f.fatal(subject, err.Error(), hint.Of(err)) }
	if err := r.findOwner(); err != nil {
		broken("this host", err)
	}
	if err := r.useServer(ctx, f.active.major()); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		broken("this host", err)
	}
	subject, parent := "data directory "+r.visible.dir, filepath.Dir(r.visible.dir)
	above, err := os.Stat(parent)
	if err != nil {
		f.fatal(subject, err.Error(), "make "+parent+", owned by "+r.opt.Account)
		return nil
	}
	if info, err := os.Lstat(r.visible.dir); err == nil && info.IsDir() && device(info) != device(above) {
		f.fatal(subject, "it is a mount point, and what is visible changes by renaming it", "let the data directory be a directory of that file system, and not the whole")
	}
	shown, err := r.visible.point(r.e.opt.Name)
	if err == nil {
		err = r.mayReplace(shown)
	}
	if err != nil {
		broken(subject, err)
	}
	if there, err := r.next().exists(); err != nil {
		broken(subject, err)
	} else if !there {
		r.inspectSeedSpace(f, parent)
	}
	if n := len(filepath.Join(r.socketDir(), socketPrefix+defaultPort)); n > 107 {
		f.fatal(subject, "its path is too long for the name of a socket below it", "use a shorter one")
	}
	return nil
}

func device(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev)
	}
	return 0
}

// inspectSeedSpace looks whether there is room for two copies.
func (r *Replica) inspectSeedSpace(f *facts, path string) {
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil {
		return
	}
	free, need := int64(fs.Bavail)*fs.Bsize, f.size/10*22
	if free < need {
		f.fatal("this host", fmt.Sprintf("%s has %s free; the active's databases take %s, and two copies of them are made", path, megabytes(free), megabytes(f.size)), "make room")
	}
}

// inspectServer looks at the standby's server, if it runs.
func (r *Replica) inspectServer(ctx context.Context, a *pgx.Conn, f *facts) error {
	shown, err := r.visible.point(r.e.opt.Name)
	if err != nil {
		return nil // it was named
	}
	s, err := r.e.standby.connect(ctx, r.e.opt.Maintenance)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		if shown != nil {
			f.note("standby server", "it cannot be asked: "+err.Error(), hint.Of(err))
		}
		return nil
	}
	defer end(s)
	same, err := sameServer(ctx, r.e.active, s)
	if err != nil {
		return r.e.standby.explain(ctx, err)
	}
	if f.standby, err = r.e.standby.identify(ctx, s); err != nil {
		return err
	}
	switch {
	case same:
		f.fatal("standby server", "it is the active server itself", "set the address of this host's own server for the standby")
	case shown == nil:
		f.fatal("standby server", fmt.Sprintf("a server answers at %s, and %s holds nothing of drsync's yet", r.e.opt.Standby.Address, r.visible.dir), "stop it; its data directory has to be empty or not there")
	case !f.standby.InRecovery && r.visible.follows():
		f.fatal("standby server", fmt.Sprintf("what answers at %s is not the server of %s", r.e.opt.Standby.Address, r.visible.dir), "set the address of this host's own server for the standby")
	}
	if shown != nil && !same {
		_, err = r.e.missingExtensions(ctx, a, s, &f.pair)
		return err
	}
	return nil
}
