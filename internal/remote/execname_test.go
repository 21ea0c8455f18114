package remote

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/rsyncx"
)

// TestExecNamesAreNames: whatever bytes a name has, its file arrives, and never another
// one: the programs there read no escapes, no patterns, no options and no paths into it.
func TestExecNamesAreNames(t *testing.T) {
	top := t.TempDir()
	root := filepath.Join(top, "root")
	names := []string{
		`a\012b`, `\n`, `\\`, `\`, `a\`, `x\057..\057..\057secret`, `\056\056`, `\56\056`, `..\057secret`, `\x2e`, `\0`, `\?`, `\177`,
		"-", "--", "-C", "--checkpoint-action=exec=x", "-T", "@x", "*", "?", "[a]", "[!a]*", "{a,b}", "~", "$(x)", "`x`", "$HOME", "!", "#",
		"'", `"`, `'"'`, "a b", " ", "\t", "\n", "\r", "a\nb", "tar: .x: ", "e", "l", "...", ".x", "a:b", ":", "h:x", "%s", "%", "é", "\xff", "\xc3",
		strings.Repeat("n", 255), strings.Repeat("\\", 255), strings.Repeat(`\057`, 63),
	}
	for c := 1; c < 256; c++ {
		if c != '/' {
			names = append(names, "one"+string([]byte{byte(c)}), "esc\\"+string([]byte{byte(c)})+"x")
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	const pieces = "\\057.n01x -*?\n'\"$:e"
	for range 200 {
		b := make([]byte, 1+r.IntN(12))
		for i := range b {
			b[i] = pieces[r.IntN(len(pieces))]
		}
		if name := string(b); strings.Trim(name, ".") != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if err := os.MkdirAll(filepath.Join(root, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(top, "secret"), []byte("not to be told"), 0o644); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, dir := range []string{"d", `d\057..`, "d\\\nd", "-d"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			path := dir + "/" + name
			if err := os.WriteFile(root+"/"+path, []byte("content of "+path), 0o644); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, path)
		}
	}
	src := source(t, execHere(t, ""), root)
	i := 0
	for f, err := range src.Read(t.Context(), rsyncx.Wants(slices.Values(paths))) {
		if err != nil {
			t.Fatal(err)
		}
		if f.Path != paths[i] || f.Err != nil {
			t.Errorf("%q: came as %q, %v", paths[i], f.Path, f.Err)
		} else if got, err := io.ReadAll(f.Body); string(got) != "content of "+paths[i] || err != nil {
			t.Errorf("%q: it has %q, %v", paths[i], got, err)
		}
		i++
	}
	if i != len(paths) {
		t.Fatalf("%d of %d files came", i, len(paths))
	}
	listed := map[string]bool{}
	for d, err := range src.Walk(t.Context(), rsyncx.WalkOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range d.Entries {
			listed[join(d.Path, e.Name)] = true
		}
	}
	for i, path := range paths {
		if !listed[path] {
			t.Errorf("%q is not listed", path)
		}
		if i%40 != 0 { // each costs a process
			continue
		}
		e, err := src.Lstat(t.Context(), path)
		if want := int64(len("content of " + path)); err != nil || e.Size != want {
			t.Errorf("%q: %d bytes, %v", path, e.Size, err)
		}
	}
}
