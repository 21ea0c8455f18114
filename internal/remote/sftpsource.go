package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
)

// sftpSource is a directory of an SFTP server. The protocol knows whole seconds,
// numeric owners, no inodes, no device numbers, and no way to open a file
// without following a link: what is a link is told by looking first. Whoever may
// write in the tree can swap a name in between.
type sftpSource struct {
	rsyncx.NoSums
	host *sftpHost
	link *sftpLink
	root string
}

var _ rsyncx.Source = (*sftpSource)(nil)

func (s *sftpSource) Abilities() rsyncx.Abilities { return rsyncx.Abilities{} }

func (s *sftpSource) Close() error {
	s.link.close(errClosed)
	s.host.mu.Lock()
	delete(s.host.links, s.link)
	s.host.mu.Unlock()
	return nil
}

// at returns the server's name of a path.
func (s *sftpSource) at(path string) string {
	if path == "" {
		return s.root
	}
	return strings.TrimSuffix(s.root, "/") + "/" + path
}

func (s *sftpSource) Lstat(ctx context.Context, path string) (rsyncx.Entry, error) {
	e, err := s.lstat(ctx, path, &parents{})
	if err != nil {
		return rsyncx.Entry{}, s.about(ctx, path, err)
	}
	return e, nil
}

func (s *sftpSource) lstat(ctx context.Context, path string, known *parents) (rsyncx.Entry, error) {
	if err := rsyncx.CheckPath(path); err != nil {
		return rsyncx.Entry{}, err
	}
	if ctx.Err() != nil {
		return rsyncx.Entry{}, context.Cause(ctx)
	}
	if path == "" {
		st, err := call(ctx, s.link, func() (*sftp.FileStat, error) { return statOf(s.link.client.Stat(s.root)) })
		if err != nil {
			return rsyncx.Entry{}, err
		}
		return entryOf("", st)
	}
	if err := known.check(ctx, s, path); err != nil {
		return rsyncx.Entry{}, err
	}
	st, err := call(ctx, s.link, func() (*sftp.FileStat, error) { return statOf(s.link.client.Lstat(s.at(path))) })
	if err != nil {
		return rsyncx.Entry{}, err
	}
	e, err := entryOf(path[strings.LastIndexByte(path, '/')+1:], st)
	if err == nil && e.Mode&unix.S_IFMT == unix.S_IFLNK {
		e.Target, err = s.readLink(ctx, path)
	}
	return e, err
}

func (s *sftpSource) readLink(ctx context.Context, path string) (string, error) {
	target, err := call(ctx, s.link, func() (string, error) { return s.link.client.ReadLink(s.at(path)) })
	if err == nil && (len(target) > 4095 || strings.IndexByte(target, 0) >= 0) {
		err = fmt.Errorf("%w: the target of a link", rsyncx.ErrHostile)
	}
	return target, err
}

// about wraps what is wrong with one path. What is wrong with the connection or
// the context is left as it is.
func (s *sftpSource) about(ctx context.Context, path string, err error) error {
	if final := s.final(ctx); final != nil {
		return final
	}
	return &rsyncx.PathError{Path: path, Err: err}
}

// final returns why nothing more can be asked, or nil.
func (s *sftpSource) final(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.link.conn.dead:
		return s.link.conn.err
	case <-s.link.dead:
		return s.link.err
	default:
		return nil
	}
}

// statOf takes the server's own numbers out of what the library makes of them.
func statOf(info fs.FileInfo, err error) (*sftp.FileStat, error) {
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*sftp.FileStat)
	if !ok {
		return nil, errors.New("internal error: the sftp library gave no attributes")
	}
	return st, nil
}

func entryOf(name string, st *sftp.FileStat) (rsyncx.Entry, error) {
	e := rsyncx.Entry{Name: name, Mode: st.Mode, Mtime: rsyncx.Time{Sec: secondsOf(st.Mtime, time.Now())}, UID: st.UID, GID: st.GID}
	switch st.Mode & unix.S_IFMT {
	case 0:
		return e, errors.New("the sftp server does not tell what kind of file it is")
	case unix.S_IFREG:
		if e.Size = int64(st.Size); e.Size < 0 {
			return e, fmt.Errorf("%w: a file of %d bytes", rsyncx.ErrHostile, st.Size)
		}
	}
	return e, nil
}

// secondsOf returns what a server means by the 32 bits that SFTP has for a time.
// They are unsigned, and OpenSSH's server puts a time before 1970 into them as it
// lies in memory, so that it looks like one of 2038 to 2106. What lies more than a
// day ahead of now is taken for one before 1970: files of the past are many and
// files of the future are few. The reader is told of each (Stats.Notes).
func secondsOf(v uint32, now time.Time) int64 {
	if int64(v) > math.MaxInt32 && int64(v) > now.Unix()+24*60*60 {
		return int64(int32(v))
	}
	return int64(v)
}

// parents remembers which directories of a tree were found to be directories
// and not links. The zero value is ready; several goroutines may use it.
type parents struct {
	mu    sync.Mutex
	known map[string]bool
}

// maxParents bounds what parents remembers.
const maxParents = 1 << 16

// check returns an error unless every parent of path is a directory itself.
func (k *parents) check(ctx context.Context, s *sftpSource, path string) error {
	for i := 0; ; i++ {
		n := strings.IndexByte(path[i:], '/')
		if n < 0 {
			return nil
		}
		i += n
		dir := path[:i]
		k.mu.Lock()
		ok := k.known[dir]
		k.mu.Unlock()
		if ok {
			continue
		}
		st, err := call(ctx, s.link, func() (*sftp.FileStat, error) { return statOf(s.link.client.Lstat(s.at(dir))) })
		switch {
		case err != nil:
			return err
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return fmt.Errorf("%s is no directory: %w", rsyncx.Printable(dir), fs.ErrNotExist)
		}
		k.mu.Lock()
		if k.known == nil || len(k.known) >= maxParents {
			k.known = map[string]bool{}
		}
		k.known[dir] = true
		k.mu.Unlock()
	}
}
