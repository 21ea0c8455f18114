package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
)

func TestHostKeys(t *testing.T) {
	s := testenv.SSHD(t)
	other := testenv.SSHD(t)
	line, err := os.ReadFile(other.KnownHosts)
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(string(line), " ")
	for _, c := range []struct{ name, known, want, hint string }{
		{"unknown", "", "is not known: ssh-ed25519 SHA256:", fmt.Sprintf("ssh-keyscan -p %d 127.0.0.1", s.Port)},
		{"of another port", string(line), "is not known", "ssh-keygen -lf"},
		{"changed", fmt.Sprintf("[127.0.0.1]:%d %s", s.Port, key), "has CHANGED", "ssh-keygen -R"},
		{"revoked nonsense", "garbage\n", "known host keys", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := config(t, s, TransportAgent)
			conf.KnownHosts = filepath.Join(t.TempDir(), "known")
			if err := os.WriteFile(conf.KnownHosts, []byte(c.known), 0o600); err != nil {
				t.Fatal(err)
			}
			h, err := Dial(t.Context(), conf)
			if err == nil {
				h.Close()
				t.Fatal("let in")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(hint.Of(err), c.hint) {
				t.Errorf("%v (hint: %s)", err, hint.Of(err))
			}
		})
	}
	conf := config(t, s, TransportAgent)
	conf.KnownHosts = "/nonexistent"
	if _, err := Dial(t.Context(), conf); err == nil {
		t.Error("let in without a file of host keys")
	}
}

func TestLoginRefused(t *testing.T) {
	s, other := testenv.SSHD(t), testenv.SSHD(t)
	t.Setenv("SSH_AUTH_SOCK", "")
	c := config(t, s, TransportAgent)
	c.Identity = other.Identity
	if _, err := Dial(t.Context(), c); err == nil || !strings.Contains(hint.Of(err), "authorized_keys") {
		t.Errorf("another key: %v (hint: %s)", err, hint.Of(err))
	}
	c.Identity = "/nonexistent"
	if _, err := Dial(t.Context(), c); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("no key: %v", err)
	}
	c.Identity = filepath.Join(t.TempDir(), "locked")
	testenv.Require(t, "ssh-keygen")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", c.Identity).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := Dial(t.Context(), c); err == nil || !strings.Contains(err.Error(), "passphrase") || !strings.Contains(hint.Of(err), "ssh-agent") {
		t.Errorf("a key with a passphrase: %v", err)
	}
}

func TestDialTimeoutCoversTheHandshake(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := testenv.SSHD(t)
	c := config(t, s, TransportAgent)
	c.Port = l.Addr().(*net.TCPAddr).Port // accepts, by the kernel, and says nothing
	c.DialTimeout = 100 * time.Millisecond
	within(t, 2*time.Second, func() {
		if _, err := Dial(t.Context(), c); err == nil || !strings.Contains(err.Error(), "no login within 100ms") {
			t.Error(err)
		}
	})
	c.DialTimeout = time.Minute
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(io.ErrNoProgress) })
	within(t, 2*time.Second, func() {
		if _, err := Dial(ctx, c); !errors.Is(err, io.ErrNoProgress) {
			t.Error(err)
		}
	})
}

func TestAgentDoesNotStart(t *testing.T) {
	s := testenv.SSHD(t)
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ name, command, want, hint string }{
		{"not installed", "/nonexistent/drsync", "status 127", "install the same drsync"},
		{"fails", script("fails", "echo 'out of\033[2J luck' >&2; exit 4"), `status 4: it said: out of\#033[2J luck`, ""},
		{"noisy", script("noisy", "echo Welcome; exec cat >/dev/null"), `"Welcome"`, "start-up files"},
		{"talks without end", script("endless", "exec yes >&2"), "did not greet within", ""},
		{"a name with a space and a quote", script("a 'b", "echo it ran >&2; exit 5"), "it ran", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := config(t, s, TransportAgent)
			conf.AgentCommand = []string{c.command}
			conf.Silence = 20 * time.Second
			if c.want == "silent for" {
				conf.Silence = 700 * time.Millisecond
			}
			h := dial(t, conf)
			_, err := h.Source(t.Context(), "/etc", rsyncx.View{})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(hint.Of(err), c.hint) || len(err.Error()) > 70_000 {
				t.Errorf("%.300v (hint: %s)", err, hint.Of(err))
			}
		})
	}
}

func TestForcedCommandRefusesOtherRoots(t *testing.T) {
	s := testenv.SSHD(t)
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s.Authorize(fmt.Sprintf(`command="%s agent --root %s",restrict`, me, dir))
	h := dial(t, config(t, s, TransportAgent))
	if _, err := h.Source(t.Context(), dir, rsyncx.View{}); err != nil {
		t.Error(err)
	}
	if _, err := h.Source(t.Context(), "/etc", rsyncx.View{}); err == nil || !strings.Contains(hint.Of(err), "--root /etc") {
		t.Errorf("%v (hint: %s)", err, hint.Of(err))
	}
}

func TestSilentHostIsCutOff(t *testing.T) {
	s := testenv.SSHD(t)
	for _, transport := range []string{TransportAgent, TransportExec, TransportSFTP} {
		t.Run(transport, func(t *testing.T) {
			p := testenv.Proxy(t, s.Addr)
			c := config(t, s, transport)
			c.KnownHosts, c.Port = knownAs(t, s, p), p.Port
			c.KeepAlive = 100 * time.Millisecond
			h := dial(t, c)
			src, err := h.Source(t.Context(), "/etc", rsyncx.View{})
			if err != nil {
				t.Fatal(err)
			}
			// A host that merely has nothing to say answers the keepalive.
			time.Sleep(800 * time.Millisecond)
			if _, err := src.Lstat(t.Context(), "passwd"); err != nil {
				t.Errorf("after a pause: %v", err)
			}
			p.Freeze()
			within(t, 5*time.Second, func() {
				if _, err := src.Lstat(t.Context(), "passwd"); err == nil || !strings.Contains(err.Error(), "was silent for") {
					t.Error(err)
				}
			})
			if _, err := h.Source(t.Context(), "/etc", rsyncx.View{}); err == nil {
				t.Error("a dead connection serves")
			}
			within(t, 2*time.Second, func() { h.Close() })
		})
	}
}

func TestSSHConfig(t *testing.T) {
	s := testenv.SSHD(t)
	path := filepath.Join(t.TempDir(), "config")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(fmt.Sprintf("Host standby-of-*\n  HostName 127.0.0.1\n  Port %d\n  User root\n  IdentityFile %s\n  UserKnownHostsFile %s\n", s.Port, s.Identity, s.KnownHosts))
	c := Config{Host: "standby-of-x", SSHConfig: path, Transport: TransportSFTP}
	h := dial(t, c)
	if want := "root@" + s.Addr + " (sftp)"; h.Describe() != want {
		t.Errorf("%s, want %s", h.Describe(), want)
	}
	write("Host standby-of-*\n  ProxyJump bastion\n")
	if _, err := Dial(t.Context(), c); err == nil || !strings.Contains(err.Error(), "ProxyJump bastion") {
		t.Errorf("ProxyJump: %v", err)
	}
	write("Match exec true\n")
	if _, err := Dial(t.Context(), c); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Match: %v", err)
	}
}

func TestQuote(t *testing.T) {
	testenv.Require(t, "sh")
	words := []string{"", "plain", "a b", "a'b", `a"b`, "$HOME", "`id`", "a\nb", "*", "~", "-n", "\\", "a;b", "é", "!x", "{a,b}", "#"}
	out, err := exec.Command("sh", "-c", "printf '%s\\0' "+quote(words...)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(words, "\x00") + "\x00"; string(out) != want {
		t.Errorf("%q came back as %q", want, out)
	}
}

func FuzzQuote(f *testing.F) {
	f.Add("a'b")
	f.Add("-")
	f.Fuzz(func(t *testing.T, word string) {
		if strings.IndexByte(word, 0) >= 0 {
			return
		}
		out, err := exec.Command("sh", "-c", "printf %s "+quote("x"+word)).Output()
		if err != nil || string(out) != "x"+word {
			t.Errorf("%q came back as %q, %v", word, out, err)
		}
	})
}

func TestBadConfig(t *testing.T) {
	for _, c := range []Config{{}, {Host: "x"}, {Host: "x", Transport: "telnet"}} {
		if _, err := Dial(t.Context(), c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
