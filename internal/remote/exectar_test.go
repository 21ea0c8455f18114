package remote

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// canned is a host on which every program prints the same.
type canned struct{ output []byte }

func (c canned) run(context.Context, ...string) (program, error) {
	return &cannedProgram{Reader: bytes.NewReader(c.output)}, nil
}
func (canned) lost() error    { return nil }
func (canned) close() error   { return nil }
func (canned) String() string { return "far" }

type cannedProgram struct{ io.Reader }

func (*cannedProgram) Write(p []byte) (int, error) { return len(p), nil }
func (*cannedProgram) CloseWrite() error           { return nil }
func (*cannedProgram) Close() error                { return nil }
func (*cannedProgram) wait(context.Context) error  { return nil }
func (*cannedProgram) explain(err error) error     { return err }
func (*cannedProgram) said() string                { return "" }
func (*cannedProgram) lines() []string             { return nil }

func cannedSource(output []byte) rsyncx.Source {
	h := newExecHost(canned{output}, Config{Silence: time.Minute}, nil)
	return &execSource{host: h, root: "/"}
}

// look is what find prints about files of a length.
func look(size int, names ...string) []byte {
	var b []byte
	for _, name := range names {
		kind := "f"
		if name == "d" {
			kind = "d"
		}
		b = fmt.Appendf(b, "l\x00%s\x00644\x00%d\x001.5000000000\x001.5000000000\x001\x002\x001\x000\x000\x00root\x00root\x00\x00./%s\x00", kind, size, name)
	}
	return fmt.Appendf(b, "e\x000\x00")
}

type member struct {
	name string
	size int
	kind byte
	pax  map[string]string
}

func archive(t testing.TB, members ...member) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Size: int64(m.size), Typeflag: m.kind, Mode: 0o644, PAXRecords: m.pax}
		if m.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if m.pax != nil {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, m.size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tarStream is what the command for a batch prints, with the archive filled up as tar does.
func tarStream(before, archive, after []byte) []byte {
	fill := (tarBlocks*512 - len(archive)%(tarBlocks*512)) % (tarBlocks * 512)
	return slices.Concat(before, archive, make([]byte, fill), after)
}

// TestExecArchiveHasWhatWasAskedFor: an archive with other names, or more of them, ends the
// reading, and what it claims to hold is not all taken into memory.
func TestExecArchiveHasWhatWasAskedFor(t *testing.T) {
	asked := []rsyncx.Want{{Path: "a", Size: 3}, {Path: "d/b", Size: 3}}
	read := func(output []byte) ([]rsyncx.File, error) {
		var files []rsyncx.File
		for f, err := range cannedSource(output).Read(t.Context(), slices.Values(asked)) {
			if err != nil {
				return files, err
			}
			if f.Err == nil {
				_, f.Err = io.Copy(io.Discard, io.LimitReader(f.Body, 1<<20))
			}
			files = append(files, f)
		}
		return files, nil
	}
	there := look(3, "a", "d", "d/b")
	good := []member{{name: "./a", size: 3}, {name: "./d", kind: tar.TypeDir}, {name: "./d/b", size: 3}}
	if files, err := read(tarStream(there, archive(t, good...), there)); err != nil || len(files) != 2 || files[0].Err != nil || files[1].Err != nil {
		t.Fatalf("%+v, %v", files, err)
	}
	for name, output := range map[string][]byte{
		"described":    tarStream(look(3, "a", "d", "d/b", "x"), archive(t, good...), there),
		"instead":      tarStream(look(3, "a", "x"), archive(t, good...), there),
		"one too many": tarStream(there, archive(t, append(good, member{name: "./c", size: 3})...), there),
		"for ever":     tarStream(there, archive(t, slices.Repeat([]member{{name: "./d", kind: tar.TypeDir}}, 4)...), there),
		"out of it":    tarStream(there, archive(t, member{name: "../a", size: 3}), there),
	} {
		if _, err := read(output); !errors.Is(err, rsyncx.ErrHostile) {
			t.Errorf("%s: %v, want ErrHostile", name, err)
		}
	}
}

// TestExecArchiveIsNotHeld: files that turn out larger than listed are not held in memory together.
func TestExecArchiveIsNotHeld(t *testing.T) {
	const size = batchMost/2 + 1
	b := newBatch()
	for _, name := range []string{"a", "b"} {
		b.add(rsyncx.Want{Path: name, Size: 3})
	}
	there := look(3, "a", "b")
	r := &execReads{execSource: cannedSource(tarStream(there, archive(t, member{name: "./a", size: size}, member{name: "./b", size: size}), there)).(*execSource)}
	if err := r.fetch(t.Context(), b); err != nil || !b.again {
		t.Errorf("both were taken, %v", err)
	}
}

func FuzzTarStream(f *testing.F) {
	there := look(3, "a", "d", "d/b")
	f.Add(there, archive(f, member{name: "./a", size: 3}, member{name: "./d", kind: tar.TypeDir}, member{name: "./d/b", size: 3}), there, true)
	f.Add(there, archive(f, member{name: "./a", size: 5, pax: map[string]string{"x.y": "z"}}, member{name: "../c", size: 3}), there, false)
	f.Add(there, archive(f, member{name: "./a", kind: tar.TypeSymlink}), look(4, "a"), true)
	f.Fuzz(func(t *testing.T, before, archive, after []byte, whole bool) {
		output := slices.Concat(before, archive, after)
		if whole {
			output = tarStream(before, archive, after)
		}
		src := cannedSource(output)
		for _, want := range [][]rsyncx.Want{
			{{Path: "a", Size: 3}, {Path: "d/b", Size: 3}},
			{{Path: "a", Size: batchBytes}},
			{{Path: "d/b", Size: 3, Ranges: []rsyncx.Range{{Off: 1, Len: 1}, {Off: 3, Len: 1 << 40}}}},
		} {
			n := 0
			for file, err := range src.Read(t.Context(), slices.Values(want)) {
				if err != nil {
					break
				}
				if n == len(want) || file.Path != want[n].Path {
					t.Fatalf("file %d is %q", n, file.Path)
				}
				n++
				if file.Err != nil {
					continue
				}
				if file.Entry.Size < 0 || file.Entry.Mode&0o170000 != 0o100000 || file.Body == nil {
					t.Fatalf("%+v", file)
				}
				got, err := io.Copy(io.Discard, io.LimitReader(file.Body, 4<<20))
				if want[n-1].Ranges == nil && (got > file.Entry.Size || err == nil && got < min(file.Entry.Size, 4<<20)) {
					t.Fatalf("%d bytes of %d, %v", got, file.Entry.Size, err)
				}
				if errors.Is(err, fs.ErrClosed) {
					t.Fatal("the body was closed under its reader")
				}
			}
		}
	})
}
