package rsyncx

import (
	"bytes"
	"context"
	"errors"
	"os"

	"github.com/drsync/drsync/rsyncx/delta"
	"golang.org/x/sys/unix"
)

// basisSums are the sums of a file of the destination that may help.
type basisSums struct {
	sums delta.Sums
	held bool // sums of blocks were made
	size int64
	// whole is the sum of the content; err says why there is none.
	whole [16]byte
	other []byte // of another kind, if the draft has one
	err   error
	// copied says that the staged file which the draft names has the same content;
	// leaves are the sums of its blocks then.
	copied bool
	leaves []byte
}

// openBasis opens a regular file of the destination.
func openBasis(d *descent, path string) (*os.File, info, error) {
	dir, name, err := d.parent(path)
	if err != nil {
		return nil, info{}, err
	}
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, info{}, err
	}
	st, err := statFd(fd)
	if err == nil && !isRegular(&st.Entry) {
		err = ErrNotRegular
	}
	if err != nil {
		unix.Close(fd)
		return nil, info{}, err
	}
	return os.NewFile(uintptr(fd), path), st, nil
}

// basisReader makes the sums of the bases of a spool of drafts, in that order,
// while the source makes its own.
type basisReader struct {
	answers chan basisSums
	cancel  context.CancelFunc
	done    chan struct{}
}

// readBases starts a basisReader, which must be closed.
func (s *stager) readBases(ctx context.Context, list *spool) *basisReader {
	ctx, cancel := context.WithCancel(ctx)
	b := &basisReader{answers: make(chan basisSums, 2), cancel: cancel, done: make(chan struct{})}
	var copies *contentWriter
	if !s.pretends() {
		copies = newContentWriter(s.dst, s.out.stage, s.out.fresh, &s.o)
	}
	go func() {
		defer close(b.done)
		defer func() {
			if copies != nil {
				copies.close()
			}
		}()
		defer close(b.answers)
		at := &descent{root: s.dst.fd}
		defer at.close()
		buf := make([]byte, copyBuffer)
		_ = eachDraft(list, func(d *draft) (bool, error) { // who reads the answers reads list too, and meets the error
			at.start(s.basisRoot(d))
			d.kind = s.sumKind(&d.wish)
			select {
			case b.answers <- copyBasis(ctx, at, copies, d, buf):
				return true, nil
			case <-ctx.Done():
				return false, nil
			}
		})
	}()
	return b
}

// basisRoot is the descriptor of the directory that the basis of d is in.
func (s *stager) basisRoot(d *draft) int {
	if d.how == byMove {
		return s.dst.fd
	}
	return s.altRoot(d.wish.alt)
}

func (b *basisReader) next() (basisSums, error) {
	sums, ok := <-b.answers
	if !ok {
		return basisSums{}, errors.New("internal error: a basis is left out")
	}
	return sums, nil
}

func (b *basisReader) close() {
	b.cancel()
	<-b.done
}

// sumKind says by which sums it is decided whether a file is fetched.
func (s *stager) sumKind(w *wish) SumKind {
	if w.compare && s.o.Checksum {
		return s.o.ChecksumKind
	}
	return SumXXH128
}

// has tells whether the content is the one that f has the sums of. Both were made by the same want.
func (b *basisSums) has(f *FileSums, k SumKind) bool {
	if b.size != f.Entry.Size {
		return false
	}
	if k == SumXXH128 {
		return b.whole == f.Whole
	}
	return len(b.other) == k.Len() && bytes.Equal(b.other, f.Other)
}

func sumBasis(ctx context.Context, at *descent, d *draft, buf []byte) basisSums {
	return copyBasis(ctx, at, nil, d, buf)
}

// copyBasis is sumBasis that makes the copy which d asks for. copies is nil when it asks for none.
func copyBasis(ctx context.Context, at *descent, copies *contentWriter, d *draft, buf []byte) basisSums {
	f, before, err := openBasis(at, d.basis)
	if err != nil {
		return basisSums{err: err}
	}
	defer f.Close()
	block, _ := firstSums(d.how, d.wish.listed)
	sums := basisSums{size: before.Size, held: block > 0}
	sum := wholeSummer(d)
	sum.Also = d.kind.hasher()
	staged := beginCopy(copies, d, f)
	if staged != nil {
		sum.KeepLeaves(&sums.leaves)
	}
	sums.copied, err = staged.read(ctx, f, before, sum, buf)
	staged.end(sums.copied && err == nil)
	if err != nil {
		return basisSums{err: err}
	}
	sums.whole, sums.sums = sum.Whole(), sum.Sums()
	if sum.Also != nil {
		sums.other = sum.Also.Sum(nil)
	}
	return sums
}

// wholeSummer returns what makes of some content the sum of the whole that the
// source's is compared with.
func wholeSummer(d *draft) *delta.Summer {
	return delta.NewSummer(wholeBlock(d), false, true)
}

// wholeBlock is the length of the blocks that the sum of the whole is a tree of, or 0.
func wholeBlock(d *draft) int64 {
	if block, weak := firstSums(d.how, d.wish.listed); !weak {
		return block
	}
	return 0 // with rolling sums to come, the same offsets are compared when it is known which matter
}

// firstSums returns which sums of a file of the given length are asked for
// first. A long file is most often changed in place: large blocks tell where,
// and the rest is asked for then. For a short one all is asked for at once.
func firstSums(how how, size int64) (block int64, weak bool) {
	const (
		short = 4 << 20
		large = 128 << 10
		most  = 1 << 20 // blocks
	)
	switch {
	case how != byDelta:
		return 0, false
	case size <= short:
		return rollingBlock(size, 512), true
	}
	for block = large; delta.Count(size, block) > most; {
		block *= 2
	}
	return block, false
}

// rollingBlock is a power of two near the square root of size, where sums and
// what a change inside a block costs are in balance.
func rollingBlock(size, least int64) int64 {
	block := least
	for block < 128<<10 && block*block < size {
		block *= 2
	}
	for delta.Count(size, block) > delta.MaxBlocks/2 {
		block *= 2
	}
	return block
}

// nextSums returns which sums of the parts that a plan misses are asked for, after
// those of blocks of the given length; 0 when what is missing is best fetched.
func nextSums(p *delta.Plan, block, oldSize int64) (next int64, weak bool) {
	missing := p.Missing()
	total, longest := int64(0), int64(0)
	for _, m := range missing {
		total += m.Len
		longest = max(longest, m.Len)
	}
	switch {
	case total == 0:
		return 0, false
	case len(missing) == 1 && missing[0].Off+block >= oldSize: // it has grown
		return 0, false
	case longest < 8*block: // changed here and there, not moved
		for next = 4096; delta.Count(total, next) > delta.MaxBlocks/4; {
			next *= 2
		}
		return next, false
	}
	return min(rollingBlock(total, 1024), block), true
}

// searched returns the parts of the old version where content that moved is
// looked for: near what is missing, and everywhere when that is much.
func searched(p *delta.Plan, oldSize int64) []delta.Span {
	const near = 4 << 20
	missing := p.Missing()
	if p.Size-p.Reused() > p.Size/8 {
		return nil
	}
	var all []delta.Span
	for _, m := range missing {
		reach := max(near, m.Len)
		from, to := max(0, m.Off-reach), min(oldSize, m.Off+m.Len+reach)
		switch n := len(all); {
		case from >= to:
		case n > 0 && from <= all[n-1].Off+all[n-1].Len:
			all[n-1].Len = max(all[n-1].Len, to-all[n-1].Off)
		default:
			all = append(all, delta.Span{Off: from, Len: to - from})
		}
	}
	if all == nil {
		all = []delta.Span{}
	}
	return all
}
