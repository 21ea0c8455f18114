package postgres

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/durable"
)

// replicaPoint says up to where a cluster's log goes. It lies in the cluster's
// directory and moves with it, and it is the engine's Token.
type replicaPoint struct {
	Format  int           `json:"format"`
	Engine  string        `json:"engine"`
	Name    string        `json:"name"`
	ID      string        `json:"id"`
	Point   dbrepl.Point  `json:"point"`
	Counts  dbrepl.Counts `json:"counts"`
	History history       `json:"history"`
	End     string        `json:"end"` // where the log ends

	end lsn
}

const (
	replicaEngine = "postgres-replication"
	pointFile     = "drsync.json"
)

func (p *replicaPoint) token() dbrepl.Token {
	p.End = p.end.String()
	data, err := json.Marshal(p)
	if err != nil {
		panic("internal error: " + err.Error()) // it has no types that cannot be encoded
	}
	return data
}

func parseReplicaPoint(t dbrepl.Token, name string) (*replicaPoint, error) {
	var p replicaPoint
	if err := json.Unmarshal(t, &p); err != nil {
		return nil, fmt.Errorf("the record of the publish: %w", err)
	}
	switch {
	case p.Engine != replicaEngine:
		return nil, fmt.Errorf("the record of the publish is of the engine %q, not %q", p.Engine, replicaEngine)
	case p.Format != tokenFormat:
		return nil, fmt.Errorf("the record of the publish has format %d; this drsync knows %d", p.Format, tokenFormat)
	case p.Name != name:
		return nil, fmt.Errorf("the record of the publish is of the database %q, not %q", p.Name, name)
	case p.ID == "":
		return nil, errors.New("the record of the publish is incomplete")
	}
	var err error
	if p.end, err = parseLSN(p.End); err == nil {
		err = p.History.valid()
	}
	if err != nil {
		return nil, fmt.Errorf("the record of the publish: %w", err)
	}
	return &p, nil
}

// owner is the account of the operating system that the standby's server runs as.
type owner struct {
	uid, gid int
	name     string
}

func lookupOwner(name string) (owner, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return owner{}, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return owner{}, err
	}
	gid, err := strconv.Atoi(u.Gid)
	return owner{uid, gid, name}, err
}

// own gives a file or directory to the account.
func (o owner) own(path string) error {
	if o.uid == os.Geteuid() {
		return nil
	}
	return os.Lchown(path, o.uid, o.gid)
}

// credential lets a program run as the account; nil if this process does.
func (o owner) credential() *syscall.Credential {
	if o.uid == os.Geteuid() {
		return nil
	}
	return &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)}
}

// cluster is the data directory of a server.
type cluster struct{ dir string }

func (c cluster) path(name string) string { return filepath.Join(c.dir, name) }

// exists says whether there is something in the directory. A symbolic link or
// a file is an error.
func (c cluster) exists() (bool, error) {
	info, err := os.Lstat(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a directory", c.dir)
	}
	if err != nil {
		return false, err
	}
	entries, err := os.ReadDir(c.dir)
	return len(entries) > 0, err
}

// point returns what drsync says of the cluster, or nil if it says nothing.
func (c cluster) point(name string) (*replicaPoint, error) {
	data, err := c.read(pointFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p, err := parseReplicaPoint(data, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.path(pointFile), err)
	}
	return p, nil
}

// mark makes the cluster known as being at p.
func (c cluster) mark(o owner, p *replicaPoint) error {
	if err := durable.WriteFile(c.path(pointFile), p.token(), 0o600); err != nil {
		return err
	}
	return o.own(c.path(pointFile))
}

func (c cluster) unmark() error {
	if ok, err := c.exists(); err != nil || !ok {
		return err
	}
	return durable.Remove(c.path(pointFile))
}

const standbySignal = "standby.signal"

// follows says whether the cluster is a replica still: the server takes the
// signal away when it ends its recovery.
func (c cluster) follows() bool {
	_, err := os.Lstat(c.path(standbySignal))
	return err == nil
}

// control is what a cluster's control file says.
type control struct {
	System   string
	Timeline uint32
	State    string
	Redo     lsn
	Minimum  lsn // what has to be replayed before anybody may read
	Needs    map[string]int64
}

// stoppedInRecovery is the state of a replica whose server was stopped in order.
const stoppedInRecovery = "shut down in recovery"

// needed are the settings that must not be smaller on a replica than where
// its log comes from, by their names in the control file.
var needed = map[string]string{
	"max_connections setting": "max_connections", "max_worker_processes setting": "max_worker_processes", "max_wal_senders setting": "max_wal_senders",
	"max_prepared_xacts setting": "max_prepared_transactions", "max_locks_per_xact setting": "max_locks_per_transaction",
}

// parseControl reads the output of pg_controldata.
func parseControl(out []byte) (control, error) {
	c := control{Needs: make(map[string]int64)}
	var errs []error
	number := func(s string, bits int) uint64 {
		n, err := strconv.ParseUint(s, 10, bits)
		errs = append(errs, err)
		return n
	}
	place := func(s string) lsn {
		l, err := parseLSN(s)
		errs = append(errs, err)
		return l
	}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Database system identifier":
			c.System = value
		case "Database cluster state":
			c.State = value
		case "Latest checkpoint's TimeLineID":
			c.Timeline = uint32(number(value, 32))
		case "Latest checkpoint's REDO location":
			c.Redo = place(value)
		case "Minimum recovery ending location":
			c.Minimum = place(value)
		default:
			if name := needed[key]; name != "" {
				c.Needs[name] = int64(number(value, 31))
			}
		}
	}
	if c.System == "" || c.State == "" || c.Redo == 0 || len(c.Needs) != len(needed) {
		errs = append(errs, errors.New("something is missing in it"))
	}
	return c, errors.Join(errs...)
}

func (r *Replica) control(ctx context.Context, c cluster) (control, error) {
	out, err := run(ctx, append(plainEnvironment(), "LC_ALL=C"), filepath.Join(r.bin, "pg_controldata"), "-D", c.dir)
	if err != nil {
		return control{}, fmt.Errorf("look at the cluster in %s: %w", c.dir, err)
	}
	found, err := parseControl(out)
	if err != nil {
		return control{}, fmt.Errorf("what pg_controldata says of %s: %w", c.dir, err)
	}
	return found, nil
}

var labelStart = regexp.MustCompile(`(?m)^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+) `)

// begins is where the cluster's server will begin to read its log.
func (c cluster) begins(known control) (lsn, error) {
	label, err := c.read("backup_label")
	if errors.Is(err, fs.ErrNotExist) {
		return known.Redo, nil
	}
	if err != nil {
		return 0, err
	}
	m := labelStart.FindSubmatch(label)
	if m == nil {
		return 0, fmt.Errorf("%s does not say where the log begins", c.path("backup_label"))
	}
	return parseLSN(string(m[1]))
}

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

// read reads a file of the cluster, which belongs to an account that is not to
// make this one read something else.
func (c cluster) read(name string) ([]byte, error) {
	f, err := os.OpenFile(c.path(name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, cmp.Or(err, fmt.Errorf("%s is not a small file", f.Name()))
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// maxFile bounds what is read of a cluster's own small files.
const maxFile = 4 << 20 // bytes

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

// exchange makes next the visible cluster, and the visible one next. It is one
// rename: there is no moment without a visible cluster.
func exchange(next, visible cluster) error {
	var err error
	if _, serr := os.Lstat(visible.dir); errors.Is(serr, fs.ErrNotExist) {
		err = unix.Renameat2(unix.AT_FDCWD, next.dir, unix.AT_FDCWD, visible.dir, unix.RENAME_NOREPLACE)
	} else if there, eerr := visible.exists(); eerr != nil {
		return eerr
	} else if !there {
		err = unix.Rename(next.dir, visible.dir) // onto an empty directory
	} else {
		err = unix.Renameat2(unix.AT_FDCWD, next.dir, unix.AT_FDCWD, visible.dir, unix.RENAME_EXCHANGE)
	}
	if err != nil {
		return fmt.Errorf("exchange %s and %s: %w", next.dir, visible.dir, err)
	}
	if err := durable.SyncDir(filepath.Dir(visible.dir)); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(next.dir))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
