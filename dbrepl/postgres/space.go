package postgres

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// inspectSpace compares the size of the active's database with the space where
// the standby's server keeps its own, if that can be seen from here, and where
// the dump goes. During a capture the database is there twice, or three times
// with the generation before.
func (e *Engine) inspectSpace(p *pair, size int64) {
	enough := func(subject, path string, need int64) {
		var fs unix.Statfs_t
		if unix.Statfs(path, &fs) != nil {
			return // not visible to this user
		}
		free := int64(fs.Bavail) * fs.Bsize
		problem := fmt.Sprintf("%s has %s free, and the active's database takes %s", path, megabytes(free), megabytes(size))
		switch {
		case free < need:
			p.fatal(subject, problem, "make room")
		case free < 2*need:
			p.note(subject, problem, "make room")
		}
	}
	if e.opt.Standby.Dial == nil && isLocal(e.opt.Standby.Address) && p.standby.Datadir != "" {
		enough("standby server", p.standby.Datadir, size/10*11)
	}
	// A dump has no indexes, and may be as large as the rest.
	enough("scratch directory", filepath.Dir(e.opt.Scratch), size/2)
}

func isLocal(address string) bool {
	if strings.HasPrefix(address, "/") {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func megabytes(n int64) string { return fmt.Sprintf("%d MB", (n+1<<20-1)>>20) }
