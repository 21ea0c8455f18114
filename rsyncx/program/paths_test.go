package program_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx/program"
)

// plant makes the trees that every case starts with.
func plant(t *testing.T, dir string) {
	t.Helper()
	for name, text := range map[string]string{
		"S/f": "hi\n", "S/d/g": "g\n", "S/d/e/h": "h\n", "S2/d/two": "two\n", "S2/f": "22\n", "T/t": "t\n", "S/tab\tand\x01": "x",
		"list": "d/e\nf\n", "dots": "S/./d/g\nS2/./d/\n./S/./f\n", "dirs": "# a comment\nf\nd/\n", "holes": "d/e\nnope\n", "zeros": "d/g\x00f\x00",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "E"), 0o755), os.Symlink("f", filepath.Join(dir, "S/l"))); err != nil {
		t.Fatal(err)
	}
	long := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Type().IsRegular() {
			err = os.Chtimes(path, long, long)
		}
		return err
	})
	for _, d := range []string{"S/d/e", "S/d", "S", "S2/d", "S2", "T", "E"} {
		if err == nil {
			err = os.Chtimes(filepath.Join(dir, d), long, long)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// shape lists what is below dir: names, modes, times, contents, targets.
func shape(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		line := rel + " " + info.Mode().String()
		// What the run made is as old as the run; both runs are not of the same second.
		if m := info.ModTime(); time.Since(m) > time.Hour && d.Type()&fs.ModeSymlink == 0 {
			line += " " + m.UTC().Format(time.RFC3339)
		}
		switch {
		case d.Type().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(content)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// unstamped is an output without what is particular to one run, its lines sorted.
func unstamped(out string) []string {
	for _, r := range [][2]string{
		{`\r[^\r\n]*  \r`, "\r"},                    // a file on its way
		{`(?m)^\r +(\S+) +(\d+)% .*$`, "$1 $2%"},    // a file that has arrived
		{`(?m)^sent .* bytes.*$`, "sent"},           // how much travelled
		{`(?m)speedup is [\d.,KMG]+`, "speedup is"}, // and what that saved
		{`(?m)^total: matches.*\n`, ""},
		{`(?m)^(Total bytes|File list|Literal|Matched).*\n`, ""},
		{`(?m)^(total size is|Total file size:) \S+`, "$1"},
	} {
		out = regexp.MustCompile(r[0]).ReplaceAllString(out, r[1])
	}
	lines := strings.Split(out, "\n")
	slices.Sort(lines)
	return lines
}

// The sources and destinations of a line mean what they mean to rsync: the same
// trees, the same lines, the same status.
func TestPathsAsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	t.Parallel()
	for _, line := range []string{
		"-av S D", "-av S/ D", "-av S S2 D", "-av S/ S2/ D", "-av S2/ S/ D", "-av S/. D", "-av S/d/.. D", "-aRi S/. D", "-aRi ./S/./d D", "-aRi ././S/d D", "-aRi ./S/d/. D", "-aRi S/d/./. D", "-ai --files-from=dots . D", "-ai --no-i-r S/ S/d", "-ai --no-i-r S/d S/ S/d/e", "-ai --no-i-r --del S S/d/e", "-ai --del --backup-dir=BK S/ S2", "-a --info=backup -b S/ S2", "-ai --append S/ S2", "-ai --append-verify S/ S2", "-ai --log-file=no/such/log S/ S2", "-ai --no-W --append S/ D", "-ai --del --backup-dir=BK --suffix=.x S/ S2", "-ai --backup-dir=. --suffix=.x S/ S2", "-aRi --del S/. S2", "-aRi --del S//. S2", "-aRi --del S/d/. S2", "-aRi --del S/./. S2", "-dRi S/. D", "-av S/f S2/f D",
		"-av S/f D", "-av S/f D/", "-av S/f S2", "-av S/f S2/f", "-av S S/f", "-av S/ S/f", "-av S/f T/t", "-av S/f S T/t", "-ai S/f E",
		"-av nosuch S/ D", "-av nosuch D", "-av nosuch/ D", "-av --ignore-missing-args nosuch S/ D", "-av S/f/ D",
		"-av S/f D/a/b", "-av S/ D/a/b", "-av --mkpath S/f D/a/b", "-av --mkpath S/ D/a/b", "-av --mkpath S/ D",
		"-dv S D", "-dv S/ D", "-v S/ D", "-v S/f S D", "-ltv S/f S/d S/l D", "-v S D", "-rv S D",
		"-avR S/d/e S/f D", "-avR S/./d/e S2/./d D", "-avR ./S/d/e D", "-aiR --no-implied-dirs S/d/g D", "-avR S/d/ D", "-dvR S/d/ D",
		"-av --del S/d T/ S2/", "-av --del S/d S2", "-av --del S/ S2", "-avR --del S/./d S2",
		"-anv S D", "-anv S/ D", "-ani S/f D", "-anv --del S/ S2",
		"-av --files-from=dirs S D", "-av --files-from=list S D", "-avr --files-from=list S D", "-av --no-R --files-from=list S D",
		"-av --files-from=holes S D", "-av -0 --files-from=zeros S D",
		"-av E D", "-av E D/", "-av E T/t",
		"-a S/", "-r S/", "-av --list-only S", "-a --list-only --exclude=e S/ ", "S/f", "-d S/",
		"-av --exclude=f S/f S/d D", "-avi --exclude=D S/f D", "-av --exclude=/f S/f D", "-av --exclude=/S/d S D",
		"-ai --del S/ S2", "-ai S/ D", "-aini S/ D", "-ai --stats S/ D", "-av --info=none S/ D", "-a --info=name,del --del S/ S2", "-a --info=flist0,name S/ D",
		"-av --out-format=%o|%i|%n%L|%l|%B|%U|%G|%m|%f|%%|%-10l|%10l|%z S/ S2", "-aq S/ D", "-ah --progress S/ D", "-a --no-r -v S/ D",
		"-vva --exclude=f S/ S2/", "-aii S/ S2", "-aii S/ S2/", "-vva --del S/ S2/", "-vvai --del --exclude=two S/ S2/", "-vva --existing S/ S2/", "-vva --ignore-existing S/ S2/",
		"-vva --max-size=1 S/ D", "-vva -u S/ S2/", "-vvab S/ S2/", "-a --del --max-delete=0 S/ S2/", "-av --info=skip2 --existing S/ S2/", "-av --safe-links S/ D",
		"-a --chmod=F600,D+w -i S/ D", "-vva --debug=none --exclude=f S/ D", "-rvii S/ S2/", "-vva --info=name1 S/ S2/",
		"-vaC S/ D", "-av --prune-empty-dirs --include=*/ --include=g --exclude=* S/ D", "-v8 -a S/ D",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			likeRsync(t, strings.Fields(line), plant)
		})
	}
}

// likeRsync runs a line in two trees that start makes, by rsync and by us: both
// are to print, leave and return the same.
func likeRsync(t *testing.T, args []string, start func(*testing.T, string)) {
	t.Helper()
	theirs, ours := t.TempDir(), t.TempDir()
	start(t, theirs)
	start(t, ours)
	want, wantSaid, wantStatus, err := runCommand("rsync")(t.Context(), theirs, args)
	if err != nil {
		t.Fatal(err)
	}
	got, gotSaid, gotStatus, err := runProgram(t.Context(), ours, args)
	if err != nil {
		t.Fatal(err)
	}
	if gotStatus != wantStatus {
		t.Errorf("status %d, rsync's %d: %s\n%s", gotStatus, wantStatus, gotSaid, wantSaid)
	}
	if g, w := unstamped(got), unstamped(want); !slices.Equal(g, w) {
		t.Errorf("it prints\n%s\nrsync prints\n%s", strings.Join(g, "\n"), strings.Join(w, "\n"))
	}
	if g, w := shape(t, ours), shape(t, theirs); !slices.Equal(g, w) {
		t.Errorf("it leaves\n%s\nrsync leaves\n%s", strings.Join(g, "\n"), strings.Join(w, "\n"))
	}
}

// Lines that cannot be used end with their status before anything is done.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line   string
		status int
		said   string
	}{
		{"", 1, "no source"},
		{"-a --foo --bar S D", 1, "--foo: unknown option"},
		{"-a --foo --bar S D", 1, "--bar: unknown option"},
		{"-aZ S D", 1, "-Z: unknown option"},
		{"-a --exclude-from=nope S D", 11, "nope"},
		{"-ab --suffix= S D", 1, "suffix cannot be empty"},
		{"-a --suffix= S D", 1, "suffix cannot be empty"},
		{"-a --backup-dir=. S D", 1, "suffix cannot be empty"},
		{"-a -f bogus S D", 1, "filter rule"},
		{"-a --cc=sha256 S D", 4, "xxh128"}, {"-ac --cc=none S D", 4, "none"}, {"-ac --cc=md5,none S D", 4, "none"}, {"-a --out-format=%c S D", 1, "%c"},
		{"-a --zc=lz4 S D", 4, "zstd"},
		{"-a --max-delete=q S D", 1, "invalid numeric value"},
		{"-a --delete-before --delete-after S D", 1, "when to delete"},
		{"--delete S D", 1, "does not work without"},
		{"-a --inplace --delay-updates S D", 1, "--inplace cannot be used with --delay-updates"},
		{"-a --keep-dirlinks S D", 1, "follows no symbolic links"},
		{"-a S host:D", 1, "never pushes"},
		{"-a host::S D", 1, "daemon"},
		{"-a rsync://host/S D", 1, "daemon"},
		{"-a h1:S h2:S D", 1, "another host"},
		{"-a S h2:S D", 1, "all sources must be on one host"},
		{"-a h1:S S D", 1, "all sources must be on one host"},
		{"-a --files-from=nope S D", 1, "nope"},
		{"-a --min-size=-1 S D", 1, "no size"},
		{"-a --max-size=-1 S D", 1, "no size"},
		{"-a --contimeout=5 S D", 1, "--contimeout"},
		{"-a --temp-dir=nope S/ S2", 1, "--temp-dir"},
		{"-aR S/../S D", 1, `".."`},
		{"-aR --delete S/../S/. D", 1, `".."`},
		{"-aR S/d/.. D", 1, `".."`},
		{`-a --delete S/ ""`, 1, "the destination is empty"},
		{`-a "" D`, 1, "a source is empty"},
		{`-a --delete S/ "" D`, 1, "a source is empty"},
		{`-a h:x "" D`, 1, "a source is empty"},
		{`-a ""`, 1, "a source is empty"},
		{`-a h:x ""`, 1, "the destination is empty"},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			plant(t, dir)
			before := shape(t, dir)
			args := strings.Fields(c.line)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], `""`, "")
			}
			out, said, status, err := runProgram(t.Context(), dir, args)
			if err != nil {
				t.Fatal(err)
			}
			if status != c.status || !strings.Contains(said, c.said) || out != "" {
				t.Errorf("status %d, want %d: %s%s", status, c.status, out, said)
			}
			if after := shape(t, dir); !slices.Equal(before, after) {
				t.Errorf("it changed something: %q", after)
			}
		})
	}
}

// What the program says about itself needs no paths.
func TestAbout(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"--version", "drsync  version test"}, {"-V", "Checksum list"}, {"-VV", `"checksum_list"`}, {"--help", "--max-delete-fraction=PCT"}, {"-h", "--source-marker=PATH"},
		{"--info=help", "PROGRESS"}, {"--debug=help", "FILTER"},
	} {
		out, said, status, err := runProgram(t.Context(), t.TempDir(), strings.Fields(c.line))
		if err != nil || status != 0 || !strings.Contains(out, c.want) {
			t.Errorf("%s: %d %v %s%s", c.line, status, err, out, said)
		}
	}
}

// An output that cannot be written to is no reason to leave the work half done.
func TestOutputIsLost(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir)
	var said bytes.Buffer
	status := program.Run(t.Context(), program.World{Out: closedWriter{}, Err: &said, Dir: dir, Now: time.Now}, []string{"-av", "S/", "D"})
	if _, err := os.Stat(filepath.Join(dir, "D/d/e/h")); status != 0 || err != nil {
		t.Errorf("%d %v %s", status, err, &said)
	}
}

type closedWriter struct{}

func (closedWriter) Write([]byte) (int, error) { return 0, fs.ErrClosed }
