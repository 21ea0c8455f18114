package show

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

var start = time.Date(2026, 11, 21, 20, 32, 45, 0, time.Local)

// events is one run, with a hostile name in it.
func events() []event.Event {
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	return []event.Event{
		{Time: at(0), Kind: event.StepStart, Step: "capture"},
		{Time: at(0.8), Kind: event.StepDone, Step: "capture", Text: "art: 2 tables, 1,204 rows", Elapsed: 800 * time.Millisecond},
		{Time: at(1), Kind: event.StepStart, Step: "copy"},
		{Time: at(1.1), Kind: event.Progress, Step: "copy", Items: 1, Total: 4000, Bytes: 1 << 20, Size: 4 << 30},
		{Time: at(1.2), Kind: event.Change, Itemize: ">f+++++++++", Name: "d/a", Bytes: 12},
		{Time: at(1.3), Kind: event.Change, Itemize: "cd+++++++++", Name: "d"},
		{Time: at(1.4), Kind: event.Change, Itemize: "cL+++++++++", Name: "d/l", Target: "a"},
		{Time: at(1.5), Kind: event.Change, Itemize: "hf+++++++++", Name: "d/h", Target: "d/a"},
		{Time: at(1.6), Kind: event.Change, Itemize: "*deleting", Name: "old/f"},
		{Time: at(1.7), Kind: event.Change, Itemize: ".d..t......", Name: ""},
		{Time: at(1.8), Kind: event.Change, Itemize: ">f+++++++++", Name: "evil\n\x1b[2Jname", Text: "from quarantine"},
		{Time: at(2), Kind: event.Skip, Name: "work", Text: "because of pattern /work/"},
		{Time: at(3.5), Kind: event.Progress, Step: "copy", Items: 900, Total: 4000, Bytes: 1 << 30, Size: 4 << 30},
		{Time: at(5), Kind: event.Progress, Step: "copy", Items: 2000, Total: 4000, Bytes: 2 << 30, Size: 4 << 30},
		{Time: at(6), Kind: event.Progress, Step: "copy", Items: 2500, Total: 4000, Bytes: 3 << 30, Size: 4 << 30},
		{Time: at(7), Kind: event.Warning, Name: "x\x1by", Text: "missing: garbage-collected\nsecond line"},
		{Time: at(8), Kind: event.Info, Text: "owners are not kept: not root"},
		{Time: at(9), Kind: event.StepDone, Step: "copy", Elapsed: 8 * time.Second, Err: errors.New("connection lost")},
	}
}

const lines0 = `capture   art: 2 tables, 1,204 rows  0.8 s
warning: x\#033y: missing: garbage-collected; second line
owners are not kept: not root
copy      failed  8.0 s
`

func TestTerminalPlain(t *testing.T) {
	changes := `d/a
d/
d/l -> a
d/h => d/a
deleting old/f
./
evil\#012\#033[2Jname (from quarantine)
`
	first, rest, _ := strings.Cut(lines0, "\n")
	for _, c := range []struct {
		name string
		o    TerminalOptions
		want string
	}{
		{"default", TerminalOptions{}, lines0},
		{"-v", TerminalOptions{Verbose: 1}, first + "\n" + changes + rest},
		{"-vv", TerminalOptions{Verbose: 2}, first + "\n" + changes + "skipping work: because of pattern /work/\n" + rest},
		{"bars without progress", TerminalOptions{Bars: true}, lines0},
		{"quiet", TerminalOptions{Quiet: true, Progress: true, Bars: true, Verbose: 2}, strings.Split(lines0, "\n")[1] + "\n"},
		// One line at most every 3 s: those at 0.1 s, 2.5 s and 5 s after the start are left out.
		{"--progress", TerminalOptions{Progress: true}, first + "\n" +
			"copy      2,000 of 4,000  2.0 GiB of 4.0 GiB  50%  512.0 MiB/s  4.0 s left\n" + rest},
		{"--progress often", TerminalOptions{Progress: true, Every: time.Second}, first + "\n" +
			"copy      900 of 4,000  1.0 GiB of 4.0 GiB  25%  409.6 MiB/s  8.0 s left\n" +
			"copy      2,000 of 4,000  2.0 GiB of 4.0 GiB  50%  512.0 MiB/s  4.0 s left\n" +
			"copy      2,500 of 4,000  3.0 GiB of 4.0 GiB  75%  614.4 MiB/s  2.0 s left\n" + rest},
	} {
		var out bytes.Buffer
		c.o.Out = &out
		term := NewTerminal(c.o)
		for _, e := range events() {
			term.Sink(e)
		}
		term.Close()
		term.Close()
		if out.String() != c.want {
			t.Errorf("%s: got\n%swant\n%s", c.name, out.String(), c.want)
		}
	}
}

// syncBuffer is written by the goroutine that draws.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

var escape = regexp.MustCompile(`\x1b\[[0-9]*[A-Za-z]`)

func TestBars(t *testing.T) {
	out := &syncBuffer{}
	refresh := make(chan any)
	b := newBarScreen(out, barOptions{width: 90, refresh: refresh})
	// The third is taken when the first has been drawn.
	redraw := func() {
		for range 3 {
			refresh <- time.Now()
		}
	}
	b.progress("copy", event.Event{Items: 1, Total: 4, Bytes: 1 << 20, Size: 4 << 20}, 4*time.Second)
	redraw()
	b.println("warning: one")
	b.progress("copy", event.Event{Items: 2, Total: 4, Bytes: 2 << 20, Size: 4 << 20}, 8*time.Second)
	b.progress("capture", event.Event{Items: 7}, time.Second)
	redraw()
	b.done("copy")
	b.done("never started")
	b.println("copy      done  1.0 s")
	redraw()
	redraw()
	b.close()
	got := out.String()
	plain := escape.ReplaceAllString(got, "")
	for _, want := range []string{
		"copy      [====",
		"1 of 4  1.0 MiB of 4.0 MiB  25%  256.0 KiB/s  12 s left\n",
		"warning: one\n",
		"2 of 4  2.0 MiB of 4.0 MiB  50%  256.0 KiB/s  8.0 s left\n",
		"capture   [",
		"] 7\n",
		"copy      done  1.0 s\n",
	} {
		if !strings.Contains(plain, want) {
			t.Errorf("%q is missing in\n%s", want, plain)
		}
	}
	for l := range strings.SplitSeq(plain, "\n") {
		if len([]rune(l)) > 90 {
			t.Errorf("wider than the terminal: %q", l)
		}
	}
	// The last frames, drawn after the step was done, have only the other bar.
	if i := strings.LastIndex(plain, "copy      ["); strings.Count(plain[i:], "capture   [") < 2 {
		t.Errorf("the bar outlives its step:\n%s", plain)
	}
}

// A line that wraps could not be drawn over.
func TestBarsFitNarrowTerminals(t *testing.T) {
	for _, width := range []int{20, 40, 60, 80} {
		out := &syncBuffer{}
		refresh := make(chan any)
		b := newBarScreen(out, barOptions{width: width, refresh: refresh})
		b.progress("a-step-with-a-long-name", event.Event{Items: 123456, Total: 9999999, Bytes: 1 << 50, Size: 1 << 55}, time.Hour)
		for range 3 {
			refresh <- time.Now()
		}
		b.close()
		for l := range strings.SplitSeq(escape.ReplaceAllString(out.String(), ""), "\n") {
			if n := len([]rune(l)); n > width {
				t.Errorf("%d columns in %d: %q", n, width, l)
			}
		}
	}
}

// What is drawn must be complete when Close returns, and later lines still come.
func TestTerminalBarsClose(t *testing.T) {
	out := &syncBuffer{}
	term := NewTerminal(TerminalOptions{Out: out, Progress: true, Bars: true})
	for _, e := range events() {
		term.Sink(e)
	}
	term.Sink(event.Event{Kind: event.Progress, Step: "left running", Items: 1, Total: 2})
	term.Close()
	term.Sink(event.Event{Kind: event.Progress, Step: "late", Items: 1, Total: 2})
	term.Sink(event.Event{Kind: event.Info, Text: "after the end"})
	plain := escape.ReplaceAllString(out.String(), "")
	for l := range strings.SplitSeq(strings.TrimSuffix(lines0, "\n"), "\n") {
		if !strings.Contains(plain, l+"\n") {
			t.Errorf("%q is missing in\n%s", l, plain)
		}
	}
	if !strings.HasSuffix(plain, "\nafter the end\n") || strings.Contains(plain, "late") {
		t.Errorf("got\n%s", plain)
	}
}

func TestTerminalManyGoroutines(t *testing.T) {
	for _, bars := range []bool{false, true} {
		out := &syncBuffer{}
		term := NewTerminal(TerminalOptions{Out: out, Progress: true, Bars: bars, Verbose: 1})
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				step := fmt.Sprintf("step%d", g)
				term.Sink(event.Event{Kind: event.StepStart, Step: step})
				for i := range 200 {
					term.Sink(event.Event{Kind: event.Progress, Step: step, Items: int64(i), Total: 200})
					term.Sink(event.Event{Kind: event.Change, Itemize: ">f+++++++++", Name: fmt.Sprintf("%d-%d", g, i)})
				}
				term.Sink(event.Event{Kind: event.StepDone, Step: step})
			})
		}
		wg.Wait()
		term.Close()
		plain := escape.ReplaceAllString(out.String(), "")
		for g := range 4 {
			if !strings.Contains(plain, fmt.Sprintf("%d-199\n", g)) || !strings.Contains(plain, fmt.Sprintf("step%d     0 ms\n", g)) {
				t.Fatalf("bars %v: lines of goroutine %d are missing", bars, g)
			}
		}
	}
}

const logWant = `2026/11/21 20:32:45 [4570] capture   art: 2 tables, 1,204 rows  0.8 s
2026/11/21 20:32:46 [4570] >f+++++++++ d/a
2026/11/21 20:32:46 [4570] cd+++++++++ d/
2026/11/21 20:32:46 [4570] cL+++++++++ d/l -> a
2026/11/21 20:32:46 [4570] hf+++++++++ d/h => d/a
2026/11/21 20:32:46 [4570] *deleting   old/f
2026/11/21 20:32:46 [4570] .d..t...... ./
2026/11/21 20:32:46 [4570] >f+++++++++ evil\#012\#033[2Jname
2026/11/21 20:32:52 [4570] warning: x\#033y: missing: garbage-collected; second line
2026/11/21 20:32:53 [4570] owners are not kept: not root
2026/11/21 20:32:54 [4570] copy      failed  8.0 s
`

func TestLogFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "replication.log")
	for range 2 {
		l := NewLogFile(path, nil)
		l.pid = 4570
		for _, e := range events() {
			l.Sink(e)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != logWant+logWant {
		t.Errorf("%v, got\n%s", err, got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
}

// TestLogFileIsMadeByItsFirstLine: no line, no file; then with its directories.
func TestLogFileIsMadeByItsFirstLine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	path := filepath.Join(dir, "log")
	l := NewLogFile(path, func(e event.Event) string { return e.Name + " because of pattern " + e.Text })
	l.Sink(event.Event{Kind: event.StepStart, Step: "role"})
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("made without a line: %v", err)
	}
	l.Sink(event.Event{Kind: event.Skip, Name: "logs/", Text: "/logs/"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); !strings.HasSuffix(string(got), "] logs/ because of pattern /logs/\n") {
		t.Errorf("got %q", got)
	}
	if err := NewLogFile(filepath.Join(dir, "other"), nil).Close(); err != nil {
		t.Error(err)
	}
}

// TestProgressOfWhatDoesNotRun: a bar that nothing ends would stay for ever.
func TestProgressOfWhatDoesNotRun(t *testing.T) {
	var out bytes.Buffer
	term := NewTerminal(TerminalOptions{Out: &out, Progress: true, Every: time.Nanosecond})
	progress := func(step string, items int64) {
		term.Sink(event.Event{Kind: event.Progress, Step: step, Items: items})
	}
	progress("", 1)
	progress("stage", 2)
	term.Sink(event.Event{Kind: event.StepStart, Step: "stage"})
	progress("copy", 3)
	progress("", 4) // about the only step that runs
	term.Sink(event.Event{Kind: event.StepDone, Step: "stage", Text: "done"})
	progress("", 5)
	progress("stage", 6)
	term.Close()
	if want := "stage     4\nstage     done  0 ms\n"; out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}

func TestLogFileWarningsAreThereAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := NewLogFile(path, nil)
	defer l.Close()
	l.Sink(event.Event{Kind: event.Warning, Text: "now"})
	if got, _ := os.ReadFile(path); !strings.Contains(string(got), "warning: now\n") {
		t.Errorf("got %q", got)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, unix.ENOSPC }
func (fullDisk) Close() error              { return nil }

func TestLogFileFullDisk(t *testing.T) {
	l := newLogFile(fullDisk{}, 1)
	l.Sink(event.Event{Kind: event.Info, Text: "x"})
	if err := l.Close(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Close: %v", err)
	}
}

func TestLogFileRefuses(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mkfifo(in("pipe"), 0o600))
	must(os.Symlink("loop", in("loop")))
	must(os.Mkdir(in("real"), 0o755))
	must(os.WriteFile(in("real/x"), nil, 0o644))
	for path, want := range map[string]string{dir: "directory", in("pipe"): "", in("loop"): "too many", in("real/x/log"): "not a directory"} {
		l := NewLogFile(path, nil)
		l.Sink(event.Event{Kind: event.Info, Text: "x"})
		l.Sink(event.Event{Kind: event.Info, Text: "y"})
		if err := l.Close(); err == nil {
			t.Errorf("%s: opened", path)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	must(os.Symlink("real/log", in("ours")))
	l := NewLogFile(in("ours"), nil)
	l.Sink(event.Event{Kind: event.Info, Text: "through our link"})
	must(l.Close())
	if got, err := os.ReadFile(in("real/log")); err != nil || !strings.Contains(string(got), "our link") {
		t.Errorf("%q %v", got, err)
	}
}

func TestLogFileForeignLink(t *testing.T) {
	testenv.RequireRoot(t)
	dir := t.TempDir()
	target, link := filepath.Join(dir, "precious"), filepath.Join(dir, "log")
	if err := errors.Join(os.WriteFile(target, []byte("precious"), 0o600), os.Symlink(target, link), os.Lchown(link, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	l := NewLogFile(link, nil)
	l.Sink(event.Event{Kind: event.Info, Text: "x"})
	err := l.Close()
	if err == nil {
		t.Fatal("opened another user's link")
	}
	if hint.Of(err) == "" || !strings.Contains(err.Error(), "65534") {
		t.Errorf("%v, hint %q", err, hint.Of(err))
	}
}

// list is an error like errors.Join's, made elsewhere.
type list []error

func (l list) Unwrap() []error { return l }
func (l list) Error() string {
	return errors.Join(l...).Error()
}

func TestError(t *testing.T) {
	a := hint.New("a is wrong", "mend a")
	b := errors.New("b is\x1b[31m wrong\n    12 | b: \x07")
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{a, "error: a is wrong\nhint: mend a\n"},
		{fmt.Errorf("run: %w", a), "error: run: a is wrong\nhint: mend a\n"},
		{errors.Join(a, b), "error: a is wrong\nhint: mend a\nerror: b is\\#033[31m wrong\n        12 | b: \\#007\n"},
		{hint.With(list{a, hint.With(b, "mend a")}, "mend both\nor none"),
			"error: a is wrong\nhint: mend a\nerror: b is\\#033[31m wrong\n        12 | b: \\#007\nhint: mend both\nhint: or none\n"},
		{fmt.Errorf("both: %w and %w", a, hint.New("c", "mend c")), "error: both: a is wrong and c\nhint: mend a\nhint: mend c\n"},
	} {
		var out bytes.Buffer
		Error(&out, c.err)
		if out.String() != c.want {
			t.Errorf("%v: got\n%swant\n%s", c.err, out.String(), c.want)
		}
	}
}

func TestHuman(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 5 << 30: "5.0 GiB",
		3 << 40: "3.0 TiB", 1<<63 - 1: "8,192 PiB", -1 << 63: "-8,192 PiB", -2048: "-2.0 KiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -999: "-999", -1 << 63: "-9,223,372,036,854,775,808"} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) = %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0 ms", 12 * time.Millisecond: "12 ms", 800 * time.Millisecond: "0.8 s", 9940 * time.Millisecond: "9.9 s", 9960 * time.Millisecond: "10 s",
		59600 * time.Millisecond: "1 m", 123 * time.Second: "2 m 3 s", 3599600 * time.Millisecond: "1 h", 192 * time.Minute: "3 h 12 m",
		24*time.Hour - time.Second: "1 d", 98 * time.Hour: "4 d 2 h", -90 * time.Second: "-1 m 30 s", -1 << 63: "-106751 d 23 h",
	} {
		got := Duration(d)
		if d == -1<<63 {
			if !strings.HasPrefix(got, "-10675") {
				t.Errorf("Duration(%d) = %s", d, got)
			}
		} else if got != want {
			t.Errorf("Duration(%d) = %s, want %s", d, got, want)
		}
	}
	for _, c := range []struct {
		done, total int64
		want        string
	}{{0, 0, "?"}, {0, 3, "0%"}, {9999, 10000, "99%"}, {3, 3, "100%"}, {4, 3, "100%"}, {1 << 62, 1<<63 - 1, "50%"}} {
		if got := Percent(c.done, c.total); got != c.want {
			t.Errorf("Percent(%d, %d) = %s, want %s", c.done, c.total, got, c.want)
		}
	}
	if Plural(1, "file", "files") != "1 file" || Plural(1204, "file", "files") != "1,204 files" {
		t.Error("Plural")
	}
}

func FuzzLines(f *testing.F) {
	f.Add("name", "target", "text", ">f+++++++++")
	f.Add("a\nb", "\x1b]0;x\a", "\r\n", "hd")
	f.Fuzz(func(t *testing.T, name, target, text, itemize string) {
		e := event.Event{Kind: event.Change, Step: text, Name: name, Target: target, Text: text, Itemize: itemize}
		for _, l := range []string{itemizeLine(e), changeLine(e), named(e), stepLine(e)} {
			for _, r := range l {
				if r < 0x20 || r >= 0x7f && r < 0xa0 {
					t.Fatalf("%q", l)
				}
			}
		}
		var out bytes.Buffer
		Error(&out, errors.New(text))
		if strings.ContainsFunc(out.String(), func(r rune) bool { return r < 0x20 && r != '\n' }) {
			t.Fatalf("%q", out.String())
		}
	})
}

var _ io.WriteCloser = fullDisk{}
