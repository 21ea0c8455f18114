package sshserver_test

import (
	"os"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

func write(t *testing.T, client *ssh.Client, path string) {
	t.Helper()
	files, err := sftp.NewClient(client)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if f, err := files.Create(path); err == nil {
		f.Close()
		t.Error("a file could be created")
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("a file was created")
	}
}
