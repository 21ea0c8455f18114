package mysql

import (
	"context"
	"fmt"
	"strings"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/room"
	"github.com/drsync/drsync/internal/hint"
)

// inspectSpace compares the size of the tables to be loaded with the space where
// the standby's server keeps its own, if that can be seen from here. During a
// publish the tables are there twice or, until the ones before the last are
// dropped, three times.
func (e *Engine) inspectSpace(p *pair, s settings, k contents) {
	free := e.freeIn
	left, ok := free(p.standby.Datadir)
	if !ok {
		return // not visible to this user
	}
	problem := fmt.Sprintf("%s has %s free, and the tables take %s, with %s that stay free", p.standby.Datadir, megabytes(left), megabytes(k.size), megabytes(room.Reserve))
	fix := func(need int64) string {
		return fmt.Sprintf("make %s more room in %s", megabytes(need-left), p.standby.Datadir)
	}
	switch {
	case left < k.size/10*11+room.Reserve:
		p.fatal("standby server", problem, fix(k.size/10*11+room.Reserve))
	case left < k.size/10*22+room.Reserve:
		p.note("standby server", problem+"; building indexes may need as much again", fix(k.size/10*22+room.Reserve))
	}
	// Indexes are sorted elsewhere.
	dir := s["innodb_tmpdir"]
	if dir == "" {
		dir, _, _ = strings.Cut(s["tmpdir"], ":")
	}
	if left, ok := free(dir); ok && left < k.largest {
		p.note("standby server", fmt.Sprintf("%s, where it sorts, has %s free, and the indexes of one table take %s", dir, megabytes(left), megabytes(k.largest)),
			fmt.Sprintf("make %s more room in %s, or set innodb_tmpdir of the standby's server to a directory that has it", megabytes(k.largest-left), dir))
	}
}

// freeIn returns the room in a directory of the standby's server, and whether
// it can be seen from here.
func (e *Engine) freeIn(dir string) (bytes int64, ok bool) {
	switch {
	case e.opt.Standby.Dial != nil || !dbrepl.OnThisHost(e.opt.Standby.Address):
		return 0, false
	case e.free != nil:
		return e.free(dir)
	}
	return room.Free(dir)
}

// watchRoom ends the context before the disk of the standby's server is full.
func (k *copier) watchRoom(ctx context.Context) (_ context.Context, stop func(), err error) {
	r, err := one(ctx, k.staging, "SELECT @@datadir d")
	if err != nil {
		return nil, nil, k.standby.explain(ctx, err)
	}
	ctx, stop = room.Watch(ctx, r.get("d"), k.freeIn)
	return ctx, stop, nil
}

// adviseRoom adds what can be done when a server says that its disk is full.
func adviseRoom(err error) error {
	if hasNumber(err, errDiskFull, errTableFull) || hasNumber(err, errWriting) && strings.Contains(err.Error(), "No space left") {
		return hint.With(err, room.Advice)
	}
	return err
}

func megabytes(n int64) string { return fmt.Sprintf("%d MB", (n+1<<20-1)>>20) }
