package testenv

import (
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func (s *SSHServer) command(args ...string) *exec.Cmd {
	return exec.Command("ssh", append([]string{"-F", "none", "-i", s.Identity, "-p", strconv.Itoa(s.Port),
		"-o", "UserKnownHostsFile=" + s.KnownHosts, "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", s.User + "@" + s.Host}, args...)...)
}

func TestSSHDLetsTheClientIn(t *testing.T) {
	s := SSHD(t)
	Require(t, "ssh")
	out, err := s.command("echo", "hello").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "hello") {
		t.Fatalf("%v: %s", err, out)
	}
	s.Authorize(`command="echo forced"`)
	out, err = s.command("echo", "hello").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "forced") || strings.Contains(string(out), "hello") {
		t.Fatalf("forced command: %v: %s", err, out)
	}
	s.Stop()
	if out, err = s.command("echo").CombinedOutput(); err == nil {
		t.Fatalf("a stopped server answered: %s", out)
	}
	s.Start()
	if out, err = s.command("echo").CombinedOutput(); err != nil {
		t.Fatalf("a restarted server: %v: %s", err, out)
	}
}

func TestSSHDCut(t *testing.T) {
	s := SSHD(t)
	Require(t, "ssh")
	c := s.command("echo up; cat")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	s.Cut()
	if _, err := io.ReadAll(out); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil {
		t.Fatal("the command outlived its connection without an error")
	}
}

func TestProxyDelaysAndCuts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	p := Proxy(t, l.Addr().String())
	p.SetDelay(30 * time.Millisecond)
	c, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	c.Write([]byte("ping"))
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 60*time.Millisecond {
		t.Errorf("there and back took %v", d)
	}
	p.Freeze()
	c.Write([]byte("ping"))
	c.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
	if n, err := c.Read(make([]byte, 4)); err == nil {
		t.Errorf("%d bytes came through a frozen proxy", n)
	}
	p.Thaw()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Errorf("after Thaw: %v", err)
	}
	p.Cut()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlived Cut")
	}
}
