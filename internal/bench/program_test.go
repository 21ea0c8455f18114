package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
)

// rivals are rsync and drsync rsync, which get the same command line: a pull
// from one sshd, directly or through a proxy that counts and delays.
type rivals struct {
	source     string
	peer, ours string // copies
	home       string // where drsync finds its ssh settings
	settings   string // the same for rsync's ssh
	peaks      string // a directory where the far sides leave how much memory they took
}

// newRivals makes copies that begin empty in dir. A proxy, which may be nil, stands before the server
// and takes a fifth of the processor time of a copy.
func newRivals(t *testing.T, server *testenv.SSHServer, proxy *testenv.TCPProxy, dir string) *rivals {
	t.Helper()
	r := &rivals{
		source: filepath.Join(dir, "active"),
		peer:   filepath.Join(dir, "standby-rsync"),
		ours:   filepath.Join(dir, "standby-drsync"),
		home:   filepath.Join(dir, "home"),
		peaks:  filepath.Join(dir, "peaks"),
	}
	r.settings = filepath.Join(r.home, ".ssh", "config")
	empty(t, r.source, r.peer, r.ours, r.peaks)
	known := filepath.Join(r.home, "known_hosts")
	content, err := os.ReadFile(server.KnownHosts)
	must(t, err)
	_, key, _ := strings.Cut(string(content), " ")
	host, port := server.Host, server.Port
	if proxy != nil {
		host, port = proxy.Host, proxy.Port
	}
	write(t, known, fmt.Sprintf("[%s]:%d %s", host, port, key))
	write(t, r.settings, fmt.Sprintf("Host active\n  HostName %s\n  Port %d\n  User %s\n  IdentityFile %s\n  IdentitiesOnly yes\n  BatchMode yes\n  StrictHostKeyChecking yes\n  UserKnownHostsFile %s\n",
		host, port, server.User, server.Identity, known))
	return r
}

// run pulls the source with a program and notes the peak memory of both sides, in bytes.
func (r *rivals) run(t *testing.T, m *memory, program, far, shell, to string, options ...string) {
	t.Helper()
	peak := filepath.Join(r.peaks, strconv.FormatInt(time.Now().UnixNano(), 36))
	self, err := os.Executable()
	must(t, err)
	args := append([]string{"-a", "--delete", "--rsync-path=" + strings.Join([]string{self, peakOf, peak, far}, " ")}, options...)
	if shell != "" {
		args = append(args, "-e", shell)
	}
	words := strings.Fields(program)
	cmd := exec.CommandContext(t.Context(), words[0], append(append(words[1:], args...), "active:"+r.source+"/", to+"/")...)
	cmd.Env = append(os.Environ(), "HOME="+r.home)
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, said[max(0, len(said)-4000):])
	}
	if m != nil {
		m.near = max(m.near, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss<<10)
		m.files = append(m.files, peak)
	}
}

// memory is the peak resident memory of one process on either side, in bytes.
type memory struct {
	near  int64
	files []string // where the far sides of each run leave theirs: FILE:PID while it runs, then FILE.PID
}

// far waits for the far sides, which end after the runs.
func (m *memory) far(t *testing.T) (most int64) {
	t.Helper()
	for _, file := range m.files {
		var found, running []string
		for end := time.Now().Add(10 * time.Second); (len(found) == 0 || len(running) > 0) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			var errs [2]error
			running, errs[0] = filepath.Glob(file + ":*")
			found, errs[1] = filepath.Glob(file + ".*")
			must(t, errors.Join(errs[:]...))
		}
		if len(found) == 0 || len(running) > 0 {
			t.Errorf("a far side did not say how much memory it took: %s", file)
		}
		for _, f := range found {
			text, err := os.ReadFile(f)
			must(t, err)
			n, err := strconv.ParseInt(string(text), 10, 64)
			must(t, err)
			most = max(most, n)
		}
	}
	return most
}

// peakOf, as the first argument of this program, makes it run the rest and leave
// the peak memory of that in a file.
const peakOf = "-peak-of"

// runForPeak is what the far sides run. It returns the exit status.
func runForPeak(file string, words []string) int {
	under, done := fmt.Sprintf("%s:%d", file, os.Getpid()), fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := os.WriteFile(under, nil, 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	err = os.WriteFile(under, fmt.Appendf(nil, "%d", peak), 0o600)
	if err = errors.Join(err, os.Rename(under, done)); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return cmd.ProcessState.ExitCode()
}

func (r *rivals) contestants(t *testing.T, options ...string) (peer, ours contestant, used *[2]memory) {
	used = new([2]memory)
	peer = contestant{
		run:    func() { r.run(t, &used[0], "rsync", "rsync", "ssh -F "+r.settings, r.peer, options...) },
		verify: func() { must(t, compare(r.source, r.peer, true)) },
	}
	if opts.drsync != "" {
		ours = contestant{
			run:    func() { r.run(t, &used[1], opts.drsync+" rsync", opts.drsync, "", r.ours, options...) },
			verify: func() { must(t, compare(r.source, r.ours, true)) },
		}
	}
	return peer, ours, used
}

// fresh gives each repeat directories that never were: a file system is slow for
// a while where much was deleted.
func (r *rivals) fresh(t *testing.T) func() {
	n := 0
	base := [2]string{r.peer, r.ours}
	return func() {
		n++
		r.peer, r.ours = fmt.Sprintf("%s-%d", base[0], n), fmt.Sprintf("%s-%d", base[1], n)
		empty(t, r.peer, r.ours)
	}
}

// trip is the round trip through the delaying proxy.
const trip = 100 * time.Millisecond

// program compares rsync's command with drsync's own, both in one run over one sshd.
func program(t *testing.T) table {
	t.Helper()
	testenv.Require(t, "rsync", "ssh")
	server := testenv.SSHD(t)
	var lines []line
	var notes []string
	add := func(l []line, n ...string) { lines, notes = append(lines, l...), append(notes, n...) }
	t.Run("many", func(t *testing.T) { l, n := manyFiles(t, server); add(l, n) })
	t.Run("million", func(t *testing.T) { l, n := million(t, server); add(l, n) })
	t.Run("large", func(t *testing.T) { l, n := largeFile(t, server); add(l, n) })
	t.Run("far", func(t *testing.T) { add(farAway(t, server)) })
	return table{
		title: "`drsync rsync` beside rsync, the same command over the same sshd",
		peer:  "`rsync -a --delete`",
		lines: lines,
		notes: append(notes, fmt.Sprintf("Far away is a proxy that makes a round trip of %v, without a limit on bandwidth.", trip)),
	}
}

func manyFiles(t *testing.T, server *testenv.SSHServer) ([]line, string) {
	r := newRivals(t, server, nil, workspace(t))
	m := newMaker()
	m.tree(t, r.source, opts.files)
	d := newDisk(t, opts.files)
	r.peer, r.ours = filepath.Join(d.dir, "standby-rsync"), filepath.Join(d.dir, "standby-drsync")
	fromNothing := func() { d.renew(t); empty(t, r.peer, r.ours) }
	peer, ours, _ := r.contestants(t)
	what := fmt.Sprintf("%s files, %.2f GB", thousands(opts.files), float64(m.bytes)/1e9)
	coldPeer, coldOurs := peer, ours
	coldPeer.prepare = func() { forget(t, r.source) }
	coldOurs.prepare = coldPeer.prepare
	return []line{
		race("first copy, "+what+", from the active's disk", fromNothing, coldPeer, coldOurs),
		race("first copy, "+what, fromNothing, peer, ours),
		race("nothing changed, "+thousands(opts.files)+" files", nil, peer, ours),
		race(fmt.Sprintf("%d new files among %s", opts.changes, thousands(opts.files)), func() { m.tree(t, r.source, opts.changes) }, peer, ours),
	}, d.String()
}

// million has ten times the files, nearly empty, of which nothing changes.
func million(t *testing.T, server *testenv.SSHServer) ([]line, string) {
	r := newRivals(t, server, nil, workspace(t))
	n := 10 * opts.files
	for i := range n {
		dir := filepath.Join(r.source, fmt.Sprintf("part-%03d/group-%02d", i/10_000, i/100%100))
		if i%100 == 0 {
			must(t, os.MkdirAll(dir, 0o755))
		}
		path := filepath.Join(dir, fmt.Sprintf("file-%07d.bin", i))
		must(t, os.WriteFile(path, nil, 0o644))
		when := time.Unix(1_700_000_000+int64(i), 0)
		must(t, os.Chtimes(path, when, when))
	}
	for _, to := range []string{r.peer, r.ours} {
		command(t, t.Context(), "rsync", "-a", r.source+"/", to+"/")
	}
	peer, ours, used := r.contestants(t)
	peer.verify, ours.verify = func() {}, func() {}
	l := race(fmt.Sprintf("nothing changed, %s files", thousands(n)), nil, peer, ours)
	must(t, compare(r.source, r.ours, true))
	note := fmt.Sprintf("Peak memory with %s files, nothing changed: %s.", thousands(n), peaks(t, used))
	*used = [2]memory{}
	r.fresh(t)()
	for _, c := range []contestant{peer, ours} {
		if c.run != nil {
			c.run()
		}
	}
	return []line{l}, note + fmt.Sprintf(" A first copy of them: %s.", peaks(t, used))
}

// peaks says how much memory both contestants took.
func peaks(t *testing.T, used *[2]memory) string {
	t.Helper()
	return fmt.Sprintf("rsync %s here and %s on the active; drsync %s and %s",
		mega(used[0].near), mega(used[0].far(t)), mega(used[1].near), mega(used[1].far(t)))
}

func mega(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

// largeFile changes a few blocks of one large file between runs.
func largeFile(t *testing.T, server *testenv.SSHServer) ([]line, string) {
	proxy := testenv.Proxy(t, server.Addr)
	r := newRivals(t, server, proxy, workspace(t))
	path := filepath.Join(r.source, "disk.img")
	size := int64(opts.large) << 20
	random := rand.NewChaCha8([32]byte{7})
	fill(t, path, size, random)
	for _, to := range []string{r.peer, r.ours} {
		command(t, t.Context(), "rsync", "-a", r.source+"/", to+"/")
	}
	peer, ours, _ := r.contestants(t)
	var wire [2]int64
	for i, c := range []*contestant{&peer, &ours} {
		run := c.run
		if run != nil {
			c.run = func() {
				before := proxy.Bytes()
				run()
				wire[i] = proxy.Bytes() - before
			}
		}
	}
	tick := time.Unix(1_700_000_000, 0)
	change := func() {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		block := make([]byte, 4<<10)
		for range 20 {
			_, _ = random.Read(block)
			_, err := f.WriteAt(block, int64(random.Uint64()%uint64(size/4096))*4096)
			must(t, err)
		}
		must(t, f.Close())
		tick = tick.Add(time.Minute)
		must(t, os.Chtimes(path, tick, tick))
	}
	l := race(fmt.Sprintf("a file of %d MiB, 20 scattered blocks of 4 KiB changed", opts.large), change, peer, ours)
	return []line{l}, fmt.Sprintf("On the wire for the changed blocks, both ways, with all of SSH: rsync %.2f MB, drsync %.2f MB.", float64(wire[0])/1e6, float64(wire[1])/1e6)
}

func fill(t *testing.T, path string, size int64, random *rand.ChaCha8) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	b := make([]byte, 1<<20)
	for range size >> 20 {
		_, _ = random.Read(b)
		_, err := f.Write(b)
		must(t, err)
	}
	must(t, f.Close())
}

// farAway copies many small files and a large one from far away.
func farAway(t *testing.T, server *testenv.SSHServer) []line {
	proxy := testenv.Proxy(t, server.Addr)
	proxy.SetDelay(trip / 2)
	small := newRivals(t, server, proxy, workspace(t))
	m := newMaker()
	m.tree(t, small.source, opts.files/5)
	peer, ours, _ := small.contestants(t)
	lines := []line{race(fmt.Sprintf("far away: first copy of %s small files, %.0f MB", thousands(opts.files/5), float64(m.bytes)/1e6), small.fresh(t), peer, ours)}

	large := newRivals(t, server, proxy, workspace(t))
	size := int64(opts.large) << 20 / 4
	fill(t, filepath.Join(large.source, "disk.img"), size, rand.NewChaCha8([32]byte{8}))
	peer, ours, _ = large.contestants(t)
	return append(lines, race(fmt.Sprintf("far away: first copy of a file of %.0f MB", float64(size)/1e6), large.fresh(t), peer, ours))
}
