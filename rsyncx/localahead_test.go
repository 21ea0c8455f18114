package rsyncx

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A file that is announced and then changed before it is its turn is read as it is, or
// told to be torn. What is announced and is no file, or is never asked for, changes nothing.
func TestLocalReadsAhead(t *testing.T) {
	dir := tempDir(t)
	changes := map[string]func(path string) error{
		"stays":    func(string) error { return nil },
		"grows":    func(path string) error { return os.WriteFile(path, []byte("content and more"), 0o644) },
		"vanishes": os.Remove,
		"is replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("another"), 0o644), os.Rename(path+".new", path))
		},
		"becomes a pipe": func(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644)) },
		"was a pipe": func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte("content"), 0o644))
		},
		"was missing": func(path string) error { return os.WriteFile(path, []byte("content"), 0o644) },
	}
	for name, change := range changes {
		must(t, os.RemoveAll(dir+"/f"))
		write(t, dir+"/first", "first")
		switch name {
		case "was missing":
		case "was a pipe":
			must(t, unix.Mkfifo(dir+"/f", 0o644))
		default:
			write(t, dir+"/f", "content")
		}
		src, dst := open(t, dir, dir)
		dst.Close()
		wants := []Want{{Path: "first", Size: -1, Soon: "f"}, {Path: "f", Size: -1}}
		for f, err := range src.Read(t.Context(), slices.Values(wants)) {
			must(t, err)
			if f.Path == "first" {
				must(t, change(dir+"/f"))
				continue
			}
			gone := name == "vanishes" || name == "becomes a pipe"
			if f.Err != nil {
				if !gone {
					t.Errorf("a file that %s: %v", name, f.Err)
				}
				continue
			}
			got, err := io.ReadAll(f.Body)
			if errors.Is(err, ErrTorn) {
				continue
			}
			if gone {
				t.Errorf("a file that %s gave %q and %v, want an error", name, got, err)
				continue
			}
			want, _ := os.ReadFile(dir + "/f")
			if err != nil || string(got) != string(want) {
				t.Errorf("a file that %s gave %q and %v, want %q or ErrTorn", name, got, err, want)
			}
		}
	}
}

func TestLocalReadsAheadWithinBounds(t *testing.T) {
	dir := tempDir(t)
	var wants []Want
	for i := range 200 {
		name := fmt.Sprintf("f%03d", i)
		write(t, dir+"/"+name, name)
		w := Want{Path: name, Size: -1, Soon: fmt.Sprintf("f%03d", (i*7+3)%200)} // most were asked for already
		if i%3 == 0 {
			w.Soon = "not there"
		}
		wants = append(wants, w)
	}
	src, dst := open(t, dir, dir)
	dst.Close()
	before, most, n := openFiles(t), 0, 0
	for f, err := range src.Read(t.Context(), slices.Values(wants)) {
		must(t, errors.Join(err, f.Err))
		got, err := io.ReadAll(f.Body)
		if err != nil || string(got) != f.Path {
			t.Errorf("%s gave %q and %v", f.Path, got, err)
		}
		most = max(most, openFiles(t))
		if n++; n == 150 {
			break // with some open
		}
	}
	if most > before+upcomingMost+4 {
		t.Errorf("%d files were open at once, %d before", most, before)
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files stay open, %d before", after, before)
	}
}
