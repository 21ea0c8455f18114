package program_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/program"
)

// ends says how both programs end: with the same exit status, with nothing gone
// from the destination, and with one line or more about it.
func ends(t *testing.T, base string, c diffCase, other runner, kept bool) {
	t.Helper()
	want, err := play(t.Context(), base, c, runCommand("rsync"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := play(t.Context(), base, c, other)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if got[i].exit != want[i].exit {
			t.Errorf("%q: rsync exits %d, drsync %d\nrsync: %s\ndrsync: %s", want[i].args, want[i].exit, got[i].exit, want[i].stderr, got[i].stderr)
		}
		if want[i].exit == 0 {
			t.Errorf("%q: rsync does not fail", want[i].args)
		}
		if strings.TrimSpace(got[i].stderr) == "" {
			t.Errorf("%q: drsync exits %d and says nothing", want[i].args, got[i].exit)
		}
	}
	for _, n := range c.nodes {
		if _, ok := got[len(got)-1].tree[n.path]; kept && !ok {
			t.Errorf("drsync deleted %s", n.path)
		}
	}
}

func plain(path string, kind byte, text string) node {
	n := node{path: path, kind: kind, mode: 0o644, sec: 1_000_000_000}
	if kind == 'd' {
		n.mode = 0o755
	}
	if text != "" {
		n.content = []segment{{kind: 't', text: text}}
	}
	return n
}

// pairOfTrees is a source, and a destination with something more.
func pairOfTrees() []node {
	return []node{plain("from", 'd', ""), plain("from/f", 'f', "new"), plain("from/d", 'd', ""), plain("from/d/g", 'f', "g"),
		plain("to", 'd', ""), plain("to/f", 'f', "older"), plain("to/extra", 'f', "x"), plain("to/d", 'd', ""), plain("to/d/old", 'f', "y")}
}

// TestRefusedLines compares lines that nothing may come of.
func TestRefusedLines(t *testing.T) {
	base := bench(t)
	for _, line := range []string{
		"--max-size=x", "--min-size=1q", "--bwlimit=fast", "--timeout=soon", "--modify-window=x", "--max-delete=many",
		"--chmod=zz", "--suffix=a/b -b", "--checksum-choice=crc", "--compress-choice=best -z", "--info=nothing1", "--compress-level=x",
		"--usermap=a", "--groupmap=:", "--usermap=1-:2", "--no-such-option", "--no-verbosity", "-Y", "--delete=1", "--archive=yes",
		"--filter=x", "--filter=-", "--filter=-z_a", "--filter=+", "--filter=merge", "--filter=!x", "--filter=:", "--filter=H,s_a", "--filter=.C,s_x", "--filter=unknown_a",
		"--exclude-from=missing", "--include-from=missing", "--filter=._missing", "--files-from=missing",
		"--inplace --partial-dir=p", "--inplace --delay-updates", "--append --partial-dir=p", "--append --delay-updates",
		"--compare-dest=x --link-dest=y", "--copy-dest=x --compare-dest=y", "--delete-before --delete-after",
		"--delete-before --del", "--no-r --delete", "--no-r --no-d --delete-excluded", "--files-from=list from", "--existing=1", "--itemize",
		"--suffix= -b",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			opts := strings.Fields(line)
			for i, o := range opts {
				opts[i] = strings.ReplaceAll(o, "_", " ")
			}
			c := diffCase{nodes: append(pairOfTrees(), plain("list", 'f', "f\n")), runs: []command{{opts: append([]string{"-a", "--del"}, opts...), srcs: []string{"from/"}, dest: "to/"}}}
			if strings.HasPrefix(line, "--delete-") || strings.Contains(line, "--no-r") {
				c.runs[0].opts = append([]string{"-a"}, opts...)
			}
			ends(t, base, c, runProgram, true)
		})
	}
}

// TestBrokenTransfers compares how transfers end that cannot work.
func TestBrokenTransfers(t *testing.T) {
	base := bench(t)
	run := func(opts []string, dest string, srcs ...string) []command {
		return []command{{opts: append([]string{"-a", "--del"}, opts...), srcs: srcs, dest: dest}}
	}
	for name, c := range map[string]diffCase{
		"missing source":                 {runs: run(nil, "to/", "missing/")},
		"missing name":                   {runs: run(nil, "to/", "from/missing")},
		"one of two missing":             {runs: run(nil, "to/", "from/d", "from/missing")},
		"source is a file with a slash":  {runs: run(nil, "to/", "from/f/")},
		"destination's parent missing":   {runs: run(nil, "no/such/dir/", "from/")},
		"destination is a file":          {runs: run(nil, "to/f/", "from/")},
		"destination is a file, no dash": {runs: run(nil, "to/f", "from/")},
		"several into a file":            {runs: run(nil, "to/f", "from/f", "from/d")},
		"listed name missing":            {runs: run([]string{"--files-from=@/list"}, "to/", "from/"), nodes: []node{plain("list", 'f', "f\nmissing\n")}},
		"bad rule in a directory":        {runs: run([]string{"--filter=: .r"}, "to/", "from/"), nodes: []node{plain("from/.r", 'f', "nonsense\n")}},
		"remote, missing source":         {remote: true, runs: run(nil, "to/", "missing/")},
		"remote, missing name":           {remote: true, runs: run(nil, "to/", "from/missing")},
		"no way for a file":              {runs: []command{{opts: []string{"-a"}, srcs: []string{"from/"}, dest: "to/"}}, nodes: []node{plain("from/n", 'f', "n"), plain("to/n", 'd', ""), plain("to/n/inside", 'f', "i")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.nodes = append(pairOfTrees(), c.nodes...)
			ends(t, base, c, runProgram, true)
		})
	}
}

// TestVanishedFile ends with 24 when a file is gone after it was listed, and then nothing
// is deleted, unless errors are to be ignored.
func TestVanishedFile(t *testing.T) {
	const kept = "IO error encountered -- skipping file deletion"
	for _, c := range []struct {
		opts    []string
		deletes bool
	}{
		{[]string{"-a"}, false}, {[]string{"-a", "--del"}, false}, {[]string{"-a", "--delete-after", "--delete-excluded"}, false},
		{[]string{"-a", "--del", "--ignore-errors"}, true},
	} {
		dir := memoryDir(t)
		if err := build(dir, pairOfTrees()); err != nil {
			t.Fatal(err)
		}
		var out, errs strings.Builder
		exit := program.Run(t.Context(), program.World{
			In: strings.NewReader(""), Out: &out, Err: &errs, Dir: dir, Env: func(string) string { return "" }, Now: time.Now, Version: "test",
			Dial: func(context.Context, program.Remote) (program.Host, error) {
				return vanishingHost{filepath.Join(dir, "from/d/g")}, nil
			},
		}, append(c.opts, "host:"+dir+"/from/", "to/"))
		if exit != int(program.Vanished) {
			t.Errorf("%q: exit status %d, want %d\n%s", c.opts, exit, program.Vanished, errs.String())
		}
		if !strings.Contains(errs.String(), "vanished") || strings.Contains(out.String()+errs.String(), kept) != (len(c.opts) > 1 && !c.deletes) {
			t.Errorf("%q: said %q and %q", c.opts, out.String(), errs.String())
		}
		if text, err := os.ReadFile(filepath.Join(dir, "to/f")); err != nil || string(text) != "new" {
			t.Errorf("%q: to/f is %q, %v", c.opts, text, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "to/extra")); (err != nil) != c.deletes {
			t.Errorf("%q: what the source has not: %v", c.opts, err)
		}
	}
}

// vanishingHost is this host, where a file goes between the listing and the reading.
type vanishingHost struct{ file string }

func (h vanishingHost) Source(_ context.Context, root string, v rsyncx.View) (rsyncx.Source, error) {
	src, err := rsyncx.LocalView(root, v)
	return vanishing{src, h.file}, err
}

func (vanishingHost) Close() error { return nil }

type vanishing struct {
	rsyncx.Source
	file string
}

func (s vanishing) Read(ctx context.Context, want iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] {
	return s.Source.Read(ctx, func(yield func(rsyncx.Want) bool) {
		for w := range want {
			if strings.HasSuffix(s.file, w.Path) {
				_ = os.Remove(s.file)
			}
			if !yield(w) {
				return
			}
		}
	})
}

// built builds the command, for what concerns a process of its own.
func built(t *testing.T) string {
	t.Helper()
	path := filepath.Join(memoryDir(t), "drsync")
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/drsync").CombinedOutput(); err != nil {
		t.Fatalf("build the command: %v\n%s", err, out)
	}
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFailingProcess compares what concerns a process: rights, full file systems, signals,
// remote shells that fail.
func TestFailingProcess(t *testing.T) {
	base := bench(t)
	testenv.Require(t, "setpriv")
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	drsync := built(t)
	programs := map[string][]string{"rsync": {"rsync"}, "drsync": {drsync, "rsync"}}
	t.Run("rights", func(t *testing.T) { failingRights(t, programs) })
	t.Run("full", func(t *testing.T) { fullDisk(t, programs) })
	t.Run("signal", func(t *testing.T) { signalled(t, programs) })
	t.Run("shell", func(t *testing.T) { failingShells(t, programs) })
	t.Run("line", func(t *testing.T) { brokenLines(t, drsync) })
	t.Run("unread", func(t *testing.T) { unread(t, programs) })
	t.Run("aborted", func(t *testing.T) { aborted(t, drsync) })
}

// world makes nodes in a directory that everybody may enter.
func world(t *testing.T, nodes []node) string {
	t.Helper()
	dir := memoryDir(t)
	if err := errors.Join(build(dir, nodes), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run runs a program in dir and returns its exit status and what it said.
func run(t *testing.T, dir string, words ...string) (int, string) {
	t.Helper()
	stdout, stderr, exit, err := runCommand(words[0], words[1:]...)(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return exit, stdout + stderr
}

// extras says whether what the source has not is still there.
func extras(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"to/extra", "to/d/old"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Errorf("deleted: %v", err)
		}
	}
}

func failingRights(t *testing.T, programs map[string][]string) {
	nobody := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
	owned := func() []node {
		nodes := pairOfTrees()
		for i := range nodes {
			nodes[i].uid, nodes[i].gid = 65534, 65534
		}
		return nodes
	}
	for name, prepare := range map[string]func([]node) []node{
		"unreadable directory": func(n []node) []node { n[2].mode = 0; return n },
		"unreadable file":      func(n []node) []node { n[3].mode = 0; return n },
		"unreadable source":    func(n []node) []node { n[0].mode = 0; return n },
		"destination not writable": func(n []node) []node {
			n[4].mode, n[4].uid = 0o755, 0
			return n
		},
		"directory of the destination not writable": func(n []node) []node {
			n[7].mode, n[7].uid = 0o755, 0
			return n
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exits := map[string]int{}
			said := map[string]string{}
			for program, words := range programs {
				dir := world(t, prepare(owned()))
				words = append(append(append([]string{}, nobody...), words...), "-rlt", "--delete-after", "from/", "to/")
				exits[program], said[program] = run(t, dir, words...)
				if program == "drsync" && name != "directory of the destination not writable" || name == "unreadable directory" {
					extras(t, dir)
				}
			}
			if exits["drsync"] != exits["rsync"] {
				t.Errorf("exit statuses %v\n%s\n%s", exits, said["rsync"], said["drsync"])
			}
		})
	}
}

func fullDisk(t *testing.T, programs map[string][]string) {
	exits := map[string]int{}
	said := map[string]string{}
	for program, words := range programs {
		nodes := append(pairOfTrees(), node{path: "from/large", kind: 'f', mode: 0o644, sec: 1_000_000_000, content: []segment{{kind: 'r', seed: 1, len: 3 << 20}}})
		dir := world(t, append(nodes[:4:4], nodes[9:]...))
		to := filepath.Join(dir, "to")
		if err := os.Mkdir(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", to, "tmpfs", 0, "size=1m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(to, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		if err := build(dir, nodes[4:9]); err != nil {
			t.Fatal(err)
		}
		exits[program], said[program] = run(t, dir, append(words, "-a", "--delete-after", "from/", "to/")...)
		extras(t, dir)
		if left := names(t, to); len(left) > 6 {
			t.Errorf("%s left %v", program, maps.Keys(left))
		}
	}
	if !strings.Contains(said["drsync"], "room for all") || !strings.Contains(said["drsync"], "--delete-before") {
		t.Errorf("nothing is said about the room that it needs:\n%s", said["drsync"])
	}
	if exits["drsync"] != exits["rsync"] || exits["rsync"] == 0 {
		t.Errorf("exit statuses %v\n%s\n%s", exits, said["rsync"], said["drsync"])
	}
}

// signalled ends a program that waits for its remote shell, which tells that it
// was started.
func signalled(t *testing.T, programs map[string][]string) {
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 20, syscall.SIGTERM: 20, syscall.SIGHUP: 20, syscall.SIGUSR1: 19, syscall.SIGQUIT: 20} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			for program, words := range programs {
				if program == "rsync" && sig == syscall.SIGQUIT { // which ends it on the spot
					continue
				}
				dir := world(t, append(pairOfTrees(), node{path: "sh", kind: 'f', mode: 0o755, content: []segment{{kind: 't', text: "#!/bin/sh\necho started >&2\nexec 3>&1\nexec cat >/dev/null\n"}}}))
				cmd := exec.Command(words[0], append(words[1:], "-a", "--del", "-e", dir+"/sh", "host:from/", "to/")...)
				cmd.Dir = dir
				errs, err := cmd.StderrPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(errs, make([]byte, 7)); err != nil {
					t.Error(err)
				}
				if err := cmd.Process.Signal(sig); err != nil {
					t.Error(err)
				}
				_, _ = io.Copy(io.Discard, errs)
				_ = cmd.Wait()
				if exit := cmd.ProcessState.ExitCode(); exit != want {
					t.Errorf("%s ends with %v, want %d", program, cmd.ProcessState, want)
				}
				extras(t, dir)
				if _, err := os.Lstat(filepath.Join(dir, "to/.drsync")); err == nil {
					t.Error("it left .drsync")
				}
			}
		})
	}
}

// failingShells compares what comes of remote shells that do not work.
func failingShells(t *testing.T, programs map[string][]string) {
	for name, script := range map[string]string{
		"ends at once":       "exit 0",
		"fails":              "echo no route to host >&2; exit 255",
		"finds no program":   "exit 127",
		"talks":              "echo Welcome to this host; exec 3>&1; exec cat >/dev/null",
		"is silent":          "exec 3>&1; exec cat >/dev/null", // until --timeout
		"ends in the middle": "shift; sh -c \"$*\" | head -c 60",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exits := map[string]int{}
			said := map[string]string{}
			for program, words := range programs {
				dir := world(t, append(pairOfTrees(), node{path: "sh", kind: 'f', mode: 0o755, content: []segment{{kind: 't', text: "#!/bin/sh\n" + script + "\n"}}}))
				args := append(append([]string{}, words...), "-a", "--del", "-e", dir+"/sh", "--timeout=1", "host:"+dir+"/from/", "to/")
				if program == "drsync" {
					args = append(args, "--rsync-path="+words[0])
				}
				exits[program], said[program] = run(t, dir, args...)
				extras(t, dir)
			}
			// rsync forgets the shell's status when it is not there yet at the end of the stream.
			if status, ok := map[string]int{"fails": 255, "finds no program": 127}[name]; ok && exits["rsync"] == 12 {
				exits["rsync"] = status
			}
			if exits["drsync"] != exits["rsync"] {
				t.Errorf("exit statuses %v\n%s\n%s", exits, said["rsync"], said["drsync"])
			}
		})
	}
}

// brokenLines lets so many bytes of the agent through, ends it, and ends as a remote
// shell may. Whatever was under way, the status is that of a broken line.
func brokenLines(t *testing.T, drsync string) {
	const script = `#!/bin/sh
shift
exec 4<&0
f=$0.$$
mkfifo $f
sh -c "exec $*" <&4 >$f &
dd bs=1 count=%d status=none <$f
kill -9 $!
rm $f
exit %d
`
	for _, bytes := range []int{0, 1, 2, 12, 24, 27, 33, 40, 45, 52, 60, 100, 173, 250, 400, 3000, 100_000} {
		for shell, want := range map[int]int{0: 12, 255: 255} {
			t.Run(fmt.Sprint(bytes, " bytes, status ", shell), func(t *testing.T) {
				t.Parallel()
				large := node{path: "from/large", kind: 'f', mode: 0o644, sec: 1_000_000_000, content: []segment{{kind: 'r', seed: 1, len: 300_000}}}
				dir := world(t, append(pairOfTrees(), large, node{path: "sh", kind: 'f', mode: 0o755, content: []segment{{kind: 't', text: fmt.Sprintf(script, bytes, shell)}}}))
				for _, srcs := range [][]string{{"from/"}, {"from/f", "from/d", "from/large"}} {
					args := []string{drsync, "rsync", "-a", "--del", "-e", dir + "/sh", "--rsync-path=" + drsync}
					for _, src := range srcs {
						args = append(args, "host:"+dir+"/"+src)
					}
					exit, said := run(t, dir, append(args, "to/")...)
					if exit != want || strings.Contains(said, ": :") || strings.Contains(said, "start-up") {
						t.Errorf("%v: exit status %d, want %d\n%s", srcs, exit, want, said)
					}
					extras(t, dir)
				}
			})
		}
	}
}

// unread compares copies whose output nobody reads.
func unread(t *testing.T, programs map[string][]string) {
	for program, words := range programs {
		dir := world(t, pairOfTrees())
		for i := range 2000 {
			if err := os.WriteFile(filepath.Join(dir, "from", fmt.Sprint("a file with a name of some length ", i)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(words[0], append(words[1:], "-avvi", "--del", "from/", "to/")...)
		cmd.Dir = dir
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = writer, writer
		reader.Close()
		err = cmd.Run()
		writer.Close()
		if err != nil {
			t.Errorf("%s: %v", program, err)
		}
		if n := len(names(t, filepath.Join(dir, "to"))); n < 2000 {
			t.Errorf("%s copied %d names", program, n)
		}
		if _, err := os.Lstat(filepath.Join(dir, "to/.drsync")); err == nil {
			t.Errorf("%s left .drsync", program)
		}
	}
}

// TestUnknownOwners compares mappings to owners that are not known here: the rule
// is left out, with a line about it.
func TestUnknownOwners(t *testing.T) {
	base := bench(t)
	for _, opt := range []string{"--chown=no-such-user:no-such-group", "--usermap=*:no-such-user,0:7", "--groupmap=0:no-such-group", "--timeout=-1", "--partial-dir="} {
		c := diffCase{nodes: pairOfTrees(), runs: []command{{opts: []string{"-a", opt}, srcs: []string{"from/"}, dest: "to/"}}}
		want, err := play(t.Context(), base, c, runCommand("rsync"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := play(t.Context(), base, c, runProgram)
		if err != nil {
			t.Fatal(err)
		}
		if got[0].exit != 0 || want[0].exit != 0 || got[0].stderr != want[0].stderr || !maps.Equal(got[0].tree, want[0].tree) {
			t.Errorf("%s: rsync exits %d and drsync %d\n%s\n%s\n%v\n%v", opt, want[0].exit, got[0].exit, want[0].stderr, got[0].stderr, want[0].tree, got[0].tree)
		}
	}
}

// TestEmptyList: a list that names nothing copies nothing of a host, and asks it for
// no more than the source.
func TestEmptyList(t *testing.T) {
	dir := memoryDir(t)
	if err := errors.Join(build(dir, pairOfTrees()), os.WriteFile(filepath.Join(dir, "list"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	var roots []string
	var out, errs strings.Builder
	exit := program.Run(t.Context(), program.World{
		In: strings.NewReader(""), Out: &out, Err: &errs, Dir: dir, Env: func(string) string { return "" }, Now: time.Now, Version: "test",
		Dial: func(_ context.Context, to program.Remote) (program.Host, error) {
			roots = to.Roots
			return vanishingHost{}, nil
		},
	}, []string{"-a", "--del", "--files-from=list", "host:" + dir + "/from/", "to/"})
	if exit != 0 || errs.Len() > 0 || len(roots) != 1 || roots[0] != dir+"/from" {
		t.Errorf("exit status %d, roots %q\n%s", exit, roots, errs.String())
	}
	extras(t, dir)
}

// TestShownNames: a name is escaped once and in one way, wherever it is shown.
func TestShownNames(t *testing.T) {
	dir := memoryDir(t)
	if err := build(dir, pairOfTrees()); err != nil {
		t.Fatal(err)
	}
	name := "no\x1b[31m\nsuch"
	const want = `no\#033[31m\#012such`
	for _, c := range []struct {
		args []string
		dial error
	}{
		{args: []string{"-a", name, "to/"}}, {args: []string{"-a", name + "/", "to/"}}, {args: []string{"-a", "from/", name + "/x/y"}},
		{args: []string{"-a", "from/f", name + "/x"}}, {args: []string{"-a", "host:x/", "to/"}, dial: errors.New("reach " + rsyncx.Printable(name))},
	} {
		var out, errs strings.Builder
		program.Run(t.Context(), program.World{
			In: strings.NewReader(""), Out: &out, Err: &errs, Dir: dir, Env: func(string) string { return "" }, Now: time.Now, Version: "test",
			Dial: func(context.Context, program.Remote) (program.Host, error) { return nil, c.dial },
		}, c.args)
		if !strings.Contains(errs.String(), want) {
			t.Errorf("%q: %s", c.args, errs.String())
		}
	}
}

// TestMadePath: a destination that --mkpath made is shown as one that was there.
func TestMadePath(t *testing.T) {
	base := bench(t)
	for _, dest := range []string{"new/", "new/er/"} {
		c := diffCase{nodes: pairOfTrees(), runs: []command{{opts: []string{"-ai", "--mkpath"}, srcs: []string{"from/"}, dest: dest}}}
		want, err := play(t.Context(), base, c, runCommand("rsync"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := play(t.Context(), base, c, runProgram)
		if err != nil {
			t.Fatal(err)
		}
		sorted := func(text string) []string { return slices.Sorted(strings.Lines(text)) } // the order is another
		if want[0].exit != 0 || got[0].exit != 0 || !slices.Equal(sorted(got[0].stdout), sorted(want[0].stdout)) {
			t.Errorf("%s: rsync says\n%s\nand drsync\n%s", dest, want[0].stdout, got[0].stdout)
		}
	}
}
