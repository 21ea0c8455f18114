package wire

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/drsync/drsync/rsyncx"
)

// Read reads files of a tree; see rsyncx.Source. Questions go up as fast as want
// gives them, at most window ahead of the files. When the consumer stops early,
// Read returns after want has returned from the call it is in.
func (c *Conn) Read(ctx context.Context, t Tree, want iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] {
	return func(yield func(rsyncx.File, error) bool) { c.stripes(ctx, t, false).files(ctx, c, want, yield) }
}

// Sums makes sums of files of a tree; see rsyncx.Source and Read.
func (c *Conn) Sums(ctx context.Context, t Tree, want iter.Seq[rsyncx.SumWant]) iter.Seq2[rsyncx.FileSums, error] {
	return func(yield func(rsyncx.FileSums, error) bool) { c.stripes(ctx, t, true).fileSums(ctx, c, want, yield) }
}

func (c *Conn) stripes(ctx context.Context, t Tree, sums bool) *stripes {
	s := newStripes(t, sums)
	s.begin = func(c *Conn) func(error) error {
		end := c.begin(ctx)
		c.leastAlive = leastAliveWhole
		return end
	}
	return s
}

func (s *stripes) files(ctx context.Context, first *Conn, want iter.Seq[rsyncx.Want], yield func(rsyncx.File, error) bool) {
	s.add(first)
	if err := s.read(ctx, want, yield); err != nil && !errors.Is(err, errStopped) {
		yield(rsyncx.File{}, fmt.Errorf("read files of %s: %w", rsyncx.Printable(s.tree.Root), err))
	}
}

func (s *stripes) fileSums(ctx context.Context, first *Conn, want iter.Seq[rsyncx.SumWant], yield func(rsyncx.FileSums, error) bool) {
	s.add(first)
	if err := s.readSums(ctx, want, yield); err != nil && !errors.Is(err, errStopped) {
		yield(rsyncx.FileSums{}, fmt.Errorf("make sums of files of %s: %w", rsyncx.Printable(s.tree.Root), err))
	}
}

func checkPath(path string) error {
	if err := rsyncx.CheckPath(path); err != nil {
		return &rsyncx.PathError{Path: path, Err: err}
	}
	return nil
}
