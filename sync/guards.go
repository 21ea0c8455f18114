package sync

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// Guard is one reason to refuse a run. Guards change nothing.
type Guard struct {
	Name  string
	Check func(ctx context.Context) error
}

// connect opens the active, learns the application's layout and where its
// blobs live.
func (p *pass) connect(ctx context.Context) (string, error) {
	if err := p.openActive(ctx); err != nil {
		return "", err
	}
	if err := p.findBlobs(ctx); err != nil {
		return "", err
	}
	return p.profile.Name + ", layout: " + p.profile.Layout, nil
}

func (p *pass) openActive(ctx context.Context) error {
	active, err := p.Connect(ctx)
	if err != nil {
		return err
	}
	p.active = active
	if p.src, err = active.Source(ctx, p.ActiveHome, rsyncx.View{}); err != nil {
		return fmt.Errorf("open the active's home %s: %w", p.ActiveHome, err)
	}
	if err := p.requireEntries(ctx); err != nil {
		return err
	}
	if p.profile, err = p.Profile(p.exists(ctx)); err != nil {
		return fmt.Errorf("the active's home %s: %w", p.ActiveHome, err)
	}
	return nil
}

// guard runs every guard and reports all that refuse, so that the operator
// mends them in one go.
func (p *pass) guard(ctx context.Context) (string, error) {
	guards := p.guards()
	var refused []error
	for _, g := range guards {
		if err := g.Check(ctx); err != nil {
			if ctx.Err() != nil {
				return "", context.Cause(ctx)
			}
			refused = append(refused, fmt.Errorf("%s: %w", g.Name, err))
		}
	}
	if len(refused) > 0 {
		return "", errors.Join(refused...)
	}
	if err := p.openStore(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d checks passed", len(guards)), nil
}

func (p *pass) guards() []Guard {
	return []Guard{
		{"home", p.guardHome},
		{"source", p.guardSource},
		{"epoch", p.guardEpoch},
		{"same source", p.guardSameSource},
		{"keys", p.guardIdentical},
		{"application", p.guardStopped},
		{"links", p.guardLinks},
		{"blobs", p.guardBlobDirs},
		{"database", p.guardDatabase},
	}
}

// guardHome refuses a standby home that is not there, or has become empty: a new
// one would be made by a mistyped path or below an unmounted disk, and look fine.
func (p *pass) guardHome(context.Context) error {
	info, err := os.Stat(p.Home)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return hint.New("the standby's home "+p.Home+" does not exist", "is its disk mounted? create it, or correct standby.home")
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("the standby's home %s is no directory", p.Home)
	case p.NewSource:
		return nil
	}
	bare, err := isBare(p.Home)
	if err != nil || !bare {
		return err
	}
	last, err := p.published()
	if err != nil || last == "" {
		return err
	}
	return hint.New("the standby's home "+p.Home+" is empty, and snapshot "+last+" was published into it",
		"is its disk mounted? if the home is to be filled anew, accept that once: drsync now --new-source")
}

// isBare reports whether a directory has nothing in it but what drsync and mkfs put there.
func isBare(dir string) (bool, error) {
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	names, err := d.Readdirnames(3)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("look into the standby's home: %w", err)
	}
	return !slices.ContainsFunc(names, func(n string) bool { return n != ".drsync" && n != "lost+found" }), nil
}

// published returns the id of the snapshot that the home should show, or "".
func (p *pass) published() (string, error) {
	if _, err := os.Lstat(p.StateDir); errors.Is(err, fs.ErrNotExist) {
		return "", nil // Open would make it
	}
	snaps, err := snapshot.Open(p.StateDir)
	if err != nil {
		return "", err
	}
	all, err := snaps.List()
	if err != nil || len(all) == 0 {
		return "", err
	}
	return all[0].ID, nil
}

// guardLinks refuses when a directory on the way to what the tree must leave
// alone (blobs, host-specific files) is a symbolic link on one side only. The
// tree would put the active's directory in the place of the standby's link, or
// the reverse, and everything behind it would be gone from view.
func (p *pass) guardLinks(ctx context.Context) error {
	for _, path := range p.waysThrough() {
		ours, oerr := os.Readlink(p.inHome(path))
		if errors.Is(oerr, unix.EINVAL) { // there, and no link
			ours, oerr = "", nil
		}
		if oerr != nil && !errors.Is(oerr, fs.ErrNotExist) {
			return oerr
		}
		e, err := p.src.Lstat(ctx, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		link := e.Mode&unix.S_IFMT == unix.S_IFLNK
		switch {
		case !link && ours == "":
		case link && e.Target == ours:
		case link:
			return hint.New(fmt.Sprintf("%s is a symbolic link on the active, to %s, and not here", path, rsyncx.Printable(e.Target)),
				"make "+p.inHome(path)+" the same link, with its directory, or use a directory on both sides")
		default:
			return hint.New(fmt.Sprintf("%s is a symbolic link, and a directory on the active", p.inHome(path)),
				"use a directory here (a bind mount instead of the link), or the same link on both sides")
		}
	}
	return nil
}

// waysThrough returns the directories that lead to what the tree leaves alone,
// relative to the home, as far as no wildcard comes before.
func (p *pass) waysThrough() []string {
	seen := map[string]bool{}
	for _, pattern := range p.excludes() {
		parts := strings.Split(strings.Trim(pattern, "/"), "/")
		for i := 1; i < len(parts); i++ {
			path := strings.Join(parts[:i], "/")
			if strings.ContainsAny(path, `*?[\`) {
				break
			}
			seen[path] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// guardBlobDirs refuses directories that the active's configuration, and not
// this host's operator, would have written to outside the home; and those that
// are the active's own, seen through a shared file system, since pruning them
// would take the active's blobs.
func (p *pass) guardBlobDirs(ctx context.Context) error {
	if p.blobs == nil {
		return nil
	}
	for _, dir := range p.blobs.here.Dirs {
		if !p.mayWrite(dir.Path) {
			return hint.New(fmt.Sprintf("the active's %s puts blobs into %s, outside the standby's home", p.profile.ChainFile, dir.Path),
				"if that is meant, list the directory as standby.filestore in the configuration")
		}
	}
	for _, src := range p.blobs.sources {
		same, err := p.isOurs(ctx, src)
		if err != nil {
			return err
		}
		if same {
			return hint.New("a blob directory of the active is the standby's own, on a shared file system", "drsync keeps a second copy of the blobs: give the standby its own directory")
		}
	}
	return nil
}

// mayWrite says whether a blob directory lies where the operator allows it.
func (p *pass) mayWrite(path string) bool {
	for _, allowed := range append([]string{p.Home}, p.BlobDirs...) {
		if rel, err := filepath.Rel(allowed, path); err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return false
}

// isOurs looks in a directory of the active for a file with a name that nobody
// can guess, which it makes for a moment in each of the standby's.
func (p *pass) isOurs(ctx context.Context, src rsyncx.Source) (same bool, err error) {
	for _, dir := range p.blobs.here.Dirs {
		name := ".drsync-probe-" + rand.Text()
		f, err := os.OpenFile(filepath.Join(dir.Path, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		f.Close()
		_, err = src.Lstat(ctx, name)
		if rerr := os.Remove(f.Name()); rerr != nil {
			return false, rerr
		}
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

const remount = "is its disk mounted? is active.home right?"

// requireEntries refuses an active whose home is empty: an unmounted disk must
// not empty the standby.
func (p *pass) requireEntries(ctx context.Context) error {
	for dir, err := range p.src.Walk(ctx, rsyncx.WalkOptions{}) {
		if goneName(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list the active's home %s: %w", p.ActiveHome, err)
		}
		for _, e := range dir.Entries {
			if e.Name != ".drsync" {
				return nil
			}
		}
		break
	}
	return hint.New("the active's home "+p.ActiveHome+" is empty", remount)
}

// goneName reports whether all that err says is that one name went away while its
// directory was listed, as names of a live tree do.
func goneName(err error) bool {
	var one *rsyncx.PathError
	return errors.As(err, &one) && one.Path != "" && errors.Is(err, fs.ErrNotExist)
}

// guardSource refuses a home that lacks what every home of the application has.
func (p *pass) guardSource(ctx context.Context) error {
	for _, path := range p.profile.Required {
		if _, err := p.src.Lstat(ctx, path); errors.Is(err, fs.ErrNotExist) {
			return hint.New(fmt.Sprintf("the active's home %s has no %s: it is no home, or a part of it is not mounted", p.ActiveHome, path), remount)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// guardSameSource refuses a home that is another directory than the last time,
// as the mount point below an unmounted disk is. It comes after guardEpoch.
func (p *pass) guardSameSource(ctx context.Context) error {
	root, err := rsyncx.OpenRoot(p.Home)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // guardHome's
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return rsyncx.CheckSource(ctx, p.src, root, p.treeOptions())
}

// guardEpoch refuses an active that an older failover left behind, and a
// standby whose home says that it was promoted.
func (p *pass) guardEpoch(ctx context.Context) error {
	ours := p.role.Epoch
	m, there, err := role.LoadMarker(p.Home)
	if err != nil {
		return err
	}
	if there && m.Role == role.Active && m.Epoch >= ours {
		return hint.With(fmt.Errorf("%w: the marker %s says that this home was promoted (epoch %d)", role.ErrWrongRole, p.inHome(role.MarkerPath), m.Epoch),
			"this host serves, or served; if it is a standby again, remove the marker")
	}
	ours = max(ours, m.Epoch)
	theirs := uint64(0)
	data, err := rsyncx.ReadFile(ctx, p.src, role.MarkerPath, 64<<10)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read the active's role: %w", err)
	default:
		m, err := role.ReadMarker(data)
		if err != nil {
			return fmt.Errorf("the active's %s: %w", role.MarkerPath, err)
		}
		if m.Role != role.Active {
			return fmt.Errorf("the active's home says that it is %s since %s", m.Role, m.Since)
		}
		theirs = m.Epoch
	}
	if theirs < ours {
		return hint.New(fmt.Sprintf("the active has epoch %d, this host has already followed epoch %d: the active is one that was failed over from", theirs, ours),
			"point active.host at the host that was promoted")
	}
	p.epoch = theirs
	return nil
}

// guardIdentical refuses when a file that both sides must share differs, such
// as the key that everything in the database is encrypted with.
func (p *pass) guardIdentical(ctx context.Context) error {
	for _, path := range p.profile.Identical {
		ours, err := os.ReadFile(p.inHome(path))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		theirs, err := rsyncx.ReadFile(ctx, p.src, path, 1<<20)
		if errors.Is(err, fs.ErrNotExist) {
			return hint.New(fmt.Sprintf("the active has no %s, but this host does: without it the database could not be read", path),
				"is the active's home whole? if its key was never made, move this host's away")
		}
		if err != nil {
			return fmt.Errorf("read the active's %s: %w", path, err)
		}
		if !bytes.Equal(bytes.TrimSpace(ours), bytes.TrimSpace(theirs)) {
			return hint.New(fmt.Sprintf("%s differs from the active's: the application could not read the database with it", p.inHome(path)),
				"if this host's key is that of a fresh installation, move it away; the active's then travels")
		}
	}
	return nil
}

// guardStopped refuses while the application runs on the standby.
func (p *pass) guardStopped(context.Context) error {
	if p.profile.LockFile == "" {
		return nil
	}
	return stopped(p.inHome(p.profile.LockFile))
}

// guardDatabase refuses for every fatal finding of the engine and warns of the
// others; a run, which may come every quarter of an hour, does not repeat advice.
func (p *pass) guardDatabase(ctx context.Context) error {
	if p.Engine == nil {
		return nil
	}
	findings, err := p.Engine.Check(ctx)
	if err != nil {
		return err
	}
	var fatal []error
	for _, f := range findings {
		text := f.Subject + ": " + f.Problem
		if !f.Fatal {
			if f.Fix != "" {
				text += "; to mend it: " + f.Fix
			}
			if f.Advice && !p.checking {
				p.Event.Emit(event.Event{Kind: event.Info, Step: "guard", Text: text})
			} else {
				p.warn("", text)
			}
			continue
		}
		fatal = append(fatal, hint.New(text, strings.TrimSpace(f.Fix)))
	}
	return errors.Join(fatal...)
}

// treeRules are the filter rules of the home: first the application's own,
// which nothing configured may override, then the operator's.
func (p *pass) treeRules() (*filter.Rules, error) {
	b := filter.NewBuilder()
	for _, pattern := range p.excludes() {
		if err := b.Own(pattern, filter.Sender|filter.Receiver); err != nil {
			return nil, err
		}
	}
	if p.Rules != nil {
		if err := p.Rules(b); err != nil {
			return nil, err
		}
	}
	return b.Rules(filter.Options{DeleteExcluded: p.Tree.DeleteExcluded})
}

// excludes are the patterns of what is no part of the tree, on either side.
func (p *pass) excludes() []string {
	var blobDirs []string
	if p.blobs != nil {
		blobDirs = p.blobs.here.Below(p.Home)
	}
	return p.profile.Excludes(blobDirs...)
}
