package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/hint"
)

// Secret says where a secret is: env:NAME or file:PATH. It never holds the
// secret itself, so printing one in any way shows only the reference. The zero
// Secret is no secret.
type Secret struct{ kind, where string }

const (
	secretEnv  = "env"
	secretFile = "file"
	// maxSecret bounds a secret file, in bytes.
	maxSecret = 64 << 10
)

var errLiteralSecret = errors.New("must be env:NAME or file:PATH; a secret itself does not belong here")

func parseSecret(text string, resolve func(string) string) (Secret, error) {
	kind, where, _ := strings.Cut(text, ":")
	switch {
	case kind == secretEnv && isEnvName(where):
		return Secret{kind, where}, nil
	case kind == secretEnv:
		return Secret{}, errors.New("what follows env: is not the name of a variable")
	case kind == secretFile && where != "" && !strings.ContainsAny(where, "\n\x00"):
		return Secret{kind, resolve(where)}, nil
	case kind == secretFile:
		return Secret{}, errors.New("what follows file: is not a path")
	}
	return Secret{}, errLiteralSecret
}

func isEnvName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s == Secret{} }

// String is the reference, never the secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return s.kind + ":" + s.where
}

// Format prints the reference, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// MarshalJSON writes the reference.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// Resolve reads the secret. One line break at its end is not part of it. A file
// that others may read is refused. The zero Secret resolves to "".
func (s Secret) Resolve() (string, error) {
	switch s.kind {
	case "":
		return "", nil
	case secretEnv:
		v := os.Getenv(s.where)
		if v == "" {
			return "", hint.New(fmt.Sprintf("secret %s: the variable is not set", s), "set it in the environment of drsync, or use file:PATH")
		}
		return v, nil
	}
	v, err := readSecretFile(s.where)
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", s, err)
	}
	return v, nil
}

func readSecretFile(path string) (string, error) {
	// A pipe in the file's place must not make us wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	switch {
	case !info.Mode().IsRegular():
		return "", errors.New("is not a regular file")
	case info.Mode().Perm()&0o077 != 0:
		return "", hint.New(fmt.Sprintf("others may read it (mode %04o)", info.Mode().Perm()), "chmod 600 "+path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxSecret {
		return "", fmt.Errorf("is longer than %d bytes", maxSecret)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if text == "" {
		return "", errors.New("is empty")
	}
	return text, nil
}
