package program

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRacy: with --racy a change that leaves size and time as they were is
// found, if the file was young when it was read.
func TestRacy(t *testing.T) {
	for _, racy := range []bool{false, true} {
		dir := t.TempDir()
		file := filepath.Join(dir, "from", "f")
		when := time.Now()
		put := func(text string) {
			t.Helper()
			for _, err := range []error{os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644), os.Chtimes(file, when, when)} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		pull := func() string {
			t.Helper()
			args := []string{"-a", filepath.Join(dir, "from") + "/", filepath.Join(dir, "to") + "/"}
			if racy {
				args = append([]string{"--racy"}, args...)
			}
			var out, errs bytes.Buffer
			if status := Run(t.Context(), World{Out: &out, Err: &errs, Env: func(string) string { return "" }, Now: time.Now}, args); status != 0 {
				t.Fatalf("exit %d: %s", status, errs.String())
			}
			content, err := os.ReadFile(filepath.Join(dir, "to", "f"))
			if err != nil {
				t.Fatal(err)
			}
			return string(content)
		}
		put("AAAA")
		pull()
		put("BBBB")
		if got := pull(); (got == "BBBB") != racy {
			t.Errorf("racy %v: the copy is %q", racy, got)
		}
	}
}
