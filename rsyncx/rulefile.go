package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFollowed is how many links lead to one filter file, as in the kernel.
const maxFollowed = 40

var errRulesOutside = errors.New("a link out of the tree is not followed")

// readRulesAt returns the content of the filter file name in the directory dir,
// whose path below root is path. What is no regular file has no rules. A link is
// followed within root; where it leads to a file outside, that is an error:
// to go on without its rules would delete what they protect.
func readRulesAt(root, dir int, path, name string) ([]byte, error) {
	content, err := readRegularAt(dir, name, maxMergeFile)
	switch {
	case errors.Is(err, ErrNotRegular), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return nil, fs.ErrNotExist
	case !errors.Is(err, unix.ELOOP):
		return content, err
	}
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(dir, name, &st, 0) }); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fs.ErrNotExist
	}
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	fd := -1
	err = retry(func() (err error) { fd, err = unix.Openat2(root, joinPath(path, name), &how); return err })
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRulesOutside, err)
	}
	defer unix.Close(fd)
	return readOpen(fd, maxMergeFile)
}

// readRules is readRulesAt for the source's side.
func readRules(ctx context.Context, src Source, path string) ([]byte, error) {
	content, err := ReadFile(ctx, src, path, maxMergeFile)
	if !errors.Is(err, ErrNotRegular) {
		return content, err
	}
	if path, err = ledTo(ctx, src, path); err != nil {
		return nil, err
	}
	content, err = ReadFile(ctx, src, path, maxMergeFile)
	if errors.Is(err, ErrNotRegular) {
		err = fs.ErrNotExist
	}
	return content, err
}

// ledTo returns what a path leads to when the links in it are followed.
func ledTo(ctx context.Context, src Source, path string) (string, error) {
	at, links := "", 0
	for rest := path; rest != ""; {
		var name string
		switch name, rest, _ = strings.Cut(rest, "/"); name {
		case "", ".":
			continue
		case "..":
			if at == "" {
				return "", errRulesOutside
			}
			at, _ = splitPath(at)
			continue
		}
		e, err := src.Lstat(ctx, joinPath(at, name))
		switch {
		case errors.Is(err, unix.ENOTDIR):
			return "", fs.ErrNotExist
		case err != nil:
			return "", err
		case !isSymlink(&e):
			if at = joinPath(at, name); rest != "" && !isDir(&e) {
				return "", fs.ErrNotExist
			}
			continue
		case strings.HasPrefix(e.Target, "/"):
			return "", errRulesOutside
		}
		if links++; links > maxFollowed {
			return "", fs.ErrNotExist
		}
		rest = e.Target + "/" + rest
		if len(rest) > 2*maxPath {
			return "", unix.ENAMETOOLONG
		}
	}
	return at, nil
}
