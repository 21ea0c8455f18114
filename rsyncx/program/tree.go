package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/drsync/drsync/rsyncx"
)

// tree is what the sources of the line are together.
type tree struct {
	source rsyncx.Source
	path   string // absolute path of the source's root
}

func (t *tree) close() {
	if t.source != nil {
		_ = t.source.Close()
	}
}

// open opens the sources.
func (r *run) open(ctx context.Context, sources []operand) (*tree, error) {
	if len(sources) != 1 || sources[0].remote {
		return nil, fail(Unsupported, "several or remote sources: %w", errors.ErrUnsupported)
	}
	dir, name := split(sources[0].path)
	if name != "" {
		return nil, fail(Unsupported, "a source without a trailing slash: %w", errors.ErrUnsupported)
	}
	src, err := rsyncx.Local(r.here(dir))
	if err != nil {
		return nil, failed{Partial, err}
	}
	return &tree{source: src, path: r.here(dir)}, nil
}

// destination opens the destination directory and makes it where it is missing.
func (r *run) destination(path string) (*rsyncx.Root, error) {
	path = r.here(path)
	root, err := rsyncx.OpenRoot(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return root, err
	}
	if err := os.Mkdir(path, 0o777); err != nil {
		return nil, failed{Selection, fmt.Errorf("make the destination: %w", err)}
	}
	if r.c.Verbose > 0 || r.c.Itemize {
		r.out.line("created directory " + rsyncx.Printable(path))
	}
	return rsyncx.OpenRoot(path)
}
