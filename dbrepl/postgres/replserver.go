package postgres

import (
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
	startTime = 2 * time.Minute  // to answer after a start, or to go on in the log
	patience  = 15 * time.Second // at the end of the log, to let readers in
)

// running returns the process of the server that has the cluster, or 0. What
// cannot be told counts as running.
func (c cluster) running() (int, error) {
	data, err := c.read("postmaster.pid")
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(data), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s names no process", c.path("postmaster.pid"))
	}
	if isServer(pid) {
		return pid, nil
	}
	return 0, nil
}

// isServer says whether a process lives that may be a PostgreSQL server.
func isServer(pid int) bool {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return syscall.Kill(pid, 0) == nil // it may be hidden
	}
	begin, end := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
	if err != nil || begin < 0 || end+2 >= len(stat) {
		return true
	}
	if strings.ContainsRune("ZX", rune(stat[end+2])) {
		return false
	}
	name := string(stat[begin+1 : end])
	return strings.Contains(name, "postgres") || strings.Contains(name, "postmaster")
}

// until asks again and again until done says yes, or the time is over.
func until(parent context.Context, limit time.Duration, done func() (bool, error)) (bool, error) {
	ctx, cancel := context.WithTimeout(parent, limit)
	defer cancel()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return ok, err
		}
		select {
		case <-parent.Done():
			return false, context.Cause(parent)
		case <-ctx.Done():
			return false, nil
		case <-tick.C:
		}
	}
}

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
		return nil, errors.Join(err, fmt.Errorf("a server runs in %s", c.dir))
	}
	// What a killed server leaves would keep the next one from starting if its
	// process is known still.
	if err := os.Remove(c.path("postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	said, err := os.Create(filepath.Join(r.work, "log"))
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
	moved, last := time.Now(), ""
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
		doing := s.doing()
		if err == nil {
			doing = at.String()
		}
		if doing != last {
			moved, last = time.Now(), doing
		}
		switch {
		case err != nil && strings.Contains(doing, " waiting for ") && time.Since(moved) > patience:
			return errUnreadable
		case time.Since(moved) > startTime:
			return fmt.Errorf("the replica's server does not come to %v: nothing moved for %v%s", end, startTime, s.complaint())
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
			return fmt.Errorf("the replica's server ended before it was at %v%s", end, s.complaint())
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

// doing is what the server's process that replays says of itself.
func (s *stagingServer) doing() string {
	pid := strconv.Itoa(s.cmd.Process.Pid)
	children, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	if err != nil {
		return ""
	}
	for _, child := range strings.Fields(string(children)) {
		title, err := os.ReadFile("/proc/" + child + "/cmdline")
		if text := strings.TrimRight(string(title), "\x00 "); err == nil && strings.Contains(text, "startup") {
			return text
		}
	}
	return ""
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
	return fmt.Errorf("the server in %s does not end", c.dir)
}

// stopVisible stops the standby's own server, if it runs.
func (r *Replica) stopVisible(ctx context.Context) error {
	pid, err := r.visible.running()
	if err != nil || pid == 0 {
		return err
	}
	if err := r.opt.Stop(ctx); err != nil {
		return fmt.Errorf("stop the standby's server: %w", err)
	}
	stopped, err := until(ctx, endTime, func() (bool, error) {
		pid, err := r.visible.running()
		return pid == 0, err
	})
	if err == nil && !stopped {
		err = hint.With(fmt.Errorf("process %d, the standby's server, still runs after its stop command", pid), "see database.replication.stop")
	}
	return err
}

// startVisible starts the standby's own server, if it does not run, and waits
// until it answers.
func (r *Replica) startVisible(ctx context.Context) error {
	pid, err := r.visible.running()
	if err != nil {
		return err
	}
	if pid == 0 {
		if err := r.opt.Start(ctx); err != nil {
			return hint.With(fmt.Errorf("start the standby's server: %w", err), "its log says why; the database is at its snapshot and whole")
		}
	}
	var last error
	up, err := until(ctx, startTime, func() (bool, error) {
		c, err := r.e.standby.open(ctx, r.e.opt.Maintenance)
		if err == nil {
			end(c)
			last = nil
			return true, nil
		}
		last = r.e.standby.connectError(ctx, err)
		return hasCode(err, codeWrongPassword, codeNotAllowed, codeNoDatabase, codeNoPrivilege), nil
	})
	switch {
	case err != nil:
		return err
	case up && last == nil:
		return nil
	}
	if pid, err := r.visible.running(); err != nil || pid == 0 {
		return errors.Join(err, hint.With(errors.New("the standby's server does not run after its start command"), "its log says why; the database is at its snapshot and whole"))
	}
	if !up {
		// It has what it needs and may be promoted all the same.
		r.e.warn("the standby's server runs and is at its snapshot, but lets nobody read: %v", last)
		return nil
	}
	return last
}
