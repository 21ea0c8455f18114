package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/drsync/drsync/internal/hint"
)

// How long is waited for servers that begin and end.
const (
	look      = 20 * time.Millisecond
	endTime   = time.Minute      // to end
	startTime = 2 * time.Minute  // to take writes after a promotion
	patience  = 10 * time.Second // at the end of the log, to let readers in; twelve times that, to get on at all
)

// stagingServer is the server that brings the next cluster to its point. It is
// a child of this process, ends with it, and is reached by nobody else.
type stagingServer struct {
	r    *Replica
	c    cluster
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	said *os.File
}

// startStaging starts a server on a cluster and does not wait for it.
func (r *Replica) startStaging(c cluster, needs map[string]int64) (_ *stagingServer, err error) {
	if err := r.prepareStaging(); err != nil {
		return nil, err
	}
	if pid, err := c.running(); err != nil || pid != 0 {
		return nil, cmp.Or(err, hint.With(fmt.Errorf("a server runs in %s, as process %d", c.dir, pid), "stop it: nobody but drsync starts one there"))
	}
	// What a killed server leaves would keep the next one from starting if its
	// process is known still.
	if err := os.Remove(c.path("postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	said, err := os.OpenFile(r.stagingLog(), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			said.Close()
		}
	}()
	cmd := exec.Command(filepath.Join(r.bin, "postgres"), append([]string{"-D", c.dir}, r.stagingSettings(needs)...)...)
	cmd.Dir, cmd.Env = "/", append(plainEnvironment(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT, Credential: r.owner.credential()}
	s := &stagingServer{r: r, c: c, cmd: cmd, done: make(chan struct{}), said: said}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // a child dies with the thread that started it
		defer runtime.UnlockOSThread()
		defer close(s.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended stands in what it said
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start a server: %w", err)
	}
	return s, nil
}

// prepareStaging makes the directories that the server needs beside its own.
func (r *Replica) prepareStaging() error {
	if err := os.RemoveAll(r.socketDir()); err != nil {
		return err
	}
	if err := os.Mkdir(r.socketDir(), 0o700); err != nil {
		return err
	}
	if err := r.owner.own(r.socketDir()); err != nil {
		return err
	}
	if err := os.MkdirAll(r.stagingConf(""), 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"postgresql.conf": "", "pg_ident.conf": "", "pg_hba.conf": "local all all trust\n"} {
		if err := os.WriteFile(r.stagingConf(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r *Replica) stagingConf(name string) string { return filepath.Join(r.work, "conf", name) }
func (r *Replica) socketDir() string              { return filepath.Join(r.work, "run") }

// stagingSettings are those of the command line, which win over any file.
func (r *Replica) stagingSettings(needs map[string]int64) []string {
	all := map[string]string{
		"config_file": r.stagingConf("postgresql.conf"), "hba_file": r.stagingConf("pg_hba.conf"), "ident_file": r.stagingConf("pg_ident.conf"),
		"listen_addresses": "", "unix_socket_directories": r.socketDir(), "unix_socket_permissions": "0700", "port": defaultPort,
		"ssl": "off", "logging_collector": "off", "log_destination": "stderr", "lc_messages": "C", "log_statement": "none",
		"shared_buffers": "128MB", "huge_pages": "off", "jit": "off", "shared_preload_libraries": "", "external_pid_file": "",
		"hot_standby": "on", "archive_mode": "off", "recovery_min_apply_delay": "0", "update_process_title": "on",
		"log_min_messages": "warning", "fsync": "on", "max_standby_archive_delay": "0",
	}
	if r.major >= 14 {
		all["recovery_init_sync_method"] = "syncfs" // after a crash, instead of file by file
	}
	if r.careless {
		all["fsync"] = "off"
	}
	for _, name := range following {
		all[name] = ""
	}
	for name, least := range needs {
		all[name] = strconv.FormatInt(least, 10)
	}
	var args []string
	for _, name := range sortedKeys(all) {
		args = append(args, "-c", name+"="+all[name])
	}
	return args
}

// errUnreadable says that a server has replayed all it has and lets nobody read.
var errUnreadable = errors.New("the replica lets nobody read at this point")

// reach waits until the server has replayed up to end.
func (s *stagingServer) reach(ctx context.Context, end lsn) error {
	p := progress{patience: s.r.patience}
	var last lsn
	for {
		at, err := s.replayed(ctx)
		switch {
		case err == nil && at == end:
			return nil
		case err == nil && at > end:
			return fmt.Errorf("internal error: the replica stands at %v, behind %v", at, end)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		now := doing(s.cmd.Process.Pid)
		if err == nil {
			now = activity{} // it lets us in
			if at != last {
				p.moved, last = time.Now(), at
			}
		}
		switch p.see(now) {
		case closed:
			return errUnreadable
		case stuck:
			if err == nil {
				return &lostError{fmt.Sprintf("what was received of the active's log can be read up to %v only, and not to %v", at, end)}
			}
			return s.r.seeStagingLog(fmt.Errorf("the replica's server does not come to %v: nothing moved for %v%s", end, 12*s.r.patience, s.complaint()))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
			return s.r.seeStagingLog(fmt.Errorf("the replica's server ended before it was at %v%s", end, s.complaint()))
		case <-time.After(look):
		}
	}
}

// replayed asks the server how far it is.
func (s *stagingServer) replayed(ctx context.Context) (lsn, error) {
	c, err := s.r.staging.standby.open(ctx, s.r.e.opt.Maintenance)
	if err != nil {
		return 0, err
	}
	defer end(c)
	var text string
	if err := c.QueryRow(ctx, "SELECT coalesce(pg_last_wal_replay_lsn()::text, '')").Scan(&text); err != nil {
		return 0, err
	}
	return parseLSN(text)
}

// complaint is the last thing that the server said, for an error.
func (s *stagingServer) complaint() string {
	data, err := os.ReadFile(s.said.Name())
	if err != nil {
		return ""
	}
	last := ""
	for line := range strings.Lines(string(data)) {
		for _, level := range []string{"FATAL:", "PANIC:", "ERROR:"} {
			if _, what, ok := strings.Cut(line, level); ok {
				last = strings.TrimSpace(what)
			}
		}
	}
	if last == "" {
		return ""
	}
	return ": " + last
}

// stop ends the server in order, so that its cluster needs all it has replayed
// before anybody may read it.
func (s *stagingServer) stop() error {
	if s == nil {
		return nil
	}
	defer s.said.Close()
	err := endServer(s.c)
	if err != nil {
		_ = s.cmd.Process.Kill()
	}
	<-s.done
	return err
}

// endServer ends whatever server has one of the engine's own clusters.
func endServer(c cluster) error {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		pid, err := c.running()
		if err != nil || pid == 0 {
			return err
		}
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end the server in %s: %w", c.dir, err)
		}
		ended, err := until(context.Background(), endTime/2, func() (bool, error) {
			pid, err := c.running()
			return pid == 0, err
		})
		if ended || err != nil {
			return err
		}
	}
	return hint.With(fmt.Errorf("the server in %s does not end", c.dir), "end the process that "+c.path("postmaster.pid")+" names, then run drsync again")
}
