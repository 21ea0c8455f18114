package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// far is a host reached through a real sshd, and a home for the two programs
// in which ssh finds the keys.
type far struct {
	t    *testing.T
	home string
	sshd *testenv.SSHServer
	// agent starts drsync there; shell is rsync's own remote shell.
	agent, shell string
}

func newFar(t *testing.T) *far {
	t.Helper()
	testenv.Require(t, "rsync", "ssh")
	sshd := testenv.SSHD(t)
	f := &far{t: t, home: t.TempDir(), sshd: sshd}
	f.agent = filepath.Join(f.home, "far drsync")
	f.write("far drsync", fmt.Sprintf("#!/bin/sh\n%s=1 exec %s \"$@\"\n", testMainEnv, os.Args[0]), 0o755)
	f.write(".ssh/config", fmt.Sprintf("Host active\n  HostName %s\n  Port %d\n  User %s\n  IdentityFile %s\n  UserKnownHostsFile %s\n",
		sshd.Host, sshd.Port, sshd.User, sshd.Identity, sshd.KnownHosts), 0o600)
	f.shell = "ssh -F " + filepath.Join(f.home, ".ssh/config")
	return f
}

func (f *far) write(name, text string, mode os.FileMode) {
	f.t.Helper()
	path := filepath.Join(f.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		f.t.Fatal(err)
	}
}

// run starts a program with the home of f.
func (f *far) run(program string, env []string, args ...string) (stdout, stderr string, status int) {
	f.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = f.home
	cmd.Env = append(append(os.Environ(), "HOME="+f.home, "LC_ALL=C", "RSYNC_RSH="), env...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		f.t.Fatal(err)
	}
	return out.String(), said.String(), cmd.ProcessState.ExitCode()
}

func (f *far) drsync(args ...string) (stdout, stderr string, status int) {
	f.t.Helper()
	return f.run(os.Args[0], []string{testMainEnv + "=1"}, append([]string{"rsync"}, args...)...)
}

// comparable takes out of an output what no two runs share, and sorts it. Names
// that the far side hides never come here, so drsync cannot tell of them.
func comparable(out string) []string {
	for _, r := range [][2]string{
		{`(?m)^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[\d+\] `, ""},
		{`\r[^\r\n]*  \r`, "\r"},
		{`(?m)^\r +(\S+) +(\d+)% .*$`, "$1 $2%"},
		{`(?m)^sent .* bytes.*$`, "sent"},
		{`(?m)^total size is \S+  speedup is .*$`, "total"},
		{`(?m)^(total: matches|opening connection|\[sender\] hiding).*\n`, ""},
		{`because of pattern .*`, "because of a pattern"},
	} {
		out = regexp.MustCompile(r[0]).ReplaceAllString(out, r[1])
	}
	lines := strings.Split(out, "\n")
	slices.Sort(lines)
	return lines
}

// The command that drsync took over, as it is typed, over a real sshd: the same
// tree, the same lines, the same log as rsync's.
func TestReferenceCommand(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	for name, text := range map[string]string{
		"A/etc/app.conf": "port = 1\n", "A/etc/skip.tmp": "x", "A/data/one": strings.Repeat("1", 5000), "A/data/empty": "", "A/cache/c": "c",
		"A/we\tird\x1b": "x",
	} {
		f.write(name, text, 0o640)
	}
	if err := os.Symlink("etc/app.conf", filepath.Join(f.home, "A/conf")); err != nil {
		t.Fatal(err)
	}
	f.write("excludes", "# what stays\n*.tmp\n/cache/\n", 0o600)
	for _, to := range []string{"R", "D"} {
		f.write(to+"/old/gone", "x", 0o600)
		f.write(to+"/cache/kept", "x", 0o600)
		f.write(to+"/etc/app.conf", "port = 22\n", 0o600)
	}
	options := func(log string) []string {
		return []string{"-vvah", "--del", "--progress", "--log-file=" + log, "--exclude-from=excludes"}
	}
	// The login's home is not this one, so the paths are absolute, as $HOME would be.
	source := "active:" + f.home + "/A/"
	want, said, status := f.run("rsync", nil, append(options("R.log"), "-e", f.shell, source, "R/")...)
	if status != 0 {
		t.Fatalf("rsync: %d %s", status, said)
	}
	got, said, status := f.drsync(append(options("D.log"), "--rsync-path", `"`+f.agent+`"`, source, "D/")...)
	if status != 0 {
		t.Fatalf("drsync: %d %s%s", status, got, said)
	}
	if g, w := comparable(got), comparable(want); !slices.Equal(g, w) {
		t.Errorf("drsync prints\n%s\nrsync prints\n%s", strings.Join(g, "\n"), strings.Join(w, "\n"))
	}
	if g, w := comparable(f.read("D.log")), comparable(f.read("R.log")); !slices.Equal(g, w) {
		t.Errorf("drsync logs\n%s\nrsync logs\n%s", strings.Join(g, "\n"), strings.Join(w, "\n"))
	}
	if out, _, status := f.run("diff", nil, "-r", "--no-dereference", "R", "D"); status != 0 {
		t.Errorf("the trees differ: %s", out)
	}
}

func (f *far) read(name string) string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.home, name))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// A remote source through -e, relative to the login's home, several at once, and
// what goes wrong with it.
func TestRemoteSources(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	f.write("A/one", "1", 0o600)
	f.write("A/two", "2", 0o600)
	f.write("A/sub/three", "3", 0o600)
	quoted := `'` + f.agent + `'`
	for _, c := range []struct {
		name   string
		args   []string
		files  []string
		status int
		said   string
	}{
		{name: "by the shell", args: []string{"-a", "-e", f.shell, "--rsync-path", quoted, "active:" + f.home + "/A/", "T/"}, files: []string{"one", "sub", "two"}},
		{name: "two of one host", args: []string{"-a", "--rsync-path", quoted, "active:" + f.home + "/A/one", ":" + f.home + "/A/sub", "T/"}, files: []string{"one", "sub"}},
		{name: "one under another name", args: []string{"-a", "--rsync-path", quoted, "active:" + f.home + "/A/one", "T"}},
		{name: "relative to where the shell starts", args: []string{"-a", "-e", f.local(), "--rsync-path", quoted, "any:A/", "T/"}, files: []string{"one", "sub", "two"}},
		{name: "missing", args: []string{"-a", "--del", "--rsync-path", quoted, "active:" + f.home + "/nope/", "T/"}, status: 23, said: "No such file"},
		{name: "no drsync there", args: []string{"-a", "--rsync-path", "/no/such/drsync", "active:" + f.home + "/A/", "T/"}, status: 127},
		{name: "no drsync there, by the shell", args: []string{"-a", "-e", f.shell, "--rsync-path", "/no/such/drsync", "active:" + f.home + "/A/", "T/"}, status: 127},
		{name: "no login", args: []string{"-a", "--rsync-path", quoted, "nobody@active:" + f.home + "/A/", "T/"}, status: 255},
		{name: "no known host keys", args: []string{"-a", "127.0.0.1:/A/", "T/"}, status: 255},
		{name: "no such shell", args: []string{"-a", "-e", "/no/such/shell", "active:/A/", "T/"}, status: 14},
		{name: "a shell that fails", args: []string{"-a", "-e", "false", "active:/A/", "T/"}, status: 12},
		{name: "pushed", args: []string{"-a", "A/", "active:T/"}, status: 1, said: "never pushes"},
		{name: "a daemon", args: []string{"-a", "active::mod/", "T/"}, status: 1, said: "daemon"},
		{name: "a daemon's URL", args: []string{"-a", "rsync://active/mod/", "T/"}, status: 1, said: "daemon"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.RemoveAll(filepath.Join(f.home, "T")); err != nil {
				t.Fatal(err)
			}
			out, said, status := f.drsync(c.args...)
			if status != c.status || !strings.Contains(said, c.said) {
				t.Fatalf("status %d, want %d: %s%s", status, c.status, out, said)
			}
			if strings.Count(said, "drsync error:") > 1 || c.status != 0 && !strings.Contains(said, fmt.Sprintf("(code %d)", c.status)) {
				t.Errorf("it says %s", said)
			}
			var names []string
			entries, _ := os.ReadDir(filepath.Join(f.home, "T"))
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if !slices.Equal(names, c.files) {
				t.Errorf("copied %q, want %q", names, c.files)
			}
		})
	}
}

// local is a remote shell that stays here.
func (f *far) local() string {
	f.write("here", "#!/bin/sh\nwhile [ \"$1\" != any ]; do shift; done\nshift\nexec sh -c \"$*\"\n", 0o755)
	return "'" + filepath.Join(f.home, "here") + "'"
}
