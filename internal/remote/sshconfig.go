package remote

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kevinburke/ssh_config"

	"github.com/drsync/drsync/internal/hint"
)

// target is where and as whom to connect.
type target struct {
	host       string
	port       int
	user       string
	identities []string // files that must be usable if chosen, else those of the defaults that exist
	chosen     bool     // the operator named the identities
	knownHosts []string
}

// resolve fills in what c leaves open, from the SSH configuration of the user.
func resolve(c Config) (target, error) {
	get, all, err := readSSHConfig(c)
	if err != nil {
		return target{}, err
	}
	for _, key := range []string{"ProxyJump", "ProxyCommand"} {
		if v := get(key); v != "" && v != "none" {
			return target{}, hint.With(fmt.Errorf("%s %s in the ssh configuration cannot be honoured", key, v),
				"give an address that this host reaches directly, for instance a port that an ssh tunnel forwards")
		}
	}
	t := target{host: c.Host, port: c.Port, user: c.User}
	if name := get("HostName"); name != "" {
		t.host = strings.ReplaceAll(name, "%h", c.Host)
	}
	if t.port == 0 {
		t.port = 22
		if p := get("Port"); p != "" {
			if t.port, err = strconv.Atoi(p); err != nil {
				return target{}, fmt.Errorf("port %q in the ssh configuration is no number", p)
			}
		}
	}
	if t.user == "" {
		t.user = get("User")
	}
	if t.user == "" {
		me, err := user.Current()
		if err != nil {
			return target{}, fmt.Errorf("find out who I am: %w", err)
		}
		t.user = me.Username
	}
	t.findIdentities(c, all("IdentityFile"))
	return t, t.findKnownHosts(c, get("UserKnownHostsFile"))
}

// readSSHConfig returns functions that look up the first and all values of a key.
func readSSHConfig(c Config) (get func(string) string, all func(string) []string, err error) {
	path := c.SSHConfig
	if path == "" {
		path = home(".ssh/config")
	}
	conf := &ssh_config.Config{}
	if path != "none" && path != "" {
		f, err := os.Open(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && c.SSHConfig == "":
		case err != nil:
			return nil, nil, fmt.Errorf("read the ssh configuration: %w", err)
		default:
			defer f.Close()
			if conf, err = ssh_config.Decode(f); err != nil {
				return nil, nil, hint.With(fmt.Errorf("read the ssh configuration %s: %w", path, err),
					"Match blocks are not understood; Host blocks are")
			}
		}
	}
	all = func(key string) []string {
		values, err := conf.GetAll(c.Host, key)
		if err != nil {
			return nil
		}
		for i, v := range values {
			values[i] = strings.Trim(v, `"`)
		}
		return values
	}
	get = func(key string) string {
		if values := all(key); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	return get, all, nil
}

func (t *target) findIdentities(c Config, configured []string) {
	switch {
	case c.Identity != "":
		t.identities, t.chosen = []string{expand(c.Identity, t)}, true
	case len(configured) > 0:
		for _, path := range configured {
			t.identities = append(t.identities, expand(path, t))
		}
		t.chosen = true
	default:
		for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			if path := home(".ssh/" + name); exists(path) {
				t.identities = append(t.identities, path)
			}
		}
	}
}

func (t *target) findKnownHosts(c Config, configured string) error {
	if c.KnownHosts != "" {
		t.knownHosts = []string{expand(c.KnownHosts, t)}
		return nil
	}
	candidates := strings.Fields(configured)
	if len(candidates) == 0 {
		candidates = []string{home(".ssh/known_hosts")}
	}
	for _, path := range append(candidates, "/etc/ssh/ssh_known_hosts") {
		if path = expand(path, t); exists(path) {
			t.knownHosts = append(t.knownHosts, path)
		}
	}
	if len(t.knownHosts) == 0 {
		return hint.New("there is no file of known host keys", addKeyHint(*t, home(".ssh/known_hosts")))
	}
	return nil
}

// expand replaces what ssh replaces in the name of a file.
func expand(path string, t *target) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		path = home(rest)
	}
	return strings.NewReplacer("%d", home(""), "%h", t.host, "%r", t.user, "%%", "%").Replace(path)
}

// home returns a path below the user's home, or "" if there is none.
func home(rest string) string {
	dir, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, rest)
}

func exists(path string) bool {
	if path == "" {
		return false
	}
	_, err := os.Stat(path)
	return err == nil
}
