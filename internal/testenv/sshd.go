package testenv

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// sshdProgram is named by its full path: sshd refuses to start otherwise.
const sshdProgram = "/usr/sbin/sshd"

// SSHServer is a running sshd on loopback that lets one key log in as root.
type SSHServer struct {
	Addr       string // host:port
	Host       string
	Port       int
	User       string
	Identity   string // file of the client's private key
	KnownHosts string // file with the server's key
	// AuthorizedKeys is the file of keys that may log in. It is read at each login.
	AuthorizedKeys string
	// Config is the server's configuration file; a change needs Stop and Start.
	Config string

	t         testing.TB
	authorize string // the client's public key as a line
	mu        sync.Mutex
	cmd       *exec.Cmd
	log       *tailBuffer
}

// SSHD starts the system's sshd for the time of the test. It needs root.
func SSHD(t testing.TB) *SSHServer {
	t.Helper()
	RequireRoot(t)
	Require(t, sshdProgram)
	dir, err := os.MkdirTemp("", "drs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// sshd gives up without this directory, which a package normally makes at boot.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	s := &SSHServer{
		t: t, Host: "127.0.0.1", User: "root",
		Identity:       filepath.Join(dir, "id_ed25519"),
		KnownHosts:     filepath.Join(dir, "known_hosts"),
		AuthorizedKeys: filepath.Join(dir, "authorized_keys"),
		Config:         filepath.Join(dir, "sshd_config"),
	}
	hostKey := filepath.Join(dir, "host_ed25519")
	hostLine := writeKey(t, hostKey)
	s.authorize = writeKey(t, s.Identity)
	s.Authorize("")

	// Another process may take the free port before sshd binds it.
	for attempt := 1; ; attempt++ {
		s.Port = freePort(t)
		s.Addr = address(s.Port)
		writeFile(t, s.KnownHosts, fmt.Sprintf("[%s]:%d %s\n", s.Host, s.Port, hostLine))
		writeFile(t, s.Config, strings.Join([]string{
			"ListenAddress " + s.Addr, "HostKey " + hostKey, "AuthorizedKeysFile " + s.AuthorizedKeys,
			"PidFile none", "UsePAM no", "StrictModes no", "PermitRootLogin prohibit-password",
			"PasswordAuthentication no", "KbdInteractiveAuthentication no",
			"AllowTcpForwarding yes", "AllowStreamLocalForwarding yes", "UseDNS no", "LogLevel VERBOSE",
			"Subsystem sftp internal-sftp",
			"SetEnv HOME=" + dir, // the start-up files of whoever runs the tests are none of their business
			"",
		}, "\n"))
		err := s.start()
		if err == nil {
			break
		}
		if attempt == 5 {
			t.Fatalf("sshd does not start: %v\n%s", err, s.Log())
		}
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("log of sshd:\n%s", s.Log())
		}
	})
	return s
}

// Authorize rewrites the authorized keys: the client's key with options before
// it, such as `command="drsync agent --root /srv",restrict`.
func (s *SSHServer) Authorize(options string) {
	s.t.Helper()
	if options != "" {
		options += " "
	}
	writeFile(s.t, s.AuthorizedKeys, options+s.authorize+"\n")
}

// Start starts the server again, on the same port, after Stop.
func (s *SSHServer) Start() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatalf("sshd does not start: %v\n%s", err, s.Log())
	}
}

func (s *SSHServer) start() error {
	cmd := exec.Command(sshdProgram, "-D", "-e", "-f", s.Config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	log, ready := &tailBuffer{}, make(chan bool, 1)
	go func() {
		lines := bufio.NewReader(stderr)
		listening := false
		for {
			line, err := lines.ReadString('\n')
			log.Write([]byte(line))
			if !listening && strings.HasPrefix(line, "Server listening on ") {
				listening = true
				ready <- true
			}
			if err != nil {
				if !listening {
					ready <- false
				}
				return
			}
		}
	}()
	s.mu.Lock()
	s.log = log
	s.mu.Unlock()
	select {
	case ok := <-ready:
		if !ok {
			return fmt.Errorf("it ended at once: %w", cmd.Wait())
		}
	case <-time.After(20 * time.Second):
		cmd.Process.Kill()
		return fmt.Errorf("not listening after 20 s: %w", cmd.Wait())
	}
	s.mu.Lock()
	s.cmd = cmd
	s.mu.Unlock()
	return nil
}

// Stop ends the server and its connections. It may be called again.
func (s *SSHServer) Stop() {
	s.Cut()
	s.mu.Lock()
	cmd := s.cmd
	s.cmd = nil
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	cmd.Process.Kill()
	cmd.Wait()
}

// Cut ends every connection, as a crash of the network would; new ones are welcome.
func (s *SSHServer) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	for _, pid := range Children(s.cmd.Process.Pid) {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// Descendants returns the processes that the server has started.
func (s *SSHServer) Descendants() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return nil
	}
	all := Children(s.cmd.Process.Pid)
	for i := 0; i < len(all); i++ {
		all = append(all, Children(all[i])...)
	}
	return all
}

// Log returns the last part of what the server logged.
func (s *SSHServer) Log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil {
		return ""
	}
	return s.log.String()
}

// Children returns the child processes of a process.
func Children(pid int) []int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, word := range strings.Fields(string(text)) {
		if n, err := strconv.Atoi(word); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// writeKey makes a key pair, writes the private key to path and returns the
// public one as known_hosts and authorized_keys write it.
func writeKey(t testing.TB, path string) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, string(pem.EncodeToMemory(block)))
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tailBuffer keeps the last 64 KiB written to it.
type tailBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

var _ io.Writer = (*tailBuffer)(nil)

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(p)
	if extra := b.buf.Len() - 64<<10; extra > 0 {
		b.buf.Next(extra)
	}
	return len(p), nil
}

func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
