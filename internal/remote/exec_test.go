package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// execHere returns an execHost of this host, reached by a shell of the test's own.
func execHere(t testing.TB, before string) *execHost {
	t.Helper()
	s := &shell{argv: []string{asShell(t, before+"\n"+thisHost), "far"}, name: "far", children: map[*child]bool{}}
	h := newExecHost(s, Config{Silence: 20 * time.Second}, nil)
	t.Cleanup(func() { h.Close() })
	return h
}

// TestExecWalksLikeLocal: whatever is asked for, find gives what a source of this host gives.
func TestExecWalksLikeLocal(t *testing.T) {
	testenv.RequireRoot(t)
	dir := t.TempDir()
	for _, name := range []string{"a/b/c", "a.b", "a b/.drsync", ".drsync/stage", "empty", "a/b!"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"x", "a/one", "a/b/two\nlines", "a/b/c/3", "a.b/\xff\xfe", "a b/.drsync/keep", ".drsync/secret", "a/b!/'q'", "a/b/.rules", "a/b/c/x.o"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "a/b/.rules"), []byte("- *.o\n"), 0o644),
		os.Link(filepath.Join(dir, "x"), filepath.Join(dir, "a/hard")), os.Symlink("to\n\xff", filepath.Join(dir, "a/link")),
		unix.Mkfifo(filepath.Join(dir, "a/pipe"), 0o600), unix.Mknod(filepath.Join(dir, "a/null"), unix.S_IFCHR|0o600, int(unix.Mkdev(259, 70000))),
		os.Lchown(filepath.Join(dir, "x"), 54321, 54321), unix.Chmod(filepath.Join(dir, "a/one"), 0o6711),
		os.Chtimes(filepath.Join(dir, "a/one"), time.Unix(-7, 250_000_000), time.Unix(-7, 250_000_000)),
	); err != nil {
		t.Fatal(err)
	}
	local, err := rsyncx.Local(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	b := filter.NewBuilder()
	for _, rule := range []string{": .rules", "- /empty/", "- two*"} {
		if err := b.Filter(rule); err != nil {
			t.Fatal(err)
		}
	}
	rules, err := b.Rules(filter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server := testenv.SSHD(t)
	for name, src := range map[string]rsyncx.Source{"exec": source(t, execHere(t, ""), dir), "sftp": source(t, dial(t, config(t, server, TransportSFTP)), dir)} {
		for _, o := range []rsyncx.WalkOptions{
			{}, {Filter: rules}, {OneFileSystem: true, OmitMounts: true}, {Flat: true}, {Only: []string{"a/b", "a/one/below", "gone", "x"}},
			{Only: []string{"a", "a.b"}, Flat: true}, {Only: []string{"empty", "a/b/two\nlines"}, Filter: rules}, {Only: []string{"", "a/b"}, Flat: true}, {Only: []string{}},
		} {
			t.Run(fmt.Sprintf("%s %q flat %t", name, o.Only, o.Flat), func(t *testing.T) {
				slices.SortFunc(o.Only, func(a, b string) int {
					return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
				})
				got, gotErrs := walkOf(t, src, o)
				want, wantErrs := walkOf(t, local, o)
				if name == "sftp" {
					blur(want)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("walked\n%+v, want\n%+v", got, want)
				}
				if !slices.Equal(gotErrs, wantErrs) {
					t.Errorf("errors about %q, want %q", gotErrs, wantErrs)
				}
			})
		}
	}
}

// blur takes out of a walk what sftp cannot tell.
func blur(dirs []rsyncx.Dir) {
	one := func(e *rsyncx.Entry) {
		e.Mtime.Nsec, e.User, e.Group, e.Rdev, e.Dev, e.Ino, e.Nlink = 0, "", "", 0, 0, 0, 0
	}
	for i := range dirs {
		one(&dirs[i].Self)
		for k := range dirs[i].Entries {
			one(&dirs[i].Entries[k])
		}
	}
}

func walkOf(t *testing.T, src rsyncx.Source, o rsyncx.WalkOptions) (dirs []rsyncx.Dir, missing []string) {
	t.Helper()
	for d, err := range src.Walk(t.Context(), o) {
		var single *rsyncx.PathError
		switch {
		case errors.As(err, &single) && errors.Is(err, fs.ErrNotExist):
			missing = append(missing, single.Path)
		case err != nil:
			t.Fatal(err)
		default:
			d.Entries = slices.Clone(d.Entries)
			if len(d.Entries) == 0 {
				d.Entries = nil
			}
			for i := range d.Entries {
				if mode := d.Entries[i].Mode & unix.S_IFMT; mode != unix.S_IFREG {
					d.Entries[i].Size = 0
				}
			}
			d.Self.Size = 0
			dirs = append(dirs, d)
		}
	}
	slices.Sort(missing)
	return dirs, missing
}

// TestRanges: parts of files arrive as asked for, small and large.
func TestRanges(t *testing.T) {
	dir := t.TempDir()
	content := map[string][]byte{"small": make([]byte, 5000), "large": make([]byte, 3<<20+77)}
	random := rand.NewChaCha8([32]byte{3})
	for name, b := range content {
		random.Read(b)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := testenv.SSHD(t)
	for name, h := range map[string]Host{"exec": execHere(t, ""), "sftp": dial(t, config(t, s, TransportSFTP))} {
		t.Run(name, func(t *testing.T) {
			src := source(t, h, dir)
			wants := []rsyncx.Want{
				{Path: "small", Size: 5000, Ranges: []rsyncx.Range{{Off: 10, Len: 5}, {Off: 4999, Len: 1}}},
				{Path: "large", Size: 3 << 20, Ranges: []rsyncx.Range{{Off: 0, Len: 1 << 20}, {Off: 2 << 20, Len: 1<<20 + 77}}},
				{Path: "small", Size: 5000, Ranges: []rsyncx.Range{}},
				{Path: "small", Size: 5000},
				{Path: "large", Size: 3 << 20, Ranges: []rsyncx.Range{{Off: 3 << 20, Len: 78}}},
			}
			i := 0
			for f, err := range src.Read(t.Context(), slices.Values(wants)) {
				if err != nil || f.Err != nil {
					t.Fatal(err, f.Err)
				}
				all := content[f.Path]
				want := []byte{}
				for _, r := range wants[i].Ranges {
					want = append(want, all[r.Off:min(r.Off+r.Len, int64(len(all)))]...)
				}
				if wants[i].Ranges == nil {
					want = all
				}
				got, err := io.ReadAll(f.Body)
				switch last := i == len(wants)-1; {
				case last && !errors.Is(err, rsyncx.ErrTorn):
					t.Errorf("behind the end: %v, want ErrTorn", err)
				case !last && (err != nil || !bytes.Equal(got, want)):
					t.Errorf("%v: %d bytes, %v, want %d", wants[i], len(got), err, len(want))
				}
				i++
			}
			if i != len(wants) {
				t.Errorf("%d answers", i)
			}
		})
	}
}

// TestExecReadsAroundTrouble: what is wrong with one file of a batch is told of that one.
func TestExecReadsAroundTrouble(t *testing.T) {
	testenv.Require(t, "su")
	testenv.RequireRoot(t)
	dir, err := os.MkdirTemp("", "drs")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("f%02d: odd\n\\; \xff", i))
		if err := os.WriteFile(filepath.Join(dir, names[i]), []byte(names[i]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(dir, names[7]), 0), os.Remove(filepath.Join(dir, names[9])),
		os.Mkdir(filepath.Join(dir, "closed"), 0), os.Mkdir(filepath.Join(dir, "locked"), 0o644)); err != nil {
		t.Fatal(err)
	}
	// As a login that may not read everything.
	nobody := asShell(t, `shift; exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "$*"`)
	testenv.Require(t, "setpriv")
	if err := os.Chmod(filepath.Dir(filepath.Dir(nobody)), 0o755); err != nil {
		t.Fatal(err)
	}
	s := &shell{argv: []string{nobody, "far"}, name: "far", children: map[*child]bool{}}
	h := newExecHost(s, Config{Silence: 20 * time.Second}, nil)
	defer h.Close()
	src := source(t, h, dir)
	i := 0
	for f, err := range src.Read(t.Context(), rsyncx.Wants(slices.Values(names))) {
		if err != nil {
			t.Fatal(err)
		}
		switch i {
		case 7:
			if !errors.Is(f.Err, fs.ErrPermission) {
				t.Errorf("not to be read: %v", f.Err)
			}
		case 9:
			if !errors.Is(f.Err, fs.ErrNotExist) {
				t.Errorf("gone: %v", f.Err)
			}
		default:
			if f.Err != nil {
				t.Errorf("%q: %v", f.Path, f.Err)
			} else if got, err := io.ReadAll(f.Body); string(got) != names[i] || err != nil {
				t.Errorf("%q: %q, %v", f.Path, got, err)
			}
		}
		i++
	}
	if i != len(names) {
		t.Errorf("%d of %d answers", i, len(names))
	}
	var denied, walked []string
	for d, err := range src.Walk(t.Context(), rsyncx.WalkOptions{}) {
		var single *rsyncx.PathError
		if errors.As(err, &single) && errors.Is(err, fs.ErrPermission) {
			denied = append(denied, single.Path)
		} else if err != nil {
			t.Fatal(err)
		} else {
			walked = append(walked, d.Path)
		}
	}
	if !slices.Equal(denied, []string{"closed", "locked"}) || !slices.Equal(walked, []string{""}) {
		t.Errorf("denied %q, walked %q", denied, walked)
	}
}

func TestExecNeedsItsPrograms(t *testing.T) {
	for _, missing := range []string{"find", "tar", "xargs"} {
		bin := t.TempDir()
		if err := os.WriteFile(filepath.Join(bin, missing), []byte("#!/bin/sh\necho BusyBox v1.36\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := execHere(t, "PATH="+bin+":$PATH").Source(t.Context(), "/", rsyncx.View{})
		if err == nil || !strings.Contains(err.Error(), "no "+missing+" (GNU") || !strings.Contains(hint.Of(err), "sftp") {
			t.Errorf("without %s: %v (hint: %s)", missing, err, hint.Of(err))
		}
	}
	h := execHere(t, "")
	for root, want := range map[string]error{"/nonexistent": fs.ErrNotExist, "relative": nil, "/etc/passwd": nil} {
		if _, err := h.Source(t.Context(), root, rsyncx.View{}); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", root, err)
		}
	}
	if _, err := execHere(t, "echo bound >&2; exit 1").Source(t.Context(), "/", rsyncx.View{}); err == nil || !strings.Contains(err.Error(), "bound") {
		t.Errorf("a bound key: %v", err)
	}
	if skew, bound, err := h.Clock(t.Context()); err != nil || skew < -bound || skew > bound || bound > 2*time.Second {
		t.Errorf("the clock: %v ± %v, %v", skew, bound, err)
	}
	if _, _, err := execHere(t, "date() { echo 12; }; shift; eval \"$3\" 2>/dev/null; echo "+marker+"; read x; date; exit").Clock(t.Context()); err == nil {
		t.Error("a clock without a fraction")
	}
}

// TestExecGarbage: what is no answer of find and tar ends what was asked, and
// costs no memory.
func TestExecGarbage(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "exit 0", "a word": "echo hello", "endless": "exec yes", "zeros": "exec head -c 50000000 /dev/zero",
		"a record without end": "printf l; exec head -c 50000000 /dev/zero | tr '\\0' x",
		"a path outside":       `printf 'l\0d\000755\0001\0001.5\0001.5\0001\0001\0001\0000\0000\0r\0r\0\0../x\0'; printf 'e\0000\0'`,
	} {
		t.Run(name, func(t *testing.T) {
			h := execHere(t, text)
			h.probed = true
			s := &execSource{host: h, root: "/"}
			var last error
			for _, last = range s.Walk(t.Context(), rsyncx.WalkOptions{}) {
			}
			if last == nil {
				t.Error("walked")
			}
			last = nil
			for f, err := range s.Read(t.Context(), rsyncx.Wants(slices.Values([]string{"etc/passwd"}))) {
				if err == nil && f.Err == nil {
					_, err = io.ReadAll(f.Body)
				}
				last = errors.Join(err, f.Err)
			}
			if last == nil {
				t.Error("read")
			}
			if _, err := s.Lstat(t.Context(), "etc"); err == nil {
				t.Error("described")
			}
		})
	}
}

func TestSpool(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	s := newSpool()
	s.memory = 1000
	defer s.close()
	var want []string
	for range 3000 {
		key := fmt.Sprintf("%d", random.IntN(1_000_000))
		want = append(want, key)
		if err := s.add([]byte(key), []byte("value of "+key)); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	var got []string
	if err := s.each(func(key, value []byte) error {
		if string(value) != "value of "+string(key) {
			t.Errorf("%s has %s", key, value)
		}
		got = append(got, string(key))
		return nil
	}); err != nil || !slices.Equal(got, want) {
		t.Errorf("%d records, %v", len(got), err)
	}
	if len(s.runs) < 10 {
		t.Errorf("%d runs", len(s.runs))
	}
	small := newSpool()
	defer small.close()
	small.memory, small.most = 100, 300
	var err error
	for i := 0; err == nil && i < 100; i++ {
		err = small.add([]byte("0123456789"), nil)
	}
	if err == nil {
		t.Error("the file has no bound")
	}
}

func FuzzFindRecords(f *testing.F) {
	f.Add([]byte("l\x00f\x00644\x005\x00-2.7500000000\x001.0000000000\x001\x002\x001\x000\x000\x00root\x00root\x00\x00./a/b\x00e\x000\x00"))
	f.Add([]byte("u\x00d\x00755\x005\x001.5\x001.5\x001\x002\x001\x000\x000\x000\x000\x00\x00.\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		in := bufio.NewReaderSize(bytes.NewReader(text), 4<<10)
		var r findRecord
		for readRecord(in, &r) == nil {
			if r.kind == finished {
				continue
			}
			if err := rsyncx.CheckPath(string(r.path)); err != nil {
				t.Error(err)
			}
			if d, err := parseFacts(r.facts); err == nil && (d.Size < 0 || d.Mtime.Nsec < 0 || d.Mtime.Nsec > 999_999_999) {
				t.Errorf("%+v", d)
			}
		}
	})
}

func FuzzTarComplaint(f *testing.F) {
	f.Add("tar: ./a\\:b\\n\\377 c: Cannot open: Permission denied")
	f.Fuzz(func(t *testing.T, line string) {
		if path, _, ok := tarComplaint(line); ok && rsyncx.CheckPath(path) != nil {
			t.Errorf("%q", path)
		}
	})
}

// TestExecLeavesNothing: a walk and a read that are left early end their programs.
func TestExecLeavesNothing(t *testing.T) {
	h := execHere(t, "")
	src := source(t, h, "/usr")
	ctx, cancel := context.WithCancel(t.Context())
	for range src.Walk(ctx, rsyncx.WalkOptions{MaxEntries: 100}) {
	}
	dir := bigTree(t)
	for f, err := range source(t, h, dir).Read(ctx, slices.Values([]rsyncx.Want{{Path: "big", Size: 1 << 30}})) {
		if err != nil {
			t.Fatal(err)
		}
		io.CopyN(io.Discard, f.Body, 1<<20)
		break
	}
	cancel()
	for left := h.far.(limited).far.(*shell); ; {
		left.mu.Lock()
		n := len(left.children)
		left.mu.Unlock()
		if n == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond) // the test's time is the bound
	}
	if n := len(h.slots); n != 0 {
		t.Errorf("%d slots are taken", n)
	}
}

func FuzzParseClock(f *testing.F) {
	for _, text := range []string{"1700000000.123456789", "0.000000000", "1.5", "-1.000000000", "1.+00000001", "x", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := parseClock(text)
		if err != nil {
			return
		}
		again, err := parseClock(fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond()))
		if err != nil || !again.Equal(at) || at.Unix() < 0 {
			t.Errorf("%q is %v, and that %v, %v", text, at, again, err)
		}
	})
}
