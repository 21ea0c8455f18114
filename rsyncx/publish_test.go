package rsyncx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"golang.org/x/sys/unix"
)

var errCrash = errors.New("the power went")

// crashAt makes the n-th changing system call of r, and all after it, fail.
func crashAt(r *Root, n int) (calls *int) {
	calls = new(int)
	var mu sync.Mutex // files are staged by several goroutines
	r.fault = func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if *calls++; *calls >= n {
			return errCrash
		}
		return nil
	}
	return calls
}

// scene makes a source and a destination between which every kind of operation is needed.
func scene(t testing.TB) (from, to string) {
	dir := tempDir(t)
	from, to = filepath.Join(dir, "from"), filepath.Join(dir, "to")
	write(t, from+"/changed", "new content")
	write(t, from+"/new.d/deep/file", "deep")
	write(t, from+"/same", "same")
	write(t, from+"/mode", "mode")
	write(t, from+"/hl1", "linked")
	write(t, from+"/was-dir", "a file now")
	write(t, from+"/was-file/inside", "a directory now")
	write(t, from+"/was-link/inside", "a directory now")
	write(t, from+"/kept/a", "a")
	must(t, os.Link(from+"/hl1", from+"/kept/hl2"))
	must(t, os.Symlink("same", from+"/link"))
	// New directories: links in, out and within, special files, modes that forbid.
	must(t, os.Link(from+"/hl1", from+"/new.d/hl3"))
	must(t, os.Link(from+"/same", from+"/new.d/same2"))
	must(t, os.Link(from+"/new.d/deep/file", from+"/zz-link-of-deep"))
	must(t, os.Link(from+"/new.d/deep/file", from+"/new.d/other-link-of-deep"))
	must(t, os.Link(from+"/link", from+"/new.d/link2"))
	must(t, os.Symlink("deep", from+"/new.d/link3"))
	must(t, unix.Mkfifo(from+"/new.d/deep/pipe", 0o600))
	mkdirs(t, from+"/new.d/empty", from+"/kept/new.e/f/g")
	write(t, from+"/kept/new.e/f/setuid", "s")
	must(t, unix.Chmod(from+"/kept/new.e/f/setuid", 0o4711))
	must(t, unix.Chmod(from+"/kept/new.e/f", 0o500))
	must(t, unix.Chmod(from+"/kept/new.e", 0o000))
	must(t, os.Symlink("new", from+"/relinked"))
	must(t, unix.Mkfifo(from+"/pipe", 0o640))
	must(t, unix.Chmod(from+"/mode", 0o4711))
	must(t, unix.Chmod(from+"/new.d", 0o2750))

	write(t, to+"/changed", "old")
	write(t, to+"/same", "same")
	write(t, to+"/mode", "mode")
	write(t, to+"/gone", "gone")
	write(t, to+"/gone.d/x/y", "gone")
	write(t, to+"/gone.d/z", "gone")
	write(t, to+"/was-dir/a/b", "in the way")
	write(t, to+"/was-dir/c", "in the way")
	write(t, to+"/was-file", "in the way")
	write(t, to+"/kept/a", "a")
	write(t, to+"/kept/old", "old")
	must(t, os.Symlink("/nowhere", to+"/was-link"))
	must(t, os.Symlink("old", to+"/relinked"))
	oneTime(t, from)
	oneTime(t, to)
	setMtime(t, from+"/changed", 2_000_000)
	setMtime(t, from+"/kept", 2_000_000)
	setMtime(t, from+"/new.d/deep/file", 4_000_000_000) // racy
	return from, to
}

// oneTime gives everything below dir the same time, children first.
func oneTime(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); e.IsDir() {
			oneTime(t, path)
		} else {
			setMtime(t, path, 1_000_000)
		}
	}
	setMtime(t, dir, 1_000_000)
}

func setMtime(t testing.TB, path string, sec int64) {
	t.Helper()
	ts := []unix.Timespec{{Sec: sec}, {Sec: sec, Nsec: 7}}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sceneOptions() Options {
	o := Archive()
	o.Delete, o.HardLinks = true, true
	return o
}

// TestCrashAnywhere fails every changing system call of Stage, Sync and Publish
// once. Before Publish nothing shows; from then on the next process finishes it.
func TestCrashAnywhere(t *testing.T) {
	from, to := scene(t)
	old := snapshot(t, to)
	src, dst := open(t, from, to)
	if _, err := Sync(t.Context(), src, dst, sceneOptions()); err != nil {
		t.Fatal(err)
	}
	want := snapshot(t, to)
	sameTree(t, "the sync itself", want, snapshot(t, from))

	crashed := 0
	for n := 1; ; n++ {
		from, to := scene(t)
		src, dst := open(t, from, to)
		crashAt(dst, n)
		begun, err := crashing(t.Context(), src, dst)
		if err == nil {
			break
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("call %d: %v", n, err)
		}
		crashed++
		dst.Close()
		if !begun {
			sameTree(t, fmt.Sprintf("after a crash before the publish, call %d", n), rootless(snapshot(t, to)), rootless(old))
		}
		finish(t, to, n%7*5+1)
		if begun {
			sameTree(t, fmt.Sprintf("after a crash at call %d", n), rootless(snapshot(t, to)), rootless(want))
			for _, name := range remembered {
				if st, err := os.Stat(filepath.Join(to, stateDir, name)); err != nil || st.Size() == 0 {
					t.Errorf("after a crash at call %d: %v", n, err)
				}
			}
		}
		if t.Failed() {
			return
		}
	}
	if crashed < 80 {
		t.Errorf("only %d calls were made to fail", crashed)
	}
}

// rootless takes the root out: its time is disturbed for the moment between two
// calls in which our own directory appears or goes.
func rootless(tree map[string]string) map[string]string {
	tree = maps.Clone(tree)
	delete(tree, ".")
	return tree
}

// crashing is Sync step by step, telling whether Publish had begun.
func crashing(ctx context.Context, src Source, dst *Root) (begun bool, err error) {
	o := sceneOptions()
	o.Racy, o.SameSource = true, true
	staged, err := Stage(ctx, src, dst, o)
	if err != nil {
		return false, err
	}
	if err := staged.Sync(); err != nil {
		return false, err
	}
	err = staged.Publish(ctx)
	return staged.seal == sealBegun || staged.done, err
}

// finish is the next start: it crashes once more, at its n-th call, and then
// finishes what is there to finish.
func finish(t *testing.T, to string, n int) {
	t.Helper()
	for _, n := range []int{n, 1 << 30} {
		dst, err := OpenRoot(to)
		must(t, err)
		staged, err := OpenStaged(dst)
		if errors.Is(err, fs.ErrNotExist) {
			dst.Close()
			return
		}
		must(t, err)
		crashAt(dst, n)
		if err := staged.Publish(t.Context()); err != nil && !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		if stats := staged.Stats(); stats.Skipped > 0 {
			t.Errorf("the second try left something: %q", stats.Notes)
		}
		staged.close() // as the end of the process does
		dst.Close()
	}
}

func TestPublishIsCancelledAndResumed(t *testing.T) {
	from, to := scene(t)
	src, dst := open(t, from, to)
	staged, err := Stage(t.Context(), src, dst, sceneOptions())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	calls := 0
	dst.fault = func(string) error {
		if calls++; calls == 20 {
			cancel(errCrash)
		}
		return nil
	}
	if err := staged.Publish(ctx); !errors.Is(err, errCrash) {
		t.Fatalf("the cancelled publish: %v", err)
	}
	if err := staged.Discard(); err == nil {
		t.Error("half a publish was discarded")
	}
	if _, err := Stage(t.Context(), src, dst, sceneOptions()); !errors.Is(err, ErrStaged) {
		t.Errorf("staging over half a publish: %v", err)
	}
	if err := staged.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	sameTree(t, "resumed", snapshot(t, to), snapshot(t, from))
	if err := errors.Join(staged.Publish(t.Context()), staged.Discard()); err != nil {
		t.Errorf("after the end: %v", err)
	}
}

func TestDiscard(t *testing.T) {
	from, to := scene(t)
	before := snapshot(t, to)
	src, dst := open(t, from, to)
	staged, err := Stage(t.Context(), src, dst, sceneOptions())
	if err != nil {
		t.Fatal(err)
	}
	sameTree(t, "staged", snapshot(t, to), before)
	if _, err := OpenStaged(dst); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was not synced can be opened: %v", err)
	}
	must(t, staged.Sync())
	again, err := OpenStaged(dst)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := fmt.Sprintf("%+v", again.Stats()), fmt.Sprintf("%+v", staged.Stats()); a != b {
		t.Errorf("stats %s, want %s", a, b)
	}
	must(t, again.Discard())
	sameTree(t, "discarded", snapshot(t, to), before)
	if _, err := os.Lstat(to + "/" + stateDir); !os.IsNotExist(err) {
		t.Errorf("%s was left: %v", stateDir, err)
	}
}

func TestDamagedManifest(t *testing.T) {
	from, to := scene(t)
	before := snapshot(t, to)
	src, dst := open(t, from, to)
	staged, err := Stage(t.Context(), src, dst, sceneOptions())
	if err != nil {
		t.Fatal(err)
	}
	must(t, staged.Sync())
	part := filepath.Join(to, stateDir, stageDir, partName(partDelete))
	content, err := os.ReadFile(part)
	must(t, err)
	content[len(content)/2] ^= 1
	must(t, os.WriteFile(part, content, 0o600))
	if _, err := OpenStaged(dst); !errors.Is(err, errFormat) {
		t.Errorf("a damaged manifest: %v", err)
	}
	sameTree(t, "damaged", snapshot(t, to), before)
}

func TestTwoAtOnce(t *testing.T) {
	from, to := scene(t)
	src, dst := open(t, from, to)
	staged, err := Stage(t.Context(), src, dst, sceneOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer staged.Discard()
	src2, dst2 := open(t, from, to)
	if _, err := Stage(t.Context(), src2, dst2, sceneOptions()); !errors.Is(err, ErrBusy) {
		t.Errorf("a second stage at the same time: %v", err)
	}
}

func FuzzParseOp(f *testing.F) {
	for _, o := range []op{
		{kind: opRemove, path: "a/b"},
		{kind: opFile, path: "f", number: 4097, size: 1 << 40, attr: attr{set: setMode | setUID | setGID | setTime, mode: 0o4755, uid: 1, gid: 1<<32 - 1, mtime: Time{Sec: -5, Nsec: 999_999_999}}},
		{kind: opTree, path: "d", number: 3, ino: 5},
		{kind: opLink, path: "l", target: "a/b"},
		{kind: opDirAttr},
		{kind: opAttr, path: "x", attr: attr{set: setMode | setPlain | setACLs, xattrs: string(AppendXattr(AppendXattr(nil, aclAccess, "acl"), "user.a", ""))}},
	} {
		f.Add(o.append(nil))
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		o, err := parseOp(record)
		if err != nil {
			return
		}
		if CheckPath(o.path) != nil || o.kind == opLink && CheckPath(o.target) != nil {
			t.Fatalf("accepted %+v", o)
		}
		again, err := parseOp(o.append(nil))
		if err != nil || again != o {
			t.Fatalf("%+v became %+v, %v", o, again, err)
		}
	})
}

func FuzzParseWish(f *testing.F) {
	w := wish{path: "a/b", group: -1, gid: 5, compare: true, hasOld: true, acl: "acl", entry: Entry{Name: "b", Mode: 0o100644, Size: 5, User: "root", Xattrs: string(AppendXattr(nil, "user.a", "1"))}}
	f.Add(w.append(nil))
	f.Fuzz(func(t *testing.T, record []byte) {
		w, err := parseWish(record)
		if err != nil {
			return
		}
		again, err := parseWish(w.append(nil))
		if err != nil || again != w {
			t.Fatalf("%+v became %+v, %v", w, again, err)
		}
	})
}

func FuzzParseSeal(f *testing.F) {
	f.Add([]byte(`{"version":1,"parts":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if sl, err := parseSeal(text); err == nil && len(sl.Parts) != parts {
			t.Fatalf("%d parts", len(sl.Parts))
		}
	})
}

// TestPlaceIsTakenMeanwhile: what came to be between Stage and Publish where a
// new directory belongs stays as it is, with all that is in it.
func TestPlaceIsTakenMeanwhile(t *testing.T) {
	for name, take := range map[string]func(path string){
		"directory":       func(path string) { write(t, path+"/own", "own") },
		"empty directory": func(path string) { must(t, os.Mkdir(path, 0o711)) },
		"file":            func(path string) { write(t, path, "own") },
		"link":            func(path string) { must(t, os.Symlink("own", path)) },
	} {
		t.Run(name, func(t *testing.T) {
			from, to := scene(t)
			must(t, os.Remove(from+"/new.d/same2"))
			src, dst := open(t, from, to)
			staged, err := Stage(t.Context(), src, dst, sceneOptions())
			must(t, err)
			take(to + "/new.d")
			want := map[string]string{}
			for path, text := range snapshot(t, to) {
				if path == "new.d" || filepath.Dir(path) == "new.d" {
					want[path] = text
				}
			}
			crashAt(dst, 25)
			if err := staged.Publish(t.Context()); !errors.Is(err, errCrash) {
				t.Fatalf("no crash: %v", err)
			}
			dst.fault = nil
			must(t, staged.Publish(t.Context()))
			got := snapshot(t, to)
			for path, text := range got {
				if want[path] != text && (path == "new.d" || filepath.Dir(path) == "new.d") {
					t.Errorf("%s is %q, want %q", path, text, want[path])
				}
			}
			if len(want) == 0 || staged.Stats().Skipped == 0 {
				t.Errorf("not told: %+v", staged.Stats())
			}
			if got["kept/new.e/f/setuid"] == "" || got["changed"] == "" {
				t.Error("the rest was not published")
			}
		})
	}
}

// TestManyNewTrees goes beyond one directory of them, and beyond one of staged files.
func TestManyNewTrees(t *testing.T) {
	dir := tempDir(t)
	mkdirs(t, dir+"/to")
	for i := range treesPerDir + 3 {
		must(t, os.MkdirAll(fmt.Sprintf("%s/from/d%d", dir, i), 0o755))
	}
	write(t, dir+"/from/d4097/f", "f")
	src, dst := open(t, dir+"/from", dir+"/to")
	calls := crashAt(dst, 1<<40)
	_, err := Sync(t.Context(), src, dst, Archive())
	must(t, err)
	sameTree(t, "synced", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
	if per := float64(*calls) / (treesPerDir + 3); per > 4.2 { // mkdir, chmod, utimes, rename
		t.Errorf("%.1f changing calls for each new directory", per)
	}
}

// TestCallsPerNewFile: a new file costs no more changing calls than it must.
func TestCallsPerNewFile(t *testing.T) {
	dir := tempDir(t)
	mkdirs(t, dir+"/to")
	const files = 500
	for i := range files {
		write(t, fmt.Sprintf("%s/from/d/%d", dir, i), "x")
	}
	src, dst := open(t, dir+"/from", dir+"/to")
	var calls sync.Map
	dst.fault = func(call string) error {
		n, _ := calls.LoadOrStore(call, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		return nil
	}
	_, err := Sync(t.Context(), src, dst, Archive())
	must(t, err)
	sameTree(t, "synced", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
	calls.Range(func(call, n any) bool {
		most := int64(20)
		if call == "create" || call == "utimes" {
			most += files
		}
		if got := n.(*atomic.Int64).Load(); got > most {
			t.Errorf("%s was called %d times for %d files", call, got, files)
		}
		return true
	})
}

func TestNoSync(t *testing.T) {
	from, to := scene(t)
	src, dst := open(t, from, to)
	dst.fault = func(call string) error {
		if strings.Contains(call, "sync") {
			t.Errorf("%s was called", call)
		}
		return nil
	}
	o := sceneOptions()
	o.NoSync = true
	staged, err := Stage(t.Context(), src, dst, o)
	must(t, err)
	must(t, staged.Sync())
	// The process ends and another one goes on, under the same kernel.
	again, err := OpenStaged(dst)
	must(t, err)
	must(t, again.Publish(t.Context()))
	sameTree(t, "published", snapshot(t, to), snapshot(t, from))
}

// TestNoSyncAndReboot: what was never synced is worth nothing after the host went down.
func TestNoSyncAndReboot(t *testing.T) {
	from, to := scene(t)
	before := snapshot(t, to)
	src, dst := open(t, from, to)
	o := sceneOptions()
	o.NoSync = true
	staged, err := Stage(t.Context(), src, dst, o)
	must(t, err)
	must(t, staged.Sync())
	seal := filepath.Join(to, stateDir, stageDir, sealDone)
	text, err := os.ReadFile(seal)
	must(t, err)
	must(t, os.WriteFile(seal, bytes.Replace(text, []byte(bootID()), []byte("another"), 1), 0o600))
	if _, err := OpenStaged(dst); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it can be opened: %v", err)
	}
	sameTree(t, "as before", snapshot(t, to), before)
	if _, err := os.Lstat(to + "/" + stateDir); !os.IsNotExist(err) {
		t.Errorf("%s was left: %v", stateDir, err)
	}
	if _, err := Sync(t.Context(), src, dst, o); err != nil {
		t.Error(err)
	}
	sameTree(t, "then synced", snapshot(t, to), snapshot(t, from))
}

// TestDeleteBefore: what goes is gone when the first file is asked for, and what is
// said and done in the end is what rsync says and does.
func TestDeleteBefore(t *testing.T) {
	testenv.Require(t, "rsync")
	from, to := scene(t)
	to2 := to + "2"
	must(t, exec.Command("cp", "-a", to, to2).Run())
	must(t, os.Chmod(to+"/kept", 0o700))
	must(t, os.Chmod(to2+"/kept", 0o700))
	oneTime(t, to)
	oneTime(t, to2)
	want := runRsync(t, []string{"-aHi", "--delete-before", "--modify-window=-1", from + "/", to2 + "/"})
	local, dst := open(t, from, to)
	src := &onRead{Source: local, f: func() {
		for _, gone := range []string{"gone", "gone.d", "kept/old"} {
			if _, err := os.Lstat(to + "/" + gone); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still there: %v", gone, err)
			}
		}
		for _, kept := range []string{"was-dir/a/b", "was-file", "changed"} {
			if _, err := os.Lstat(to + "/" + kept); err != nil {
				t.Errorf("more than what the source has not is gone: %v", err)
			}
		}
	}}
	o := sceneOptions()
	o.DeleteBefore = true
	if _, err := Stage(t.Context(), src, dst, o); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("staged: %v", err)
	}
	dry := o
	dry.DryRun = true
	_, err := Sync(t.Context(), local, dst, dry)
	must(t, err)
	var events eventLog
	o.Event = events.add
	stats, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	if !src.called || stats.Deleted != 9 || stats.Skipped != 0 {
		t.Errorf("read %v, %+v", src.called, stats)
	}
	sameTree(t, "synced", snapshot(t, to), snapshot(t, from))
	apart := func(l string) bool {
		return strings.Contains(l, "deep/file") || strings.Contains(l, "link-of-deep") || strings.Contains(l, "hl")
	}
	got := slices.DeleteFunc(events.take(), apart) // which name of new links rsync fetches is its own affair
	want = slices.DeleteFunc(want, apart)
	if !slices.Equal(got, want) {
		t.Errorf("said alone\n%s\nrsync said alone\n%s", without(got, want), without(want, got))
	}
}

// onRead calls f before the first file is read.
type onRead struct {
	Source
	f      func()
	called bool
}

func (r *onRead) Read(ctx context.Context, want iter.Seq[Want]) iter.Seq2[File, error] {
	if !r.called {
		r.called = true
		r.f()
	}
	return r.Source.Read(ctx, want)
}

// TestDiscardWithoutRoot: directories that forbid it already are removed all the same.
func TestDiscardWithoutRoot(t *testing.T) {
	dir := tempDir(t)
	must(t, os.Chmod(dir, 0o777))
	write(t, dir+"/from/a/b/f", "f")
	must(t, os.Chmod(dir+"/from/a/b", 0o555))
	must(t, os.Chmod(dir+"/from/a", 0o555))
	asNobody(t, func() {
		mkdirs(t, dir+"/to")
		src, dst := open(t, dir+"/from", dir+"/to")
		defer dst.Close()
		staged, err := Stage(t.Context(), src, dst, Archive())
		if err == nil {
			err = staged.Discard()
		}
		if err != nil {
			t.Error(err)
		}
	})
	if names, err := os.ReadDir(dir + "/to"); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}
