package remote

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/wire"
)

// homeless returns a host of which the login's cache is cache, where drsync is not
// found. before is run by the far side's shell first.
func homeless(t *testing.T, cache, before string) CommandConfig {
	return CommandConfig{
		Shell: []string{asShell(t, "export XDG_CACHE_HOME="+quoteWord(cache)+"; "+before+"\n"+thisHost)},
		Host:  "far", RemoteCommand: []string{"/nonexistent/drsync"}, Roots: []string{"/"}, Version: "1.2 'test'", Install: true,
	}
}

func TestInstall(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "a b'c")
	conf := homeless(t, cache, "")
	conf.Install = false
	if _, err := DialCommand(t.Context(), conf); !errors.Is(err, ErrRemoteNotFound) {
		t.Fatalf("not to be installed: %v", err)
	}
	if names := filesBelow(t, cache); len(names) > 0 {
		t.Errorf("not to be installed, and there is %q", names)
	}
	conf.Install = true
	h := dialCommand(t, conf)
	if got, err := readStream(t, h, "echo", "hello"); err != nil || got != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	files := filesBelow(t, cache)
	if len(files) != 1 || !strings.HasPrefix(files[0], "drsync/agents/v1.2__test_-") || filepath.Base(files[0]) != "drsync" {
		t.Fatalf("there are %q", files)
	}
	path := filepath.Join(cache, files[0])
	for p, want := range map[string]os.FileMode{path: 0o700, filepath.Dir(path): os.ModeDir | 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", p, info.Mode(), err)
		}
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	dialCommand(t, conf)
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("installed again: %v", err)
	}
}

// TestInstallHeals: an installed agent that is not this program, whole, is never run
// and is installed anew, with and without a program for sums.
func TestInstallHeals(t *testing.T) {
	few := t.TempDir() // programs, and no sha256sum among them
	for _, name := range []string{"sh", "uname", "mkdir", "chmod", "rm", "wc", "mv", "ls", "rmdir", "cat"} {
		path, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(path, filepath.Join(few, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for before, damages := range map[string][]string{
		"": {
			`f=$1; head -c 100000 "$f" > "$f.x"; cat "$f.x" > "$f"; rm "$f.x"`,
			`printf '#!/bin/sh\ntouch "%s.ran"\nexit 3\n' "$1" > "$1"`,
			`printf X | dd of="$1" bs=1 seek=5000 conv=notrunc status=none`,
			`chmod 600 "$1"`,
			`rm "$1"`,
		},
		"PATH=" + few: {
			`printf '#!/bin/sh\ntouch "%s.ran"\nexit 3\n' "$1" > "$1"`,
		},
	} {
		cache := t.TempDir()
		conf := homeless(t, cache, before)
		h := dialCommand(t, conf)
		path := filepath.Join(cache, filesBelow(t, cache)[0])
		h.Close()
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, damage := range damages {
			if out, err := exec.Command("sh", "-c", damage, "sh", path).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", damage, err, out)
			}
			h, err := DialCommand(t.Context(), conf)
			if err != nil {
				t.Errorf("%s: %v", damage, err)
				continue
			}
			h.Close()
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, whole) {
				t.Errorf("%s: not healed: %v", damage, err)
			}
			if files := filesBelow(t, cache); len(files) != 1 {
				t.Errorf("%s: there are %q", damage, files)
			}
		}
	}
}

// TestInstallHealsALaterChannel: not the first one only.
func TestInstallHealsALaterChannel(t *testing.T) {
	cache := t.TempDir()
	h := dialCommand(t, homeless(t, cache, ""))
	path := filepath.Join(cache, filesBelow(t, cache)[0])
	hold := func() error {
		r, err := h.Stream(t.Context(), "hang", "")
		if err == nil {
			t.Cleanup(func() { r.Close() })
		}
		return err
	}
	if err := hold(); err != nil {
		t.Fatal(err)
	}
	for range maxInstalls - 1 {
		os.Remove(path)
		if err := hold(); err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(path)
	if err := hold(); !errors.Is(err, ErrRemoteNotFound) {
		t.Errorf("installed for the fourth time: %v", err)
	}
}

func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			names = append(names, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestInstallBySSH: through the login of transport agent, with an agent there that
// speaks another version.
func TestInstallBySSH(t *testing.T) {
	s := testenv.SSHD(t)
	home := t.TempDir()
	s.Stop()
	text, err := os.ReadFile(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile("(?m)^SetEnv.*$").ReplaceAll(text, []byte("SetEnv HOME="+home))
	if err := os.WriteFile(s.Config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start()
	other := filepath.Join(t.TempDir(), "other version")
	// A greeting of a version to come: least and highest 900, and a name.
	if err := os.WriteFile(other, []byte("#!/bin/sh\nprintf '\\0drsync\\nH\\0\\0\\0\\010\\204\\007\\204\\007\\003new'\nexec cat >/dev/null\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := config(t, s, TransportAgent)
	for _, command := range []string{other, "/nonexistent/drsync"} {
		os.RemoveAll(filepath.Join(home, ".cache"))
		c.AgentCommand, c.Install = []string{command}, false
		if _, err := dial(t, c).Source(t.Context(), "/", rsyncx.View{}); !errors.Is(err, wire.ErrVersion) && !errors.Is(err, ErrRemoteNotFound) {
			t.Errorf("%s: %v", command, err)
		}
		c.Install = true
		h := dial(t, c)
		var all sync.WaitGroup
		for range 4 { // several channels ask for it at once
			all.Go(func() {
				if _, err := h.Source(t.Context(), "/", rsyncx.View{}); err != nil {
					t.Errorf("%s: %v", command, err)
				}
			})
		}
		all.Wait()
		if files := filesBelow(t, home); len(files) != 1 {
			t.Errorf("%s: there are %q", command, files)
		}
	}
	// A key that is bound to one command runs nothing else.
	s.Authorize(`command="'` + other + `'"`)
	if _, err := dial(t, c).Source(t.Context(), "/", rsyncx.View{}); !errors.Is(err, wire.ErrVersion) {
		t.Errorf("a bound key: %v", err)
	}
}

func TestInstallTogether(t *testing.T) {
	cache := t.TempDir()
	conf := homeless(t, cache, "")
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			h, err := DialCommand(t.Context(), conf)
			if err != nil {
				t.Error(err)
				return
			}
			h.Close()
		})
	}
	all.Wait()
	if files := filesBelow(t, cache); len(files) != 1 {
		t.Errorf("there are %q", files)
	}
}

// TestInstallFails: what stands in the way is told, and nothing is left behind.
func TestInstallFails(t *testing.T) {
	dir := t.TempDir()
	tool := func(name, text string) string {
		bin := filepath.Join(dir, fmt.Sprint(len(text)), name)
		if err := os.MkdirAll(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return "PATH=" + bin + ":$PATH"
	}
	few := filepath.Join(dir, "few") // programs, and no sha256sum among them
	if err := os.Mkdir(few, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "uname", "mkdir", "chmod", "rm", "wc", "mv", "ls", "rmdir", "cat"} {
		path, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(path, filepath.Join(few, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	bare := "PATH=" + few + "; "
	for _, c := range []struct{ name, cache, before, want, hint string }{
		{"another machine", "", tool("uname", "echo Linux mips"), "mips", "that platform"},
		{"another system", "", tool("uname", "echo Darwin arm64"), "Darwin", "that platform"},
		{"garbage for a platform", "", tool("uname", "printf '\\033[2J'"), `\#033`, "that platform"},
		{"a home that cannot be written to", "/proc", "", "make a directory", "home"},
		{"no home", "relative", "", "HOME is not set", "home"},
		{"no space", "", "ulimit -f 4", "write it", "space"},
		{"half of it arrives", "", tool("cat", "exec head -c 100000"), "not what was sent", ""},
		{"half of it arrives, and there is no sha256sum", "", bare + tool("cat", "exec /usr/bin/head -c 100000"), "not what was sent", ""},
		{"noexec, and there is no sha256sum", "", bare + tool("chmod", "exit 0"), "does not run there", "noexec"},
		{"noexec", "", tool("chmod", "exit 0"), "does not run there", "noexec"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache := c.cache
			if cache == "" {
				cache = t.TempDir()
			}
			conf := homeless(t, cache, c.before)
			h, err := DialCommand(t.Context(), conf)
			if err == nil {
				h.Close()
				t.Fatal("installed")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(hint.Of(err), c.hint) || !errors.Is(err, ErrRemoteNotFound) {
				t.Errorf("%v (hint: %s)", err, hint.Of(err))
			}
			if c.cache == "" {
				if files := filesBelow(t, cache); len(files) > 0 {
					t.Errorf("left behind: %q", files)
				}
			}
		})
	}
}

// TestInstallKeepsTwo: older builds go, what is not ours stays.
func TestInstallKeepsTwo(t *testing.T) {
	cache := t.TempDir()
	agents := filepath.Join(cache, "drsync/agents")
	put := func(name string, age time.Duration) {
		path := filepath.Join(agents, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(filepath.Dir(path), then, then); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		put(fmt.Sprintf("v1.%d-0123456789abcdef/drsync", i), time.Duration(10-i)*time.Hour)
	}
	put("v1.0-0123456789abcdef/.part-X", 10*time.Hour)
	put("v1.1-0123456789abcdef/precious", 9*time.Hour)
	put("other/drsync", 20*time.Hour)
	put("v1.9-0123456789abcdeg/drsync", 20*time.Hour)
	if err := os.Symlink("other", filepath.Join(agents, "v0-0000000000000000")); err != nil {
		t.Fatal(err)
	}
	dialCommand(t, homeless(t, cache, ""))
	got := filesBelow(t, agents)
	got = slices.DeleteFunc(got, func(p string) bool { return strings.HasPrefix(p, "v1.2__test_-") })
	want := []string{"other/drsync", "v0-0000000000000000", "v1.1-0123456789abcdef/precious", "v1.2-0123456789abcdef/drsync",
		"v1.3-0123456789abcdef/drsync", "v1.9-0123456789abcdeg/drsync"}
	if !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
}

// That the host has no drsync is no news when it is installed there.
func TestInstallIsQuiet(t *testing.T) {
	conf := homeless(t, filepath.Join(t.TempDir(), "cache"), "")
	conf.RemoteCommand = []string{"drsync-that-is-nowhere"}
	var said bytes.Buffer
	conf.Stderr = &said
	dialCommand(t, conf).Close()
	if strings.Contains(said.String(), "not found") {
		t.Errorf("it says %s", &said)
	}
}
