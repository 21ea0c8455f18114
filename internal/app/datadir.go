package app

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// FindDataDir returns the data directory of one host, absolute or relative to
// its home: DataDir, unless that host's own configuration puts it elsewhere,
// as clusters on a shared disk do. read returns the content of a file of the
// home, or an error that wraps fs.ErrNotExist.
func (p Profile) FindDataDir(read func(path string) ([]byte, error)) (string, error) {
	if p.dataDirFile == "" {
		return p.DataDir, nil
	}
	text, err := read(p.dataDirFile)
	if errors.Is(err, fs.ErrNotExist) {
		return p.DataDir, nil
	}
	var dir string
	switch {
	case err != nil:
	case strings.HasSuffix(p.dataDirFile, ".properties"):
		dir = property(text, "artifactory.ha.data.dir")
	default:
		var leaves map[string]any
		if leaves, err = flattenYAML(text); err == nil {
			dir, _ = leaves["shared.node.haDataDir"].(string)
		}
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("find the data directory: %s: %w", p.dataDirFile, err)
	case dir == "":
		return p.DataDir, nil
	case strings.Contains(dir, "$") || strings.ContainsAny(dir, "\x00\n"):
		return "", fmt.Errorf("find the data directory: %s names one that drsync cannot resolve", p.dataDirFile)
	case path.IsAbs(dir):
		return path.Clean(dir), nil
	}
	return "", fmt.Errorf("find the data directory: %s names a relative one", p.dataDirFile)
}

// property returns a value of a Java properties file, or "". Lines that are
// continued are not joined: paths are not written like that.
func property(text []byte, key string) string {
	value := ""
	for line := range bytes.Lines(text) {
		s := strings.TrimSpace(string(line))
		if s == "" || s[0] == '#' || s[0] == '!' {
			continue
		}
		end := strings.IndexAny(s, "=: \t")
		if end < 0 || s[:end] != key {
			continue
		}
		v := strings.TrimLeft(s[end:], " \t")
		v = strings.TrimLeft(strings.TrimPrefix(strings.TrimPrefix(v, "="), ":"), " \t")
		value = strings.NewReplacer(`\\`, `\`, `\:`, ":", `\=`, "=", `\ `, " ").Replace(v)
	}
	return value
}
