package postgres

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/drsync/drsync/internal/hint"
)

// serverPrograms are those of a server's directory that a replica needs.
var serverPrograms = []string{"postgres", "pg_ctl", "pg_controldata", "pg_basebackup"}

var serverVersion = regexp.MustCompile(`^postgres \(PostgreSQL\) ([0-9]+)`)

// findServer returns the directory of the server's programs of a major version.
func findServer(ctx context.Context, major int) (string, error) {
	var dirs []string
	for _, pattern := range places {
		dirs = append(dirs, fmt.Sprintf(pattern, major))
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	var missing []string
search:
	for _, dir := range dirs {
		out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
		if m := serverVersion.FindSubmatch(out); err != nil || m == nil || string(m[1]) != strconv.Itoa(major) {
			continue
		}
		for _, name := range serverPrograms {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				missing = append(missing, filepath.Join(dir, name))
				continue search
			}
		}
		return dir, nil
	}
	if err := interrupted(ctx); err != nil {
		return "", err
	}
	return "", hint.With(fmt.Errorf("the server's programs of PostgreSQL %d are not on this host (%s)", major, some(missing, "none were found")),
		fmt.Sprintf("install PostgreSQL %d's server here (Debian: postgresql-%d)", major, major))
}

// programsOf finds the programs for a cluster that is there.
func (r *Replica) programsOf(ctx context.Context, c cluster) error {
	version, err := c.read("PG_VERSION")
	if err != nil {
		return err
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(version)))
	if err != nil {
		return fmt.Errorf("%s says %.20q", c.path("PG_VERSION"), version)
	}
	if err := r.findOwner(); err != nil {
		return err
	}
	return r.useServer(ctx, major)
}

func (r *Replica) useServer(ctx context.Context, major int) (err error) {
	if r.bin, err = findServer(ctx, major); err == nil {
		r.major = major
	}
	return err
}

// findOwner finds the account that the server runs as, and sees that this
// process can run its programs.
func (r *Replica) findOwner() error {
	o, err := lookupOwner(r.opt.Account)
	if err != nil {
		return hint.With(err, "database.replication.account is the account of the operating system that the standby's server runs as")
	}
	if euid := os.Geteuid(); euid != 0 && euid != o.uid {
		return hint.With(fmt.Errorf("replication works on the files of the account %s", o.name), "run drsync as root, or as "+o.name)
	}
	r.owner = o
	return nil
}
