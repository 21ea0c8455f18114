package rsyncx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/hint"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

func TestMarkerAndEntries(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/from/a/marker", "")
	write(t, dir+"/to/own", "own")
	src, dst := open(t, dir+"/from", dir+"/to")
	for _, o := range []Options{{Marker: "marker"}, {Marker: "a/none"}, {Marker: "a/marker/x"}, {MinEntries: 3}, {Marker: "../to/own"}} {
		for _, o.DryRun = range []bool{false, true} {
			before := snapshot(t, dir+"/to")
			_, err := Sync(t.Context(), src, dst, o)
			if err == nil || hint.Of(err) == "" && !errors.Is(err, ErrHostile) && !strings.Contains(err.Error(), "not a directory") {
				t.Errorf("%+v: %v (%s)", o, err, hint.Of(err))
			}
			sameTree(t, "refused", snapshot(t, dir+"/to"), before)
			if _, err := os.Lstat(dir + "/to/" + stateDir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%+v left %s", o, stateDir)
			}
		}
	}
	if _, err := Sync(t.Context(), src, dst, Options{Marker: "a/marker", MinEntries: 2}); err != nil {
		t.Error(err)
	}
}

func TestSameSource(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/from/f", "f")
	write(t, dir+"/other/f", "of another")
	mkdirs(t, dir+"/to")
	o := Archive()
	o.SameSource = true
	sync := func(from string, o Options) error {
		t.Helper()
		src, dst := open(t, dir+"/"+from, dir+"/to")
		defer dst.Close()
		_, err := Sync(t.Context(), src, dst, o)
		return err
	}
	must(t, sync("from", o))
	must(t, sync("from", o))
	before := snapshot(t, dir+"/to")
	for range 2 {
		if err := sync("other", o); err == nil || hint.Of(err) == "" {
			t.Errorf("another source: %v", err)
		}
	}
	sameTree(t, "refused", snapshot(t, dir+"/to"), before)
	accept := o
	accept.NewSource, accept.DryRun = true, true
	must(t, sync("other", accept))
	must(t, sync("from", o)) // a dry run remembers nothing
	accept.DryRun = false
	must(t, sync("other", accept))
	must(t, sync("other", o))
	if err := sync("from", o); err == nil {
		t.Error("the new source was not remembered")
	}
	must(t, os.WriteFile(dir+"/to/.drsync/source", []byte("2 x"), 0o600))
	if err := sync("other", o); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged memory: %v", err)
	}
	must(t, sync("other", accept))
	must(t, sync("other", o))
	dst, err := OpenRoot(dir + "/to")
	must(t, err)
	defer dst.Close()
	if _, err := Stage(t.Context(), &nameless{}, dst, o); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a source that cannot tell: %v", err)
	}
}

// nameless is a source that tells no inodes.
type nameless struct{ fake }

func (*nameless) Lstat(context.Context, string) (Entry, error) { return dirEntry(""), nil }

// clocked is a source whose clock stands where the test puts it.
type clocked struct {
	Source
	now Time
}

func (c *clocked) Now(context.Context) (Time, error) { return c.now, nil }

func TestRacyFilesAreComparedOnce(t *testing.T) {
	for name, known := range map[string]bool{"clock": true, "no clock": false} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			from, to := dir+"/from", dir+"/to"
			base := time.Now().Unix() - 100
			write(t, from+"/d/racy", "first")
			write(t, from+"/d/settled", "first")
			write(t, from+"/far-future", "x")
			mkdirs(t, to)
			setTimes := func() {
				setMtime(t, from+"/d/racy", base)
				setMtime(t, from+"/d/settled", base-60)
				setMtime(t, from+"/far-future", base+1<<20)
				setMtime(t, from+"/d", base-60)
				setMtime(t, from, base-60)
			}
			setTimes()
			local, dst := open(t, from, to)
			src := &clocked{local, Time{Sec: base + 1}}
			o := Archive()
			o.Racy, o.Delete = true, true
			asked := func() int64 {
				t.Helper()
				counted := &reads{Source: src}
				var with Source = counted
				if known {
					with = &clocked{counted, src.now}
				}
				_, err := Sync(t.Context(), with, dst, o)
				must(t, err)
				return counted.n
			}
			if n := asked(); n != 3 {
				t.Fatalf("%d files were read at first", n)
			}
			// It changes once more within the same tick of the clock.
			write(t, from+"/d/racy", "again")
			setTimes()
			src.now.Sec = base + 60
			if n := asked(); n != 3 { // far-future too, and one is read after its sum
				t.Errorf("%d files were compared", n)
			}
			if content, _ := os.ReadFile(to + "/d/racy"); string(content) != "again" {
				t.Errorf("it has %q", content)
			}
			ageRacyList(t, to)
			_ = asked()
			ageRacyList(t, to)
			if n := asked(); n != 0 {
				t.Errorf("%d files are still compared", n)
			}
			if _, err := os.Lstat(to + "/" + stateDir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s was left: %v", stateDir, err)
			}
		})
	}
}

// ageRacyList makes the list, if there is one, seem to be written long ago.
func ageRacyList(t *testing.T, to string) {
	t.Helper()
	path := to + "/" + stateDir + "/" + racyFile
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	must(t, err)
	r := &racy{}
	must(t, r.parse(text))
	r.seen, r.started = r.old, r.written.Add(-time.Hour)
	text, _ = r.result()
	must(t, os.WriteFile(path, text, 0o600))
}

// reads counts the files that are read, or summed up.
type reads struct {
	Source
	n int64
}

func (r *reads) Read(ctx context.Context, want iter.Seq[Want]) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		for f, err := range r.Source.Read(ctx, want) {
			r.n++
			if !yield(f, err) {
				return
			}
		}
	}
}

func (r *reads) Sums(ctx context.Context, want iter.Seq[SumWant]) iter.Seq2[FileSums, error] {
	return func(yield func(FileSums, error) bool) {
		for f, err := range r.Source.Sums(ctx, want) {
			r.n++
			if !yield(f, err) {
				return
			}
		}
	}
}

func TestDamagedRacyList(t *testing.T) {
	dir := tempDir(t)
	from, to := dir+"/from", dir+"/to"
	for i := range 5 {
		write(t, fmt.Sprintf("%s/f%d", from, i), "x")
		setMtime(t, fmt.Sprintf("%s/f%d", from, i), 1000+int64(i)*10)
	}
	mkdirs(t, to)
	local, dst := open(t, from, to)
	counted := &reads{Source: local}
	src := &clocked{counted, Time{Sec: 1041}}
	o := Archive()
	o.Racy = true
	_, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	path := to + "/" + stateDir + "/" + racyFile
	text, err := os.ReadFile(path)
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if st.Mtim.Sec != 1039 {
		t.Errorf("the list is from %d", st.Mtim.Sec)
	}
	for i := range text {
		if (&racy{}).parse(append(append(append([]byte{}, text[:i]...), text[i]^1), text[i+1:]...)) == nil || (&racy{}).parse(text[:i]) == nil {
			t.Fatalf("damage at byte %d goes unseen", i)
		}
	}
	text[len(text)/2] ^= 1
	must(t, os.WriteFile(path, text, 0o600))
	setMtime(t, path, 1015)
	counted.n, src.now.Sec = 0, 2000
	stats, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	if counted.n != 3 || stats.Transferred != 0 || len(stats.Notes) != 1 {
		t.Errorf("%d files were compared, %+v", counted.n, stats)
	}
	counted.n = 0
	if _, err := Sync(t.Context(), src, dst, o); err != nil || counted.n != 0 {
		t.Errorf("and once more: %d, %v", counted.n, err)
	}
}

func TestRacyIn(t *testing.T) {
	r := &racy{now: Time{Sec: 1000}, told: true, seen: map[string]racyFacts{}}
	r.read("a/b/f", &Entry{Size: 1, Mtime: Time{Sec: 999}})
	r.read("old", &Entry{Size: 1, Mtime: Time{Sec: 900}})
	text, _ := r.result()
	r = &racy{}
	must(t, r.parse(text))
	s := &stager{}
	if s.racyIn("a/b") {
		t.Error("without a list")
	}
	s.racy = r
	if !s.racyIn("a/b") || s.racyIn("a") || s.racyIn("") {
		t.Errorf("in %v", r.dirs)
	}
	if !r.suspect("a/b/f", &Entry{Size: 1, Mtime: Time{Sec: 999}}) || r.suspect("a/b/f", &Entry{Size: 2, Mtime: Time{Sec: 999}}) {
		t.Error("the wrong file is suspect")
	}
}

func TestRacyListIsBounded(t *testing.T) {
	r := &racy{seen: map[string]racyFacts{}}
	for i := range maxRacy + 100 {
		r.add(fmt.Sprint(i), racyFacts{})
	}
	if len(r.seen) != maxRacy {
		t.Errorf("%d files", len(r.seen))
	}
	r = &racy{seen: map[string]racyFacts{}}
	for i := range maxRacy {
		r.add(fmt.Sprintf("%d%s", i, strings.Repeat("x", 4000)), racyFacts{})
	}
	text, _ := r.result()
	if len(text) > maxRacyBytes+64 || (&racy{}).parse(text) != nil {
		t.Errorf("%d bytes", len(text))
	}
}

func FuzzRacy(f *testing.F) {
	r := &racy{seen: map[string]racyFacts{"a/b": {size: 5, mtime: Time{Sec: -1, Nsec: 5}}}}
	text, _ := r.result()
	f.Add(text[len(racyMagic) : len(text)-16])
	f.Fuzz(func(t *testing.T, body []byte) {
		body = append([]byte(racyMagic), body...)
		sum := xxh3.Hash128(body).Bytes()
		r := &racy{}
		if r.parse(append(body, sum[:]...)) != nil {
			return
		}
		r.seen, r.started = r.old, r.written
		text, _ := r.result()
		again := &racy{}
		if len(r.old) > 0 && (again.parse(text) != nil || !maps.Equal(again.old, r.old)) {
			t.Fatalf("%v became %v", r.old, again.old)
		}
	})
}

func FuzzParseACLNames(f *testing.F) {
	f.Add("")
	f.Add(string(append([]byte{aclUser, 5, 1}, "u"...)) + string(append([]byte{aclGroup, 0x80, 1, 2}, "gg"...)))
	f.Add("\x02\xff\xff\xff\xff\xff\x01x")
	f.Fuzz(func(t *testing.T, text string) {
		o, ok := parseACLNames(text)
		if !ok {
			return
		}
		var b []byte
		for tag, names := range map[byte]map[uint32]string{aclUser: o.users, aclGroup: o.groups} {
			for id, name := range names {
				b = appendText(binary.AppendUvarint(append(b, tag), uint64(id)), name)
			}
		}
		again, ok := parseACLNames(string(b))
		if !ok || !maps.Equal(again.users, o.users) || !maps.Equal(again.groups, o.groups) {
			t.Errorf("%q is %v, and that %v, %v", text, o, again, ok)
		}
	})
}
