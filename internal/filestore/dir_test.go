package filestore_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/filestore"
	"github.com/drsync/drsync/internal/filestore/storetest"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

func openDir(t testing.TB, path string) *filestore.Dir {
	t.Helper()
	d, err := filestore.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func put(t testing.TB, s filestore.Store, ref blob.Ref, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), ref, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
}

func TestDirContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) filestore.Local { return openDir(t, filepath.Join(t.TempDir(), "data/filestore")) })
}

func TestUnionContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) filestore.Local {
		root := t.TempDir()
		return filestore.NewUnion(openDir(t, filepath.Join(root, "a")), openDir(t, filepath.Join(root, "b")), openDir(t, filepath.Join(root, "c")))
	})
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// filesBelow returns the paths of all files below root.
func filesBelow(t testing.TB, root string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(root, path)
			all = append(all, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDirListsOnlyBlobs(t *testing.T) {
	root := t.TempDir()
	ref, data := storetest.Content("listed", 10)
	sum := string(ref.Sum)
	other := "00" + sum[2:]
	if sum[:2] == "00" {
		other = "11" + sum[2:]
	}
	foreign := []string{
		"_pre/dbRecord7.bin", other[:2] + "/" + sum, sum[:2] + "/" + sum + ".tmp", sum[:2] + "/" + strings.ToUpper(sum),
		sum, "_drsync/quarantine/" + other[:2] + "/" + other, "_delete/" + sum, sum[:2] + "/sub/" + sum,
	}
	for _, path := range foreign {
		write(t, filepath.Join(root, path), "foreign")
	}
	link := sum[:2] + "/" + sum[:2] + other[2:39] + "e"
	if err := os.Symlink("/etc/passwd", filepath.Join(root, link)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, sum[:2], sum[:2]+other[2:39]+"d"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := openDir(t, root)
	put(t, d, ref, data)
	var got []string
	for i, err := range d.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(i.Sum))
	}
	if !slices.Equal(got, []string{sum}) {
		t.Errorf("listed %q", got)
	}
	linked := blob.Sum(filepath.Base(link))
	if _, err := d.Stat(t.Context(), linked); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Stat of a symbolic link: %v", err)
	}
	if _, err := d.Open(t.Context(), linked); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Open of a symbolic link: %v", err)
	}
	if err := d.Delete(t.Context(), linked); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Delete of a symbolic link: %v", err)
	}
	for _, path := range foreign {
		if got, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(got) != "foreign" {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}

func TestDirRemovesItsLeftoversOnly(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "_pre/drsync-ABC.bin"), "half")
	write(t, filepath.Join(root, "_pre/dbRecord123.bin"), "the application's")
	ro, err := filestore.DirOptions{ReadOnly: true}.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	if got := filesBelow(t, root); len(got) != 2 {
		t.Fatalf("opening to read left %q", got)
	}
	openDir(t, root)
	if got := filesBelow(t, root); !slices.Equal(got, []string{"_pre/dbRecord123.bin"}) {
		t.Fatalf("opening left %q", got)
	}
}

func TestDirReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent")
	d, err := filestore.DirOptions{ReadOnly: true}.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ref, data := storetest.Content("read-only", 10)
	if _, err := d.Stat(t.Context(), ref.Sum); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Stat: %v", err)
	}
	for range d.List(t.Context()) {
		t.Error("an absent store lists something")
	}
	for range d.Quarantined(t.Context()) {
		t.Error("an absent store has something in quarantine")
	}
	for doing, err := range map[string]error{
		"Put": d.Put(t.Context(), ref, bytes.NewReader(data)), "Delete": d.Delete(t.Context(), ref.Sum),
		"Quarantine": d.Quarantine(t.Context(), ref.Sum), "Restore": d.Restore(t.Context(), ref), "Purge": d.Purge(t.Context(), ref.Sum),
	} {
		if !errors.Is(err, filestore.ErrReadOnly) {
			t.Errorf("%s: %v", doing, err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the store was created: %v", err)
	}
}

func TestDirFollowsNoLinkBelowTheStore(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	ref, data := storetest.Content("linked prefix", 10)
	if err := os.Symlink(outside, filepath.Join(root, string(ref.Sum[:2]))); err != nil {
		t.Fatal(err)
	}
	d := openDir(t, root)
	if err := d.Put(t.Context(), ref, bytes.NewReader(data)); err == nil {
		t.Error("Put wrote through a symbolic link")
	}
	write(t, filepath.Join(outside, string(ref.Sum)), string(data))
	if _, err := d.Open(t.Context(), ref.Sum); err == nil {
		t.Error("Open read through a symbolic link")
	}
	if err := d.Delete(t.Context(), ref.Sum); err == nil {
		t.Error("Delete went through a symbolic link")
	}
	var last error
	for _, err := range d.List(t.Context()) {
		last = err
	}
	if last == nil {
		t.Error("List went through a symbolic link")
	}
	if got := filesBelow(t, outside); len(got) != 1 {
		t.Errorf("outside: %q", got)
	}
	if got := filesBelow(t, filepath.Join(root, "_pre")); len(got) != 0 {
		t.Errorf("temporary files left: %q", got)
	}

	temp := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(temp, "_pre")); err != nil {
		t.Fatal(err)
	}
	if _, err := filestore.OpenDir(temp); err == nil {
		t.Error("a linked _pre was accepted")
	}
}

func TestDirItselfMayBeALink(t *testing.T) {
	root, link := t.TempDir(), filepath.Join(t.TempDir(), "filestore")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	ref, data := storetest.Content("through the link", 10)
	put(t, openDir(t, link), ref, data)
	if _, err := os.Stat(filepath.Join(root, filestore.Fanned(ref.Sum))); err != nil {
		t.Error(err)
	}
}

func TestDirOwnerAndMode(t *testing.T) {
	testenv.RequireRoot(t)
	home := t.TempDir()
	const user, group = 54321, 54322
	if err := os.Chmod(home, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, user, group); err != nil {
		t.Fatal(err)
	}
	d := openDir(t, filepath.Join(home, "data/filestore"))
	ref, data := storetest.Content("owned", 10)
	put(t, d, ref, data)
	check := func(rel string, mode fs.FileMode, uid, gid uint32) {
		t.Helper()
		st, err := os.Lstat(filepath.Join(home, rel))
		if err != nil {
			t.Fatal(err)
		}
		sys := st.Sys().(*syscall.Stat_t)
		if st.Mode().Perm() != mode || sys.Uid != uid || sys.Gid != gid {
			t.Errorf("%s: %v %d:%d, want %v %d:%d", rel, st.Mode(), sys.Uid, sys.Gid, mode, uid, gid)
		}
	}
	check("data", 0o750, user, group)
	check("data/filestore/"+filestore.Fanned(ref.Sum), 0o640, user, group)
	check("data/filestore/"+string(ref.Sum[:2]), 0o750, user, group)
	check("data/filestore/_pre", 0o750, user, group)
	if err := d.Quarantine(t.Context(), ref.Sum); err != nil {
		t.Fatal(err)
	}
	check("data/filestore/_drsync/quarantine/"+filestore.Fanned(ref.Sum), 0o640, user, group)
	check("data/filestore/_drsync/quarantine", 0o750, user, group)

	chosen, err := filestore.DirOptions{Owner: &filestore.Owner{UID: 1, GID: 2}, FileMode: 0o604, DirMode: 0o705}.Open(filepath.Join(home, "chosen"))
	if err != nil {
		t.Fatal(err)
	}
	defer chosen.Close()
	put(t, chosen, ref, data)
	check("chosen/"+filestore.Fanned(ref.Sum), 0o604, 1, 2)
	check("chosen/"+string(ref.Sum[:2]), 0o705, 1, 2)
}

func TestDirDiskFull(t *testing.T) {
	testenv.RequireRoot(t)
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	d, err := filestore.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fits, fitsData := storetest.Content("fits", 500_000)
	put(t, d, fits, fitsData)
	big, bigData := storetest.Content("too big", 900_000)
	err = d.Put(t.Context(), big, bytes.NewReader(bigData))
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "900000 bytes") || hint.Of(err) == "" {
		t.Errorf("%v (hint %q)", err, hint.Of(err))
	}
	if got := filesBelow(t, root); !slices.Equal(got, []string{filestore.Fanned(fits.Sum)}) {
		t.Errorf("left behind: %q", got)
	}
}

// The application's prune removes empty directories; one may vanish at any time.
func TestDirSurvivesVanishingDirectories(t *testing.T) {
	root := t.TempDir()
	d := openDir(t, root)
	ref, data := storetest.Content("vanishing", 10)
	for range 3 {
		put(t, d, ref, data)
		if err := os.RemoveAll(filepath.Join(root, string(ref.Sum[:2]))); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Stat(t.Context(), ref.Sum); !errors.Is(err, filestore.ErrNotFound) {
			t.Fatal(err)
		}
	}
}

func TestRestoreVerifies(t *testing.T) {
	root := t.TempDir()
	d := openDir(t, root)
	ref, data := storetest.Content("rotten", 1000)
	put(t, d, ref, data)
	if err := d.Quarantine(t.Context(), ref.Sum); err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(root, "_drsync/quarantine", filestore.Fanned(ref.Sum))
	data[500] ^= 1
	if err := os.WriteFile(in, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.Restore(t.Context(), ref); !errors.Is(err, filestore.ErrCorrupt) {
		t.Fatalf("%v", err)
	}
	if _, err := os.Stat(in); err != nil {
		t.Errorf("the quarantined file is gone: %v", err)
	}
	if _, err := d.Stat(t.Context(), ref.Sum); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("rotten content was restored: %v", err)
	}
}
