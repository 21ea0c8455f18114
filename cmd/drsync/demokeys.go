package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

// labKeys are the demo's SSH login, made anew for each one.
type labKeys struct {
	public     ssh.PublicKey
	private    string // path
	knownHosts string // path, not written yet
}

func demoKeys(dir string) (labKeys, error) {
	k := labKeys{private: filepath.Join(dir, "id_ed25519"), knownHosts: filepath.Join(dir, "known_hosts")}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return k, err
	}
	if k.public, err = ssh.NewPublicKey(public); err != nil {
		return k, err
	}
	block, err := ssh.MarshalPrivateKey(private, "drsync demo")
	if err != nil {
		return k, err
	}
	return k, os.WriteFile(k.private, pem.EncodeToMemory(block), 0o600)
}
