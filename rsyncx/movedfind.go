package rsyncx

import (
	"context"
)

// mayBeMoved reports whether there are leftovers that may be the content of w.
func (s *stager) mayBeMoved(w *wish) bool {
	if s.moved.count == 0 || w.listed == 0 || w.compare {
		return false
	}
	r := s.moved.run(s.movedKey(&w.entry))
	return r.from < r.to
}

// perhapsMoved returns how many bytes of list may be there already, under other names.
func (s *stager) perhapsMoved(list *spool) (bytes int64, err error) {
	if s.moved.count == 0 {
		return 0, nil
	}
	err = s.eachWish(list, func(d *draft, helped bool) (bool, error) {
		if helped && d.how == byMove {
			bytes += d.wish.listed
		}
		return true, nil
	})
	return bytes, err
}

// propose chooses the likeliest leftover for a draft, unless each of them is somebody's.
func (p *phases) propose(d *draft) error {
	w := &d.wish
	d.basis, d.mine = "", false
	p.moved.wanted += w.listed + leftoverCost
	if d.left = p.moved.likeliest(p.movedKey(&w.entry), w.entry.Name); d.left > 0 {
		d.basis = p.moved.path(d.left)
	}
	return addDraft(p.movers, d)
}

// moves asks for the sums of what may have moved. What has is staged from where it
// was, whatever else the destination has of it; the others are drafted anew.
func (p *phases) moves(ctx context.Context) error {
	if p.movers.count == 0 {
		return nil
	}
	if err := p.sumBoth(ctx, p.movers, p.sumMoved); err != nil {
		return err
	}
	if err := ctxOr(ctx, p.astray.flush()); err != nil {
		return err
	}
	// By now every likeliest file has its sum; it may be that of another wish.
	return eachDraft(p.astray, func(d *draft) (bool, error) {
		number, mine, err := p.search(ctx, &d.wish, d.whole)
		switch {
		case err != nil:
		case number > 0:
			err = p.found(ctx, d, number, mine)
		default:
			err = p.unmoved(&d.wish)
		}
		return true, err
	})
}

// sumMoved takes the sum of a file of the source, and that of the leftover that was
// the likeliest to be it.
func (p *phases) sumMoved(ctx context.Context, d *draft, f *FileSums, have *basisSums) error {
	if d.left > 0 && have.err == nil {
		p.moved.summed(d.left, have.whole)
	}
	if f.Err != nil {
		return p.forgo(d)
	}
	w := &d.wish
	if err := p.believable(w, &f.Entry); err != nil {
		return err
	}
	d.entry, d.whole = f.Entry, f.Whole
	d.entry.Xattrs = w.entry.Xattrs // those are told by a listing only
	if number, mine := p.moved.find(p.movedKey(&w.entry), f.Whole, d.left, p.mayLink(w)); number > 0 {
		return p.found(ctx, d, number, mine)
	}
	return addDraft(p.astray, d)
}

// search looks for a leftover with the content of w, and sums those that nobody
// has, for as long as that is cheaper than fetching. It returns 0 when there is none.
func (p *phases) search(ctx context.Context, w *wish, whole [16]byte) (number int32, mine bool, err error) {
	key := p.movedKey(&w.entry)
	for {
		if number, mine = p.moved.find(key, whole, number, p.mayLink(w)); number > 0 {
			return number, mine, nil
		}
		if !p.moved.afford(w.listed) {
			return 0, false, nil
		}
		if number = p.moved.unseen(p.moved.run(key)); number == 0 {
			return 0, false, nil
		}
		p.bases.start(p.dst.fd)
		have := sumBasis(ctx, &p.bases, &draft{how: byMove, basis: p.moved.path(number)}, p.content.scratch())
		if ctx.Err() != nil {
			return 0, false, context.Cause(ctx)
		}
		if have.err == nil {
			p.moved.summed(number, have.whole)
		}
	}
}

// found is a draft whose content the leftover with a number has; it becomes
// that one's own when it is mine.
func (p *phases) found(ctx context.Context, d *draft, number int32, mine bool) error {
	d.how, d.left, d.mine = byMove, number, mine
	d.basis, d.basisSize = p.moved.path(number), d.entry.Size
	return p.equal(ctx, d)
}

// unmoved is a wish that no leftover has the content of.
func (p *phases) unmoved(w *wish) error {
	d := &draft{wish: *w, basis: w.path}
	if !p.ownBasis(d) {
		return p.rest.add(w.append)
	}
	p.copyAhead(d)
	return addDraft(p.drafts, d)
}

// comparedMoved looks for the content of a file that was compared and is not what
// the destination has under its name.
func (p *phases) comparedMoved(ctx context.Context, d *draft) (done bool, err error) {
	w := d.wish
	w.compare = false
	if !d.wish.compare || p.pretends() || p.o.Append || w.mount || w.alt > 0 || !p.mayBeMoved(&w) {
		return false, nil
	}
	p.moved.wanted += w.listed + leftoverCost
	number, mine, err := p.search(ctx, &w, d.whole)
	if number == 0 || err != nil {
		return false, err
	}
	p.dropCopy(d)
	d.wish = w
	return true, p.found(ctx, d, number, mine)
}
