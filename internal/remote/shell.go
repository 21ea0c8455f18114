package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/wire"
)

// CommandConfig says how to reach a host through a remote shell: a program such
// as ssh that takes a host and a command line, and runs that there. Each
// request under way has a process of it of its own.
type CommandConfig struct {
	Shell []string // the remote shell, in words; none is "ssh"
	User  string   // handed to Shell as -l USER; "" leaves it out
	Host  string

	// RemoteCommand is what starts drsync on the host; none is "drsync". The words
	// reach the far side's shell as they are, which may expand them: one word may be
	// a command line.
	RemoteCommand []string
	Roots         []string      // directories that Source may be asked for: the agent is told to serve no others
	Version       string        // of this program, for the agent's error messages
	Compress      wire.Compress // what the agent sends
	Install       bool          // copy this program to a host that lacks it; see Config.Install
	Channels      int           // how many requests may run at once, each with a login of its own; 0 is 4

	DialTimeout time.Duration // until the agent greets, a password typed included; 0 is 2 min
	Silence     time.Duration // ends a request in which nothing arrives for so long; 0 is 2 min

	// Stderr gets what the remote shell and the far side print there, line by
	// line and safe to show; nil keeps the beginning of it for error messages only.
	// What Shell asks on a terminal, a password for instance, goes there by itself.
	Stderr io.Writer
}

// defaultShellChannels is less than the transport agent has: each is a login.
const defaultShellChannels = 4

// DialCommand starts a first agent through the remote shell, so that what is
// wrong with it is known at once. Errors are told apart by ErrRemoteNotFound,
// ErrShellFailed (a *ShellError has the status), ErrConnectTimeout and, later, ErrTimeout.
// The Host has no tunnels.
func DialCommand(ctx context.Context, c CommandConfig) (Host, error) {
	wrap := func(err error) error {
		return fmt.Errorf("connect to %s: %w", rsyncx.Printable(c.Host), err)
	}
	for _, name := range []string{c.User, c.Host} {
		if strings.HasPrefix(name, "-") || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return nil, wrap(fmt.Errorf("%q must not begin with '-' nor have spaces or control characters", name))
		}
	}
	if c.Host == "" {
		return nil, errors.New("connect by a remote shell: no host is given")
	}
	if len(c.Shell) == 0 {
		c.Shell = []string{"ssh"}
	}
	if c.DialTimeout <= 0 {
		c.DialTimeout = 2 * time.Minute
	}
	if c.Silence <= 0 {
		c.Silence = 2 * time.Minute
	}
	if c.Channels <= 0 {
		c.Channels = defaultShellChannels
	}
	var me *self
	if c.Install {
		var err error
		if me, err = examineSelf(c.Version); err != nil {
			return nil, wrap(err)
		}
	}
	words := slices.Clone(c.RemoteCommand)
	if len(words) == 0 {
		words = []string{"drsync"}
	}
	s := &shell{argv: shellArgs(c), name: shellName(c), stderr: c.Stderr, children: map[*child]bool{}}
	h := newAgentHost(agentConfig{
		far: s, command: words, roots: slices.Clone(c.Roots), version: c.Version, compress: c.Compress, self: me,
		channels: c.Channels, oneByOne: true, dialTimeout: c.DialTimeout, silence: c.Silence,
		tunnel: func(_ context.Context, _, addr string) (net.Conn, error) {
			return nil, fmt.Errorf("connect to %s through a remote shell: %w", addr, errors.ErrUnsupported)
		},
	})
	if err := h.first(ctx); err != nil {
		h.Close()
		return nil, wrap(err)
	}
	return h, nil
}

func shellName(c CommandConfig) string {
	if c.User == "" {
		return c.Host
	}
	return c.User + "@" + c.Host
}

// shellArgs returns the words that the command on the host is appended to, in
// the order in which rsync gives them.
func shellArgs(c CommandConfig) []string {
	argv := slices.Clone(c.Shell)
	if c.User != "" {
		argv = append(argv, "-l", c.User)
	}
	return append(argv, c.Host)
}

// SplitShell splits the text of rsync's -e into words as rsync does: at spaces,
// which quotes of either kind protect; a doubled quote inside quotes is one. There are
// no backslashes.
func SplitShell(text string) ([]string, error) {
	var words []string
	for i := 0; i < len(text); {
		if text[i] == ' ' {
			i++
			continue
		}
		var word []byte
		quote := byte(0)
		for ; i < len(text) && (quote != 0 || text[i] != ' '); i++ {
			switch c := text[i]; {
			case quote == 0 && (c == '\'' || c == '"'):
				quote = c
			case quote != 0 && c == quote && i+1 < len(text) && text[i+1] == quote:
				word = append(word, c)
				i++
			case quote != 0 && c == quote:
				quote = 0
			default:
				word = append(word, c)
			}
		}
		if quote != 0 {
			return nil, fmt.Errorf("the remote shell %q: a closing %c is missing", text, quote)
		}
		words = append(words, string(word))
	}
	if len(words) == 0 || words[0] == "" {
		return nil, hint.New("the remote shell is empty", "name a program: -e ssh")
	}
	return words, nil
}
