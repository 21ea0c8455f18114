package rsyncx

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"golang.org/x/sys/unix"
)

// TestChmodAsRsync has rsync change many modes and compares.
func TestChmodAsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	testenv.RequireRoot(t)
	from := tempDir(t)
	modes := []uint32{0, 0o1, 0o10, 0o100, 0o444, 0o644, 0o640, 0o755, 0o750, 0o711, 0o777, 0o4755, 0o2755, 0o1777, 0o6750, 0o7000, 0o7777, 0o2070}
	for _, mode := range modes {
		f, d := filepath.Join(from, fmt.Sprintf("f%o", mode)), filepath.Join(from, fmt.Sprintf("d%o", mode))
		write(t, f, "")
		mkdirs(t, d)
		for _, name := range []string{f, d} {
			if err := unix.Chmod(name, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, text := range []string{
		"D2775,F664", "u+s,g=u", "7777", "0", "g+u,o-g", "a=u", "=X", "u=", "u+rwXst", "o=t", "+s", "-s", "=s", "g+s", "g=s", "u=xs", "ug=s", "uo=s",
		"a+t", "+t", "-t", "o+s", "a=", "=", "+", "-", "g=u", "u=g", "o=u", "u-o", "+g", "=o", "-u", "ugo=rwX", "Dg+s,ug+w,Fo-w,+X", "D700", "F600,+X", "a-x,+X",
		"g=o,o=", "ug=o", "o=g", "ao=g", "D-w,F-x", "DD+x", "uu+x", "u=rr", "+rwx", "-rwx", "ugo-rwxst", "a-s", "go=", "Du=rwx,Fu=rw",
		"77777", "g=urw", "x", "D,u+x", "DF+x", "u+x+r", ",u+x", "u+x,", "", "9", "F8", "D", "F", "u755", "u", "a", "7+x", "u+7", "+ugo", "g=uu", "00000644", "a+s", "a=s", "a=rs", "oa+s",
	} {
		sets, err := ParseChmod(text)
		to := tempDir(t)
		out, failed := exec.Command("rsync", "-rp", "--chmod="+text, from+"/", to).CombinedOutput()
		if (err != nil) != (failed != nil) {
			t.Errorf("%q: %v, and rsync: %v %s", text, err, failed, out)
			continue
		}
		if err != nil {
			continue
		}
		for _, mode := range modes {
			for kind, letter := range map[uint32]string{unix.S_IFREG: "f", unix.S_IFDIR: "d"} {
				var st unix.Stat_t
				if err := unix.Lstat(filepath.Join(to, fmt.Sprintf("%s%o", letter, mode)), &st); err != nil {
					t.Fatal(err)
				}
				if got := changeMode(sets, kind|mode); got != st.Mode {
					t.Errorf("%q makes %o of %o, rsync %o", text, got, kind|mode, st.Mode)
				}
			}
		}
		os.RemoveAll(to)
	}
}

func FuzzParseChmod(f *testing.F) {
	for _, seed := range []string{"D2775,F664", "u+s,g=u", "=X", "a-x,+X", "uuu", ",", "+t"} {
		f.Add(seed, uint32(0o22))
	}
	f.Fuzz(func(t *testing.T, text string, mask uint32) {
		sets, err := parseChmod(text, mask&0o777)
		if err != nil {
			return
		}
		for _, mode := range []uint32{unix.S_IFREG | 0o644, unix.S_IFDIR | 0o2755} {
			if got := changeMode(sets, mode); got&unix.S_IFMT != mode&unix.S_IFMT || got&^(unix.S_IFMT|0o7777) != 0 {
				t.Fatalf("%q makes %o of %o", text, got, mode)
			}
		}
	})
}
