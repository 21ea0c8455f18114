package sourcetest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drsync/drsync/rsyncx"
)

// testReadTorn changes a file while its body is read. A source may have read
// ahead to the end before that; then the body is the old content, whole.
func testReadTorn(t *testing.T, open Open) {
	old := make([]byte, 12<<20)
	rand.NewChaCha8([32]byte{2}).Read(old)
	tree := newTreeOf(t, []node{{path: "grows", content: string(old)}, {path: "shrinks", content: string(old)}, {path: "z", content: "z"}})
	ctx, src := start(t, open, tree.dir)
	for f, err := range src.Read(ctx, rsyncx.Wants(slices.Values(tree.files()))) {
		if err != nil || f.Err != nil {
			t.Fatal(err, f.Err)
		}
		if f.Path == "z" {
			tree.checkFile(t, src.Abilities(), f)
			continue
		}
		got := make([]byte, 1)
		if _, err := io.ReadFull(f.Body, got); err != nil {
			t.Fatal(err)
		}
		change(t, filepath.Join(tree.dir, f.Path), f.Path == "grows")
		rest, err := io.ReadAll(f.Body)
		got = append(got, rest...)
		switch {
		case errors.Is(err, rsyncx.ErrTorn):
			if f.Path == "grows" && len(got) != len(old) {
				t.Errorf("a growing file gave %d bytes, want the %d of its opening", len(got), len(old))
			}
			if len(got) > len(old) {
				t.Errorf("%d bytes of a file of %d", len(got), len(old))
			}
		case err != nil:
			t.Errorf("%s: %v, want ErrTorn", f.Path, err)
		case !bytes.Equal(got, old):
			t.Errorf("%s: changed content was given without ErrTorn", f.Path)
		}
	}
}

func change(t *testing.T, path string, grow bool) {
	t.Helper()
	if !grow {
		if err := os.Truncate(path, 3<<20); err != nil {
			t.Fatal(err)
		}
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("more"); err != nil {
		t.Fatal(err)
	}
}
