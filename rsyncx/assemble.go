package rsyncx

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/drsync/drsync/rsyncx/delta"
	"golang.org/x/sys/unix"
)

// third reads what is missing of every file and puts the files together.
func (p *phases) third(ctx context.Context) error {
	r := p.refined.records()
	var a *assembly
	defer func() { a.discard() }()
	advance := func() error { // to the next file that has answers to come, or to the end
		for {
			d, err := nextDraft(r)
			if err != nil {
				return err
			}
			if a, err = p.assemble(ctx, d); err != nil {
				return err
			}
			if a.left > 0 {
				return nil
			}
			if err := a.finish(); err != nil {
				return err
			}
		}
	}
	for f, err := range p.src.Read(ctx, draftWants(p.refined, thirdWants)) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil && errors.Is(f.Err, ErrHostile) {
			err = f.Err
		}
		if err != nil {
			return fmt.Errorf("read from the source: %w", err)
		}
		if a == nil || a.left == 0 {
			if err := advance(); err != nil {
				return unasked(f.Path, err)
			}
		}
		if f.Path != a.d.wish.path {
			return hostile(f.Path, "it was sent instead of %q", Printable(a.d.wish.path))
		}
		if err := a.take(&f); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if a != nil && a.left > 0 {
		return errLeftOut
	}
	if err := advance(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errLeftOut
		}
		return err
	}
	return p.rest.flush()
}

func thirdWants(d *draft) []Want {
	var all []Want
	for _, ranges := range d.asked() {
		all = append(all, Want{Path: d.wish.path, Size: d.wish.listed, Ranges: ranges})
	}
	return all
}

// assembly is a file that is put together from its basis and what is missing.
type assembly struct {
	p    *phases
	ctx  context.Context
	d    *draft
	left int // answers to come
	asks [][]Range
	// bad says that the file is to be read in full after all.
	bad bool
	// linked says that the staged file is the basis itself.
	linked bool

	basis  *os.File
	out    *os.File // nil before there is any use for it, and after the end
	place  place
	cloned bool          // out began as a clone of basis
	patch  *bufio.Writer // to out, when that holds what differs only
	behind *behind       // writes, when the file is long
	hash   *delta.Summer
	copies []delta.Copy // that are not done
	at     int64        // of the new content, bytes done
}

// assemble begins with a file. What goes wrong with its basis makes it bad.
func (p *phases) assemble(ctx context.Context, d *draft) (a *assembly, err error) {
	a = &assembly{p: p, ctx: ctx, d: d, asks: d.asked(), hash: wholeSummer(d), copies: d.plan.Copies}
	a.left = len(a.asks)
	if a.linked, err = a.takeOver(); a.linked || err != nil {
		return a, err
	}
	p.bases.start(p.basisRoot(d))
	f, st, err := openBasis(&p.bases, d.basis)
	if err != nil {
		a.bad = true
		return a, nil
	}
	a.basis = f
	if st.Size < d.basisSize {
		a.bad = true
	}
	return a, nil
}

// begin makes the staged file.
func (a *assembly) begin() (err error) {
	c := a.p.content
	if a.d.copied > 0 {
		if a.place, a.out, err = c.reopen(a.d); err != nil {
			return stagingError(a.d.wish.path, err)
		}
		a.cloned = true
		return nil
	}
	if a.place, a.out, err = c.createNext(a.d.wish.tree, a.d.wish.path); err != nil {
		return stagingError(a.d.wish.path, err)
	}
	if a.d.plan.Size >= behindLeast {
		a.behind = writeBehind(a.write)
	}
	if a.p.inPlace(&a.d.wish) {
		a.patch = bufio.NewWriterSize(a.out, copyBuffer)
		return c.space(filesCounted)
	}
	inPlace := int64(0)
	for _, part := range a.d.plan.Copies {
		if part.New == part.Old {
			inPlace += part.Len
		}
	}
	if inPlace > 0 && inPlace >= a.d.plan.Size/2 {
		a.cloned = c.clone(a.out, a.basis)
	}
	return c.space(filesCounted)
}

// take gets one answer. Once the file is bad, the others are left unread.
func (a *assembly) take(f *File) error {
	ranges := a.asks[len(a.asks)-a.left]
	a.left--
	switch {
	case a.bad:
	case f.Err != nil || f.Body == nil || !a.fits(&f.Entry):
		a.bad = true
	default:
		if err := a.ranges(f.Body, ranges); err != nil {
			return err
		}
	}
	if a.left == 0 {
		return a.finish()
	}
	return nil
}

// fits reports whether what is read now belongs to what was seen before. A file that grows may
// have grown further.
func (a *assembly) fits(e *Entry) bool {
	if a.d.how == byAppend {
		return isRegular(e) && e.Size >= a.d.plan.Size
	}
	return sameState(e, &a.d.entry)
}

func (a *assembly) ranges(body io.Reader, ranges []Range) error {
	in := &bodyReader{ctx: a.ctx, body: body, path: a.d.wish.path}
	for _, r := range ranges {
		in.left += r.Len
	}
	for _, r := range ranges {
		if err := a.copyTo(r.Off); err != nil || a.bad {
			return err
		}
		n, err := a.put(io.LimitReader(readerOnly{in}, r.Len), r.Len, true)
		if err != nil && in.failed == nil {
			return err
		}
		if a.bad = a.bad || in.failed != nil || n < r.Len; a.bad {
			return ctxOr(a.ctx, in.fatal)
		}
	}
	// The end tells whether the file stayed the same.
	n, err := io.Copy(io.Discard, readerOnly{in})
	a.bad = err != nil || n > 0 || in.torn
	return ctxOr(a.ctx, in.fatal)
}

// copyTo does the copies before the offset of the new content.
func (a *assembly) copyTo(off int64) error {
	for len(a.copies) > 0 && a.copies[0].New < off && !a.bad {
		c := a.copies[0]
		a.copies = a.copies[1:]
		if a.d.how == byAppend || a.d.copied > 0 && c.Old == c.New {
			a.at += c.Len
			continue
		}
		if a.out == nil {
			if err := a.begin(); err != nil {
				return err
			}
		}
		n, err := a.put(io.NewSectionReader(a.basis, c.Old, c.Len), c.Len, c.Old != c.New || a.d.how == byMove && !a.cloned || !a.cloned && !a.p.inPlace(&a.d.wish))
		if err != nil {
			return err
		}
		if n < c.Len {
			a.bad = true // the basis is shorter than it was
		}
	}
	return nil
}

// put takes the next n bytes of the new content and writes them unless they
// are there. It returns how many there were.
func (a *assembly) put(from io.Reader, n int64, write bool) (int64, error) {
	if a.out == nil {
		if err := a.begin(); err != nil {
			return 0, err
		}
	}
	c := a.p.content
	done := int64(0)
	for done < n {
		if a.ctx.Err() != nil {
			return done, context.Cause(a.ctx)
		}
		buf := c.scratch()
		if a.behind != nil && write {
			buf = a.behind.buffer()
		}
		m, err := io.ReadFull(from, buf[:min(n-done, copyBuffer)])
		piece := buf[:m]
		if a.d.copied == 0 {
			_, _ = a.hash.Write(piece) // it never fails
		}
		if write && m > 0 {
			if err := c.space(int64(m)); err != nil {
				return done, err
			}
			if err := a.pass(piece); err != nil {
				return done, stagingError(a.d.wish.path, err)
			}
		}
		a.at += int64(m)
		done += int64(m)
		if err != nil {
			return done, nil // too short, or in.failed
		}
	}
	return done, nil
}

// pass writes a piece now, or soon.
func (a *assembly) pass(piece []byte) error {
	if a.behind == nil {
		return a.write(piece, a.at)
	}
	a.behind.pass(piece, a.at)
	return nil
}

func (a *assembly) write(piece []byte, off int64) error {
	if a.patch != nil {
		return a.p.content.addToPatch(a.patch, piece, off)
	}
	return a.p.content.writeAt(int(a.out.Fd()), piece, off, a.cloned)
}

// finish does the last copies and looks whether the whole is what the source
// said. Else the file is read in full.
func (a *assembly) finish() error {
	defer a.discard()
	d, w := a.d, &a.d.wish
	if a.linked {
		return a.done(wholeFile)
	}
	if !a.bad && d.plan.Identity(w.old.Size) && d.basis == w.path && a.p.mayTouch(w) {
		return a.touch()
	}
	if !a.bad {
		if err := a.copyTo(d.plan.Size); err != nil {
			return err
		}
	}
	err := a.behind.finish()
	if a.behind = nil; err != nil {
		return stagingError(w.path, err)
	}
	if a.bad || a.at != d.plan.Size {
		return a.p.forgo(d)
	}
	if a.out == nil {
		if err := a.begin(); err != nil {
			return err
		}
	}
	if !a.right() {
		return a.p.forgo(d)
	}
	return a.keep()
}

// right reports whether the content is what the source said.
func (a *assembly) right() bool {
	switch {
	case a.d.how == byAppend:
		return true
	case a.d.copied == 0:
		return a.hash.Whole() == a.d.whole
	}
	return a.treeIsRight()
}

// keep makes the staged file one that Publish puts in place.
func (a *assembly) keep() error {
	d, w, c := a.d, &a.d.wish, a.p.content
	form, err := wholeFile, error(nil)
	if a.patch != nil {
		form = patchFile
		_, _ = a.patch.Write(appendPart(nil, partEnd, d.plan.Size, 0)) // its error stays for Flush
		err = a.patch.Flush()
	} else if err = setLength(int(a.out.Fd()), d.plan.Size); err == nil {
		err = c.root.apply(int(a.out.Fd()), c.fresh.without(a.p.freshFile(w, &d.entry)))
	}
	if err == nil {
		err = a.out.Close()
	}
	if err != nil {
		return stagingError(w.path, err)
	}
	a.out = nil
	if d.copied > 0 {
		delete(a.p.copies, d.copied-1)
		d.copied = 0
	}
	return a.done(form)
}

// done counts and notes a file that is staged.
func (a *assembly) done(form uint32) error {
	d, w := a.d, &a.d.wish
	if d.how == byMove {
		a.p.stats.Linked++
	}
	a.p.stats.Reused += d.plan.Reused()
	return a.p.arrived(w, &d.entry, a.place, d.plan.Size, contentSum{d.whole, wholeBlock(d)}, form)
}

// mayTouch reports whether the destination's file can stay, with other
// attributes, where a new one of the same content would take its place.
func (s *stager) mayTouch(w *wish) bool {
	alone := w.group < 0 && w.old.Nlink == 1 || s.inPlace(w)
	return s.o.Times && !s.o.Backup && w.hasOld && alone && (s.cmp.root || int(w.old.UID) == os.Geteuid())
}

// touch is keep for a file that only looked changed.
func (a *assembly) touch() error {
	d, w := a.d, &a.d.wish
	set := a.p.attrs(&d.entry, &w.old)
	a.p.stats.Reused += d.plan.Size
	a.p.fetched(w, &d.entry, d.plan.Size, place{})
	a.p.groupKept(w.group, &w.old)
	return a.p.op(partLinks, op{kind: opAttr, path: w.path, kindOf: unix.S_IFREG, dev: w.old.Dev, ino: w.old.Ino, attr: set})
}

// discard closes what is open and removes a staged file that is not kept.
func (a *assembly) discard() {
	if a == nil {
		return
	}
	_ = a.behind.finish() // what it wrote is not kept
	a.behind = nil
	if a.basis != nil {
		a.basis.Close()
		a.basis = nil
	}
	if a.out != nil {
		a.out.Close()
		a.out = nil
		if a.d.copied == 0 {
			_ = a.p.content.remove(a.place, a.d.wish.path) // what stays goes with the staging directory
		}
	}
	a.p.dropCopy(a.d)
}
