package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/drsync/drsync/rsyncx/delta"
	"golang.org/x/sys/unix"
)

// Sums reads each file once, with the same care as Read, whatever is asked of it.
func (l *local) Sums(ctx context.Context, want iter.Seq[SumWant]) iter.Seq2[FileSums, error] {
	return func(yield func(FileSums, error) bool) {
		d := &descent{root: l.root}
		defer d.close()
		var buf []byte
		for w := range want {
			if ctx.Err() != nil {
				break
			}
			if buf == nil {
				buf = make([]byte, copyBuffer)
			}
			sums := l.sumsOf(ctx, d, &w, buf)
			if ctx.Err() != nil {
				break
			}
			if !yield(sums, nil) {
				return
			}
		}
		if ctx.Err() != nil {
			yield(FileSums{}, context.Cause(ctx))
		}
	}
}

func (l *local) sumsOf(ctx context.Context, d *descent, w *SumWant, buf []byte) FileSums {
	st, fd, err := l.open(d, w.Path)
	if err != nil {
		return FileSums{Path: w.Path, Err: &PathError{Path: w.Path, Err: err}}
	}
	defer unix.Close(fd)
	sums := FileSums{Path: w.Path, Entry: st.Entry}
	if err := checkSumWant(w, st.Size); err != nil {
		sums.Err = &PathError{Path: w.Path, Err: err}
		return sums
	}
	body := &localBody{ctx: ctx, fd: fd, left: st.Size, before: st, more: w.Ranges}
	if w.Ranges != nil {
		body.left = 0
	}
	if w.Ranges == nil && st.Size >= aheadLeast {
		_ = unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL) // a hint
	}
	s := delta.NewSummer(w.Block, w.Weak, w.Ranges == nil)
	s.Also = w.Kind.hasher()
	if _, err := io.CopyBuffer(writerOnly{s}, readerOnly{body}, buf); err != nil {
		sums.Err = &PathError{Path: w.Path, Err: err}
		return sums
	}
	sums.Whole, sums.Sums = s.Whole(), s.Sums()
	if s.Also != nil {
		sums.Other = s.Also.Sum(nil)
	}
	return sums
}

// checkSumWant refuses what has no answer, or too long a one. size is that of the file.
func checkSumWant(w *SumWant, size int64) error {
	if w.Block < 0 || w.Block == 0 && (w.Weak || w.Ranges != nil) {
		return fmt.Errorf("sums of blocks of %d bytes: %w", w.Block, unix.EINVAL)
	}
	if !w.Kind.Known() || w.Kind != SumXXH128 && w.Ranges != nil {
		return fmt.Errorf("sums of kind %d: %w", w.Kind, unix.EINVAL)
	}
	total, end := size, int64(0)
	if w.Ranges != nil {
		total = 0
	}
	for _, r := range w.Ranges {
		switch {
		case r.Off < end || r.Len <= 0 || r.Off%w.Block != 0:
			return fmt.Errorf("sums of %d bytes at %d: %w", r.Len, r.Off, unix.EINVAL)
		case r.Len > size-r.Off:
			return ErrTorn // it was longer when it was listed
		case r.Len%w.Block != 0 && r.Off+r.Len != size:
			return fmt.Errorf("sums of %d bytes at %d: %w", r.Len, r.Off, errors.Join(ErrTorn, unix.EINVAL))
		}
		end = r.Off + r.Len
		total += r.Len
	}
	if n := delta.Count(total, w.Block); n > delta.MaxBlocks {
		return fmt.Errorf("%d sums of one file: %w", n, ErrTooMany)
	}
	return nil
}
