package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/hint"
)

func TestSecretResolve(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) Secret {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return Secret{"file", path}
	}
	t.Setenv("DRSYNC_TEST_SECRET", " s3cret ")
	for _, c := range []struct {
		secret Secret
		want   string
	}{
		{Secret{}, ""},
		{Secret{"env", "DRSYNC_TEST_SECRET"}, " s3cret "},
		{write("plain", "s3cret", 0o600), "s3cret"},
		{write("newline", "s3cret\n\n", 0o400), "s3cret\n"},
		{write("crlf", "s3cret\r\n", 0o600), "s3cret"},
	} {
		if got, err := c.secret.Resolve(); err != nil || got != c.want {
			t.Errorf("%v: %q %v, want %q", c.secret, got, err, c.want)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		secret     Secret
		want, hint string
	}{
		{Secret{"env", "DRSYNC_TEST_UNSET"}, "not set", "environment"},
		{write("group", "s3cret", 0o640), "0640", "chmod 600"},
		{write("world", "s3cret", 0o604), "0604", "chmod 600"},
		{write("empty", "\n", 0o600), "empty", ""},
		{write("long", strings.Repeat("x", maxSecret+1), 0o600), "longer", ""},
		{Secret{"file", filepath.Join(dir, "none")}, "no such file", ""},
		{Secret{"file", dir}, "regular", ""},
		{Secret{"file", filepath.Join(dir, "pipe")}, "regular", ""},
	} {
		got, err := c.secret.Resolve()
		if err == nil || got != "" || !strings.Contains(err.Error(), c.want) || !strings.Contains(hint.Of(err), c.hint) {
			t.Errorf("%v: %q %v (%s)", c.secret, got, err, hint.Of(err))
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v shows the secret", err)
		}
	}
}

func TestSecretPrintsItsReference(t *testing.T) {
	s := Secret{"file", "/etc/drsync/active.pw"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, s); got != "file:/etc/drsync/active.pw" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
	out, err := json.Marshal(struct {
		A Secret `json:"a"`
		B Secret `json:"b,omitzero"`
	}{A: s})
	if err != nil || string(out) != `{"a":"file:/etc/drsync/active.pw"}` {
		t.Errorf("%s %v", out, err)
	}
}
