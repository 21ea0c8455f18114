package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
)

// execSource is a directory of a host that has find and tar. They follow links in
// the middle of a path: that none is there is told by looking at each directory
// on the way, in the same command. Whoever may write in the tree can swap a name in
// between. There are no extended attributes, no holes and no sums of content.
type execSource struct {
	rsyncx.NoSums
	host    *execHost
	root    string
	devices bool
}

var _ rsyncx.Source = (*execSource)(nil)

func (s *execSource) Abilities() rsyncx.Abilities {
	return rsyncx.Abilities{Nanoseconds: true, OwnerNames: true, HardLinks: true, Devices: s.devices}
}

func (s *execSource) Close() error { return nil }

// notEntered is the status of a script whose root cannot be entered.
const notEntered = 90

// inRoot returns the words that run a script in the root.
func (s *execSource) inRoot(text string) []string {
	return script(`cd -P "$1" 2> /dev/null || { ls -d "$1/." > /dev/null; exit 90; }; `+text, s.root)
}

// forNames returns the words that run a script in the root with the names as its
// arguments that it gets as its input, each with a NUL behind it. They need no
// quoting this way, whatever shell the login has.
func (s *execSource) forNames(text string) []string {
	return s.inRoot("exec xargs -0 -r sh -c " + quoteWord(text) + " sh")
}

func nameList(paths []string) io.Reader {
	var b strings.Builder
	for _, p := range paths {
		b.WriteString("./" + p + "\x00")
	}
	return strings.NewReader(b.String())
}

func (s *execSource) Lstat(ctx context.Context, path string) (rsyncx.Entry, error) {
	if err := rsyncx.CheckPath(path); err != nil {
		return rsyncx.Entry{}, &rsyncx.PathError{Path: path, Err: err}
	}
	there, err := s.describe(ctx, withParents(nil, path))
	if err != nil {
		return rsyncx.Entry{}, err
	}
	d, err := there.at(path)
	if err == nil && isDevice(d.Mode) && s.devices {
		var numbers map[string]uint64
		if numbers, err = s.deviceNumbers(ctx, []string{path}); err != nil {
			return rsyncx.Entry{}, err
		}
		d.Rdev = numbers[path]
	}
	if err != nil {
		return rsyncx.Entry{}, &rsyncx.PathError{Path: path, Err: err}
	}
	return d.Entry, nil
}

// withParents adds a path and the directories on the way to it, the root left out.
func withParents(paths []string, path string) []string {
	for i := range len(path) {
		if path[i] == '/' {
			paths = append(paths, path[:i])
		}
	}
	return append(paths, path)
}

// found is what was there, by path.
type found struct {
	entries map[string]described
	said    string // by find about the others
}

// at returns what is at path, if no link leads there.
func (f *found) at(path string) (described, error) {
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		d, ok := f.entries[path[:i]]
		switch {
		case !ok:
			return described{}, f.missing()
		case d.Mode&unix.S_IFMT != unix.S_IFDIR:
			return described{}, fmt.Errorf("%s is no directory: %w", rsyncx.Printable(path[:i]), fs.ErrNotExist)
		}
	}
	d, ok := f.entries[path]
	if !ok {
		return described{}, f.missing()
	}
	return d, nil
}

// missing says why a name was not found. It is taken for missing only if
// nothing else was wrong with any.
func (f *found) missing() error {
	for line := range strings.SplitSeq(f.said, "; ") {
		switch {
		case line == "", strings.HasSuffix(line, ": No such file or directory"), strings.HasSuffix(line, ": Not a directory"):
		case strings.HasSuffix(line, ": Permission denied"):
			return fmt.Errorf("%w: %s", fs.ErrPermission, line)
		default:
			return errors.New(line)
		}
	}
	return fs.ErrNotExist
}

// enter says whether the root is there.
func (s *execSource) enter(ctx context.Context) error {
	_, err := s.describe(ctx, []string{""})
	return err
}

// looking prints a record for each argument.
const looking = `find "$@" -maxdepth 0 -printf 'l\0` + findFormat + `'; `

// describe looks at a few paths.
func (s *execSource) describe(ctx context.Context, paths []string) (*found, error) {
	f := &found{entries: map[string]described{}}
	var err error
	f.said, err = converse(ctx, s.host.far, s.host.silence, nameList(paths), func(out io.Reader) error {
		in := bufio.NewReaderSize(out, 32<<10)
		var r findRecord
		for n := 0; ; n++ {
			if err := readRecord(in, &r); err != nil {
				if err == io.EOF { //nolint:errorlint // a lost connection wraps io.EOF
					return nil
				}
				return err
			}
			if n == len(paths) {
				return fmt.Errorf("%w: more records than names", rsyncx.ErrHostile)
			}
			if err := f.take(&r); err != nil {
				return err
			}
		}
	}, s.forNames(looking+"exit 0")...)
	if err != nil {
		return nil, s.explainRoot(err)
	}
	return f, nil
}

func (f *found) take(r *findRecord) error {
	d, err := parseFacts(r.facts)
	if err != nil {
		return err
	}
	path := string(r.path)
	d.Name = path[strings.LastIndexByte(path, '/')+1:]
	f.entries[path] = d
	return nil
}

// explainRoot says what it means that a script did not get into the root.
func (s *execSource) explainRoot(err error) error {
	var failed *ShellError
	switch {
	case !errors.As(err, &failed) || failed.Status != notEntered:
		return err
	case strings.Contains(err.Error(), "No such file or directory"):
		return verdict{fmt.Errorf("enter %s: %w", rsyncx.Printable(s.root), err), fs.ErrNotExist}
	}
	return fmt.Errorf("enter %s: %w", rsyncx.Printable(s.root), err)
}

func isDevice(mode uint32) bool {
	return mode&unix.S_IFMT == unix.S_IFBLK || mode&unix.S_IFMT == unix.S_IFCHR
}

// deviceNumbers asks stat, since find does not tell them.
func (s *execSource) deviceNumbers(ctx context.Context, paths []string) (map[string]uint64, error) {
	numbers := make(map[string]uint64, len(paths))
	_, err := converse(ctx, s.host.far, s.host.silence, nameList(paths), func(out io.Reader) error {
		in := bufio.NewReaderSize(out, 32<<10)
		var b []byte
		for n := 0; ; n++ {
			if _, err := in.Peek(1); err == io.EOF {
				return nil
			}
			if b = b[:0]; n == len(paths) {
				return fmt.Errorf("%w: more numbers than names", rsyncx.ErrHostile)
			}
			if err := appendField(in, &b); err != nil {
				return err
			}
			major, rest, _ := strings.Cut(string(b), ":")
			minor, path, ok := strings.Cut(rest, ":")
			hi, err1 := strconv.ParseUint(major, 16, 32)
			lo, err2 := strconv.ParseUint(minor, 16, 32)
			if !ok || err1 != nil || err2 != nil {
				return fmt.Errorf("%w: the device number %q of stat", rsyncx.ErrHostile, b)
			}
			numbers[strings.TrimSuffix(strings.TrimPrefix(path, "./"), "\x00")] = unix.Mkdev(uint32(hi), uint32(lo))
		}
	}, s.forNames(`stat --printf '%t:%T:%n\0' "$@"; exit 0`)...)
	return numbers, s.explainRoot(err)
}
