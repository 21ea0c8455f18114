package bench

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// pair is an active's home and what both contestants made of it.
type pair struct {
	server        *testenv.SSHServer
	source        string
	peer, ours    string // copies
	state, config string // drsync's
	disk          *disk  // that has the copies and drsync's state
}

func newPair(t *testing.T, server *testenv.SSHServer) pair {
	t.Helper()
	dir := workspace(t)
	d := newDisk(t, opts.files)
	p := pair{
		server: server,
		source: filepath.Join(dir, "active"),
		peer:   filepath.Join(d.dir, "standby-rsync"),
		ours:   filepath.Join(d.dir, "standby-drsync"),
		state:  filepath.Join(d.dir, "state"),
		config: filepath.Join(dir, "drsync.yaml"),
		disk:   d,
	}
	empty(t, p.source)
	p.fromNothing(t)
	return p
}

// fromNothing takes everything away that was copied.
func (p pair) fromNothing(t *testing.T) {
	t.Helper()
	p.disk.renew(t)
	empty(t, p.peer, p.ours, p.state)
}

// writeConfig writes drsync's configuration; database is its part of that name.
func (p pair) writeConfig(t *testing.T, application, database string) {
	t.Helper()
	write(t, p.config, fmt.Sprintf(`active:
  host: %s
  port: %d
  user: %s
  identity: %s
  known_hosts: %s
  home: %s
  transport: agent
  agent: %s
standby:
  home: %s
  state: %s
application: %s
database: %s
files:
  rsync: "-a --delete"
snapshots: {keep_last: 1}
`, p.server.Host, p.server.Port, p.server.User, p.server.Identity, p.server.KnownHosts,
		p.source, opts.drsync, p.ours, p.state, application, database))
}

func (p pair) rsync(t *testing.T) func() {
	shell := fmt.Sprintf("ssh -p %d -i %s -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=%s",
		p.server.Port, p.server.Identity, p.server.KnownHosts)
	return func() {
		t.Helper()
		command(t, t.Context(), "rsync", "-a", "--delete", "-e", shell,
			fmt.Sprintf("%s@%s:%s/", p.server.User, p.server.Host, p.source), p.peer+"/")
	}
}

// files compares the plain procedure: the whole home as one tree.
func files(t *testing.T) table {
	t.Helper()
	testenv.Require(t, "rsync", "ssh")
	p := newPair(t, testenv.SSHD(t))
	p.writeConfig(t, "custom", "{engine: none}")
	m := newMaker()
	m.tree(t, p.source, opts.files)

	peer := contestant{
		run:    p.rsync(t),
		verify: func() { must(t, compare(p.source, p.peer, true)) },
	}
	ours := contestant{
		run:    now(t, p.config),
		verify: func() { must(t, compare(p.source, p.ours, true)) },
	}
	more := func() { m.tree(t, p.source, opts.changes) }
	what := fmt.Sprintf("%s files, %.2f GB", thousands(opts.files), float64(m.bytes)/1e9)
	lines := []line{ // in this order: each begins with what the one before it left
		race("first copy", func() { p.fromNothing(t) }, peer, ours),
		race("nothing changed", nil, peer, ours),
		race(fmt.Sprintf("%d new files", opts.changes), more, peer, ours),
	}
	return table{
		title: "A home as one tree: " + what,
		peer:  "`rsync -a --delete`",
		lines: lines,
		notes: []string{"Both over the same sshd on loopback. drsync's time includes writing everything out to the disk before it publishes; rsync leaves that to the kernel.", p.disk.String()},
	}
}
