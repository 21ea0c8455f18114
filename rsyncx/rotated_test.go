package rsyncx

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"golang.org/x/sys/unix"
)

// rotatedTree makes a source in which names were given to other files since the
// destination was made. Their lengths are divided by part. fresh is how many bytes the destination has nowhere.
func rotatedTree(t *testing.T, part int) (dir string, src *meter, dst *Root, fresh int64) {
	t.Helper()
	dir = tempDir(t)
	at := int64(1_000_000_000)
	put := func(content []byte, fromPath string, toPaths ...string) {
		at++
		content = content[:len(content)/part]
		paths := []string{}
		if fromPath != "" {
			paths = append(paths, "from/"+fromPath)
		}
		for _, path := range toPaths {
			paths = append(paths, "to/"+path, "to2/"+path)
		}
		if len(toPaths) == 0 {
			fresh += int64(len(content))
		}
		for _, path := range paths {
			write(t, filepath.Join(dir, path), string(content))
			setMtime(t, filepath.Join(dir, path), at)
		}
	}
	put(noise(1, 10_000), "log/app.log") // new
	put(noise(2, 90_000), "log/app.log.1", "log/app.log")
	put(noise(3, 90_000), "log/app.log.2", "log/app.log.1")
	put(noise(4, 30), "log/app.log.3", "log/app.log.2")
	put(noise(5, 70_000), "over/b", "over/a")
	put(noise(6, 60_000), "", "over/b")
	put(noise(7, 50_000), "deep/er/moved", "again")
	put(noise(8, 40_000), "again")
	put(noise(9, 20_000), "swap/x", "swap/y")
	put(noise(10, 21_000), "swap/y", "swap/x")
	put(noise(11, 22_000), "real", "link")
	put(noise(12, 23_000), "in/a dir", "a dir")
	must(t, os.Symlink("real", dir+"/from/link"))
	setMtime(t, dir+"/from/link", 1_000_000)
	write(t, dir+"/from/a dir/f", "")
	for _, root := range []string{"from", "to", "to2"} {
		for _, d := range []string{"log", "over", "deep/er", "deep", "swap", "in", "a dir", "a dir/f", "."} {
			if path := filepath.Join(dir, root, d); exists(path) && (root == "from" || d != "a dir") {
				setMtime(t, path, 1_000_000)
			}
		}
	}
	local, root := open(t, dir+"/from", dir+"/to")
	return dir, &meter{Source: local}, root, fresh
}

// withoutDirTimes leaves out when directories changed: what is done to backups and to what is not
// carried over changes them.
func withoutDirTimes(tree map[string]string) map[string]string {
	for path, text := range tree {
		if words := strings.Fields(text); strings.HasPrefix(text, "004") {
			tree[path] = words[0] + " " + words[1]
		}
	}
	return tree
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Ino
}

func TestRotatedFilesSendNothing(t *testing.T) {
	testenv.Require(t, "rsync")
	for name, c := range map[string]struct {
		args []string
		set  func(*Options)
		// shares says that files become others without being copied; more is what else is fetched.
		shares bool
		more   int64
	}{
		"plain":         {args: []string{"--del"}, shares: true},
		"whole files":   {args: []string{"--del", "-W"}, set: func(o *Options) { o.WholeFile = true }, shares: true},
		"nothing goes":  {set: func(o *Options) { o.Delete = false }, shares: true},
		"hard links":    {args: []string{"--del", "-H"}, set: func(o *Options) { o.HardLinks = true }, shares: true},
		"attributes":    {args: []string{"--del", "-AX"}, set: func(o *Options) { o.Xattrs, o.ACLs = true, true }, shares: true},
		"checksum":      {args: []string{"--del", "-c"}, set: func(o *Options) { o.Checksum = true }, shares: true},
		"all again":     {args: []string{"--del", "-I"}, set: func(o *Options) { o.IgnoreTimes = true }, shares: true},
		"backup":        {args: []string{"--del", "-b"}, set: func(o *Options) { o.Backup = true }},
		"backup apart":  {args: []string{"--del", "--backup-dir=.old"}, set: func(o *Options) { o.BackupDir = ".old" }},
		"in place":      {args: []string{"--del", "--inplace"}, set: func(o *Options) { o.Inplace = true }},
		"sparse":        {args: []string{"--del", "-S"}, set: func(o *Options) { o.Sparse = true }, shares: true},
		"fuzzy":         {args: []string{"--delete-after", "-y"}, set: func(o *Options) { o.Fuzzy = true }, shares: true},
		"few deletions": {args: []string{"--del", "--max-delete=1000"}, set: func(o *Options) { o.DeleteLimited, o.DeleteUpTo = true, 1000 }},
		"existing":      {args: []string{"--del", "--existing"}, set: func(o *Options) { o.Existing = true }, shares: true},
		// With these a file stays that has not grown: what it has does not go away.
		"verified ends": {args: []string{"--del", "--append-verify"}, set: func(o *Options) { o.AppendVerify = true }, more: 111_000},
		"only ends":     {args: []string{"--del", "--append"}, set: func(o *Options) { o.Append = true }, more: 101_000},
	} {
		t.Run(name, func(t *testing.T) {
			dir, src, dst, fresh := rotatedTree(t, 1)
			o := Archive()
			o.Renames, o.Delete = true, true
			if c.set != nil {
				c.set(&o)
			}
			var events eventLog
			o.Event = events.add
			log := inodeOf(t, dir+"/to/log/app.log")
			want := runRsync(t, append(append([]string{"-ai"}, c.args...), dir+"/from/", dir+"/to2/"))
			stats, err := Sync(t.Context(), src, dst, o)
			must(t, err)
			sameTree(t, "as rsync", withoutDirTimes(snapshot(t, dir+"/to")), withoutDirTimes(snapshot(t, dir+"/to2")))
			if got := events.take(); !slices.Equal(sorted(got), sorted(want)) && name != "verified ends" { // of those rsync says some twice
				t.Errorf("said\n%s, rsync\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if src.read > fresh+c.more {
				t.Errorf("%d bytes were read of %d that are new: %v, %+v", src.read, fresh+c.more, src.asked, stats)
			}
			if shared := inodeOf(t, dir+"/to/log/app.log.1") == log; shared != c.shares {
				t.Errorf("a file became another one: %v", shared)
			}
		})
	}
}

// TestManyMovedFilesOfOneKind: thousands of files of one length and time are all
// found under their new names, and each is read once at most.
func TestManyMovedFilesOfOneKind(t *testing.T) {
	const files = 2000
	dir := tempDir(t)
	for i := range files {
		content := fmt.Sprintf("%07d", i)
		write(t, fmt.Sprintf("%s/from/new/%d/x%d", dir, i%7, (i*31)%files), content)
		write(t, fmt.Sprintf("%s/to/old/%d/%d", dir, i%3, i), content)
	}
	oneTime(t, dir+"/from")
	oneTime(t, dir+"/to")
	local, dst := open(t, dir+"/from", dir+"/to")
	src := &meter{Source: local}
	o := Archive()
	o.Renames, o.Delete = true, true
	stats, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
	if src.read > 0 || stats.Linked != files {
		t.Errorf("%d bytes were read, counted %+v", src.read, stats)
	}
}

// TestMovedDirectory: a directory that moved costs one link, and one removal, for each file.
func TestMovedDirectory(t *testing.T) {
	const files = 600
	dir := tempDir(t)
	for i := range files {
		path := fmt.Sprintf("%d/%d", i%10, i)
		write(t, dir+"/to/old/"+path, path)
	}
	oneTime(t, dir+"/to")
	must(t, os.MkdirAll(dir+"/from", 0o755))
	must(t, os.CopyFS(dir+"/from/new", os.DirFS(dir+"/to/old")))
	oneTime(t, dir+"/from")
	local, dst := open(t, dir+"/from", dir+"/to")
	src := &meter{Source: local}
	calls := map[string]int{}
	dst.fault = func(call string) error { calls[call]++; return nil }
	o := Archive()
	o.Renames, o.Delete = true, true
	_, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
	if src.read > 0 || len(src.asked) > 0 {
		t.Errorf("%d bytes were read of %d files", src.read, len(src.asked))
	}
	for call, n := range calls {
		most := 40
		if call == "link" || call == "unlink" {
			most += files
		}
		if n > most {
			t.Errorf("%s was called %d times for %d files", call, n, files)
		}
	}
}

// TestMovedFilesNeedNoRoom: what is linked is not held to be more than the disk can take.
func TestMovedFilesNeedNoRoom(t *testing.T) {
	const size = 256 << 20
	dir := tempDir(t)
	for _, path := range []string{dir + "/from/new", dir + "/to/old"} {
		write(t, path, "")
		must(t, os.Truncate(path, size))
	}
	oneTime(t, dir+"/from")
	oneTime(t, dir+"/to")
	src, dst := open(t, dir+"/from", dir+"/to")
	free, err := dst.free()
	must(t, err)
	for _, renames := range []bool{false, true} {
		o := Archive()
		o.Renames, o.Delete, o.Reserve = renames, true, max(1, free-size/2)
		if _, err = Sync(t.Context(), src, dst, o); (err == nil) != renames && free > size {
			t.Errorf("renames %v, %d bytes free: %v", renames, free, err)
		}
	}
}

// TestMovedFilesStayApart: what shares its file with a name that stays after all
// becomes a file of its own.
func TestMovedFilesStayApart(t *testing.T) {
	for name, spoil := range map[string]func(string, *File){
		"nothing is deleted": func(path string, f *File) { f.Err = &PathError{Path: path, Err: unix.EIO} },
		"vanished":           func(path string, f *File) { f.Err = &PathError{Path: path, Err: unix.ENOENT} },
	} {
		for _, xattrs := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				dir, src, dst, _ := rotatedTree(t, 1)
				must(t, unix.Chmod(dir+"/from/log/app.log.1", 0o4711))
				must(t, unix.Chmod(dir+"/to/log/app.log", 0o4711))
				src.alterFile = func(f *File) {
					if f.Path == "log/app.log" || f.Path == "again" {
						f.Body = nil
						spoil(f.Path, f)
					}
				}
				o := Archive()
				o.Renames, o.Delete, o.Xattrs = true, true, xattrs
				_, err := Sync(t.Context(), src, dst, o)
				must(t, err)
				got, want, old := snapshot(t, dir+"/to"), snapshot(t, dir+"/from"), snapshot(t, dir+"/to2")
				old["log/app.log"] = strings.Replace(old["log/app.log"], "0100644", "0104711", 1)
				for _, path := range []string{"log/app.log", "again"} {
					want[path] = old[path]
				}
				if name == "nothing is deleted" {
					want["over/a"] = old["over/a"]
				}
				sameTree(t, "with what could not be read", got, want)
			})
		}
	}
}

// TestMovedLinks: names of one file that moved are names of one file again, with
// and without its old names going away.
func TestMovedLinks(t *testing.T) {
	for _, del := range []bool{false, true} {
		dir := tempDir(t)
		for i, d := range []string{"/from/new", "/to/old"} {
			write(t, dir+d+"/a", "one file")
			must(t, os.Link(dir+d+"/a", dir+d+"/b"))
			write(t, fmt.Sprintf("%s%s/single%d", dir, d, i), "another1")
			write(t, fmt.Sprintf("%s%s/twin%d", dir, d, i), "another1")
		}
		oneTime(t, dir+"/from")
		oneTime(t, dir+"/to")
		local, dst := open(t, dir+"/from", dir+"/to")
		src := &meter{Source: local}
		o := sceneOptions()
		o.Renames, o.Delete = true, del
		_, err := Sync(t.Context(), src, dst, o)
		must(t, err)
		got, want := snapshot(t, dir+"/to"), snapshot(t, dir+"/from")
		if !del {
			for path := range got {
				if path == "old" || filepath.Dir(path) == "old" {
					delete(got, path)
				}
			}
		}
		sameTree(t, "as the source", got, want)
		if src.read > 0 {
			t.Errorf("%d bytes were read", src.read)
		}
	}
}

// TestMovedFilesAreAsManyAsTheSources: two files of the source do not become one
// because they were one here, nor names of one file two because a leftover stays.
func TestMovedFilesAreAsManyAsTheSources(t *testing.T) {
	for _, unread := range []bool{false, true} {
		dir := tempDir(t)
		for _, name := range []string{"apart1", "apart2", "group1"} {
			write(t, dir+"/from/new/"+name, name[:5])
		}
		must(t, os.Link(dir+"/from/new/group1", dir+"/from/new/group2"))
		write(t, dir+"/from/unread", "unreadable")
		write(t, dir+"/to/old/1", "apart")
		must(t, os.Link(dir+"/to/old/1", dir+"/to/old/2"))
		write(t, dir+"/to/old/g", "group")
		oneTime(t, dir+"/from")
		oneTime(t, dir+"/to")
		local, dst := open(t, dir+"/from", dir+"/to")
		src := &meter{Source: local, alterFile: func(f *File) {
			if f.Path == "unread" && unread {
				f.Body, f.Err = nil, &PathError{Path: f.Path, Err: unix.EIO}
			}
		}}
		o := sceneOptions()
		o.Renames = true
		old := snapshot(t, dir+"/to")
		_, err := Sync(t.Context(), src, dst, o)
		must(t, err)
		want := snapshot(t, dir+"/from")
		if unread {
			delete(want, "unread")
			for _, path := range []string{"old", "old/1", "old/2", "old/g"} {
				want[path] = old[path]
			}
		}
		sameTree(t, fmt.Sprintf("nothing is deleted: %v", unread), rootless(snapshot(t, dir+"/to")), rootless(want))
		if src.read > int64(len("unreadable")) {
			t.Errorf("%d bytes were read", src.read)
		}
	}
}

// TestCrashWhileRotating fails every changing call once, and once more in the
// publish that finishes it, or, before the publish, in the Stage after it.
func TestCrashWhileRotating(t *testing.T) {
	for name, set := range map[string]func(*Options){
		"plain":    func(*Options) {},
		"resumed":  func(o *Options) { o.Resume = true },
		"in place": func(o *Options) { o.Inplace = true },
	} {
		t.Run(name, func(t *testing.T) {
			crashed := 0
			step := 1
			if name != "plain" {
				step = 3
			}
			for n := 1; ; n += step {
				dir, src, dst, _ := rotatedTree(t, 100)
				before, want := snapshot(t, dir+"/to"), snapshot(t, dir+"/from")
				o := Archive()
				o.Renames, o.Delete = true, true
				set(&o)
				crashAt(dst, n)
				begun := false
				staged, err := Stage(t.Context(), src, dst, o)
				if err == nil {
					if err = staged.Sync(); err == nil {
						err = staged.Publish(t.Context())
						begun = staged.seal == sealBegun || staged.done
					}
				}
				if err == nil {
					break
				}
				if !errors.Is(err, errCrash) {
					t.Fatalf("call %d: %v", n, err)
				}
				crashed++
				dst.Close()
				if !begun {
					sameNames(t, fmt.Sprintf("before the publish, call %d", n), snapshot(t, dir+"/to"), before)
				}
				finish(t, dir+"/to", n%7*5+1)
				if begun {
					sameTree(t, fmt.Sprintf("after a crash at call %d", n), rootless(snapshot(t, dir+"/to")), rootless(want))
				}
				for _, at := range []int{n*7%40 + 1, 1 << 30} {
					root, err := OpenRoot(dir + "/to")
					must(t, err)
					crashAt(root, at)
					if _, err = Sync(t.Context(), src, root, o); err != nil && !errors.Is(err, errCrash) {
						t.Fatalf("after call %d: %v", n, err)
					}
					root.Close()
				}
				sameTree(t, fmt.Sprintf("in the end, call %d", n), rootless(snapshot(t, dir+"/to")), rootless(want))
				if t.Failed() {
					return
				}
			}
			if crashed < 60/step {
				t.Errorf("only %d calls were made to fail", crashed)
			}
		})
	}
}

// sameNames compares all but the root, whose time a crash disturbs.
func sameNames(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	sameTree(t, what, rootless(got), rootless(want))
}

// TestLeftoversAreLinear gives out, sums and finds very many that look the same.
func TestLeftoversAreLinear(t *testing.T) {
	const many = 200_000
	var l leftovers
	sum := func(i int) [16]byte { return [16]byte{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range many {
		if n := l.add(7, fmt.Sprintf("d%d/license", i), 0); int(n) != i+1 {
			t.Fatalf("number %d of %d", n, i)
		}
	}
	seen := map[int32]bool{}
	for range many {
		n := l.likeliest(7, "license")
		if n == 0 || seen[n] {
			t.Fatalf("%d was given out twice, or nothing", n)
		}
		seen[n] = true
		l.summed(n, sum(int(n)/2))
	}
	if n := l.likeliest(7, "other"); n != 0 {
		t.Errorf("%d was given out twice", n)
	}
	for i := range many {
		n, mine := l.find(7, sum(i/2), 0, true)
		if !mine || int(n)/2 != i/2 && i > 0 {
			if i < 2 || i == many-1 { // the ends have one each
				continue
			}
			t.Fatalf("%d: found %d, %v", i, n, mine)
		}
	}
	if n, mine := l.find(7, sum(5), 0, true); n == 0 || mine {
		t.Errorf("found %d, %v: all are taken", n, mine)
	}
	if n, _ := l.find(8, sum(5), 0, true); n != 0 {
		t.Errorf("found %d of another kind", n)
	}
}

func TestLeftoversAreBounded(t *testing.T) {
	var l leftovers
	path := strings.Repeat("x/", 2000) + "x"
	for !l.full {
		l.add(1, path, 0)
	}
	if total := int(l.count) * len(path); total > maxLeftoverPaths+leftoverText || total < maxLeftoverPaths/2 {
		t.Errorf("%d bytes of paths were kept", total)
	}
	if got := l.path(l.count / 2); got != path {
		t.Errorf("a path became %q", got[:20])
	}
	l = leftovers{wanted: 1000}
	n := 0
	for l.afford(1 << 20) {
		n++
	}
	if n < leftoversFree>>20-10 || n > leftoversFree>>20+10 {
		t.Errorf("%d MiB are summed in vain", n)
	}
}
