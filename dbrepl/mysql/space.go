package mysql

import (
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// inspectSpace compares the size of the tables to be loaded with the space where
// the standby's server keeps its own, if that can be seen from here. During a
// publish the tables are there twice or, until the ones before the last are
// dropped, three times.
func (e *Engine) inspectSpace(p *pair, s settings, k contents) {
	if e.opt.Standby.Dial != nil || !isLocal(e.opt.Standby.Address) {
		return
	}
	free := e.free
	if free == nil {
		free = freeSpace
	}
	room, ok := free(p.standby.Datadir)
	if !ok {
		return // not visible to this user
	}
	problem := fmt.Sprintf("%s has %s free, and the tables take %s", p.standby.Datadir, megabytes(room), megabytes(k.size))
	fix := func(need int64) string {
		return fmt.Sprintf("make %s more room in %s", megabytes(need-room), p.standby.Datadir)
	}
	switch {
	case room < k.size/10*11:
		p.fatal("standby server", problem, fix(k.size/10*11))
	case room < k.size/10*22:
		p.note("standby server", problem+"; building indexes may need as much again", fix(k.size/10*22))
	}
	// Indexes are sorted elsewhere.
	dir := s["innodb_tmpdir"]
	if dir == "" {
		dir, _, _ = strings.Cut(s["tmpdir"], ":")
	}
	if room, ok := free(dir); ok && room < k.largest {
		p.note("standby server", fmt.Sprintf("%s, where it sorts, has %s free, and the indexes of one table take %s", dir, megabytes(room), megabytes(k.largest)),
			fmt.Sprintf("make %s more room in %s, or set innodb_tmpdir of the standby's server to a directory that has it", megabytes(k.largest-room), dir))
	}
}

func freeSpace(dir string) (bytes int64, ok bool) {
	var fs unix.Statfs_t
	if dir == "" || unix.Statfs(dir, &fs) != nil {
		return 0, false
	}
	return int64(fs.Bavail) * fs.Bsize, true
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
