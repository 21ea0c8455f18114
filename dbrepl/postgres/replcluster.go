package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/hint"
)

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
		err = hint.With(fmt.Errorf("%s is not a directory itself; a link to one will not do", c.dir), "set database.replication.data_directory to the path that the link leads to")
	}
	if err != nil {
		return false, err
	}
	entries, err := os.ReadDir(c.dir)
	return len(entries) > 0, err
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
	if ctx.Err() != nil {
		return control{}, context.Cause(ctx)
	}
	if err != nil {
		return control{}, hint.With(fmt.Errorf("look at the cluster in %s: %w", c.dir, err), "if it is damaged, move it away, with its server stopped; the next run copies the active's server anew")
	}
	found, err := parseControl(out)
	if err != nil {
		return control{}, hint.With(fmt.Errorf("what pg_controldata says of %s: %w", c.dir, err), "the programs in "+r.bin+" have to be of the version of the cluster")
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
