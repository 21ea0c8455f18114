package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/drsync/drsync/rsyncx/delta"
)

// spare takes from list what need not be read in full, because the destination
// has the content or much of it, and stages that. It returns what is left to read.
//
// It goes in phases, each one stream of requests over all files, so that their
// number costs no round trips: sums of the whole files, finer sums of what differs
// in them, then the parts that are missing.
func (s *stager) spare(ctx context.Context, list *spool) (rest *spool, err error) {
	any := false
	err = s.eachWish(list, func(d *draft, helped bool) (bool, error) {
		any = helped
		return !helped, nil
	})
	if err != nil || !any {
		return list, err
	}
	p, err := s.phases(list)
	if err != nil {
		return nil, err
	}
	defer func() {
		p.close()
		if err != nil {
			p.rest.close()
		}
	}()
	if err := p.sort(list); err != nil {
		return nil, err
	}
	for _, phase := range []func(context.Context) error{p.moves, p.first, p.second, p.third} {
		if err := phase(ctx); err != nil {
			return nil, err
		}
	}
	return p.rest, p.rest.flush()
}

// phases are the spools between them.
type phases struct {
	*stager
	movers  *spool // that may be leftovers
	astray  *spool // that are not the likeliest one
	drafts  *spool // to ask sums for
	coarse  *spool // with a plan, perhaps to refine
	refined *spool // with the plan to carry out
	rest    *spool // wishes to read in full
	// copies are the numbers of the staged files that were begun ahead and are not yet
	// what Publish puts in place.
	copies map[uint64]struct{}
	bases  descent // of the destination or an alternate directory
}

func (s *stager) phases(list *spool) (*phases, error) {
	p := &phases{stager: s, copies: map[uint64]struct{}{}, bases: descent{root: s.dst.fd}}
	for _, n := range []struct {
		name string
		to   **spool
	}{{"movers", &p.movers}, {"astray", &p.astray}, {"drafts", &p.drafts}, {"coarse", &p.coarse}, {"refined", &p.refined}, {"rest", &p.rest}} {
		var err error
		if *n.to, err = s.newSpool(n.name + "-" + list.base()); err != nil {
			p.close()
			p.rest.close()
			return nil, err
		}
	}
	return p, nil
}

// close closes all but rest.
func (p *phases) close() {
	p.bases.close()
	p.movers.close()
	p.astray.close()
	p.drafts.close()
	p.coarse.close()
	p.refined.close()
	for number := range p.copies {
		_ = p.content.remove(place{number: number}, "") // what stays goes with the staging directory
	}
}

// sort puts every wish of list among the drafts or into rest.
func (p *phases) sort(list *spool) error {
	err := p.eachWish(list, func(d *draft, helped bool) (bool, error) {
		switch {
		case helped && d.how == byAppend:
			return true, addDraft(p.coarse, d)
		case helped && d.how == byMove:
			return true, p.propose(d)
		case helped:
			p.copyAhead(d)
			return true, addDraft(p.drafts, d)
		}
		return true, p.rest.add(d.wish.append)
	})
	return errors.Join(err, p.movers.flush(), p.drafts.flush(), p.rest.flush())
}

// eachWish goes through the wishes of list, and tells which of them the
// destination can help with, until do returns an error or wants no more.
func (s *stager) eachWish(list *spool, do func(d *draft, helped bool) (more bool, err error)) error {
	if err := list.flush(); err != nil {
		return err
	}
	for r := list.records(); ; {
		record, err := r.next()
		if err != nil {
			return endOf(err)
		}
		w, err := parseWish(record)
		if err != nil {
			return err
		}
		d := draft{wish: w, basis: w.path}
		if more, err := do(&d, s.basisFor(&d)); err != nil || !more {
			return err
		}
	}
}

// basisFor decides whether the destination may have the content of a wish, or some of it.
func (s *stager) basisFor(d *draft) bool {
	w := &d.wish
	long := w.listed >= deltaLeast && !s.o.WholeFile && !w.mount
	switch {
	case s.o.Append && !s.o.AppendVerify && s.inPlace(w) && !w.compare && !s.pretends() && w.listed > w.old.Size:
		d.how, d.entry, d.basisSize = byAppend, w.entry, w.old.Size
		d.plan = delta.Plan{Size: w.listed}
		if w.old.Size > 0 {
			d.plan.Copies = []delta.Copy{{Len: w.old.Size}}
		}
		return true
	case !s.can.Sums:
		if long && !w.compare && (w.hasOld && w.old.Size >= deltaLeast || w.alt > 0) {
			s.noDelta()
		}
		return false
	case s.pretends() && w.compare, w.compare && (!long || s.o.Append):
		d.how = byCompare
		return true
	case s.pretends():
		return false
	case s.mayBeMoved(w):
		d.how = byMove
		return true
	}
	return s.ownBasis(d)
}

// ownBasis decides whether a file of the same name, or one like it, may have some of the content.
func (s *stager) ownBasis(d *draft) bool {
	w := &d.wish
	long := w.listed >= deltaLeast && !s.o.WholeFile && !w.mount
	if w.hasOld || w.alt > 0 {
		d.how = byDelta
		return long && w.old.Size >= deltaLeast
	}
	if w.like != "" && long {
		dir, _ := splitPath(w.path)
		d.how, d.basis = byDelta, joinPath(dir, w.like)
		return true
	}
	return false
}

// first asks for the sums of all drafts.
func (p *phases) first(ctx context.Context) error {
	if err := p.drafts.flush(); err != nil || p.drafts.count == 0 {
		return errors.Join(err, p.coarse.flush(), p.rest.flush())
	}
	if err := p.sumBoth(ctx, p.drafts, p.compareSums); err != nil {
		return err
	}
	return ctxOr(ctx, errors.Join(p.coarse.flush(), p.rest.flush()))
}

// sumBoth asks the source for the first sums of all drafts of list, while those of
// what they are based on are made here, and hands both to use, draft by draft.
func (p *phases) sumBoth(ctx context.Context, list *spool, use func(context.Context, *draft, *FileSums, *basisSums) error) error {
	own := p.readBases(ctx, list)
	defer own.close()
	r := list.records()
	err := p.askSums(ctx, list, p.firstWants, func(f *FileSums) error {
		d, err := nextDraft(r)
		if err != nil {
			return unasked(f.Path, err)
		}
		have, err := own.next()
		if err != nil {
			return err
		}
		if f.Path != d.wish.path {
			return hostile(f.Path, "it was sent instead of %q", Printable(d.wish.path))
		}
		return use(ctx, d, f, &have)
	})
	if err != nil {
		return err
	}
	if _, err := r.next(); !errors.Is(err, io.EOF) && ctx.Err() == nil {
		return errLeftOut
	}
	return nil
}

var errLeftOut = fmt.Errorf("%w: it left out files that were asked for", ErrHostile)

// unasked is the error of an answer without a question.
func unasked(path string, err error) error {
	if errors.Is(err, io.EOF) {
		return hostile(path, "it was not asked for")
	}
	return err
}

func (s *stager) firstWants(d *draft) []SumWant {
	block, weak := firstSums(d.how, d.wish.listed)
	return []SumWant{{Path: d.wish.path, Size: d.wish.listed, Block: block, Weak: weak, Kind: s.sumKind(&d.wish)}}
}

func secondWants(d *draft) []SumWant {
	if d.block == 0 {
		return nil
	}
	var all []SumWant
	for _, ranges := range d.asked() {
		all = append(all, SumWant{Path: d.wish.path, Size: d.wish.listed, Block: d.block, Weak: d.weak, Ranges: ranges})
	}
	return all
}

// askSums gives each answer to take.
func (p *phases) askSums(ctx context.Context, list *spool, wants func(*draft) []SumWant, take func(*FileSums) error) error {
	if !p.can.Sums {
		return nil
	}
	for f, err := range p.src.Sums(ctx, draftWants(list, wants)) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil && errors.Is(f.Err, ErrHostile) {
			err = f.Err
		}
		if err != nil {
			return fmt.Errorf("read sums from the source: %w", err)
		}
		if f.Err == nil && !isRegular(&f.Entry) {
			return hostile(f.Path, "its sums were sent and it is no file")
		}
		if err := take(&f); err != nil {
			return err
		}
	}
	return ctxOr(ctx, nil)
}

// draftWants is what the drafts of list want, in their order.
func draftWants[W any](list *spool, wants func(*draft) []W) iter.Seq[W] {
	return func(yield func(W) bool) {
		_ = eachDraft(list, func(d *draft) (bool, error) { // the reader of the answers meets the error too
			for _, w := range wants(d) {
				if !yield(w) {
					return false, nil
				}
			}
			return true, nil
		})
	}
}

// compareSums takes the first sums of a file.
func (p *phases) compareSums(ctx context.Context, d *draft, f *FileSums, have *basisSums) error {
	if f.Err != nil || have.err != nil {
		return p.forgo(d)
	}
	if !have.copied {
		p.dropCopy(d)
	}
	if err := p.believable(&d.wish, &f.Entry); err != nil {
		return err
	}
	d.entry, d.whole, d.basisSize = f.Entry, f.Whole, have.size
	d.entry.Xattrs = d.wish.entry.Xattrs // those are told by a listing only
	if done, err := p.altBySum(ctx, d, f); done || err != nil {
		return err
	}
	if have.has(f, p.sumKind(&d.wish)) {
		return p.equal(ctx, d)
	}
	if done, err := p.comparedMoved(ctx, d); done || err != nil {
		return err
	}
	if d.how != byDelta {
		return p.unequal(d)
	}
	blocks, err := delta.NewBlocks(f.Sums, f.Entry.Size, nil)
	if block, weak := firstSums(d.how, d.wish.listed); err != nil || f.Sums.Block != block || weak && f.Sums.Weak == nil {
		return hostile(f.Path, "its sums are not those that were asked for: %v", err)
	}
	if len(f.Sums.Weak) > 0 {
		err = p.searchBasis(ctx, d, blocks, nil)
	} else {
		blocks.SameSums(have.sums, have.size)
	}
	if err != nil {
		return err
	}
	d.plan = blocks.Plan(nil)
	p.copyUsed(d, blocks, have.leaves)
	if len(f.Sums.Weak) == 0 {
		d.block, d.weak = nextSums(&d.plan, f.Sums.Block, have.size)
	}
	return p.planned(d, p.coarse)
}

// planned goes on with a draft if that is worth it.
func (p *phases) planned(d *draft, next *spool) error {
	if d.block == 0 && d.plan.Reused() < d.plan.Size/32 || d.plan.Size == 0 {
		return p.forgo(d)
	}
	return addDraft(next, d)
}

// equal is a file whose content the basis has.
func (p *phases) equal(ctx context.Context, d *draft) error {
	w := &d.wish
	if w.compare && w.alt > 0 { // it was there until a moment ago
		w.compare = false
		return p.rest.add(w.append)
	}
	if w.compare {
		p.racy.read(w.path, &d.entry)
		p.groupKept(w.group, &w.old)
		return p.adjust(w.path, &d.entry, &w.old)
	}
	d.plan = delta.Plan{Size: d.entry.Size}
	if d.entry.Size > 0 {
		d.plan.Copies = []delta.Copy{{Len: d.entry.Size}}
	}
	return addDraft(p.coarse, d)
}

// unequal is a file that its basis does not help.
func (p *phases) unequal(d *draft) error {
	w := &d.wish
	if d.how == byCompare && p.pretends() && !p.o.Append {
		p.fetched(w, &d.entry, d.entry.Size, place{})
		return nil
	}
	if d.how == byCompare {
		if p.o.Append {
			p.groupKept(w.group, &w.old)
			return nil // it has not grown
		}
		if w.mount {
			return crossesMount(w.path)
		}
		w.compare = false // it was
	}
	return p.rest.add(w.append)
}

// searchBasis looks for blocks in the file of the destination. One that cannot
// be read has none.
func (p *phases) searchBasis(ctx context.Context, d *draft, blocks *delta.Blocks, parts []delta.Span) error {
	p.bases.start(p.basisRoot(d))
	f, st, err := openBasis(&p.bases, d.basis)
	if err != nil {
		return nil
	}
	defer f.Close()
	size := min(st.Size, d.basisSize)
	old := ctxReaderAt{ctx: ctx, f: f}
	if err := blocks.Same(old, size); err == nil {
		_ = blocks.Search(old, size, parts) // what was found until then is found
	}
	return ctxOr(ctx, nil)
}

// ctxReaderAt ends a long search when ctx is cancelled.
type ctxReaderAt struct {
	ctx context.Context
	f   io.ReaderAt
}

func (r ctxReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.f.ReadAt(p, off)
}

// second asks for finer sums where they help. Drafts that need none pass in their order.
func (p *phases) second(ctx context.Context) error {
	r := p.coarse.records()
	var d *draft // that answers are for
	var sums delta.Sums
	left := 0
	torn := false
	// advance goes to the next draft with answers to come, or to the end.
	advance := func() error {
		for {
			var err error
			if d, err = nextDraft(r); err != nil {
				return err
			}
			if left = len(secondWants(d)); left > 0 {
				sums, torn = delta.Sums{Block: d.block}, false
				return nil
			}
			if err := addDraft(p.refined, d); err != nil {
				return err
			}
		}
	}
	err := p.askSums(ctx, p.coarse, secondWants, func(f *FileSums) error {
		if left == 0 {
			if err := advance(); err != nil {
				return unasked(f.Path, err)
			}
		}
		if f.Path != d.wish.path {
			return hostile(f.Path, "it was sent instead of %q", Printable(d.wish.path))
		}
		left--
		torn = torn || f.Err != nil || !sameState(&f.Entry, &d.entry)
		if !torn {
			sums.Size += f.Sums.Size
			sums.Strong = append(sums.Strong, f.Sums.Strong...)
			sums.Weak = append(sums.Weak, f.Sums.Weak...)
		}
		switch {
		case left > 0:
			return nil
		case torn:
			return p.forgo(d)
		}
		return p.refine(ctx, d, sums)
	})
	if err != nil {
		return err
	}
	if left > 0 {
		return errLeftOut
	}
	if err := advance(); !errors.Is(err, io.EOF) {
		return errors.Join(err, errLeftOut)
	}
	return errors.Join(p.refined.flush(), p.rest.flush())
}

// refine takes the second sums of a file.
func (p *phases) refine(ctx context.Context, d *draft, sums delta.Sums) error {
	blocks, err := delta.NewBlocks(sums, d.plan.Size, d.plan.Missing())
	if err != nil || d.weak && sums.Weak == nil {
		return hostile(d.wish.path, "its sums are not those that were asked for: %v", err)
	}
	parts := []delta.Span{}
	if d.weak {
		parts = searched(&d.plan, d.basisSize)
	}
	if err := p.searchBasis(ctx, d, blocks, parts); err != nil {
		return err
	}
	d.plan = blocks.Plan(&d.plan)
	d.block = 0
	return p.planned(d, p.refined)
}
