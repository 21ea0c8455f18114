package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

// TestReplicaAdvises looks for what is to be done about errors.
func TestReplicaAdvises(t *testing.T) {
	nothing := func(context.Context) error { return nil }
	r, err := NewReplica(ReplicaOptions{
		Options: Options{Name: "x", Active: Server{Address: "/active", User: "d"}, Standby: Server{Address: "/standby", User: "d"}}, DataDirectory: "/srv/pg/data", Start: nothing, Stop: nothing,
	})
	must(t, err)
	for _, c := range []struct {
		err  error
		want string
	}{
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, "make room in /srv/pg,"},
		{&programError{program: "pg_basebackup", said: "pg_basebackup: error: could not write to file: No space left on device"}, "make room in /srv/pg,"},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, "run drsync as root, or as postgres"},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}, "the kernel's log"},
		{&lostError{"whatever"}, "copies the active's whole server anew"},
		{&pgconn.PgError{Code: codeConfigurationFull}, "max_replication_slots"},
		{&pgconn.PgError{Code: codeTooMany}, "max_wal_senders"},
		{&pgconn.PgError{Code: codeNoPrivilege, Routine: "check_enable_rls"}, `ALTER ROLE "d" BYPASSRLS`},
		{&pgconn.PgError{Code: codeNoPrivilege}, `ALTER ROLE "d" REPLICATION`},
		{&pgconn.PgError{Code: codeShutdown}, "see the log of the server"},
		{hint.New("text", "known better"), "known better"},
		{context.Canceled, ""},
	} {
		err := r.failed("capture", fmt.Errorf("in the middle: %w", c.err))
		if got := hint.Of(err); got == "" != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%v: %q, want %q", err, got, c.want)
		}
	}
}

// muted is a connection on which nothing arrives once the log was asked for.
type muted struct {
	net.Conn
	asked  atomic.Bool
	given  chan struct{} // closed when the reader has given up
	giveUp sync.Once
}

func (m *muted) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("START_REPLICATION")) {
		m.asked.Store(true)
	}
	return m.Conn.Write(p)
}

func (m *muted) Read(p []byte) (int, error) {
	if m.asked.Load() {
		<-m.given
		return 0, os.ErrDeadlineExceeded
	}
	return m.Conn.Read(p)
}

func (m *muted) SetDeadline(at time.Time) error {
	if !at.IsZero() && m.asked.Load() {
		m.giveUp.Do(func() { close(m.given) })
	}
	return m.Conn.SetDeadline(at)
}

// TestReplicaOfASilentActive has only the log stay away: the server answers all else.
func TestReplicaOfASilentActive(t *testing.T) {
	t.Parallel()
	l := newReplicaLab(t, testenv.Postgres(t))
	l.onActive(t, "CREATE TABLE t (n int)")
	l.sync(t, l.engine(t))
	l.onActive(t, "INSERT INTO t VALUES (1)")
	r := l.engine(t, func(o *ReplicaOptions) {
		o.Connect, o.Quiet = 3*time.Second, 3*time.Second
		o.Active.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, address)
			return &muted{Conn: c, given: make(chan struct{})}, err
		}
	})
	_, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err == nil || !strings.Contains(err.Error(), "nothing of the active's log arrived for 3s") || !strings.Contains(hint.Of(err), "pg_stat_replication") || !strings.Contains(hint.Of(err), l.slot) {
		t.Errorf("%v\nhint: %s", err, hint.Of(err))
	}
	l.sync(t, l.engine(t))
	// What lies on this host may be damaged, too.
	for _, damage := range []struct{ path, want string }{{filepath.Join(r.logDir(), logStateFile), "remove that directory"}, {r.visible.path(pointFile), "another version of drsync wrote it"}} {
		path, want := damage.path, damage.want
		must(t, cluster{filepath.Dir(path)}.write(owner{uid: -1, gid: -1}, filepath.Base(path), []byte("{")))
		_, err := l.engine(t).Capture(t.Context(), dbrepl.CaptureOptions{})
		if err == nil || errors.Is(err, errCrash) || !strings.Contains(hint.Of(err), want) {
			t.Errorf("%s: %v\nhint: %s", path, err, hint.Of(err))
		}
	}
}
