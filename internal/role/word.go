package role

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const wordName = "instance"

// Word returns a word that no other state directory has. The first who asks makes
// it; several may ask at once and get the same. Without the directory, or the right
// to write there, it is an error.
func Word(dir string) (string, error) {
	path := filepath.Join(dir, wordName)
	for {
		data, err := os.ReadFile(path)
		if word := strings.TrimSpace(string(data)); err == nil && word != "" {
			return word, nil
		}
		if err == nil {
			return "", fmt.Errorf("%s is empty: remove it", path)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("read this standby's name: %w", err)
		}
		// A link appears whole, or not at all when another was first.
		draft, err := os.CreateTemp(dir, "."+wordName+"-*")
		if err != nil {
			return "", fmt.Errorf("name this standby: %w", err)
		}
		_, err = draft.WriteString(rand.Text() + "\n")
		if err == nil {
			err = draft.Chmod(0o644)
		}
		if err = errors.Join(err, draft.Sync(), draft.Close()); err == nil {
			if err = os.Link(draft.Name(), path); errors.Is(err, fs.ErrExist) {
				err = nil
			}
		}
		if err = errors.Join(err, os.Remove(draft.Name())); err != nil {
			return "", fmt.Errorf("name this standby: %w", err)
		}
	}
}
