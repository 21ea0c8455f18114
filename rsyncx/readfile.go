package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ReadFile returns the content of one regular file of src. One that is longer
// than limit bytes is an error, and so is one that changes on every try.
func ReadFile(ctx context.Context, src Source, path string, limit int64) ([]byte, error) {
	for try := 1; ; try++ {
		content, err := readOnce(ctx, src, path, limit)
		if err == nil || try == tries || !errors.Is(err, ErrTorn) {
			return content, err
		}
	}
}

func readOnce(ctx context.Context, src Source, path string, limit int64) ([]byte, error) {
	for f, err := range src.Read(ctx, slices.Values([]string{path})) {
		switch {
		case err != nil:
			return nil, fmt.Errorf("read %s from the source: %w", Printable(path), err)
		case f.Err != nil:
			return nil, fmt.Errorf("read %s from the source: %w", Printable(path), f.Err)
		case f.Path != path || f.Body == nil:
			return nil, hostile(f.Path, "it was sent instead of %q", Printable(path))
		case f.Entry.Size > limit:
			return nil, fmt.Errorf("read %s from the source: it has %d bytes, more than %d", Printable(path), f.Entry.Size, limit)
		}
		content, err := io.ReadAll(io.LimitReader(f.Body, limit+1))
		switch {
		case err != nil:
			return nil, fmt.Errorf("read %s from the source: %w", Printable(path), err)
		case int64(len(content)) != f.Entry.Size:
			return nil, hostile(path, "%d bytes of %d were sent", len(content), f.Entry.Size)
		}
		return content, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, fmt.Errorf("%w: it left out a file that was asked for", ErrHostile)
}
