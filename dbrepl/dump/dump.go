// Package dump is the form in which a captured database is kept: a directory
// with a manifest and chunk files, which need no server to be checked.
//
// Its invariant: a dump exists when its manifest does, and then every chunk is
// whole and durable. What was altered since is noticed by its sum before any of
// it counts.
//
//	manifest.json   what the dump is of, and every chunk with its sum
//	0001.zst …      chunks: what the engine wrote, as a zstd stream (zstdcat shows it)
//	0002.raw …      chunks that another program wrote, as they are
//
// What is in a chunk is the engine's own: rows of a table, or a whole database file.
package dump

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/zeebo/xxh3"

	"github.com/drsync/drsync/dbrepl"
)

// Manifest says what a dump is of and what it is made of. It is stored as
// JSON; fields are only ever added.
type Manifest struct {
	Engine string       `json:"engine"` // whose chunks they are: "mysql", …
	Name   string       `json:"name"`   // of the database
	Point  dbrepl.Point `json:"point"`
	// Definition is the engine's own: what it takes to make the database that
	// the chunks are put into.
	Definition json.RawMessage `json:"definition,omitempty"`
	Chunks     []Chunk         `json:"chunks"` // in the order in which they were begun
}

// Chunk is one file of a dump.
type Chunk struct {
	File  string `json:"file"`
	Table string `json:"table,omitempty"` // what it belongs to, in the engine's words
	Rows  int64  `json:"rows"`
	Bytes int64  `json:"bytes"` // uncompressed
	Sum   string `json:"xxh3"`  // XXH3-128 of these bytes, in hexadecimal
	// Stored is how many bytes the file has.
	Stored int64 `json:"stored"`
}

// Rows returns how many rows the chunks of a dump hold.
func (m Manifest) Rows() (n int64) {
	for _, c := range m.Chunks {
		n += c.Rows
	}
	return n
}

// Stored returns how many bytes the chunks of a dump take on disk.
func (m Manifest) Stored() (n int64) {
	for _, c := range m.Chunks {
		n += c.Stored
	}
	return n
}

const (
	manifestName = "manifest.json"
	format       = 1
	maxManifest  = 64 << 20 // bytes
	packed, raw  = ".zst", ".raw"
)

// ErrDamaged says that a dump is not as it was written.
var ErrDamaged = errors.New("the dump is damaged")

// envelope is the file: the sum is of the manifest's own text.
type envelope struct {
	Format   int             `json:"format"`
	Sum      string          `json:"xxh3"`
	Manifest json.RawMessage `json:"manifest"`
}

func (m Manifest) encode() ([]byte, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(envelope{Format: format, Sum: sumOf(body), Manifest: body})
	return append(text, '\n'), err
}

// decode reads a manifest, which may come from anywhere.
func decode(text []byte) (Manifest, error) {
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil {
		return Manifest{}, fmt.Errorf("%w: its manifest: %w", ErrDamaged, err)
	}
	if e.Format != format {
		return Manifest{}, fmt.Errorf("the dump has format %d, this drsync reads %d", e.Format, format)
	}
	var body bytes.Buffer
	if err := json.Compact(&body, e.Manifest); err != nil || sumOf(body.Bytes()) != e.Sum {
		return Manifest{}, fmt.Errorf("%w: its manifest was altered", ErrDamaged)
	}
	var m Manifest
	if err := json.Unmarshal(e.Manifest, &m); err != nil {
		return Manifest{}, fmt.Errorf("%w: its manifest: %w", ErrDamaged, err)
	}
	seen := make(map[string]bool, len(m.Chunks))
	for _, c := range m.Chunks {
		if !chunkName.MatchString(c.File) || seen[c.File] || c.Rows < 0 || c.Bytes < 0 || c.Stored < 0 {
			return Manifest{}, fmt.Errorf("%w: its manifest has a chunk %q", ErrDamaged, c.File)
		}
		seen[c.File] = true
	}
	return m, nil
}

var chunkName = regexp.MustCompile(`^[0-9]{4,9}\.(zst|raw)$`)

func sumOf(b []byte) string {
	sum := xxh3.Hash128(b).Bytes()
	return hex.EncodeToString(sum[:])
}

// Read returns the manifest of the dump in dir. It wraps fs.ErrNotExist when
// there is none and ErrDamaged when it is not as it was written.
func Read(dir string) (Manifest, error) {
	path := filepath.Join(dir, manifestName)
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxManifest {
		err = fmt.Errorf("%w: its manifest has %d bytes", ErrDamaged, info.Size())
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	var m Manifest
	if err == nil {
		m, err = decode(text)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("read dump %s: %w", dir, err)
	}
	return m, nil
}

// Identity returns the SHA-256 of the manifest of the dump in dir, which has the
// sums of all the rest: two dumps with the same are the same.
func Identity(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return "", fmt.Errorf("read dump %s: %w", dir, err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// Exists says whether dir holds a dump.
func Exists(dir string) (bool, error) {
	_, err := os.Lstat(filepath.Join(dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
