package rsyncx

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

func xattrRulesOf(t testing.TB, texts ...string) *filter.Rules {
	t.Helper()
	b := filter.NewBuilder()
	for _, text := range texts {
		must(t, b.Filter(text))
	}
	return rules(t, b)
}

// TestXattrRulesOfAUser copies with rsync and with this package as a user, who
// cannot set or remove what belongs to others, by random rules.
func TestXattrRulesOfAUser(t *testing.T) {
	testenv.Require(t, "rsync")
	testenv.RequireRoot(t)
	kept, parked := 0, 0
	for seed := range 12 {
		r := rand.New(rand.NewPCG(uint64(seed), 77))
		var texts []string
		for range 1 + r.IntN(3) {
			texts = append(texts, []string{"-x", "+x", "-xr", "-xs", "Px", "Hx", "-x!"}[r.IntN(7)]+" "+
				[]string{"user.*", "user.a", "user.b", "security.*", "security.own", "*.own", "user.rsync.x", "*"}[r.IntN(8)])
		}
		texts = append(texts, "-xsr system.*")
		dir := t.TempDir()
		must(t, os.Chmod(filepath.Dir(dir), 0o755))
		from, to, to2 := dir+"/from", dir+"/to", dir+"/to2"
		for i, d := range []string{from, to, to2} {
			at := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), uint64(min(i, 1))+n)) }
			mkdirs(t, d)
			(&randomTree{Rand: at(0), t: t}).make(d, 1)
			x := &xattrTree{Rand: at(100), t: t, user: true}
			x.dress(d)
			must(t, filepath.WalkDir(d, func(path string, e os.DirEntry, err error) error {
				for _, name := range []string{"security.own", "user.rsync.x"} {
					if err == nil && x.IntN(3) == 0 && (e.Type().IsRegular() || e.IsDir()) {
						err = unix.Lsetxattr(path, name, []byte{'0' + byte(x.IntN(2))}, 0)
					}
				}
				return err
			}))
			giveAway(t, d)
		}
		o := Archive()
		o.Xattrs, o.Filter = true, xattrRulesOf(t, texts...)
		args := []string{"-aXi", "--modify-window=-1"}
		for _, text := range texts {
			args = append(args, "--filter="+text)
		}
		src, dst := open(t, from, to2)
		for run := range 2 {
			var events eventLog
			o.Event = events.add
			var want []string
			var err error
			before := dressed(t, to2)
			asNobody(t, func() {
				want = rsyncLines(t, append(args, from+"/", to+"/"))
				_, err = Sync(t.Context(), src, dst, o)
			})
			must(t, err)
			what := fmt.Sprintf("seed %d, run %d, %q", seed, run, texts)
			got, tree := events.take(), dressed(t, to2)
			sameTree(t, what, steady(o, before, tree), steady(o, before, dressed(t, to)))
			if !slices.Equal(got, want) {
				t.Errorf("%s: said alone\n%s\nrsync said alone\n%s", what, without(got, want), without(want, got))
			}
			for _, text := range tree {
				kept += strings.Count(text, " security.own=")
				parked += strings.Count(text, " "+parkedXattr+"security.own=")
			}
		}
	}
	if kept == 0 || parked == 0 {
		t.Errorf("%d attributes of others stayed and %d were put under another name: the cases show nothing", kept, parked)
	}
}

// rsyncLines is runRsync for one that cannot set everything.
func rsyncLines(t testing.TB, args []string) []string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("rsync", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 23 || !strings.Contains(errs.String(), "xattr") && !strings.Contains(errs.String(), "could not make way")) {
		t.Fatalf("rsync %q: %v\n%s", args, err, errs.String())
	}
	lines := strings.Split(out.String(), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return len(l) < 12 || l[11] != ' ' || strings.HasPrefix(l, "cannot delete") })
	slices.Sort(lines)
	return lines
}

// TestXattrRuleFaults breaks a publish with rules before each call that changes
// something, and finishes it: what they protect stays, in backups too.
func TestXattrRuleFaults(t *testing.T) {
	testenv.RequireRoot(t)
	dir := t.TempDir()
	from := dir + "/from"
	for _, name := range []string{"d/same", "d/other", "d/new"} {
		write(t, from+"/"+name, "f")
	}
	set := func(path string, names ...string) {
		for _, name := range names {
			must(t, unix.Setxattr(path, name, []byte(filepath.Base(dir)), 0))
		}
	}
	for _, name := range []string{"d", "d/same", "d/other", "d/new"} {
		set(from+"/"+name, "user.a", "user.keep", "user.hidden", "security.own")
	}
	list := encodeACL([]aclEntry{{aclOwner, 6, 0}, {aclUser, 4, 9}, {aclOwned, 4, 0}, {aclMask, 4, 0}, {aclOther, 4, 0}})
	must(t, unix.Setxattr(from+"/d/same", aclAccess, list, 0))
	o := Archive()
	o.Xattrs, o.Inplace, o.Backup, o.BackupDir = true, true, true, dir+"/old"
	o.Filter = xattrRulesOf(t, "-xr user.keep", "-xs user.hidden", "-x security.*")
	for n := 1; ; n++ {
		to := fmt.Sprintf("%s/to%d", dir, n)
		write(t, to+"/d/same", "f")
		write(t, to+"/d/other", "what was there")
		old := unix.NsecToTimeval(1e18)
		for _, root := range []string{from, to} {
			must(t, unix.Utimes(root+"/d/same", []unix.Timeval{old, old}))
		}
		for _, name := range []string{"d", "d/same", "d/other"} {
			must(t, unix.Setxattr(to+"/"+name, "user.keep", []byte("mine"), 0))
			must(t, unix.Setxattr(to+"/"+name, "trusted.old", []byte("old"), 0))
			must(t, unix.Setxattr(to+"/"+name, "security.mine", []byte("mine"), 0))
		}
		o.BackupDir = fmt.Sprintf("%s/old%d", dir, n)
		src, dst := open(t, from, to)
		staged, err := Stage(t.Context(), src, dst, o)
		must(t, err)
		calls := 0
		dst.fault = func(string) error {
			if calls++; calls >= n {
				return errors.New("broken off")
			}
			return nil
		}
		err = staged.Publish(t.Context())
		if dst.fault = nil; err != nil {
			must(t, dst.Close())
			src, dst = open(t, from, to)
			_, err := Sync(t.Context(), src, dst, o)
			must(t, err)
		}
		for path, want := range map[string]string{
			"d": "security.mine user.a user.keep=mine", "d/same": "security.mine " + aclAccess + " user.a user.keep=mine",
			"d/other": "security.mine user.a user.keep=mine", "d/new": "user.a",
		} {
			if got := attributesOf(t, to+"/"+path); got != want {
				t.Errorf("broken off before call %d: %s has %s, want %s", n, path, got, want)
			}
		}
		if got := attributesOf(t, o.BackupDir+"/d/other"); got != "trusted.old" {
			t.Errorf("broken off before call %d: the backup has %s", n, got)
		}
		if err == nil {
			if n < 10 {
				t.Errorf("only %d calls", n)
			}
			return
		}
	}
}

// attributesOf names the attributes of a file, and whether they are the destination's own.
func attributesOf(t testing.TB, path string) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Listxattr(path, buf)
	must(t, err)
	names := slices.Sorted(strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"))
	for i, name := range names {
		n, err := unix.Getxattr(path, name, buf)
		must(t, err)
		if name == "user.keep" {
			names[i] += "=" + string(buf[:n])
		}
	}
	return strings.Join(names, " ")
}
