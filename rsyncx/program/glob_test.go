package program_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/program"
	"github.com/drsync/drsync/rsyncx/wire"
)

// loginAt is a host whose login begins in a directory.
type loginAt struct {
	program.Host
	home string
}

func (h loginAt) Source(ctx context.Context, root string, v rsyncx.View) (rsyncx.Source, error) {
	if !filepath.IsAbs(root) {
		root = filepath.Join(h.home, root)
	}
	return h.Host.Source(ctx, root, v)
}

// runFrom is runProgram with a host whose login begins where the line is typed.
func runFrom(ctx context.Context, dir string, env map[string]string, args []string) (stdout, stderr string, exit int, asked program.Remote) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the program is stuck"))
	defer cancel()
	var out, said bytes.Buffer
	exit = program.Run(ctx, program.World{
		In: bytes.NewReader(nil), Out: &out, Err: &said, Dir: dir, Now: time.Now, Env: func(name string) string { return env[name] },
		Dial: func(ctx context.Context, to program.Remote) (program.Host, error) {
			asked = to
			h, err := agentAt("/") // what is relative begins elsewhere than here
			return loginAt{h, dir}, err
		},
	}, args)
	return out.String(), said.String(), exit, asked
}

func plantNames(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{
		"S/a1", "S/a2", "S/b3", "S/a*b", `S/a\b`, "S/x[y", "S/.dot", "S/sp ace", "S/*", "S/~t", "S/q?r", `S/back\*s`, "S/br{1}", "S/-", "S/]",
		"S/dir1/f", "S/dir1/g", "S/dir1/.h", "S/dir1/sub/z/f", "S/dir2/f", "S/.hid/i", "out/f", "out/o",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"S/ldir": "dir1", "S/away": "../out", "S/broken": "nowhere", "S/lfile": "a1"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, d := range []string{"S/dir1/sub/z", "S/dir1/sub", "S/dir1", "S/dir2", "S/.hid", "S", "out"} {
		if err := os.Chtimes(filepath.Join(dir, d), old, old); err != nil {
			t.Fatal(err)
		}
	}
}

// What a remote path with wildcards names is what rsync has its host make of it:
// a shell, or with -s the rsync there.
func TestWildcardsAsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	t.Parallel()
	for _, line := range []string{
		"-ai host:S/* D", "-ai host:S/a? D", "-ai host:S/a[0-9] host:S/b* D", "-ai host:S/a1 :S/[ab]? D", `-ai host:S/a\*b D`, `-ai host:S/a\b* D`, `-ai host:S/a\b D`,
		"-ai host:S/x[y D", "-ai host:S/x[* D", "-ai host:S/[[:alpha:]][0-9] D", "-ai host:S/[]x]* D", "-ai host:S/nope* D", `-ai host:S/no\*pe* D`, "-ai host:S/nope* host:S/a1 D",
		"-ai host:S/*/f D", "-ai host:S/*/i D", "-ai host:S/dir?/ D", "-ai host:S/*/ D", "-ai host:S/dir1/*/*/f D", "-ai host:S/**/f D", "-ai host:S/dir1//f* D", "-ai host:./S/a? D",
		"-ai host:S/../S/a? D", `-ai host:S/b*\*s D`, "-ai host:S/br{1}* D", "-ai host:S/~* D", "-ai host:S/ldir/* D", "-ai host:S/away/* D", "-ai host:S/l* D", "-ai host:S/.[dh]* D",
		"-aRi host:S/dir*/f D", "-aRi host:S/./dir?/./* D", "-aRi host:./S/d* D", "-aRi host:S/./d*/g D", "-ai --exclude=a1 host:S/* D", "-ai --del host:S/* D", "-i host:S/* D",
		"-dri host:S/d* D", "-di host:S/dir?/ D", "-aLi host:S/l* D", "-ai --ignore-missing-args host:S/nope* host:S/a1 D", "-nai host:S/* D", "-a host:S/a*", "-ai host:*/a1 D", "-ai host:S/?*? D", "-a --out-format=%f|%n host:S/dir1 D", "-a --out-format=%f|%n host:S/d*/ D",
		"-asi host:S/* D", "-asi host:S/*/[gi] D", "-asi host:S/.* D", `-asi host:S/a\*b D`, `-asi host:S/no\*pe D`, "-asi host:S/x[* D", "-asRi host:S/./d*/f D", "-asi host:S/[!a]? D",
		"-asi host:S/dir1/?/nope D", "-asi host:S/*/nope D", "-asi host:S/dir[12]/../a? D",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			if err := os.WriteFile(filepath.Join(base, "shell"), []byte(fakeShell), 0o755); err != nil {
				t.Fatal(err)
			}
			theirs, ours := filepath.Join(base, "theirs"), filepath.Join(base, "ours")
			plantNames(t, theirs)
			plantNames(t, ours)
			args := strings.Split(line, " ")
			want, wantSaid, wantStatus, err := runCommand("rsync")(t.Context(), theirs, args)
			if err != nil {
				t.Fatal(err)
			}
			got, gotSaid, gotStatus, _ := runFrom(t.Context(), ours, nil, args)
			if gotStatus != wantStatus {
				t.Errorf("status %d, rsync's %d: %s\n%s", gotStatus, wantStatus, gotSaid, wantSaid)
			}
			if g, w := unstamped(got), unstamped(want); !slices.Equal(g, w) {
				t.Errorf("it prints\n%s\nrsync prints\n%s\n%s\n%s", strings.Join(g, "\n"), strings.Join(w, "\n"), gotSaid, wantSaid)
			}
			if g, w := shape(t, ours), shape(t, theirs); !slices.Equal(g, w) {
				t.Errorf("it leaves\n%s\nrsync leaves\n%s", strings.Join(g, "\n"), strings.Join(w, "\n"))
			}
		})
	}
}

// Patterns ask the host for no more than the directory that they are looked for in,
// as far as that is known.
func TestWildcardRoots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plantNames(t, dir)
	for line, want := range map[string]string{
		"-a host:S/a* D1": "S", "-a host:S/a* host:S/dir1/f D2": "S,S/dir1", "-a host:S/*/f D3": "/", "-aR host:S/./d*/f D4": "S", "-as host:S/dir?/ D5": "/",
	} {
		_, said, status, asked := runFrom(t.Context(), dir, nil, strings.Fields(line))
		if got := strings.Join(asked.Roots, ","); got != want || status != 0 {
			t.Errorf("%s: asked for %s, want %s; %d %s", line, got, want, status, said)
		}
	}
	if _, _, status, _ := runFrom(t.Context(), dir, map[string]string{"RSYNC_PROTECT_ARGS": "1"}, []string{"-a", "host:S/.d*", "D6"}); status != 0 {
		t.Errorf("with RSYNC_PROTECT_ARGS: %d", status)
	}
}

// Sources in more directories than there are connections are copied all the same.
func TestManyBases(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const many = 100
	for i := range many {
		path := filepath.Join(dir, "S", fmt.Sprint(i), "in", fmt.Sprint("f", i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(fmt.Sprint(i)), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	_, said, status, _ := runFrom(t.Context(), dir, nil, []string{"-a", "host:S/*/in", "D"})
	if status != 0 {
		t.Fatalf("%d %s", status, said)
	}
	for i := range many {
		if content, err := os.ReadFile(filepath.Join(dir, "D/in", fmt.Sprint("f", i))); err != nil || string(content) != fmt.Sprint(i) {
			t.Errorf("%d: %q %v", i, content, err)
		}
	}
}

// What an agent does not serve is not found by a pattern either, nor behind a link.
func TestWildcardsBelowTheRoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plantNames(t, dir)
	for line, want := range map[string]struct {
		status int
		copied string
	}{
		"-a host:@/S/*/f @/D1": {0, "S/dir1/f"}, "-a host:@/out/* @/D2": {4, ""}, "-a host:@/*/a1 @/D3": {4, ""}, "-a host:@/S/../o*/f @/D4": {4, ""}, "-a host:@/S/away/* @/D5": {4, ""},
		"-a host:@/S/a[w]*/f @/D6": {23, ""}, "-as host:@/S/a[w]*/f @/D7": {23, ""},
	} {
		args := strings.Fields(strings.ReplaceAll(line, "@", dir))
		var said bytes.Buffer
		status := program.Run(t.Context(), program.World{
			In: bytes.NewReader(nil), Out: &said, Err: &said, Dir: dir, Now: time.Now,
			Dial: func(context.Context, program.Remote) (program.Host, error) { return agentAt(filepath.Join(dir, "S")) },
			Status: func(err error) int {
				if errors.Is(err, wire.ErrRefused) {
					return int(program.Unsupported)
				}
				return 0
			},
		}, args)
		content, _ := os.ReadFile(filepath.Join(args[len(args)-1], "f"))
		if status != want.status || string(content) != want.copied {
			t.Errorf("%s: %d, want %d; copied %q; %s", line, status, want.status, content, &said)
		}
	}
}
