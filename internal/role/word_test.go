package role

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestWord(t *testing.T) {
	dir := t.TempDir()
	words := make([]string, 20)
	var all sync.WaitGroup
	for i := range words {
		all.Go(func() {
			word, err := Word(dir)
			if err != nil {
				t.Error(err)
			}
			words[i] = word
		})
	}
	all.Wait()
	for _, w := range words {
		if w == "" || w != words[0] {
			t.Fatalf("the words differ: %q", words)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	if other, err := Word(t.TempDir()); err != nil || other == words[0] {
		t.Errorf("another directory: %q, %v", other, err)
	}
	if word, err := Word(filepath.Join(dir, "absent")); err == nil {
		t.Errorf("a directory that is not there: %q", word)
	}
	if err := os.WriteFile(filepath.Join(dir, wordName), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if word, err := Word(dir); err == nil {
		t.Errorf("an empty file: %q", word)
	}
}
