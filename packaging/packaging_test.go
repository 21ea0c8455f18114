// Package packaging tests the files that are installed with drsync.
package packaging

import (
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/drsync/drsync/internal/config"
	"github.com/drsync/drsync/internal/testenv"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// lines returns what is not a comment.
func lines(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			all = append(all, line)
		}
	}
	return all
}

// TestFilesAgree keeps the paths that stand in several files the same.
func TestFilesAgree(t *testing.T) {
	c, err := config.Parse("/etc/drsync/drsync.yaml", []byte(read(t, "drsync.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	unit := lines(read(t, "drsync.service"))
	for _, want := range []string{
		"ReadWritePaths=" + c.Standby.Home,
		"StateDirectory=" + strings.TrimPrefix(c.Standby.State, "/var/lib/"),
		"LogsDirectory=" + strings.TrimPrefix(strings.TrimSuffix(c.Files.LogFile, "/replication.log"), "/var/log/"),
		"User=root",
		"ExecStart=/usr/bin/drsync run",
	} {
		if !slices.Contains(unit, want) {
			t.Errorf("drsync.service lacks %q", want)
		}
	}
	if c.Files.ExcludeFrom != "/etc/drsync/rsync-excludes.txt" {
		t.Errorf("exclude_from is %q", c.Files.ExcludeFrom)
	}
	key := lines(read(t, "authorized_keys"))[0]
	for _, want := range []string{"--root " + c.Active.Home + `"`, `permitopen="` + c.Database.Active.Address + `"`} {
		if !strings.Contains(key, want) {
			t.Errorf("authorized_keys lacks %q", want)
		}
	}
	cron := lines(read(t, "drsync.cron"))
	if last := cron[len(cron)-1]; !strings.HasPrefix(last, "*/15 * * * *  root  drsync now --quiet --config "+c.File) {
		t.Errorf("drsync.cron: %q", last)
	}
}

func TestExcludes(t *testing.T) {
	want := []string{"/work/", "/data/tmp*/", "/data/cache/", "/logs/"}
	if got := lines(read(t, "rsync-excludes.txt")); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// TestAuthorizedKey logs in with the options of the sample line. Only the
// program and the port are replaced by ones that are there.
func TestAuthorizedKey(t *testing.T) {
	line := lines(read(t, "authorized_keys"))[0]
	_, _, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	server := testenv.SSHD(t)
	database, other := listen(t), listen(t)
	all := strings.Join(options, ",")
	all = strings.Replace(all, "/usr/bin/drsync ", "/bin/echo ", 1)
	all = regexp.MustCompile(`permitopen="[^"]*"`).ReplaceAllString(all, `permitopen="`+database+`"`)
	server.Authorize(all)

	client := login(t, server)
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.Output("cat /etc/passwd")
	if err != nil || string(out) != "agent --root /var/opt/jfrog/artifactory\n" {
		t.Errorf("another command: %q, %v", out, err)
	}
	terminal, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := terminal.RequestPty("xterm", 24, 80, nil); err == nil {
		t.Error("a terminal was granted")
	}
	tunnel, err := client.Dial("tcp", database)
	if err != nil {
		t.Fatalf("the database's port: %v", err)
	}
	_ = tunnel.Close()
	var refused *ssh.OpenChannelError
	if _, err := client.Dial("tcp", other); !errors.As(err, &refused) || refused.Reason != ssh.Prohibited {
		t.Errorf("another port: %v", err)
	}
}

// listen accepts connections on loopback and ends them.
func listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

func login(t *testing.T, server *testenv.SSHServer) *ssh.Client {
	t.Helper()
	signer, err := ssh.ParsePrivateKey([]byte(read(t, server.Identity)))
	if err != nil {
		t.Fatal(err)
	}
	_, _, hostKey, _, _, err := ssh.ParseKnownHosts([]byte(read(t, server.KnownHosts)))
	if err != nil {
		t.Fatal(err)
	}
	client, err := ssh.Dial("tcp", server.Addr, &ssh.ClientConfig{
		User: server.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.FixedHostKey(hostKey), Timeout: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}
