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

// readOnce lets the answer run to its end, so that the source can go on to the
// next request.
func readOnce(ctx context.Context, src Source, path string, limit int64) (content []byte, err error) {
	answers := 0
	for f, ferr := range src.Read(ctx, slices.Values([]Want{{Path: path, Size: -1}})) {
		if answers++; ferr != nil || answers > 1 || f.Path != path {
			if ferr == nil {
				ferr = hostile(f.Path, "it was sent instead of %q", Printable(path))
			}
			return nil, fmt.Errorf("read %s from the source: %w", Printable(path), ferr)
		}
		content, err = readSmall(&f, limit)
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case answers == 0:
		return nil, fmt.Errorf("%w: it left out a file that was asked for", ErrHostile)
	case err != nil:
		return nil, fmt.Errorf("read %s from the source: %w", Printable(path), err)
	}
	return content, nil
}

func readSmall(f *File, limit int64) ([]byte, error) {
	switch {
	case f.Err != nil:
		return nil, f.Err
	case f.Body == nil:
		return nil, hostile(f.Path, "it was sent without content")
	case f.Entry.Size > limit:
		return nil, fmt.Errorf("it has %d bytes, more than %d", f.Entry.Size, limit)
	}
	content, err := io.ReadAll(io.LimitReader(f.Body, limit+1))
	if err == nil && int64(len(content)) != f.Entry.Size {
		err = hostile(f.Path, "%d bytes of %d were sent", len(content), f.Entry.Size)
	}
	return content, err
}
