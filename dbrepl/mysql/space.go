package mysql

import (
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// inspectSpace compares the size of the active's tables with the space where
// the standby's server keeps its own, if that can be seen from here. During a
// publish the tables are there twice or, until the ones before the last are
// dropped, three times.
func (e *Engine) inspectSpace(p *pair, size int64) {
	if e.opt.Standby.Dial != nil || !isLocal(e.opt.Standby.Address) {
		return
	}
	var fs unix.Statfs_t
	if unix.Statfs(p.standby.Datadir, &fs) != nil {
		return // not visible to this user
	}
	free := int64(fs.Bavail) * fs.Bsize
	problem := fmt.Sprintf("%s has %s free, and the active's tables take %s", p.standby.Datadir, megabytes(free), megabytes(size))
	switch {
	case free < size/10*11:
		p.fatal("standby server", problem, "make room")
	case free < size/10*22:
		p.note("standby server", problem+"; building indexes may need as much again", "make room")
	}
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
