package sqlite

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
)

// fixture leaves what a publish can find: generation 1 visible (or nothing),
// generation 2 captured, and leftovers of an application beside the visible one.
type fixture struct {
	*lab
	token   dbrepl.Token
	visible int // rows of the visible generation, 0 for none
}

// leaveLog makes the visible database one whose last rows are only in a write-ahead log, as a crash leaves it.
func (l *lab) leaveLog(n int) {
	l.t.Helper()
	dir := l.t.TempDir()
	copyFile(l.t, l.standby, filepath.Join(dir, "x.db"))
	app := openApp(l.t, filepath.Join(dir, "x.db"), "wal")
	if _, err := app.Exec("INSERT INTO binaries VALUES (?, ?)", string(sumOf(n)), n); err != nil {
		l.t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		copyFile(l.t, filepath.Join(dir, "x.db"+suffix), l.standby+suffix)
	}
}

// leaveJournal makes the visible database one with a half-written transaction, as a crash leaves it.
func (l *lab) leaveJournal() {
	l.t.Helper()
	dir := l.t.TempDir()
	copyFile(l.t, l.standby, filepath.Join(dir, "x.db"))
	app := openApp(l.t, filepath.Join(dir, "x.db"), "delete")
	for _, s := range []string{"PRAGMA cache_size = 1", "PRAGMA cache_spill = 1", "BEGIN", "UPDATE binaries SET bin_length = 4711", "UPDATE nodes SET repo = randomblob(300)"} {
		if _, err := app.Exec(s); err != nil {
			l.t.Fatal(err)
		}
	}
	for _, suffix := range []string{"", "-journal"} {
		copyFile(l.t, filepath.Join(dir, "x.db"+suffix), l.standby+suffix)
	}
}

var states = map[string]func(t *testing.T) fixture{
	"first publish": func(t *testing.T) fixture {
		l := newLab(t, "wal", 40)
		return fixture{l, l.capture(l.engine()).Token(), 0}
	},
	"second publish": func(t *testing.T) fixture {
		l := newLab(t, "wal", 20)
		l.publish(l.engine())
		l.add(20, 40)
		return fixture{l, l.capture(l.engine()).Token(), 20}
	},
	"write-ahead log left": func(t *testing.T) fixture {
		l := newLab(t, "wal", 20)
		l.publish(l.engine())
		l.leaveLog(20)
		l.add(20, 40)
		return fixture{l, l.capture(l.engine()).Token(), 21}
	},
	"hot journal left": func(t *testing.T) fixture {
		l := newLab(t, "wal", 20)
		l.publish(l.engine())
		l.leaveJournal()
		l.add(20, 40)
		return fixture{l, l.capture(l.engine()).Token(), 20}
	},
}

// assertPromise says that the visible database is the old or the new generation, whole.
func (x fixture) assertPromise(t *testing.T, step string) {
	t.Helper()
	if _, err := os.Stat(x.standby); err != nil {
		if x.visible != 0 {
			t.Fatalf("at %s nothing is visible: %v", step, err)
		}
		return
	}
	// What the application would see: it recovers logs itself, so look at a copy.
	dir := t.TempDir()
	for _, p := range append(leftovers(x.standby), x.standby) {
		if data, err := os.ReadFile(p); err == nil {
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(p)), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	app := openApp(t, filepath.Join(dir, "app.db"), "delete")
	defer os.RemoveAll(dir)
	defer app.Close()
	var verdict string
	var rows, sum int
	if err := app.QueryRow("PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		t.Fatalf("at %s: integrity %q %v", step, verdict, err)
	}
	if err := app.QueryRow("SELECT count(*), sum(bin_length) FROM binaries").Scan(&rows, &sum); err != nil {
		t.Fatalf("at %s: %v", step, err)
	}
	if rows != x.visible && rows != 40 || sum != rows*(rows-1)/2 {
		t.Fatalf("at %s the visible database has %d rows with sum %d, want %d or 40", step, rows, sum, x.visible)
	}
}

func (x fixture) assertRecovered(t *testing.T, step string) {
	t.Helper()
	e := x.engine()
	for range 2 {
		if err := e.Recover(t.Context(), x.token); err != nil {
			t.Fatalf("after %s: %v", step, err)
		}
		wantVisible(t, e, 40)
	}
	want := []string{"app.db", ".app.db.drsync.json"}
	if x.visible > 0 {
		want = append(want, ".app.db.drsync-prev")
		wantWhole(t, e.f.prev, x.visible)
	}
	wantFiles(t, e.f.dir, want...)
}

// A publish that fails before its n-th step, for every n, is finished by Recover,
// itself failing at every step first.
func TestPublishStoppedAtEveryStep(t *testing.T) {
	for name, make := range states {
		t.Run(name, func(t *testing.T) {
			stopped := errors.New("stopped")
			for n := 0; ; n++ {
				x := make(t)
				g, err := parseGeneration(x.token)
				if err != nil {
					t.Fatal(err)
				}
				at := ""
				stopAt := func(n int) func(string) error {
					return func(step string) error {
						x.assertPromise(t, step)
						at = step
						if n--; n < 0 {
							return stopped
						}
						return nil
					}
				}
				e := x.engine()
				e.step = stopAt(n)
				done := e.rollForward(t.Context(), g, true)
				if done != nil && !errors.Is(done, stopped) {
					t.Fatal(done)
				}
				x.assertPromise(t, at)
				for m := 0; n == 0 || n == 7; m++ { // before anything, and after the rename
					e := x.engine()
					e.step = stopAt(m)
					err := e.Recover(t.Context(), x.token)
					if err == nil {
						break
					}
					if !errors.Is(err, stopped) {
						t.Fatalf("recovered until %s: %v", at, err)
					}
				}
				x.assertRecovered(t, at)
				if done == nil {
					if n < 8 {
						t.Fatalf("only %d steps", n)
					}
					return
				}
			}
		})
	}
}

// The same with a process that is killed.
func TestPublishKilledAtEveryStep(t *testing.T) {
	if os.Getenv("DRSYNC_TEST_KILL") != "" {
		publishAndDie(t)
		return
	}
	for name, make := range states {
		t.Run(name, func(t *testing.T) {
			for _, step := range []string{"verify", "refuse", "settle", "clear", "keep", "rename", "sync", "mark", "done"} {
				x := make(t)
				self, err := os.Executable()
				if err != nil {
					t.Fatal(err)
				}
				cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestPublishKilledAtEveryStep$")
				cmd.Env = append(os.Environ(), "DRSYNC_TEST_KILL="+step, "DRSYNC_TEST_DB="+x.standby, "DRSYNC_TEST_TOKEN="+string(x.token))
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("%s: not killed: %v\n%s", step, err, out)
				}
				x.assertPromise(t, step)
				x.assertRecovered(t, step)
			}
		})
	}
}

func publishAndDie(t *testing.T) {
	x := &lab{t: t, active: "/active.db", standby: os.Getenv("DRSYNC_TEST_DB")}
	e := x.engine()
	e.step = func(step string) error {
		if step == os.Getenv("DRSYNC_TEST_KILL") {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}
	if err := e.Recover(t.Context(), dbrepl.Token(os.Getenv("DRSYNC_TEST_TOKEN"))); err != nil {
		t.Fatal(err)
	}
}

func TestRecoverWithoutPublishRemovesTheCapture(t *testing.T) {
	l := newLab(t, "wal", 10)
	e := l.engine()
	l.publish(e)
	l.capture(e)
	for _, name := range []string{"..app.db.drsync.json.123", ".app.db.drsync-asked"} {
		if err := os.WriteFile(filepath.Join(e.f.dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := l.engine().Recover(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
		wantVisible(t, e, 10)
	}
}

// The token of a finished publish leaves the next capture's leftover no chance to become visible.
func TestRecoverOfAFinishedPublishDropsALaterCapture(t *testing.T) {
	l := newLab(t, "wal", 10)
	e := l.engine()
	c := l.capture(e)
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.add(10, 20)
	l.capture(e)
	if err := l.engine().Recover(t.Context(), c.Token()); err != nil {
		t.Fatal(err)
	}
	wantVisible(t, e, 10)
	wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
}

func TestRecoverRefusesWhatIsNotTheCapture(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, f files){
		"staged gone":      func(t *testing.T, f files) { os.Remove(f.staged) },
		"staged truncated": func(t *testing.T, f files) { os.Truncate(f.staged, 4096) },
		"staged changed": func(t *testing.T, f files) {
			w, err := os.OpenFile(f.staged, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			w.WriteAt([]byte{0xff}, 5000)
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := states["second publish"](t)
			e := x.engine()
			spoil(t, e.f)
			if err := e.Recover(t.Context(), x.token); err == nil {
				t.Fatal("no error")
			}
			wantVisible(t, e, 20)
		})
	}
	x := states["second publish"](t)
	for _, token := range []string{"", "null", "{}", "[]", `{"format":2}`, strings.Replace(string(x.token), `"format":1`, `"format":9`, 1)} {
		if err := x.engine().Recover(t.Context(), dbrepl.Token(token)); err == nil {
			t.Errorf("token %q: no error", token)
		}
	}
}

func TestDamagedVisibleDatabaseIsReplaced(t *testing.T) {
	l := newLab(t, "wal", 10)
	e := l.engine()
	l.publish(e)
	// Its log is sound, and would be applied to any database that gets its name.
	l.leaveLog(10)
	if err := os.WriteFile(l.standby, []byte(strings.Repeat("garbage ", 2000)), 0o644); err != nil {
		t.Fatal(err)
	}
	var warned int
	e.o.Event = func(ev event.Event) {
		if ev.Kind == event.Warning {
			warned++
		}
	}
	l.publish(e)
	wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json", ".app.db.drsync-prev")
	wantVisible(t, e, 10)
	if warned != 1 {
		t.Errorf("%d warnings", warned)
	}
}

func TestLinkIsRefused(t *testing.T) {
	l := newLab(t, "wal", 10)
	e := l.engine()
	if err := os.Symlink("/etc/passwd", l.standby); err != nil {
		t.Fatal(err)
	}
	if err := l.capture(e).Publish(t.Context()); err == nil {
		t.Fatal("no error")
	}
}

func TestGenerationSurvivesItsJSON(t *testing.T) {
	x := states["first publish"](t)
	g, err := parseGeneration(x.token)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(g)
	if err != nil || string(data) != string(x.token) {
		t.Fatalf("%s\n%s\n%v", data, x.token, err)
	}
	if strings.Contains(fmt.Sprint(g), "password") {
		t.Fatal()
	}
}

// A journal whose header was zeroed (journal_mode=PERSIST) and shared memory
// without a log belong to the old generation, and go with it.
func TestSpentLeftoversGo(t *testing.T) {
	l := newLab(t, "wal", 10)
	e := l.engine()
	l.publish(e)
	for _, suffix := range []string{"-journal", "-shm"} {
		if err := os.WriteFile(l.standby+suffix, make([]byte, 4096), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l.publish(e)
	wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json", ".app.db.drsync-prev")
	wantVisible(t, e, 10)
}
