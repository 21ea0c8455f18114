package postgres

import (
	"fmt"
	"path/filepath"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/room"
)

// inspectSpace compares the size of the active's database with the space where
// the standby's server keeps its own, if that can be seen from here, and where
// the dump goes. During a capture the database is there twice, or three times
// with the generation before.
func (e *Engine) inspectSpace(p *pair, size int64) {
	enough := func(subject, path string, look func(string) (int64, bool), need int64) {
		free, ok := look(path)
		if !ok {
			return // not visible to this user
		}
		problem := fmt.Sprintf("%s has %s free, and the active's database takes %s", path, megabytes(free), megabytes(size))
		switch {
		case free < need:
			p.fatal(subject, problem, "make room")
		case free < 2*need:
			p.note(subject, problem, "make room")
		}
	}
	enough("standby server", p.standby.Datadir, e.freeIn, size/10*11+room.Reserve)
	// A dump has no indexes, and may be as large as the rest.
	enough("scratch directory", filepath.Dir(e.opt.Scratch), room.Free, size/2)
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

func megabytes(n int64) string { return fmt.Sprintf("%d MB", (n+1<<20-1)>>20) }
