package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fingerprint is everything of the standby that a refused run must not change.
func (p *pair) fingerprint() string {
	p.t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(p.path("standby"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() {
			fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	fmt.Fprintln(&b, p.checkPromise())
	snapshots, err := os.ReadDir(p.path("state/snapshots"))
	if err != nil {
		p.t.Fatal(err)
	}
	fmt.Fprintln(&b, snapshots)
	return b.String()
}

// edit replaces text in the configuration and puts it back at the end of the test.
func (p *pair) edit(t *testing.T, old, new string) {
	t.Helper()
	text := p.mustRead("drsync.yaml", "")
	if !strings.Contains(text, old) {
		t.Fatalf("the configuration has no %q", old)
	}
	p.write(p.config, strings.Replace(text, old, new, 1), 0o600)
	t.Cleanup(func() { p.write(p.config, text, 0o600) })
}

// replace puts other content into a file and the old one back at the end of the test.
func (p *pair) replace(t *testing.T, path, text string) {
	t.Helper()
	old, err := os.ReadFile(p.path(path))
	p.write(p.path(path), text, 0o600)
	t.Cleanup(func() {
		if err != nil {
			os.Remove(p.path(path))
			return
		}
		p.write(p.path(path), string(old), 0o600)
	})
}

// TestRefused: each run is refused with a clear error, and nothing changes.
func TestRefused(t *testing.T) {
	p := newPair(t, "agent")
	out, _ := p.must(0, "check") // what README grants is enough
	if strings.Contains(out, "FAIL") {
		t.Errorf("check:\n%s", out)
	}
	p.must(0, "now")
	p.change()
	cases := []struct {
		name   string
		status int
		want   []string // in what the operator reads
		setup  func(t *testing.T)
	}{
		{"empty source home", 1, []string{"empty", "hint:"}, func(t *testing.T) {
			p.edit(t, "home: "+p.path("active"), "home: "+t.TempDir())
		}},
		{"unknown host key", 1, []string{"host key", "hint:"}, func(t *testing.T) {
			p.write(p.path("other_hosts"), "", 0o600)
			p.edit(t, p.sshd.KnownHosts, p.path("other_hosts"))
		}},
		{"active's privileges", 1, []string{"SELECT", "GRANT", "artdb"}, func(t *testing.T) {
			p.exec("CREATE OR REPLACE USER weak@'%' IDENTIFIED BY 'weak'")
			p.exec("GRANT SELECT ON artdb.binaries TO weak@'%'")
			p.write(p.path("weak.pw"), "weak\n", 0o600)
			p.edit(t, `user: drsync, password: "file:active.pw"`, `user: weak, password: "file:weak.pw"`)
		}},
		{"standby's privileges", 1, []string{"GRANT", "standby"}, func(t *testing.T) {
			if _, err := p.open(p.standby, "").Exec("CREATE OR REPLACE USER weak@localhost IDENTIFIED BY 'weak'"); err != nil {
				t.Fatal(err)
			}
			if _, err := p.open(p.standby, "").Exec("GRANT SELECT ON artdb.* TO weak@localhost"); err != nil {
				t.Fatal(err)
			}
			p.write(p.path("weak.pw"), "weak\n", 0o600)
			p.edit(t, `user: drsync, password: "file:standby.pw"`, `user: weak, password: "file:weak.pw"`)
		}},
		{"wrong password", 1, []string{"Access denied"}, func(t *testing.T) {
			p.replace(t, "active.pw", "hunter2\n")
		}},
		{"application runs on the standby", 1, []string{"running", ".lock"}, func(t *testing.T) {
			p.holdLock(t)
		}},
		{"master.key differs", 1, []string{"master.key", "differs"}, func(t *testing.T) {
			p.replace(t, "standby/etc/security/master.key", "ffffffffffffffffffffffffffffffff\n")
		}},
		{"source epoch lower", 1, []string{"epoch 0", "epoch 4"}, func(t *testing.T) {
			p.replace(t, "state/role.json", `{"format":1,"role":"standby","epoch":4,"since":"2026-01-01T00:00:00Z"}`)
		}},
		{"another directory as the home", 1, []string{"another directory than the last time", "hint:"}, func(t *testing.T) {
			p.edit(t, "home: "+p.path("active"), "home: "+p.elsewhere(t))
		}},
		{"unknown provider", 1, []string{"binarystore.xml", "punch-cards"}, func(t *testing.T) {
			p.replace(t, "active/etc/binarystore.xml", `<config version="1"><chain><provider id="p" type="punch-cards"/></chain></config>`)
		}},
		{"bucket", 1, []string{"binarystore.xml", "s3"}, func(t *testing.T) {
			p.replace(t, "active/etc/binarystore.xml", `<config version="1"><chain template="s3"/></config>`)
		}},
		{"unknown key", 2, []string{"drsync.yaml:", "retries", "speed", "hom:"}, func(t *testing.T) {
			p.edit(t, "active:\n", "retries: 3\nactive:\n  speed: fast\n  hom: /x\n")
		}},
		{"home was promoted", 10, []string{"promoted"}, func(t *testing.T) {
			p.replace(t, "standby/.drsync/role.json", `{"format":1,"role":"active","epoch":3,"since":"2026-01-01T00:00:00Z"}`)
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.setup(t)
			before := p.fingerprint()
			_, stderr, status := p.drsync("now")
			if status != c.status {
				t.Errorf("exit %d, want %d", status, c.status)
			}
			for _, want := range c.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("the error lacks %q:\n%s", want, stderr)
				}
			}
			for _, secret := range []string{"hunter2", "weak\n", activeSecret, standbySecret} {
				if secret != "" && strings.Contains(stderr, secret) {
					t.Errorf("the error shows the secret %q", secret)
				}
			}
			if after := p.fingerprint(); after != before {
				t.Errorf("a refused run changed the standby: before\n%s\nafter\n%s", before, after)
			}
			t.Log(stderr)
		})
	}
	t.Run("accepted", func(t *testing.T) {
		p.edit(t, "home: "+p.path("active"), "home: "+p.elsewhere(t))
		p.must(0, "now", "--new-source")
		p.must(0, "now")
		p.checkEqual()
	})
	p.must(0, "now", "--new-source") // back again
	p.checkEqual()
}

// elsewhere makes a copy of the active's home, as a restore would.
func (p *pair) elsewhere(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "active")
	if out, err := exec.Command("cp", "-a", p.path("active"), dir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	return dir
}

// holdLock holds data/.lock of the standby as the running application does.
func (p *pair) holdLock(t *testing.T) {
	t.Helper()
	path := p.path("standby/data/.lock")
	p.write(path, "", 0o600)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); os.Remove(path) })
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
}

// TestDiskFull: the standby's file system is too small at first. Space is
// looked at before it is needed; and when it goes away during the copy, the run
// fails and nothing is published.
func TestDiskFull(t *testing.T) {
	p := newPair(t, "agent")
	standby := p.path("standby")
	if err := os.RemoveAll(standby); err != nil {
		t.Fatal(err)
	}
	p.write(filepath.Join(standby, "x"), "", 0o644)
	if err := unix.Mount("tmpfs", standby, "tmpfs", 0, "size=256m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(standby, unix.MNT_DETACH) })
	resize := func(size string) {
		t.Helper()
		if err := unix.Mount("tmpfs", standby, "tmpfs", unix.MS_REMOUNT, "size="+size); err != nil {
			t.Fatal(err)
		}
	}
	p.write(filepath.Join(standby, "etc/db.properties"), "url=standby\n", 0o600)
	p.must(0, "now")
	for range 20 {
		p.upload(1 << 20)
	}
	before := p.checkPromise()

	resize("80m")
	_, stderr := p.must(1, "now")
	if !strings.Contains(stderr, "space") || !strings.Contains(stderr, "hint:") {
		t.Errorf("too little space, but now said:\n%s", stderr)
	}
	// The disk is full to the last byte once the first blob is there.
	resize("256m")
	_, stderr, status := p.during("change", func() { resize("4m") }, "now")
	if status != 1 || !strings.Contains(stderr, "no space left") {
		t.Fatalf("exit %d, want 1\n%s", status, stderr)
	}
	if got := p.checkPromise(); got != before {
		t.Errorf("%d blobs are named, %d before", got, before)
	}
	// Full again, this time when the tree is staged and the journal is written.
	resize("256m")
	for _, step := range []string{"copy", "stage", "verify"} {
		p.change()
		_, stderr, _ = p.during(step, func() { fill(t, standby) }, "now")
		t.Logf("full after %s: %s", step, stderr)
		p.checkPromise()
		if err := os.Remove(filepath.Join(standby, "filler")); err != nil {
			t.Fatal(err)
		}
		p.must(0, "now")
		p.checkEqual()
	}
}

// fill leaves no byte on the file system of dir.
func fill(t *testing.T, dir string) {
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; block = block[:len(block)/2] {
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Error(err)
		}
	}
}

// TestCut: the connection to the active dies at many moments.
func TestCut(t *testing.T) {
	p := newPair(t, "agent")
	p.must(0, "now")
	for _, step := range []string{"connect", "guard", "capture", "copy"} {
		p.change()
		for range 5 {
			p.upload(200_000)
		}
		before := p.checkPromise()
		_, stderr, status := p.during(step, p.sshd.Cut, "now")
		if status != 1 || !strings.Contains(stderr, "error:") {
			t.Fatalf("cut after %s: exit %d, want 1\n%s", step, status, stderr)
		}
		if got := p.checkPromise(); got != before {
			t.Errorf("cut after %s: %d blobs are named, %d before", step, got, before)
		}
		p.checkNoAgents()
		p.must(0, "now")
		p.checkEqual()
	}
}
