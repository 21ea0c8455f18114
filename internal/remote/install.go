package remote

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx/wire"
)

// selfFile is the program that is running, even if its file was replaced since.
const selfFile = "/proc/self/exe"

// self is this program as it may be copied to another host.
type self struct {
	size int64
	sum  string // SHA-256, hexadecimal
	name string // of its directory below the cache
}

// examineSelf reads this program's file.
func examineSelf(version string) (*self, error) {
	f, err := os.Open(selfFile)
	if err != nil {
		return nil, fmt.Errorf("read this program's own file: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return nil, fmt.Errorf("read this program's own file: %w", err)
	}
	sum := hex.EncodeToString(h.Sum(nil))
	return &self{size: n, sum: sum, name: agentDir(version, sum)}, nil
}

// agentDir names the directory of one build. The shell on the host sees it unquoted.
func agentDir(version, sum string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(".+_-", r):
			return r
		}
		return '_'
	}, version)
	return "v" + clean[:min(len(clean), 64)] + "-" + sum[:16]
}

// agents is where installed agents lie, for a shell on the host.
const agents = `"${XDG_CACHE_HOME:-$HOME/.cache}/drsync/agents"`

// examined is shell text that sets s to the sum of a file, or to its length where there
// is no program for sums.
func examined(file string) string {
	return `if command -v sha256sum > /dev/null; then s=$(sha256sum < ` + file + `); s=${s%% *}; else s=$(wc -c < ` + file + `); s=$((s)); fi`
}

// isThis is the pattern that s must match then.
func (s *self) isThis() string { return s.sum + `|` + fmt.Sprint(s.size) }

// preferring returns the command line that runs the installed agent if there is
// one and it is still this program, whole, and command otherwise.
func (s *self) preferring(command string) []string {
	run := command + ` "$@"`
	if !strings.ContainsAny(command, " \t=/") { // one word, whose absence the shell need not tell of
		run = `command -v ` + command + ` > /dev/null 2>&1 || exit 127; ` + run
	}
	script := `p=` + agents + `/` + s.name + `/drsync; if [ -f "$p" ] && [ -x "$p" ]; then ` + examined(`"$p"`) +
		`; case $s in ` + s.isThis() + `) exec "$p" "$@";; esac; fi; ` + run
	return []string{"sh", "-c", quoteWord(script), "drsync"}
}

// Statuses of the script that installs an agent.
const (
	noHome = iota + 90
	noDirectory
	notWritten
	notWhole
	notRunning
	notRenamed
)

// installing returns the script that makes an agent of its input. What is
// written has a name of its own until it is whole and was seen to run, so that two who
// install at once do not meet; of the older builds all but the last two go.
func (s *self) installing(nonce string) string {
	hex16 := strings.Repeat("[0-9a-f]", 16)
	return strings.Join([]string{
		`umask 077`,
		`a=` + agents,
		`case $a in /?*) ;; *) echo HOME is not set >&2; exit ` + fmt.Sprint(noHome) + `;; esac`,
		`d=$a/` + s.name,
		`t=$d/.part-` + nonce,
		`mkdir -p "$d" || exit ` + fmt.Sprint(noDirectory),
		`trap 'rm -f "$t"' EXIT`,
		`set -C`, // what is there is not written to
		`cat > "$t" || exit ` + fmt.Sprint(notWritten),
		examined(`"$t"`),
		`case $s in ` + s.isThis() + `) ;; *) exit ` + fmt.Sprint(notWhole) + `;; esac`,
		`chmod 700 "$t" && "$t" version >&2 || exit ` + fmt.Sprint(notRunning),
		`if [ -d "$d/drsync" ] || [ -h "$d" ]; then exit ` + fmt.Sprint(notRenamed) + `; fi`,
		`mv -f "$t" "$d/drsync" || exit ` + fmt.Sprint(notRenamed),
		`cd "$a" || exit 0`,
		`k=0`,
		`for n in $(ls -t); do case $n in ` + s.name + `) continue;; v*-` + hex16 + `) ;; *) continue;; esac`,
		`if [ -h "$n" ] || [ ! -d "$n" ]; then continue; fi`,
		`k=$((k+1))`,
		`if [ $k -gt 2 ]; then rm -f "$n/drsync" "$n"/.part-*; rmdir "$n" 2> /dev/null; fi; done`,
		`exit 0`,
	}, "; ")
}

// marker begins the answer of a probe: before it a login may print what it likes.
const marker = "drsync-probe"

// installAgent copies this program to the host, for the login it is reached by.
func (h *agentHost) installAgent(ctx context.Context) error {
	answer, err := exchange(ctx, h.far, h.silence, nil, "sh", "-c", quoteWord("echo "+marker+"; uname -sm"))
	if err != nil {
		return fmt.Errorf("ask for its platform: %w", err)
	}
	_, platform, ok := strings.Cut(answer, marker+"\n")
	if !ok {
		return hint.New("its shell does not run commands: the key is perhaps bound to one", "install the same drsync there by hand")
	}
	if err := samePlatform(strings.TrimSpace(platform)); err != nil {
		return err
	}
	f, err := os.Open(selfFile)
	if err != nil {
		return fmt.Errorf("read this program's own file: %w", err)
	}
	defer f.Close()
	_, err = exchange(ctx, h.far, h.silence, f, "sh", "-c", quoteWord(h.self.installing(rand.Text())))
	return explainInstall(err)
}

// samePlatform says whether a host that answers uname -sm so can run this program.
func samePlatform(uname string) error {
	machines := map[string]string{"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
	system, machine, _ := strings.Cut(uname, " ")
	if strings.ToLower(system) == runtime.GOOS && machines[machine] == runtime.GOARCH {
		return nil
	}
	return hint.With(fmt.Errorf("it is a \"%s\" and this program is for %s/%s", wire.Clean([]byte(uname)), runtime.GOOS, runtime.GOARCH),
		"install the build of drsync for that platform there, or use transport: exec or sftp")
}

// explainInstall adds to an error of the script what it means.
func explainInstall(err error) error {
	var failed *ShellError
	if !errors.As(err, &failed) {
		return err
	}
	const elsewhere = "; or install drsync there by hand, or use transport: exec or sftp"
	switch failed.Status {
	case noHome, noDirectory:
		return hint.With(fmt.Errorf("make a directory for it in the login's cache: %w", err),
			"give the login a home that can be written to, or set XDG_CACHE_HOME there"+elsewhere)
	case notWritten:
		return hint.With(fmt.Errorf("write it to the login's cache: %w", err), "see that there is space in the login's home"+elsewhere)
	case notWhole:
		return fmt.Errorf("what was written there is not what was sent: %w", err)
	case notRunning:
		return hint.With(fmt.Errorf("it does not run there: %w", err),
			"set XDG_CACHE_HOME there to a directory on a file system that is not mounted noexec"+elsewhere)
	case notRenamed:
		return fmt.Errorf("something else is in its place in the login's cache: %w", err)
	}
	return err
}
