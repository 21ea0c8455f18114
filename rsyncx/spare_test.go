package rsyncx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx/delta"
	"golang.org/x/sys/unix"
)

// meter counts what a source gives away.
type meter struct {
	Source
	read, sums int64 // bytes of content, and of sums
	asked      []string
	// alter changes answers when it is not nil.
	alterSums func(*FileSums)
	alterFile func(*File)
}

func (m *meter) Read(ctx context.Context, want iter.Seq[Want]) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		for f, err := range m.Source.Read(ctx, want) {
			m.asked = append(m.asked, f.Path)
			if f.Body != nil {
				f.Body = &meterReader{f.Body, &m.read}
			}
			if m.alterFile != nil {
				m.alterFile(&f)
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

func (m *meter) Sums(ctx context.Context, want iter.Seq[SumWant]) iter.Seq2[FileSums, error] {
	return func(yield func(FileSums, error) bool) {
		for f, err := range m.Source.Sums(ctx, want) {
			m.sums += 16 + 8*int64(len(f.Sums.Strong)) + 4*int64(len(f.Sums.Weak))
			if m.alterSums != nil {
				m.alterSums(&f)
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

type meterReader struct {
	io.Reader
	n *int64
}

func (r *meterReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	*r.n += int64(n)
	return n, err
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// scattered returns data with n blocks of 4 KiB changed.
func scattered(data []byte, n int) []byte {
	data = bytes.Clone(data)
	for i := range n {
		copy(data[(len(data)/n*i)&^4095:], noise(byte(i+100), 4096))
	}
	return data
}

// pair makes a source and two destinations that have old where the source has fresh.
func pair(t *testing.T, old, fresh map[string][]byte) (dir string, src *meter, dst *Root) {
	t.Helper()
	dir = tempDir(t)
	for path, content := range old {
		for _, to := range []string{"to", "to2"} {
			write(t, filepath.Join(dir, to, path), string(content))
		}
	}
	for path, content := range fresh {
		write(t, filepath.Join(dir, "from", path), string(content))
	}
	mkdirs(t, dir+"/from", dir+"/to", dir+"/to2")
	for _, d := range []string{"from", "to", "to2"} {
		oneTime(t, filepath.Join(dir, d))
	}
	for path := range fresh {
		setMtime(t, filepath.Join(dir, "from", path), 1_100_000_000)
	}
	local, dst := open(t, dir+"/from", dir+"/to")
	return dir, &meter{Source: local}, dst
}

func TestDeltaSparesReading(t *testing.T) {
	testenv.Require(t, "rsync")
	big := noise(1, 9<<20+333)
	middle := noise(2, 300_000)
	for _, c := range []struct {
		name       string
		old, fresh []byte
		most       int64 // bytes to be read
		sums       int64
	}{
		{"changed in place", big, scattered(big, 10), 10 * 8192, 5_000},
		{"grown", big[:8<<20], big, int64(len(big)-8<<20) + 256<<10, 2000},
		{"shrunk", big, big[:5<<20+1], 128 << 10, 2000},
		{"inserted", big, append([]byte("in front"), big...), 64 << 10, 80_000},
		{"cut out", big, slices.Delete(bytes.Clone(big), 1<<20, 1<<20+777), 64 << 10, 80_000},
		{"halves exchanged", big, slices.Concat(big[4<<20:], big[:4<<20]), 64 << 10, 80_000},
		{"inserted near the end", big, slices.Insert(bytes.Clone(big), 8<<20, noise(9, 999)...), 64 << 10, 40_000},
		{"a short file", middle, slices.Insert(bytes.Clone(middle), 1000, 'x'), 4096, 10_000},
		{"a short file in place", middle, scattered(middle, 2), 4 * 4096, 10_000},
		{"only its time", big, big, 0, 2000},
		{"all of it", big, noise(77, len(big)), int64(len(big)), 100_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, src, dst := pair(t, map[string][]byte{"d/f": c.old}, map[string][]byte{"d/f": c.fresh})
			o := Archive()
			var events eventLog
			o.Event = events.add
			stats, err := Sync(t.Context(), src, dst, o)
			must(t, err)
			want := runRsync(t, []string{"-ai", "--no-W", dir + "/from/", dir + "/to2/"})
			sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
			if got := events.take(); !slices.Equal(got, want) {
				t.Errorf("said\n%s, rsync\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if src.read > c.most || src.sums > c.sums {
				t.Errorf("%d bytes were read and %d of sums, want at most %d and %d", src.read, src.sums, c.most, c.sums)
			}
			if stats.Reused != int64(len(c.fresh))-src.read && src.read < int64(len(c.fresh)) || stats.TransferredBytes != int64(len(c.fresh)) {
				t.Errorf("counted %+v, and %d bytes were read", stats, src.read)
			}
		})
	}
}

func TestWholeFileSwitchesDeltaOff(t *testing.T) {
	old := noise(1, 1<<20)
	dir, src, dst := pair(t, map[string][]byte{"f": old}, map[string][]byte{"f": scattered(old, 1)})
	o := Archive()
	o.WholeFile = true
	_, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	if src.read != 1<<20 || src.sums > 0 {
		t.Errorf("%d bytes were read and %d of sums, want the whole file and none", src.read, src.sums)
	}
	sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
}

// withoutSums is a source that cannot tell them.
type withoutSums struct {
	Source
	NoSums
}

func (w withoutSums) Abilities() Abilities {
	can := w.Source.Abilities()
	can.Sums = false
	return can
}

func (w withoutSums) Sums(ctx context.Context, want iter.Seq[SumWant]) iter.Seq2[FileSums, error] {
	return w.NoSums.Sums(ctx, want)
}

func TestSourceWithoutSums(t *testing.T) {
	old := noise(1, 1<<20)
	fresh := map[string][]byte{"f": scattered(old, 1), "same": old}
	dir, src, dst := pair(t, map[string][]byte{"f": old, "same": old}, fresh)
	o := Archive()
	o.Checksum = true
	_, err := Sync(t.Context(), withoutSums{Source: src}, dst, o)
	must(t, err)
	if src.read != 2<<20 {
		t.Errorf("%d bytes were read", src.read)
	}
	sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
}

func TestChecksumComparesBySums(t *testing.T) {
	testenv.Require(t, "rsync")
	old := noise(1, 1<<20)
	other := bytes.Clone(old)
	other[77] ^= 1
	for _, whole := range []bool{false, true} {
		dir, src, dst := pair(t, map[string][]byte{"differs": old, "same": old, "small": []byte("ab"), "small2": []byte("ab")},
			map[string][]byte{"differs": other, "same": old, "small": []byte("ab"), "small2": []byte("ac"), "new": []byte("n")})
		o := Archive()
		o.Checksum, o.WholeFile = true, whole
		var events eventLog
		o.Event = events.add
		want := runRsync(t, []string{"-aic", dir + "/from/", dir + "/to2/"})
		dry := o
		dry.DryRun = true
		_, err := Sync(t.Context(), src, dst, dry)
		must(t, err)
		if got := events.take(); !slices.Equal(sorted(got), sorted(want)) || src.read > 0 {
			t.Errorf("a dry run read %d bytes and said\n%s, rsync\n%s", src.read, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		_, err = Sync(t.Context(), src, dst, o)
		must(t, err)
		if got := events.take(); !slices.Equal(sorted(got), sorted(want)) {
			t.Errorf("said\n%s, rsync\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
		most := int64(4096)
		if whole {
			most = 1<<20 + 100
		}
		if src.read > most {
			t.Errorf("%d bytes were read", src.read)
		}
	}
}

func sorted(lines []string) []string { return slices.Sorted(slices.Values(lines)) }

// TestTouchedFileStays asks whether a file whose time alone differs is left in place.
func TestTouchedFileStays(t *testing.T) {
	data := noise(1, 1<<20)
	dir, src, dst := pair(t, map[string][]byte{"f": data, "linked": data}, map[string][]byte{"f": data, "linked": data})
	must(t, os.Link(dir+"/to/linked", dir+"/to/second"))
	inode := func(name string) uint64 {
		var st unix.Stat_t
		must(t, unix.Lstat(dir+"/to/"+name, &st))
		return st.Ino
	}
	f, linked := inode("f"), inode("linked")
	_, err := Sync(t.Context(), src, dst, Archive())
	must(t, err)
	if inode("f") != f {
		t.Error("a file that was only touched was copied")
	}
	if inode("linked") == linked {
		t.Error("a file with another name was changed under that name too")
	}
	if src.read > 0 {
		t.Errorf("%d bytes were read", src.read)
	}
	var st unix.Stat_t
	must(t, unix.Lstat(dir+"/to/second", &st))
	if st.Mtim.Sec != 1_000_000 {
		t.Error("the other name of a touched file has its time")
	}
}

// TestDeltaOfLiars feeds the phases what must not be believed.
func TestDeltaOfLiars(t *testing.T) {
	old := noise(1, 6<<20)
	fresh := scattered(old, 3)
	calls := 0
	for name, c := range map[string]struct {
		sums    func(*FileSums)
		file    func(*File)
		hostile bool
		whole   bool // the file is read in full at the end
	}{
		"a wrong whole sum":         {sums: func(f *FileSums) { f.Whole[3] ^= 1 }, whole: true},
		"wrong block sums":          {sums: func(f *FileSums) { slices.Reverse(f.Sums.Strong) }, whole: true},
		"too few sums":              {sums: func(f *FileSums) { f.Sums.Strong = f.Sums.Strong[1:] }, hostile: true},
		"other blocks":              {sums: func(f *FileSums) { f.Sums.Block *= 2 }, hostile: true},
		"a file that changes":       {sums: func(f *FileSums) { f.Err = ErrTorn }, whole: true},
		"another state of the file": {file: func(f *File) { calls++; f.Entry.Mtime.Nsec += int32(calls) }, whole: true},
		"another size": {sums: func(f *FileSums) {
			f.Entry.Size = 1 << 50
		}, hostile: true},
		"no file":            {sums: func(f *FileSums) { f.Entry.Mode = unix.S_IFDIR | 0o755 }, hostile: true},
		"another file":       {sums: func(f *FileSums) { f.Path = "g" }, hostile: true},
		"not the rest of it": {file: func(f *File) { f.Body = io.LimitReader(f.Body, 5000) }},
		"more of it":         {file: func(f *File) { f.Body = io.MultiReader(f.Body, strings.NewReader("more")) }, hostile: true},
		"an error":           {file: func(f *File) { f.Err, f.Body = &PathError{Path: f.Path, Err: unix.EIO}, nil }},
	} {
		t.Run(name, func(t *testing.T) {
			dir, src, dst := pair(t, map[string][]byte{"f": old}, map[string][]byte{"f": fresh})
			src.alterSums, src.alterFile = c.sums, c.file
			stats, err := Sync(t.Context(), src, dst, Archive())
			content, readErr := os.ReadFile(dir + "/to/f")
			must(t, readErr)
			switch {
			case c.hostile:
				if !errors.Is(err, ErrHostile) || !bytes.Equal(content, old) {
					t.Errorf("ended with %v, want ErrHostile and the old file", err)
				}
			case err != nil:
				t.Error(err)
			case c.whole && (!bytes.Equal(content, fresh) || src.read < int64(len(fresh))):
				t.Errorf("%d bytes were read and the file is not the source's", src.read)
			case !c.whole && !bytes.Equal(content, old) && !bytes.Equal(content, fresh) && stats.Torn == 0:
				t.Error("the file is a mixture")
			}
		})
	}
}

func TestDeltaOfManyFiles(t *testing.T) {
	old, fresh := map[string][]byte{}, map[string][]byte{}
	for i := range 60 {
		path := fmt.Sprintf("d%d/f%02d", i%3, i)
		data := noise(byte(i), 20_000+i*1000)
		old[path], fresh[path] = data, scattered(data, 1)
		switch i % 6 {
		case 1:
			delete(old, path)
		case 2:
			fresh[path] = nil
		case 3:
			old[path] = []byte("short")
		case 4:
			fresh[path] = append([]byte("x"), data...)
		}
	}
	dir, src, dst := pair(t, old, fresh)
	o := Archive()
	o.HardLinks = true
	must(t, os.Link(dir+"/from/d0/f00", dir+"/from/d1/link"))
	must(t, os.Link(dir+"/from/d0/f06", dir+"/from/d0/a-link")) // the first of its names is the new one
	setMtime(t, dir+"/from/d0", 1_000_000_000)
	setMtime(t, dir+"/from/d1", 1_000_000_000)
	_, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
}

func TestCompareBelowMountPoint(t *testing.T) {
	testenv.RequireRoot(t)
	data := noise(1, 100_000)
	dir, src, dst := pair(t, nil, map[string][]byte{"m/same": data, "m/differs": data})
	mkdirs(t, dir+"/to/m")
	mount(t, "-t", "tmpfs", "none", dir+"/to/m")
	write(t, dir+"/to/m/same", string(data))
	write(t, dir+"/to/m/differs", string(data))
	o := Archive()
	o.Checksum = true
	_, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	if src.read > 0 {
		t.Errorf("%d bytes were read", src.read)
	}
	write(t, dir+"/to/m/differs", string(scattered(data, 1)))
	if _, err = Sync(t.Context(), src, dst, o); err == nil || !strings.Contains(err.Error(), "mount point") {
		t.Errorf("a file below a mount point that differs: %v", err)
	}
}

func FuzzDraft(f *testing.F) {
	f.Add("a/b", "basis", int64(1000), []byte{1, 2, 3}, int64(512))
	f.Fuzz(func(t *testing.T, path, basis string, size int64, parts []byte, block int64) {
		if size < 0 || block < 0 || len(path) > 4000 || len(basis) > 4000 || len(parts) > 20_000 {
			return
		}
		d := &draft{wish: wish{path: path, listed: 0, group: -1}, basis: basis, basisSize: int64(len(parts)) * 600, block: block, weak: size%2 == 0}
		d.entry = Entry{Mode: 0o644, Size: size}
		at := int64(0)
		for _, b := range parts {
			if b > 0 {
				d.plan.Copies = append(d.plan.Copies, delta.Copy{New: at + 1, Old: int64(b), Len: int64(b)})
				at += int64(b) + 1
			}
		}
		d.plan.Size = at
		if d.copied = uint64(len(path)); d.copied > 0 {
			for _, c := range d.plan.Copies {
				d.checks = append(d.checks, delta.Span{Off: c.New, Len: c.Len})
			}
			d.leaves = bytes.Repeat([]byte{byte(block)}, 16*len(parts))
		}
		file, err := os.Create(filepath.Join(t.TempDir(), "spool"))
		must(t, err)
		list := newSpool(file)
		defer list.close()
		must(t, addDraft(list, d))
		must(t, addDraft(list, &draft{}))
		must(t, list.flush())
		r := list.records()
		got, err := nextDraft(r)
		if err != nil {
			t.Fatal(err)
		}
		if got.basis != d.basis || got.block != d.block || got.weak != d.weak || got.entry.Size != size || !slices.Equal(got.plan.Copies, d.plan.Copies) ||
			got.copied != d.copied || !slices.Equal(got.checks, d.checks) || !bytes.Equal(got.leaves, d.leaves) {
			t.Fatalf("%+v became %+v", d, got)
		}
		if _, err := nextDraft(r); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParseChecks(f *testing.F) {
	f.Add(appendChecks(nil, []delta.Span{{Off: 1 << 40, Len: 5}, {Off: 0, Len: 1}}))
	f.Add(append(appendChecks(nil, nil), make([]byte, 32)...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		checks, leaves, err := parseChecks(b)
		if err != nil {
			return
		}
		again, same, err := parseChecks(append(appendChecks(nil, checks), leaves...))
		if err != nil || !slices.Equal(again, checks) || !bytes.Equal(same, leaves) {
			t.Errorf("%v became %v, %v", checks, again, err)
		}
	})
}

// TestDeltaIsCancelled cancels in each phase and expects the cause, and nothing staged.
func TestDeltaIsCancelled(t *testing.T) {
	old := noise(1, 6<<20)
	stop := errors.New("enough")
	for phase := range 3 {
		dir, src, dst := pair(t, map[string][]byte{"f": old, "g": old}, map[string][]byte{"f": scattered(old, 3), "g": scattered(old, 4)})
		ctx, cancel := context.WithCancelCause(t.Context())
		calls := 0
		src.alterSums = func(*FileSums) {
			if calls++; phase < 2 && calls == 1+2*phase {
				cancel(stop)
			}
		}
		src.alterFile = func(*File) {
			if phase == 2 {
				cancel(stop)
			}
		}
		if _, err := Sync(ctx, src, dst, Archive()); !errors.Is(err, stop) {
			t.Errorf("phase %d: ended with %v, want the cause", phase, err)
		}
		if exists(dir + "/to/" + stateDir) {
			t.Errorf("phase %d: something stayed staged", phase)
		}
		cancel(nil)
	}
}

// TestDeltaOfWhatVanishes removes files between the phases.
func TestDeltaOfWhatVanishes(t *testing.T) {
	old := noise(1, 6<<20)
	for phase := range 2 {
		dir, src, dst := pair(t, map[string][]byte{"f": old}, map[string][]byte{"f": scattered(old, 3)})
		calls := 0
		src.alterSums = func(f *FileSums) {
			if calls++; calls == phase+1 {
				must(t, os.Remove(dir+"/from/f"))
			}
		}
		stats, err := Sync(t.Context(), src, dst, Archive())
		must(t, err)
		content, err := os.ReadFile(dir + "/to/f")
		must(t, err)
		if stats.Vanished != 1 || !bytes.Equal(content, old) {
			t.Errorf("phase %d: counted %+v, and the old file is gone or changed", phase, stats)
		}
	}
}
