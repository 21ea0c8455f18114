package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/drsync/drsync/internal/hint"
)

// credentials returns the keys to log in with. release closes what they need
// while the login lasts.
func credentials(ctx context.Context, t target) (signers []ssh.Signer, release func(), err error) {
	release = func() {}
	var locked string
	for _, path := range t.identities {
		signer, err := readIdentity(path)
		var needs *ssh.PassphraseMissingError
		switch {
		case err == nil:
			signers = append(signers, signer)
		case errors.As(err, &needs):
			locked = path // the agent may have it
		case t.chosen:
			return nil, release, err
		}
	}
	if socket := os.Getenv("SSH_AUTH_SOCK"); socket != "" {
		if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket); err == nil {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			release = func() { stop(); conn.Close() }
			if held, err := agent.NewClient(conn).Signers(); err == nil {
				signers = append(signers, held...)
			}
		}
	}
	if len(signers) > 0 {
		return signers, release, nil
	}
	if locked != "" {
		return nil, release, hint.With(fmt.Errorf("the key %s is protected by a passphrase, and no ssh-agent holds it", locked),
			"use a key without passphrase that the active restricts to drsync, or start drsync with an ssh-agent")
	}
	return nil, release, hint.New("there is no key to log in with", "set active.identity to the file of a private key")
}

func readIdentity(path string) (ssh.Signer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the key to log in with: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("read the key %s: %w", path, err)
	}
	return signer, nil
}

// hostKeys returns how to check the host's key, and which kinds of key are known for it.
func hostKeys(t target, addr string) (ssh.HostKeyCallback, []string, error) {
	db, err := knownhosts.NewDB(t.knownHosts...)
	if err != nil {
		return nil, nil, hint.With(fmt.Errorf("read the known host keys: %w", err), addKeyHint(t, t.knownHosts[0]))
	}
	known := db.HostKeyCallback()
	check := func(host string, from net.Addr, key ssh.PublicKey) error {
		err := known(host, from, key)
		print := fmt.Sprintf("%s %s", key.Type(), ssh.FingerprintSHA256(key))
		switch {
		case err == nil:
			return nil
		case knownhosts.IsHostKeyChanged(err):
			return hint.With(fmt.Errorf("the host key of %s has CHANGED to %s: someone may be in between", host, print),
				fmt.Sprintf("if the host was really set up anew, remove the old key (ssh-keygen -R '%s' -f %s), then: %s",
					knownhosts.Normalize(addr), t.knownHosts[0], addKeyHint(t, t.knownHosts[0])))
		case knownhosts.IsHostUnknown(err):
			return hint.With(fmt.Errorf("the host key of %s is not known: %s", host, print), addKeyHint(t, t.knownHosts[0]))
		}
		return fmt.Errorf("check the host key %s: %w", print, err)
	}
	return check, db.HostKeyAlgorithms(addr), nil
}

// addKeyHint says how to make a host key known without trusting the network.
func addKeyHint(t target, file string) string {
	return fmt.Sprintf("run: %s > key; compare ssh-keygen -lf key with what ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub says on that host itself; then: cat key >> %s",
		quote("ssh-keyscan", "-p", fmt.Sprint(t.port), t.host), quote(file))
}

// explainLogin adds to an error of the handshake what the operator can do.
func explainLogin(err error, t target) error {
	if strings.Contains(err.Error(), "unable to authenticate") {
		return hint.With(fmt.Errorf("%s does not let %s in with the keys offered: %w", t.host, t.user, err),
			fmt.Sprintf("add the public key to ~%s/.ssh/authorized_keys on that host, or set active.identity", t.user))
	}
	return err
}
