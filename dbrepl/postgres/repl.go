package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/hint"
)

// ReplicaOptions says what is replicated from where to where.
type ReplicaOptions struct {
	Options // Scratch and Jobs are not needed
	// DataDirectory is the absolute path of the standby's server's. Beside it the
	// engine keeps a directory of the same name and ".drsync".
	DataDirectory string
	// Account is the account of the operating system that the server runs as
	// ("postgres"). This process is its or root's.
	Account string
	// Slot is the name of the replication slot on the active ("drsync"), which is
	// this standby's alone.
	Slot string
	// Start and Stop start and stop the standby's server, and return when that is
	// done or under way.
	Start, Stop func(ctx context.Context) error
}

// Replica keeps the standby's whole server up to date by the active's log. It
// implements dbrepl.Engine, dbrepl.ActiveAsker and dbrepl.Comparer.
//
// Its invariants: there are two clusters, the visible one in the server's data
// directory and the next one beside it, and they change places by one rename.
// The log that a cluster has ends at its point, with zeros behind it, and its
// server has nowhere to get more from: whoever ends its recovery, by whatever
// means, has the database at that point. A cluster that becomes visible has
// replayed its log to the end and been stopped in order, so that nobody can read
// it at an earlier place either.
//
// The point is a place in the active's log, taken together with the active's
// time. What the database was there is read from the next cluster.
type Replica struct {
	e       *Engine
	staging *Engine // the same, with the next cluster's server as its standby
	opt     ReplicaOptions
	owner   owner
	visible cluster
	work    string // the engine's own directory
	bin     string // the directory of the server's programs, once they were found
	major   int    // their version

	server *stagingServer // that runs, nil if none does
	held   *workClaim

	patience time.Duration
	careless bool // for tests: what a killed process has written stays, so nothing need be synced
}

var (
	_ dbrepl.Engine      = (*Replica)(nil)
	_ dbrepl.ActiveAsker = (*Replica)(nil)
	_ dbrepl.Comparer    = (*Replica)(nil)
)

const workSuffix = ".drsync"

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// NewReplica makes an engine. It connects to nothing yet.
func NewReplica(o ReplicaOptions) (*Replica, error) {
	if o.Account == "" {
		o.Account = "postgres"
	}
	if o.Slot == "" {
		o.Slot = "drsync"
	}
	var errs []error
	if !filepath.IsAbs(o.DataDirectory) || filepath.Clean(o.DataDirectory) != o.DataDirectory || filepath.Dir(o.DataDirectory) == "/" {
		errs = append(errs, fmt.Errorf("the data directory %q is not a plain absolute path below another directory", o.DataDirectory))
	}
	if !slotName.MatchString(o.Slot) {
		errs = append(errs, fmt.Errorf("the replication slot %q is not of small letters, digits and underscores, 63 at most", o.Slot))
	}
	if o.Start == nil || o.Stop == nil {
		errs = append(errs, errors.New("it is not said how the standby's server is started and stopped"))
	}
	r := &Replica{opt: o, patience: patience, visible: cluster{o.DataDirectory}, work: o.DataDirectory + workSuffix, held: &workClaim{}}
	o.Scratch = filepath.Join(r.work, "scratch")
	var err error
	r.e, err = New(o.Options)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	private := *r.e
	private.standby = newServer("standby", Server{Address: r.socketDir(), User: o.Standby.User}, r.e.opt.Timeouts)
	r.staging = &private
	return r, nil
}

// Describe says what is replicated from where.
func (r *Replica) Describe() string {
	return fmt.Sprintf("database %s from %s to %s (PostgreSQL, replication)", r.e.opt.Name, r.e.opt.Active.Address, r.e.opt.Standby.Address)
}

// Close ends what a capture that was neither published nor discarded has
// running here, and lets other configurations have the directory.
func (r *Replica) Close() error {
	defer r.release()
	return r.endOwn()
}

// endOwn ends the next cluster's server if this process has started it. Another
// process's is left alone: it may be at work.
func (r *Replica) endOwn() error {
	s := r.server
	r.server = nil
	return s.stop()
}

// endStaging ends the next cluster's server, also one that another process has
// left. It is for whoever holds the host-wide lock.
func (r *Replica) endStaging() error {
	if err := r.endOwn(); err != nil {
		return err
	}
	return endServer(r.next())
}

// next is the cluster that takes the next capture. spare is a second copy of it
// as it came from the active, for when next has become the visible one.
func (r *Replica) next() cluster  { return cluster{filepath.Join(r.work, "next")} }
func (r *Replica) spare() cluster { return cluster{filepath.Join(r.work, "spare")} }

// seedDir is where copies are made. Nobody but this process gets in there.
func (r *Replica) seedDir() string { return filepath.Join(r.work, "seed") }
func (r *Replica) logDir() string  { return filepath.Join(r.work, "wal") }

// StillNamed asks the active which blobs it names now.
func (r *Replica) StillNamed(ctx context.Context, query string, sums []blob.Sum) (map[blob.Sum]bool, error) {
	return r.e.StillNamed(ctx, query, sums)
}

// reset takes back what an earlier capture has made: the next cluster stays,
// but it is no capture any more.
func (r *Replica) reset() error {
	if err := r.endStaging(); err != nil {
		return err
	}
	if err := r.next().unmark(); err != nil {
		return err
	}
	return os.RemoveAll(r.seedDir())
}

// makeWork makes the engine's own directory, and claims it.
func (r *Replica) makeWork(ctx context.Context) error {
	err := os.Mkdir(r.work, 0o711)
	if err == nil {
		err = os.Chmod(r.work, 0o711) // whatever the umask is
	}
	if errors.Is(err, os.ErrExist) {
		var info os.FileInfo
		if info, err = os.Lstat(r.work); err == nil && (!info.IsDir() || !ownedByUs(info)) {
			err = hint.With(fmt.Errorf("%s is not a directory of the account that drsync runs as", r.work), "move it away; drsync makes its own there")
		}
	}
	if err != nil {
		return err
	}
	return r.claim(ctx)
}

// tryExchange sees that the file system can exchange two directories.
func (r *Replica) tryExchange() (err error) {
	if err := os.RemoveAll(r.seedDir()); err != nil {
		return err
	}
	defer func() {
		if rerr := os.RemoveAll(r.seedDir()); err == nil {
			err = rerr
		}
	}()
	a, b := cluster{filepath.Join(r.seedDir(), "a")}, cluster{filepath.Join(r.seedDir(), "b")}
	for _, c := range []cluster{a, b} {
		if err := os.MkdirAll(c.path("file"), 0o700); err != nil {
			return err
		}
	}
	if err := exchange(a, b); err != nil {
		return hint.With(err, "the data directory has to lie on a local file system that knows RENAME_EXCHANGE (ext4, XFS, btrfs, ZFS from 2.2)")
	}
	return nil
}
