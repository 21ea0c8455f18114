package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
)

// target is where a run writes: a directory, or one name in it.
type target struct {
	dir   string
	as    string // the name there of the only thing that is sent; "" keeps its own
	make  int    // how many directories, dir the last, are missing
	made  bool   // they were made
	shown string // dir as the line names it
	empty string // a directory that stands for a missing one in a dry run, to be removed
}

// aim settles what dest means for t. Nothing is made yet.
func (r *run) aim(ctx context.Context, t *tree, dest string) (target, error) {
	path := r.here(dest)
	info, err := os.Stat(path)
	slash := strings.HasSuffix(dest, "/")
	to := target{dir: path, shown: strings.TrimRight(dest, "/")}
	if to.shown == "" {
		to.shown = dest
	}
	one := t.single != nil && !r.c.Relative
	switch {
	case err == nil && info.IsDir():
		return to, nil
	case err == nil && !one:
		return to, fail(Selection, "destination must be a directory when copying more than 1 file")
	case err == nil && isDir(t.single):
		return to, fail(Selection, "cannot overwrite non-directory with a directory")
	case err == nil && !slash:
		to.dir, to.as = filepath.Dir(path), filepath.Base(path)
		return to, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return to, fail(Selection, "cannot stat destination %q: %w", dest, err)
	case err == nil:
		return to, fail(Selection, "destination %q is not a directory: %w", dest, unix.ENOTDIR)
	}
	if one && !slash {
		if alone, err := r.alone(ctx, t); err != nil {
			return to, err
		} else if alone {
			to.dir, to.as = filepath.Dir(path), filepath.Base(path)
			to.shown = filepath.Dir(to.shown)
		}
	}
	return r.lacking(to)
}

// alone reports whether what is sent is one name and nothing else, so that the
// destination is another name for it: a file, or as in rsync a directory in which nothing is.
func (r *run) alone(ctx context.Context, t *tree) (bool, error) {
	if !isDir(t.single) || t.flat {
		return true, nil
	}
	inside, err := children(ctx, t.source, t.only[0])
	return len(inside) == 0, err
}

// lacking counts the directories that have to be made.
func (r *run) lacking(to target) (target, error) {
	for dir := filepath.Clean(to.dir); ; dir = filepath.Dir(dir) {
		_, err := os.Lstat(dir)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return to, fail(Selection, "cannot stat destination %q: %w", to.shown, err)
		}
		to.make++
	}
	allowed := 1
	if to.as != "" {
		allowed = 0
	}
	if to.make > allowed && !r.c.MakePath {
		if to.as == "" {
			return to, fail(FileIO, "mkdir %q failed: %w", to.dir, unix.ENOENT)
		}
		return to, fail(Selection, "change_dir %q failed: %w", to.dir, unix.ENOENT)
	}
	return to, nil
}

// root opens the directory of to and makes it where it is missing.
func (r *run) root(to *target) (*rsyncx.Root, error) {
	if to.make == 0 {
		return openRoot(to.dir)
	}
	if !r.c.DryRun {
		if err := os.MkdirAll(to.dir, 0o777); err != nil {
			return nil, fail(FileIO, "make the destination: %w", err)
		}
		to.made = true
	}
	if r.c.Info("NAME") > 0 || r.c.Itemizes() {
		text := "created directory " + rsyncx.Printable(to.shown)
		switch {
		case r.c.MakePath && to.make == 1:
			text = "created 1 directory for " + rsyncx.Printable(to.shown)
		case r.c.MakePath:
			text = fmt.Sprintf("created %d directories for %s", to.make, rsyncx.Printable(to.shown))
		}
		r.say(text)
	}
	if !r.c.DryRun {
		return openRoot(to.dir)
	}
	empty, err := os.MkdirTemp("", "drsync-")
	if err != nil {
		return nil, failed{FileIO, err}
	}
	to.empty = empty
	return openRoot(empty)
}

// tempDir checks the directory of --temp-dir, which is named as from root.
func tempDir(root, dir string) error {
	if dir == "" {
		return nil
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(root, dir)
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "stat", Path: dir, Err: unix.ENOTDIR}
	}
	if err != nil {
		return fmt.Errorf("--temp-dir: %w", err)
	}
	return nil
}

func openRoot(dir string) (*rsyncx.Root, error) {
	root, err := rsyncx.OpenRoot(dir)
	if err != nil {
		return nil, failed{Selection, err}
	}
	return root, nil
}

// close removes what stands for a missing directory and, after a failure, the
// directories that were made and in which nothing is: nothing was copied then.
func (to *target) close(failed bool) error {
	if to.empty != "" {
		return os.Remove(to.empty)
	}
	if !to.made || !failed {
		return nil
	}
	dir := filepath.Clean(to.dir)
	for range to.make {
		if err := os.Remove(dir); err != nil {
			return nil // what is kept for the next run is in it
		}
		dir = filepath.Dir(dir)
	}
	return nil
}
