package cli

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
)

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		v                int64
		sep, thou, binny string
	}{
		{0, "0", "0", "0"}, {999, "999", "999", "999"}, {1000, "1,000", "1.00K", "1,000"}, {1023, "1,023", "1.02K", "1,023"},
		{1024, "1,024", "1.02K", "1.00K"}, {12345000, "12,345,000", "12.35M", "11.77M"}, {999999, "999,999", "1000.00K", "976.56K"},
		{-1234, "-1,234", "-1.23K", "-1.21K"}, {5e12, "5,000,000,000,000", "5.00T", "4.55T"}, {7e18, "7,000,000,000,000,000,000", "7000.00P", "6217.25P"},
	} {
		// -hh keeps small numbers plain, without commas.
		binny := strings.ReplaceAll(c.binny, ",", "")
		if got := Separated.Count(c.v); got != c.sep {
			t.Errorf("%d: %s, want %s", c.v, got, c.sep)
		}
		if got := Thousands.Count(c.v); got != c.thou {
			t.Errorf("%d with -h: %s, want %s", c.v, got, c.thou)
		}
		if got := strings.ReplaceAll(Binary.Count(c.v), ",", ""); got != binny {
			t.Errorf("%d with -hh: %s, want %s", c.v, got, binny)
		}
		if got := Plain.Count(c.v); got != strconv.FormatInt(c.v, 10) {
			t.Errorf("%d plain: %s", c.v, got)
		}
	}
	if got := Separated.Rate(1220); got != "1,220.00" {
		t.Error(got)
	}
	if got := Thousands.Rate(24.7e6); got != "24.70M" {
		t.Error(got)
	}
}

func change(itemize, name, target string) event.Event {
	return event.Event{Kind: event.Change, Itemize: itemize, Name: name, Target: target}
}

func TestLines(t *testing.T) {
	for _, c := range []struct {
		e              event.Event
		log, v, vv, iv string
	}{
		{e: change(">f+++++++++", "d/a", ""), log: ">f+++++++++ d/a", v: "d/a", vv: "d/a", iv: ">f+++++++++ d/a"},
		{e: change("cd+++++++++", "d/", ""), log: "cd+++++++++ d/", v: "d/", vv: "d/", iv: "cd+++++++++ d/"},
		{e: change(".d..t......", "./", ""), log: ".d..t...... ./", v: "./", vv: "./", iv: ".d..t...... ./"},
		{e: change(".f...p.....", "a", ""), log: ".f...p..... a", v: "", vv: "a", iv: ".f...p..... a"},
		{e: change("cL+++++++++", "d/l", "a"), log: "cL+++++++++ d/l -> a", v: "d/l -> a", vv: "d/l -> a", iv: "cL+++++++++ d/l -> a"},
		{e: change("hf+++++++++", "a", "hl"), log: "hf+++++++++ a => hl", v: "a => hl", vv: "a => hl", iv: "hf+++++++++ a => hl"},
		{e: change("*deleting  ", "old/f", ""), log: "*deleting   old/f", v: "deleting old/f", vv: "deleting old/f", iv: "*deleting   old/f"},
		{e: change(">f+++++++++", "we\nird\x1b\xe9", ""), log: `>f+++++++++ we\#012ird\#033\#351`, v: `we\#012ird\#033\#351`, vv: `we\#012ird\#033\#351`, iv: `>f+++++++++ we\#012ird\#033\#351`},
		{e: change("cL+++++++++", "l", "x\ny"), log: `cL+++++++++ l -> x\#012y`, v: `l -> x\#012y`, vv: `l -> x\#012y`, iv: `cL+++++++++ l -> x\#012y`},
		{e: event.Event{Kind: event.Change, Itemize: "cf+++++++++", Name: "b", Text: "from quarantine"}, log: "cf+++++++++ b (from quarantine)", v: "b", vv: "b", iv: "cf+++++++++ b"},
		{e: event.Event{Kind: event.Skip, Name: "skip.o", Text: Hidden + "*.o"}, log: "[sender] hiding file skip.o because of pattern *.o", vv: "[sender] hiding file skip.o because of pattern *.o"},
		{e: event.Event{Kind: event.Skip, Name: "e.o/", Text: Hidden + "*.o"}, log: "[sender] hiding directory e.o because of pattern *.o", vv: "[sender] hiding directory e.o because of pattern *.o"},
		{e: event.Event{Kind: event.Skip, Name: "k/z\n.o", Text: Protected + `*\#012*`}, log: `[generator] protecting file k/z\#012.o because of pattern *\#012*`, vv: `[generator] protecting file k/z\#012.o because of pattern *\#012*`},
		{e: event.Event{Kind: event.Skip, Name: "p", Text: "skipping non-regular file"}, log: `skipping non-regular file "p"`, v: `skipping non-regular file "p"`, vv: `skipping non-regular file "p"`, iv: `skipping non-regular file "p"`},
		{e: event.Event{Kind: event.Skip, Name: "b", Text: "only root can make a device"}, log: "b: only root can make a device", vv: "b: only root can make a device"},
		{e: event.Event{Kind: event.Warning, Name: "x\n", Text: "vanished\x1b[2J"}, log: `warning: x\#012: vanished\#033[2J`, v: `warning: x\#012: vanished\#033[2J`, vv: `warning: x\#012: vanished\#033[2J`, iv: `warning: x\#012: vanished\#033[2J`},
		{e: event.Event{Kind: event.Info, Text: "building file list"}, log: "building file list", v: "building file list", vv: "building file list"},
		{e: event.Event{Kind: event.StepStart, Step: "capture"}, log: "capture: starts"},
		{e: event.Event{Kind: event.StepDone, Step: "capture", Text: "3 tables", Elapsed: 1500 * time.Millisecond}, log: "capture: done in 1.5s: 3 tables"},
		{e: event.Event{Kind: event.StepDone, Step: "capture", Err: errors.New("no\nroute")}, log: `capture: error: no\#012route`},
		{e: event.Event{Kind: event.Progress, Items: 3}},
	} {
		for _, l := range []struct{ how, got, want string }{
			{"log", LogLine(c.e), c.log},
			{"-v", (&Command{Verbose: 1}).Line(c.e), c.v},
			{"-vv", (&Command{Verbose: 2}).Line(c.e), c.vv},
			{"-i", (&Command{Itemize: 1}).Line(c.e), c.iv},
		} {
			if l.got != l.want {
				t.Errorf("%s of %+v: %q, want %q", l.how, c.e, l.got, l.want)
			}
		}
	}
	quiet := Command{}
	if got := quiet.LogLine(event.Event{Kind: event.Skip, Name: "a", Text: Hidden + "a"}); got != "" {
		t.Errorf("logged without -vv: %q", got)
	}
	if got := quiet.Line(change(">f+++++++++", "a", "")); got != "" {
		t.Errorf("printed without -v: %q", got)
	}
	at := time.Date(2026, 11, 21, 20, 32, 45, 0, time.UTC)
	if got := Stamp(at, 4570) + LogLine(change(">f+++++++++", "d/a", "")); got != "2026/11/21 20:32:45 [4570] >f+++++++++ d/a" {
		t.Error(got)
	}
}

func TestClosing(t *testing.T) {
	c := Command{Numbers: Thousands, DryRun: true}
	got := c.Closing(Totals{Sent: 12350000, Received: 328, Size: 12345678, Elapsed: 0})
	want := []string{"sent 12.35M bytes  received 328 bytes  24.70M bytes/sec", "total size is 12.35M  speedup is 1.00 (DRY RUN)"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	c = Command{}
	got = c.Closing(Totals{Sent: 233, Received: 104, Size: 12345015, Elapsed: 1900 * time.Millisecond})
	want = []string{"sent 233 bytes  received 104 bytes  224.67 bytes/sec", "total size is 12,345,015  speedup is 36,632.09"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := c.Closing(Totals{}); got[1] != "total size is 0  speedup is 0.00" {
		t.Errorf("%q", got)
	}
	lines := c.Statistics(rsyncx.Stats{Entries: 2000, Created: 1, Deleted: 2, Transferred: 3, TransferredBytes: 4, Bytes: 5, Torn: 6, Notes: []string{"owners were not kept"}}, Totals{Sent: 7, Received: 8})
	if got := strings.Join(lines, "|"); got != "Number of files: 2,000|Number of created files: 1|Number of deleted files: 2|Number of regular files transferred: 3|Total file size: 5 bytes|Total transferred file size: 4 bytes|Literal data: 4 bytes|Matched data: 0 bytes|Total bytes sent: 7|Total bytes received: 8|Number of files changed while read: 6|owners were not kept" {
		t.Error(got)
	}
}

// TestLinesAgainstRsync lets the real rsync copy a small tree and expects its
// log, its output and its closing lines.
func TestLinesAgainstRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	dir := t.TempDir()
	write := func(name string, n int) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, make([]byte, n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("S/d/a", 1234567)
	write("S/d/we\nird\x1b", 5)
	write("S/skip.o", 1)
	write("S/e.o/x", 1)
	write("D/old/f", 1)
	write("D/keep/z.o", 1)
	if err := os.Symlink("a", filepath.Join(dir, "S/d/l")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "S/d/a"), filepath.Join(dir, "S/d/b")); err != nil {
		t.Fatal(err)
	}
	events := []event.Event{
		{Kind: event.Skip, Name: "skip.o", Text: Hidden + "*.o"},
		{Kind: event.Skip, Name: "e.o/", Text: Hidden + "*.o"},
		{Kind: event.Skip, Name: "keep/z.o", Text: Protected + "*.o"},
		change("*deleting  ", "old/f", ""), change("*deleting  ", "old/", ""),
		change("cd+++++++++", "d/", ""), change(">f+++++++++", "d/a", ""), change("cL+++++++++", "d/l", "a"),
		change(">f+++++++++", "d/we\nird\x1b", ""), change("hf+++++++++", "d/b", "d/a"),
	}
	c, err := Parse([]string{"-vvaH", "--no-h", "--del"})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("rsync", "-vvaH", "--no-h", "--del", "--exclude=*.o", "--log-file=log", "S/", "D/")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	stamp := regexp.MustCompile(`^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[\d+\] `)
	var logged []string
	for line := range strings.Lines(string(log)) {
		if !stamp.MatchString(line) {
			t.Fatalf("rsync logs %q", line)
		}
		logged = append(logged, stamp.ReplaceAllString(strings.TrimSuffix(line, "\n"), ""))
	}
	if !stamp.MatchString(Stamp(time.Now(), os.Getpid())) {
		t.Error("the stamp is not rsync's")
	}
	printed := strings.Split(string(out), "\n")
	// rsync names one of the linked files first; both orders are right.
	same := func(lines []string, line string) bool {
		return slices.Contains(lines, line) ||
			slices.Contains(lines, strings.NewReplacer("d/a", "d/b", "d/b", "d/a").Replace(line))
	}
	for _, e := range events {
		if line := c.LogLine(e); !same(logged, line) {
			t.Errorf("rsync did not log %q:\n%s", line, log)
		}
		if line := c.Line(e); !same(printed, line) {
			t.Errorf("rsync did not print %q:\n%s", line, out)
		}
	}
	m := regexp.MustCompile(`sent (\d+) bytes  received (\d+) bytes  [\d.]+ bytes/sec\ntotal size is (\d+) `).FindStringSubmatch(string(out))
	if m == nil {
		t.Fatalf("no closing lines in %s", out)
	}
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	totals := Totals{Sent: number(m[1]), Received: number(m[2]), Size: number(m[3])}
	found := false
	for s := range 30 {
		totals.Elapsed = time.Duration(s) * time.Second
		found = found || strings.Contains(string(out), strings.Join(c.Closing(totals), "\n")+"\n")
	}
	if !found {
		t.Errorf("rsync's closing lines are not %q:\n%s", c.Closing(totals), out)
	}
	// The total in every way of writing numbers.
	for _, option := range []string{"-v", "-vh", "-vhh", "--no-h -v"} {
		args := append(strings.Fields(option), "-an", "S/", "D/")
		cmd := exec.Command("rsync", args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		c, err := Parse(args[:len(args)-2])
		if err != nil {
			t.Fatal(err)
		}
		if want := "total size is " + c.Numbers.Count(totals.Size+2) + " "; !strings.Contains(string(out), want) {
			t.Errorf("%s: no %q in %s", option, want, out)
		}
	}
}
