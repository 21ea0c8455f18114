package rsyncx

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/drsync/drsync/rsyncx/delta"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// A long file that looks changed mostly is changed here and there. So while the sums
// of its old version are made, what is read for them is written to the staged file too: in the
// end only what differs is written there, and nothing is read a second time.
//
// Then nobody sees the new content in one piece. But the sum of the whole is that of a tree:
// over the sums of all blocks, 128 bits each. A block that was copied and stays has the sum
// that it had as it was copied; one that anything was written to later is read back from the
// staged file. What they make together must be the one sum that the source told.

// aheadLeast is the length in bytes from which on a file is copied while its
// sums are made. A shorter one is in memory when it is read again.
const aheadLeast = 8 << 20

// letGoEvery is how much of a basis is read before the kernel is told that it may forget
// it, in bytes: the copy takes over that memory then, and the file that Publish replaces
// has little left to be freed.
const letGoEvery = 8 << 20

// copyAhead decides whether the basis of d is to be copied, and to which staged file.
func (p *phases) copyAhead(d *draft) {
	w := &d.wish
	_, weak := firstSums(d.how, w.listed)
	changed := w.old.Size != w.listed || w.old.Mtime != w.entry.Mtime
	alike := w.old.Size >= w.listed/2 && w.old.Size/2 <= w.listed
	if p.pretends() || d.how != byDelta || weak || w.alt > 0 || w.listed < aheadLeast || !w.hasOld || w.compare || !changed || !alike || !w.tree.none() || p.inPlace(w) {
		return
	}
	number := p.content.lanes[0].place(tree{}).number
	d.copied = number + 1
	p.copies[number] = struct{}{}
}

// dropCopy removes the copy of the basis of d.
func (p *phases) dropCopy(d *draft) {
	if d.copied == 0 {
		return
	}
	number := d.copied - 1
	_ = p.content.remove(place{number: number}, d.wish.path) // what stays goes with the staging directory
	d.copied, d.checks, d.leaves = 0, nil, nil
	delete(p.copies, number)
}

// forgo has the file of d read in full.
func (p *phases) forgo(d *draft) error {
	p.dropCopy(d)
	return p.rest.add(d.wish.append)
}

// copyUsed decides whether the copy is a good beginning for what was found, and notes what is
// left to be looked at.
func (p *phases) copyUsed(d *draft, blocks *delta.Blocks, leaves []byte) {
	if d.copied == 0 {
		return
	}
	if d.plan.Reused() < d.plan.Size/2 {
		p.dropCopy(d)
		return
	}
	d.checks, d.leaves = blocks.Unfound(), leaves
}

// basisCopy is the staged file that a basis is copied to. Nothing depends on it: what goes
// wrong with it leaves the sums as they are.
type basisCopy struct {
	c      *contentWriter
	at     place
	path   string
	out    *os.File
	cloned bool
}

// beginCopy makes the staged file for d, or nothing.
func beginCopy(c *contentWriter, d *draft, basis *os.File) *basisCopy {
	if d.copied == 0 {
		return nil
	}
	b := &basisCopy{c: c, at: place{number: d.copied - 1}, path: d.wish.path}
	var err error
	if b.out, err = c.lanes[0].create(b.at, b.path, 0o600); err != nil {
		return nil
	}
	b.cloned = c.clone(b.out, basis)
	return b
}

func (b *basisCopy) write(data []byte, off int64) error {
	if err := b.c.space(int64(len(data))); err != nil {
		return err
	}
	return b.c.writeAt(int(b.out.Fd()), data, off, false)
}

// fill writes what from gives to the copy and to sums. The error is that of from.
func (b *basisCopy) fill(from *localBody, sums *delta.Summer) (copied bool, err error) {
	w := writeBehind(b.write)
	let := int64(0) // bytes that the kernel need not remember
	for off := int64(0); err == nil; {
		if off-let >= letGoEvery {
			_ = unix.Fadvise(from.fd, let, off-let, unix.FADV_DONTNEED) // a hint
			let = off
		}
		var n int
		piece := w.buffer()
		n, err = io.ReadFull(from, piece)
		_, _ = sums.Write(piece[:n]) // it never fails
		if n > 0 {
			w.pass(piece[:n], off)
		}
		off += int64(n)
	}
	copied = w.finish() == nil
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil
	}
	return copied, err
}

// end closes the staged file and removes it unless it is kept.
func (b *basisCopy) end(keep bool) {
	if b == nil {
		return
	}
	b.out.Close()
	if !keep {
		_ = b.c.remove(b.at, b.path) // what stays goes with the staging directory
	}
}

// read makes the sums of f, as of before, and the copy with it where there is one.
func (b *basisCopy) read(ctx context.Context, f *os.File, before info, sums *delta.Summer, buf []byte) (copied bool, err error) {
	if before.Size >= aheadLeast {
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL) // a hint
	}
	if b != nil && !b.cloned {
		return b.fill(&localBody{ctx: ctx, fd: int(f.Fd()), left: before.Size, before: before}, sums)
	}
	if b != nil {
		// The clone is what the sums have to be true of.
		f = b.out
		if before, err = statFd(int(f.Fd())); err != nil {
			return false, err
		}
	}
	body := &localBody{ctx: ctx, fd: int(f.Fd()), left: before.Size, before: before}
	_, err = io.CopyBuffer(writerOnly{sums}, readerOnly{body}, buf)
	return b != nil, err
}

// reopen opens the copy of the basis of d to write what differs.
func (c *contentWriter) reopen(d *draft) (place, *os.File, error) {
	at := place{number: d.copied - 1}
	dir, name, err := c.lanes[0].open(at, d.wish.path)
	if err != nil {
		return at, nil, err
	}
	fd, err := openat(dir, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return at, nil, err
	}
	return at, os.NewFile(uintptr(fd), name), nil
}

// treeIsRight reads the blocks of the copy that are to be looked at, puts their sums
// among those of the others and compares what all of them make with the source's sum.
func (a *assembly) treeIsRight() bool {
	d := a.d
	block, _ := firstSums(d.how, d.wish.listed)
	n := delta.Count(d.plan.Size, block)
	leaves := append(d.leaves, make([]byte, max(0, 16*n-int64(len(d.leaves))))...)[:16*n]
	for _, check := range d.checks {
		h := xxh3.New()
		read, err := io.CopyBuffer(writerOnly{h}, readerOnly{io.NewSectionReader(a.out, check.Off, check.Len)}, a.p.content.scratch())
		at := 16 * (check.Off / block)
		if err != nil || read != check.Len || at >= int64(len(leaves)) {
			return false
		}
		sum := h.Sum128().Bytes()
		copy(leaves[at:], sum[:])
	}
	return delta.TreeSum(leaves) == d.whole
}

// appendChecks encodes the blocks that are to be looked at.
func appendChecks(b []byte, checks []delta.Span) []byte {
	b = binary.AppendUvarint(b, uint64(len(checks)))
	for _, c := range checks {
		b = binary.AppendUvarint(b, uint64(c.Off))
		b = binary.AppendUvarint(b, uint64(c.Len))
	}
	return b
}

// parseChecks decodes what appendChecks made, and the leaves behind it.
func parseChecks(b []byte) (all []delta.Span, leaves []byte, err error) {
	d := decoder{b: b}
	for n := d.uint(); n > 0 && !d.bad; n-- {
		c := delta.Span{Off: int64(d.uint()), Len: int64(d.uint())}
		if d.bad || c.Off < 0 || c.Len <= 0 {
			return nil, nil, errFormat
		}
		all = append(all, c)
	}
	if d.bad || len(d.b)%16 > 0 {
		return nil, nil, errFormat
	}
	return all, slices.Clone(d.b), nil
}
