package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// SSH is how the standby reaches the active. The zero value is for the
// transport "local", which needs none.
type SSH struct {
	Host       string
	Port       int
	User       string
	Identity   string // path of the private key
	KnownHosts string // path
	Agent      string // the command that starts drsync there; "" is the default, drsync
}

// excludes are the lines of Artifactory's own instructions for rsync.
const excludes = `/work/
/data/tmp*/
/data/cache/
/logs/
`

// Config returns the text of a drsync.yaml for the lab. It names the exclude
// list that WriteConfig writes beside it.
func (l *Lab) Config(transport string, ssh SSH) string {
	var b strings.Builder
	b.WriteString("# The lab: the active and the standby are two directories of this host.\nactive:\n")
	if ssh.Host != "" {
		fmt.Fprintf(&b, "  host: %s\n  port: %d\n  user: %s\n  identity: %s\n  known_hosts: %s\n",
			quote(ssh.Host), ssh.Port, quote(ssh.User), quote(ssh.Identity), quote(ssh.KnownHosts))
	}
	if ssh.Agent != "" {
		fmt.Fprintf(&b, "  agent: %s\n", quote(ssh.Agent))
	}
	fmt.Fprintf(&b, `  home: %s
  transport: %s
standby:
  home: %s
  state: %s
application: artifactory
database:
  engine: sqlite
  mode: dump
  active: {path: %s}
  standby: {path: %s}
files:
  rsync: "-vvah --del"
  exclude_from: %s
# Less patient than a real standby should be, so that one hour shows everything:
# a blob that the newest snapshot does not name goes into quarantine at once.
snapshots: {keep_last: 1}
prune: {min_age: 0s, max_fraction: 5%%, quarantine: 7d}
`, quote(l.ActiveHome), transport, quote(l.StandbyHome), quote(l.StandbyState),
		quote(l.ActiveDB), quote(l.StandbyDB), quote(l.excludeFile()))
	return b.String()
}

// WriteConfig writes Config and the exclude list below the lab and returns the
// path of the former.
func (l *Lab) WriteConfig(transport string, ssh SSH) (string, error) {
	path := filepath.Join(l.Dir, "drsync.yaml")
	if err := os.WriteFile(l.excludeFile(), []byte(excludes), 0o644); err != nil {
		return "", fmt.Errorf("write the lab's configuration: %w", err)
	}
	if err := os.WriteFile(path, []byte(l.Config(transport, ssh)), 0o644); err != nil {
		return "", fmt.Errorf("write the lab's configuration: %w", err)
	}
	return path, nil
}

func (l *Lab) excludeFile() string { return filepath.Join(l.Dir, "rsync-excludes.txt") }

// quote makes a YAML scalar. Go's quoting is YAML's, except that YAML would
// not read \x as a byte; paths with such bytes are not made here.
func quote(s string) string { return strconv.Quote(s) }
