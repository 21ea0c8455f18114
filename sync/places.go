package sync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drsync/drsync/internal/app"
	"github.com/drsync/drsync/internal/filestore"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
)

// blobPlaces is where the blobs of a run lie: on the active, and here.
type blobPlaces struct {
	here    filestore.Layout
	store   filestore.Local // nil until the guards have passed
	source  filestore.Source
	sources []rsyncx.Source
	// empty says that the active's blob directories hold nothing at all, as
	// when their disk is not mounted.
	empty bool
}

// prefix is what stands before a blob's name when it is shown: where new ones
// go, relative to the home.
func (b *blobPlaces) prefix(home string) string {
	dir := b.here.Dirs[0].Path
	if rel, err := filepath.Rel(home, dir); err == nil && filepath.IsLocal(rel) {
		dir = rel
	}
	return dir + "/"
}

func (b *blobPlaces) close() {
	for _, s := range b.sources {
		_ = s.Close()
	}
	if b.store != nil {
		_ = b.store.Close()
	}
}

// findBlobs reads the active's storage configuration and opens the places
// where its blobs lie. p.blobs stays nil when blobs are rows or there are none.
func (p *pass) findBlobs(ctx context.Context) error {
	if len(p.profile.BlobSets) == 0 {
		return nil
	}
	chain, err := p.readChain(ctx)
	if err != nil {
		return err
	}
	there, err := layout(chain, p.ActiveHome, p.profile, p.readActive(ctx))
	if err != nil {
		return fmt.Errorf("the active's %s: %w", p.profile.ChainFile, err)
	}
	for _, note := range there.Notes {
		p.warn("", note)
	}
	if there.Database {
		return nil
	}
	here, err := layout(chain, p.Home, p.profile, p.readHome)
	if err != nil {
		return err
	}
	p.blobs = &blobPlaces{here: here, empty: true}
	var places []filestore.Place
	for _, dir := range there.Dirs {
		src, err := p.openPlace(ctx, dir.Path)
		if err != nil {
			return err
		}
		if src != nil {
			places = append(places, filestore.Place{Src: src, Path: filestore.Fanned})
		}
	}
	for _, dir := range there.Waiting {
		src, err := p.openPlace(ctx, dir.Path)
		if err != nil {
			return err
		}
		if src == nil {
			continue
		}
		for _, path := range dir.Paths() {
			places = append(places, filestore.Place{Src: src, Path: path})
		}
	}
	p.blobs.source = filestore.NewSource(places)
	return nil
}

// readChain reads the active's storage configuration. A home without one has
// the application's default.
func (p *pass) readChain(ctx context.Context) (filestore.Chain, error) {
	data, err := p.readActive(ctx)(p.profile.ChainFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return filestore.Chain{}, fmt.Errorf("read the active's %s: %w", p.profile.ChainFile, err)
	}
	chain, err := filestore.Parse(data)
	if err != nil {
		return filestore.Chain{}, fmt.Errorf("the active's %s: %w", p.profile.ChainFile, err)
	}
	return chain, nil
}

// readActive reads small files of the active's home.
func (p *pass) readActive(ctx context.Context) func(path string) ([]byte, error) {
	return func(path string) ([]byte, error) { return rsyncx.ReadFile(ctx, p.src, path, 1<<20) }
}

// Chain describes the active's storage for a person: providers, then
// directories. What could be found out is returned beside an error.
func (r *Runner) Chain(ctx context.Context) (string, error) {
	p := &pass{Runner: r, dryRun: true}
	defer p.close()
	if err := p.openActive(ctx); err != nil {
		return "", err
	}
	if len(p.profile.BlobSets) == 0 {
		return "no blobs: the whole home is one tree\n", nil
	}
	chain, err := p.readChain(ctx)
	if err != nil {
		return "", err
	}
	text := chain.String()
	there, err := layout(chain, p.ActiveHome, p.profile, p.readActive(ctx))
	if err != nil {
		return text, err
	}
	if there.Database {
		return text + "blobs are rows of the database\n", nil
	}
	here, err := layout(chain, p.Home, p.profile, p.readHome)
	if err != nil {
		return text, err
	}
	for i, dir := range there.Dirs {
		text += fmt.Sprintf("blobs   %s  ->  %s\n", dir.Path, here.Dirs[i].Path)
	}
	for _, dir := range there.Waiting {
		text += fmt.Sprintf("waiting %s\n", dir.Path)
	}
	for _, note := range there.Notes {
		text += "note    " + note + "\n"
	}
	return text, nil
}

// openPlace opens a blob directory of the active; nil when there is none.
func (p *pass) openPlace(ctx context.Context, path string) (rsyncx.Source, error) {
	src, err := p.active.Source(ctx, path, rsyncx.View{})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the active's %s: %w", path, err)
	}
	p.blobs.sources = append(p.blobs.sources, src)
	for dir, err := range src.Walk(ctx, rsyncx.WalkOptions{}) {
		if goneName(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the active's %s: %w", path, err)
		}
		p.blobs.empty = p.blobs.empty && len(dir.Entries) == 0
		break
	}
	return src, nil
}

// requireBlobs refuses a copy from blob directories that hold nothing while
// the database names blobs: every one of them would be reported as lost.
func (p *pass) requireBlobs() error {
	for _, set := range p.record.BlobSets {
		if p.blobs.empty && set.Named > 0 {
			return hint.New(fmt.Sprintf("the database names %d blobs, but the active's blob directories are empty or absent", set.Named),
				"is the filestore's disk mounted on the active?")
		}
	}
	return nil
}

// openStore opens the standby's blob directories, the first thing a run may create.
func (p *pass) openStore() (err error) {
	if p.blobs != nil {
		p.blobs.store, err = p.blobs.here.Open(filestore.DirOptions{ReadOnly: p.dryRun})
	}
	return err
}

// layout says where the blobs of a home lie, by the chain and by what read
// finds in the home.
func layout(chain filestore.Chain, home string, profile app.Profile, read func(path string) ([]byte, error)) (filestore.Layout, error) {
	dir, err := profile.FindDataDir(read)
	if err != nil {
		return filestore.Layout{}, err
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(home, filepath.FromSlash(dir))
	}
	return chain.Layout(dir)
}

func (r *Runner) readHome(path string) ([]byte, error) { return os.ReadFile(r.inHome(path)) }

// local opens the standby's own state: its profile and blob store as they are
// published, without the active. The store is nil when no blob lives in files.
func (r *Runner) local(readOnly bool) (app.Profile, filestore.Local, error) {
	profile, err := r.Profile(func(path string) (bool, error) {
		_, err := os.Lstat(r.inHome(path))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return app.Profile{}, nil, fmt.Errorf("the standby's home %s: %w", r.Home, err)
	}
	if len(profile.BlobSets) == 0 {
		return profile, nil, nil
	}
	data, err := r.readHome(profile.ChainFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return app.Profile{}, nil, err
	}
	chain, err := filestore.Parse(data)
	if err != nil {
		return app.Profile{}, nil, fmt.Errorf("%s: %w", r.inHome(profile.ChainFile), err)
	}
	l, err := layout(chain, r.Home, profile, r.readHome)
	if err != nil {
		return app.Profile{}, nil, fmt.Errorf("%s: %w", r.inHome(profile.ChainFile), err)
	}
	if l.Database {
		return profile, nil, nil
	}
	store, err := l.Open(filestore.DirOptions{ReadOnly: readOnly})
	return profile, store, err
}
