package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// maker makes files with content that no two share.
type maker struct {
	random *rand.ChaCha8
	made   int
	bytes  int64
}

func newMaker() *maker { return &maker{random: rand.NewChaCha8([32]byte{42})} }

// next returns the content of the next file: mostly a few kilobytes, seldom
// some tens, 11 KB on average.
func (m *maker) next() []byte {
	low, high := uint64(1_000), uint64(8_000)
	switch dice := m.random.Uint64() % 20; {
	case dice == 0:
		low, high = 32_000, 96_000
	case dice <= 5:
		low, high = 8_000, 32_000
	}
	b := make([]byte, low+m.random.Uint64()%(high-low))
	_, _ = m.random.Read(b) // its documentation rules an error out
	m.made++
	m.bytes += int64(len(b))
	return b
}

// tree adds n files to dir, a hundred to a directory.
func (m *maker) tree(t *testing.T, dir string, n int) {
	t.Helper()
	for range n {
		i := m.made
		sub := filepath.Join(dir, fmt.Sprintf("part-%02d", i/10_000), fmt.Sprintf("group-%02d", i/100%100))
		path := filepath.Join(sub, fmt.Sprintf("file-%06d.bin", i))
		if i%100 == 0 {
			must(t, os.MkdirAll(sub, 0o755))
		}
		must(t, os.MkdirAll(sub, 0o755))
		must(t, os.WriteFile(path, m.next(), 0o644))
		when := time.Unix(1_700_000_000+int64(i), 0)
		must(t, os.Chtimes(path, when, when))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// compare returns how two trees differ: names and content always, and modes
// and modification times of files when meta is set. It stops at the first difference.
func compare(one, other string, meta bool) error {
	if err := within(one, other, meta); err != nil {
		return err
	}
	return filepath.WalkDir(other, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if slices.Contains([]string{"_pre", "_drsync", ".drsync"}, d.Name()) {
			return fs.SkipDir // where uploads, the quarantine and drsync's own are
		}
		if _, err := os.Lstat(one + strings.TrimPrefix(path, other)); err != nil {
			return fmt.Errorf("too much: %w", err)
		}
		return nil
	})
}

// within looks in other for everything that one has.
func within(one, other string, meta bool) error {
	return filepath.WalkDir(one, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		twin := other + strings.TrimPrefix(path, one)
		if meta {
			a, errA := os.Lstat(path)
			b, errB := os.Lstat(twin)
			if err := errors.Join(errA, errB); err != nil {
				return err
			}
			if a.Mode() != b.Mode() || !a.ModTime().Equal(b.ModTime()) {
				return fmt.Errorf("%s: %v %v, not %v %v", twin, b.Mode(), b.ModTime(), a.Mode(), a.ModTime())
			}
		}
		a, errA := os.ReadFile(path)
		b, errB := os.ReadFile(twin)
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		if !bytes.Equal(a, b) {
			return fmt.Errorf("%s: the content differs", twin)
		}
		return nil
	})
}

func TestCompare(t *testing.T) {
	one, other := t.TempDir(), t.TempDir()
	newMaker().tree(t, one, 5)
	newMaker().tree(t, other, 5)
	if err := compare(one, other, true); err != nil {
		t.Fatalf("equal trees: %v", err)
	}
	file := filepath.Join(other, "part-00/group-00/file-000003.bin")
	content, err := os.ReadFile(file)
	must(t, err)
	info, err := os.Lstat(file)
	must(t, err)

	must(t, os.Chtimes(file, time.Now(), time.Now()))
	if compare(one, other, true) == nil || compare(one, other, false) != nil {
		t.Error("another time: only seen with meta")
	}
	content[0] ^= 1
	must(t, os.WriteFile(file, content, 0o644))
	must(t, os.Chtimes(file, info.ModTime(), info.ModTime()))
	if compare(one, other, true) == nil {
		t.Error("another bit is not seen")
	}
	must(t, os.Remove(file))
	if compare(one, other, false) == nil {
		t.Error("a missing file is not seen")
	}
	if compare(other, one, false) == nil {
		t.Error("a file too much is not seen")
	}
}
