package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// target is where a run writes: a directory, or one name in it.
type target struct {
	dir  string
	as   string // the name there of the only thing that is sent; "" keeps its own
	make int    // how many directories, dir the last, are missing
	made bool   // they were made
	// silent says that rsync does not tell of a directory that it made.
	silent bool
	shown  string // dir as the line names it
	empty  string // a directory that stands for a missing one in a dry run, to be removed
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
	one := t.single != nil
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
		return to, fail(Selection, "cannot stat destination %s: %w", quoted(dest), err)
	case err == nil:
		return to, fail(Selection, "destination %s is not a directory: %w", quoted(dest), unix.ENOTDIR)
	}
	if one && !slash {
		if alone, err := r.alone(ctx, t); err != nil {
			return to, err
		} else if alone {
			to.dir, to.as = filepath.Dir(path), filepath.Base(path)
			to.shown = filepath.Dir(to.shown)
		}
	}
	to, err = r.lacking(to)
	if to.make > 0 && !r.c.MakePath && !slash && t.source != nil && !t.keepRoot {
		// An empty directory is the only name of its listing, for which rsync enters the directory above.
		to.silent = r.empty(ctx, t)
		if to.silent && to.make > 1 {
			return to, fail(Selection, "change_dir %s failed: %w", quoted(filepath.Dir(to.dir)), unix.ENOENT)
		}
	}
	return to, err
}

// empty reports whether nothing is sent but the root itself. What cannot be looked
// at is told of when it is copied.
func (r *run) empty(ctx context.Context, t *tree) bool {
	if t.only != nil {
		return len(t.only) <= maxAsked && !slices.ContainsFunc(t.only, func(name string) bool {
			top, _, _ := strings.Cut(name, "/")
			_, err := t.source.Lstat(ctx, top)
			return err == nil
		})
	}
	rules, err := r.rulesAt(t.path)
	if err != nil {
		return false
	}
	inside, err := children(ctx, t.source, "", rules)
	return err == nil && len(inside) == 0
}

// bare makes the destination when the sources of this host are all missing: as in
// rsync one whose name ends in a slash is made all the same.
func (r *run) bare(ctx context.Context, t *tree, dest string) error {
	if t.host != nil || !strings.HasSuffix(dest, "/") {
		return nil
	}
	to, err := r.aim(ctx, t, dest)
	if err != nil || to.make == 0 {
		return err
	}
	root, err := r.root(&to, 0o777)
	if err != nil {
		return err
	}
	return errors.Join(root.Close(), to.close(false))
}

// maxAsked is how many names are looked at before a missing destination is made.
const maxAsked = 100

// nothing reports whether the rules hide all that would be sent: then, as in rsync,
// a missing destination is not made, unless the sources are here and its name ends
// in a slash. When they hide all but one name, that is what the destination is made as.
func (r *run) nothing(ctx context.Context, t *tree, dest string, rules ruleSet) (bool, error) {
	if t.host == nil && strings.HasSuffix(dest, "/") || t.only == nil || !t.keepRoot || len(t.only) > maxAsked {
		return false, nil
	}
	path, err := filepath.Abs(r.here(dest))
	if err != nil {
		return false, failed{FileIO, err}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	set, err := rules.build(t, r.c.Options.DeleteExcluded, t.path, path)
	if err != nil {
		return false, usage(err)
	}
	missing := map[string]error{}
	var shown []string
	var last rsyncx.Entry
	for _, name := range t.only {
		e, err := t.source.Lstat(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			missing[name] = err
			continue
		}
		if err != nil {
			return false, nil //nolint:nilerr // it is told of when it is copied
		}
		if hidden, _ := set.Root().Excluded(name, isDir(&e), filter.Sender); !hidden || name == "" {
			shown, last = append(shown, name), e
		}
	}
	if len(shown) > 1 || len(shown) == 1 && (len(t.only) < 2 || t.single != nil || shown[0] == "" || strings.Contains(shown[0], "/") || strings.HasSuffix(dest, "/")) {
		return false, nil
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		r.sourceError("link_stat", join(t.path, name), missing[name])
		t.failed = true
	}
	if len(shown) == 1 {
		t.leave(shown[0], &last)
		return false, nil
	}
	return true, nil
}

// leave keeps of several names one, since the others are hidden or missing.
func (t *tree) leave(name string, e *rsyncx.Entry) {
	t.single, t.only = e, []string{name}
	if m, several := t.source.(*merged); several {
		for i := range m.parts {
			m.parts[i].only = slices.DeleteFunc(slices.Clone(m.parts[i].only), func(path string) bool { return path != name })
		}
	}
}

// alone reports whether what is sent is one name and nothing else, so that the
// destination is another name for it: a file, or as in rsync a directory of which nothing is sent.
func (r *run) alone(ctx context.Context, t *tree) (bool, error) {
	if !isDir(t.single) || t.flat {
		return true, nil
	}
	rules, err := r.rulesAt(t.path)
	if err != nil {
		return false, err
	}
	inside, err := children(ctx, t.source, t.only[0], rules)
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
			return to, fail(Selection, "cannot stat destination %s: %w", quoted(to.shown), err)
		}
		to.make++
	}
	allowed := 1
	if to.as != "" {
		allowed = 0
	}
	// rsync's dry run takes a directory for made that it could not make.
	if to.make > allowed && !r.c.MakePath && (to.as != "" || !r.c.DryRun) {
		if to.as == "" {
			return to, fail(FileIO, "mkdir %s failed: %w", quoted(to.dir), unix.ENOENT)
		}
		return to, fail(Selection, "change_dir %s failed: %w", quoted(to.dir), unix.ENOENT)
	}
	return to, nil
}

// likeness is the mode that a new destination takes from the directory whose content
// is sent, where modes are not kept: the owner's rights come last, with narrow.
func (r *run) likeness(ctx context.Context, t *tree, to *target) uint32 {
	if to.make == 0 || t.keepRoot || r.c.Options.Perms {
		return 0o777
	}
	e, err := t.source.Lstat(ctx, "")
	if err != nil {
		return 0o777 // it is told of when it is copied
	}
	return r.c.Options.SentMode(&e) & 0o777
}

// narrow takes from a new destination what its owner needed to fill it.
func (to *target) narrow(like uint32) error {
	if !to.made || like&0o700 == 0o700 {
		return nil
	}
	info, err := os.Stat(to.dir)
	if err == nil {
		err = os.Chmod(to.dir, info.Mode()&^os.FileMode(0o700&^like))
	}
	if err != nil {
		return fail(FileIO, "set the mode of the destination: %w", err)
	}
	return nil
}

// root opens the directory of to and makes it, with the mode like, where it is missing.
func (r *run) root(to *target, like uint32) (*rsyncx.Root, error) {
	if to.make == 0 {
		return openRoot(to.dir)
	}
	if !r.c.DryRun {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Clean(to.dir)), 0o777), os.Mkdir(to.dir, os.FileMode(like|0o700))); err != nil {
			return nil, fail(FileIO, "make the destination: %w", err)
		}
		to.made = true
	}
	if !to.silent && (r.c.Info("NAME") > 0 || r.c.Itemizes()) {
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

// seenFrom makes directories that are named as from dir absolute: what stands for a
// missing destination is elsewhere.
func seenFrom(dir string, paths []string) []string {
	paths = slices.Clone(paths)
	for i, path := range paths {
		if !filepath.IsAbs(path) {
			paths[i] = filepath.Join(dir, path)
		}
	}
	return paths
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

// backupDir checks the directory of --backup-dir, which is named as from root.
func (r *run) backupDir(root string) error {
	dir := r.c.Options.BackupDir
	if dir == "" {
		return nil
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(root, dir)
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return fail(Usage, "the backup-dir is not a directory: %s", rsyncx.Printable(r.c.Options.BackupDir))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(FileIO, "use the backup-dir %s: %v", rsyncx.Printable(r.c.Options.BackupDir), reason(err))
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
