package program_test

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
)

// Two contents of one length with the same MD5.
const (
	alikeA = "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f8955ad340609f4b30283e488832571415a085125e8f7cdc99fd91dbdf280373c5bd8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0e99f33420f577ee8ce54b67080a80d1ec69821bcb6a8839396f9652b6ff72a70"
	alikeB = "d131dd02c5e6eec4693d9a0698aff95c2fcab50712467eab4004583eb8fb7f8955ad340609f4b30283e4888325f1415a085125e8f7cdc99fd91dbd7280373c5bd8823e3156348f5bae6dacd436c919c6dd53e23487da03fd02396306d248cda0e99f33420f577ee8ce54b67080280d1ec69821bcb6a8839396f965ab6ff72a70"
)

// plantSums makes files that differ by content, by time, by both and by nothing,
// long and short, linked and empty, and one that MD5 cannot tell from another.
func plantSums(t *testing.T, dir string) {
	t.Helper()
	content := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	long := slices.Repeat([]byte("0123456789abcdef"), 40000)
	other := slices.Clone(long)
	other[300000] = '!'
	old, older := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2019, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, is := range map[string]struct {
		content []byte
		mtime   time.Time
	}{
		"S/alike": {content(alikeA), old}, "D/alike": {content(alikeB), old}, "S/alike2": {append(content(alikeA), long...), old}, "D/alike2": {append(content(alikeB), long...), old},
		"S/same": {[]byte("same"), old}, "D/same": {[]byte("same"), old}, "S/touched": {[]byte("t"), old}, "D/touched": {[]byte("t"), older},
		"S/differs": {[]byte("one"), old}, "D/differs": {[]byte("two"), old}, "S/both": {[]byte("one"), old}, "D/both": {[]byte("twos"), older},
		"S/long": {long, old}, "D/long": {other, old}, "S/new": {long[:100], old}, "S/empty": {nil, old}, "S/d/31": {long[:31], old}, "S/d/33": {long[:33], old}, "S/d/5": {long[:5], old},
		"D/gone": {nil, old}, "A/same": {[]byte("same"), old}, "A/new": {long[:100], older}, "A/alike": {content(alikeB), old}, "S/secret": {[]byte("s"), old}, "D/secret": {[]byte("s"), old},
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, is.content, 0o644), os.Chtimes(path, is.mtime, is.mtime)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(dir, "S/secret"), 0o600), os.Link(filepath.Join(dir, "S/new"), filepath.Join(dir, "S/zlink")), os.Symlink("new", filepath.Join(dir, "S/soft"))); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"S/d", "S", "D", "A"} {
		if err := os.Chtimes(filepath.Join(dir, d), old, old); err != nil {
			t.Fatal(err)
		}
	}
}

// The sums that were chosen decide what -c takes for equal, and are the ones
// that %C shows.
func TestChecksumChoiceAsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	t.Parallel()
	for _, from := range []string{"", "host:"} {
		for _, choice := range []string{"auto", "xxh128", "xxh3", "xxh64", "xxhash", "md5", "md4", "sha1", "none", "md5,sha1", "sha1,md5", "none,md5", "md5,none", "auto,md4"} {
			for _, options := range []string{"-aHic --del", "-aHi --del", "-aHnic", "-aHni", "-aHiic", "-aic --compare-dest=@/A", "-aic --no-whole-file"} {
				_, compare, two := strings.Cut(choice, ",")
				if !two {
					compare = choice
				}
				if content := strings.Contains(strings.Fields(options)[0], "c"); compare == "none" && content {
					continue // it is refused
				}
				if strings.HasPrefix(choice, "none") && options == "-aHni" {
					continue // rsync writes a sum of zeros of no length into the log
				}
				t.Run(from+choice+options, func(t *testing.T) {
					t.Parallel()
					base := t.TempDir()
					if err := os.WriteFile(filepath.Join(base, "shell"), []byte(fakeShell), 0o755); err != nil {
						t.Fatal(err)
					}
					var printed, left [2][]string
					for i, dir := range []string{filepath.Join(base, "theirs"), filepath.Join(base, "ours")} {
						plantSums(t, dir)
						args := append(strings.Fields(strings.ReplaceAll(options, "@", dir)), "--cc="+choice, "--out-format=%i %n%L %C", "--log-file="+dir+"/log", "--log-file-format=%i %n %C", from+dir+"/S/", dir+"/D")
						var out, said string
						status := 0
						if i == 0 {
							var err error
							if out, said, status, err = runCommand("rsync")(t.Context(), dir, args); err != nil {
								t.Fatal(err)
							}
						} else {
							out, said, status, _ = runFrom(t.Context(), dir, nil, args)
						}
						if status != 0 {
							t.Fatalf("%d %s", status, said)
						}
						log, err := os.ReadFile(dir + "/log")
						if err != nil || os.Remove(dir+"/log") != nil {
							t.Fatal(err)
						}
						for line := range strings.Lines(string(log)) {
							if words := strings.SplitN(line, "] ", 2); len(words) == 2 && strings.ContainsAny(words[1][:1], ">.ch*") && strings.Contains(words[1], "  ") {
								out += "log " + words[1]
							}
						}
						printed[i], left[i] = unstamped(out), shape(t, dir)
					}
					if !slices.Equal(printed[0], printed[1]) {
						t.Errorf("it prints\n%s\nrsync prints\n%s", strings.Join(printed[1], "\n"), strings.Join(printed[0], "\n"))
					}
					if !slices.Equal(left[0], left[1]) {
						t.Error("it leaves something else than rsync")
					}
				})
			}
		}
	}
}
