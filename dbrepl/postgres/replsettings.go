package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/drsync/drsync/internal/durable"
)

// ownFiles are those of a data directory that belong to the host rather than
// to the database.
var ownFiles = []string{"postgresql.conf", "pg_hba.conf", "pg_ident.conf"}

const (
	autoFile    = "postgresql.auto.conf"
	autoComment = "# drsync: this cluster ends where it ends, and follows nobody by itself."
)

// configure gives the next cluster the host's own files, as they are in the
// visible one, and the settings that make it a replica which follows nobody.
func (c cluster) configure(o owner, visible cluster, needs map[string]int64) error {
	there := visible.follows()
	if there {
		for _, name := range ownFiles {
			if err := c.take(o, visible, name); err != nil {
				return err
			}
		}
	} else {
		visible = c
	}
	old, err := visible.read(autoFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := c.write(o, autoFile, replicaSettings(old, needs)); err != nil {
		return err
	}
	return c.write(o, standbySignal, nil)
}

// take copies one of the host's own files from another cluster.
func (c cluster) take(o owner, from cluster, name string) error {
	info, err := os.Lstat(from.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return durable.Remove(c.path(name)) // it lies elsewhere, or there is none
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from.path(name))
		if err != nil {
			return err
		}
		if err := durable.Remove(c.path(name)); err != nil {
			return err
		}
		return os.Symlink(target, c.path(name))
	}
	data, err := from.read(name)
	if err != nil {
		return err
	}
	return c.write(o, name, data)
}

func (c cluster) write(o owner, name string, data []byte) error {
	if old, err := c.read(name); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := durable.WriteFile(c.path(name), data, 0o600); err != nil {
		return err
	}
	return o.own(c.path(name))
}

// following are the settings by which a server would get more of the log, or
// stop before its end.
var following = []string{
	"primary_conninfo", "primary_slot_name", "restore_command", "recovery_target", "recovery_target_name", "recovery_target_time",
	"recovery_target_xid", "recovery_target_lsn",
}

var settingName = regexp.MustCompile(`^\s*([A-Za-z_][A-Za-z0-9_.]*)`)

// replicaSettings is an automatic configuration file with the settings of a
// replica in place of those that it had.
func replicaSettings(old []byte, needs map[string]int64) []byte {
	ours := map[string]string{"recovery_min_apply_delay": "0", "hot_standby": "on"}
	for _, name := range following {
		ours[name] = ""
	}
	for name, least := range needs {
		ours[name] = strconv.FormatInt(least, 10)
	}
	var b strings.Builder
	for line := range strings.Lines(string(old)) {
		line = strings.TrimRight(line, "\r\n")
		if m := settingName.FindStringSubmatch(line); m != nil {
			if _, replaced := ours[strings.ToLower(m[1])]; replaced {
				continue
			}
		}
		if line != autoComment {
			b.WriteString(line + "\n")
		}
	}
	b.WriteString(autoComment + "\n")
	for _, name := range sortedKeys(ours) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, ours[name])
	}
	return []byte(b.String())
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
