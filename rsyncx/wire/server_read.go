package wire

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"sync/atomic"

	"github.com/zeebo/xxh3"

	"github.com/drsync/drsync/rsyncx"
)

func (a *agent) read(ctx context.Context, d *decoder) error {
	src, err := a.source(d)
	if err != nil {
		return err
	}
	if err := d.end("request"); err != nil {
		return err
	}
	asked := questions{box: a.box}
	answered := int64(0)
	for f, err := range src.Read(ctx, wants(ctx, src, asked.all(ctx, false))) {
		if err != nil {
			return err
		}
		if err := a.sendFile(&f); err != nil {
			return err
		}
		if err := a.answered(&answered, &asked); err != nil {
			return err
		}
	}
	return a.endOfAnswers(ctx, &asked)
}

// answered flushes when nothing more is asked yet: the client may wait for this
// answer before it asks for another.
func (a *agent) answered(n *int64, asked *questions) error {
	if *n++; *n == asked.taken.Load() && !a.box.more() {
		return a.flush()
	}
	return nil
}

func (a *agent) endOfAnswers(ctx context.Context, asked *questions) error {
	if asked.err != nil {
		return &sessionError{asked.err}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return a.send(frameDone, nil)
}

// wants turns questions into what a Source is asked. A part of a whole is cut to
// what there is now; that the file stays like this is for the client to see.
func wants(ctx context.Context, src rsyncx.Source, asked iter.Seq[question]) iter.Seq[rsyncx.Want] {
	return func(yield func(rsyncx.Want) bool) {
		for q := range asked {
			w := rsyncx.Want{Path: q.path, Size: -1, Ranges: q.ranges, Soon: q.soon}
			if q.kind == kindPart {
				w.Ranges = []rsyncx.Range{}
				// An error is found once more by Read, which tells it.
				if e, err := src.Lstat(ctx, q.path); err == nil {
					end := e.Size
					if q.part.Len > 0 {
						end = min(end, q.part.Off+q.part.Len)
					}
					if end > q.part.Off {
						w.Ranges = append(w.Ranges, rsyncx.Range{Off: q.part.Off, Len: end - q.part.Off})
					}
				}
			}
			if !yield(w) {
				return
			}
		}
	}
}

// soonAfter is how many questions ahead the disk is told of.
const soonAfter = 12

// questions is what a client asks in one request.
type questions struct {
	box   *inbox
	taken atomic.Int64 // questions that left the box
	err   error        // what ended them, unless it was their end
}

// all returns the questions in their order. It looks ahead as far as they have
// arrived, and waits only for the next one.
func (n *questions) all(ctx context.Context, sums bool) iter.Seq[question] {
	return func(yield func(question) bool) {
		var ahead []question
		for ended := false; ; {
			for !ended && (len(ahead) == 0 || len(ahead) <= soonAfter && n.box.more()) {
				batch, last, err := n.batch(ctx, sums)
				if err != nil {
					n.err = err
					return
				}
				ahead, ended = append(ahead, batch...), last
			}
			if len(ahead) == 0 {
				return
			}
			q := ahead[0]
			if ahead = ahead[1:]; len(ahead) >= soonAfter && ahead[soonAfter-1].kind == kindWhole {
				q.soon = ahead[soonAfter-1].path
			}
			if !yield(q) {
				return
			}
		}
	}
}

func (n *questions) batch(ctx context.Context, sums bool) (batch []question, last bool, err error) {
	f, err := n.box.take(ctx)
	if err != nil {
		return nil, false, err
	}
	d := decoder{b: f.payload}
	switch f.kind {
	case frameNamesEnd:
		return nil, true, d.end("end of names")
	case frameNames:
		for len(d.b) > 0 {
			batch = append(batch, d.question(sums))
		}
		n.taken.Add(int64(len(batch)))
		return batch, false, d.err
	}
	return nil, false, hostile("a frame of type %q among names", f.kind)
}

// hashed reads a body and sums what it gives.
type hashed struct {
	body io.Reader
	hash xxh3.Hasher
	n    int64 // bytes

}

var _ io.Reader = (*hashed)(nil)

func (h *hashed) reset(body io.Reader) {
	h.body, h.n = body, 0
	h.hash.Reset()
}

func (h *hashed) Read(p []byte) (int, error) {
	n, err := h.body.Read(p)
	if n > 0 {
		_, _ = h.hash.Write(p[:n])
		h.n += int64(n)
	}
	return n, err
}

// zeros counts a run of zeros in the sum by its place and length.
func (h *hashed) zeros(n int64) {
	hashZeros(&h.hash, h.n, n)
	h.n += n
}

func hashZeros(h *xxh3.Hasher, at, n int64) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], uint64(at))
	binary.LittleEndian.PutUint64(b[8:], uint64(n))
	_, _ = h.Write(b[:])
}

func (a *agent) sendFile(f *rsyncx.File) error {
	if f.Err == nil {
		f.Err = sendable(&f.Entry)
	}
	if f.Err != nil {
		return a.send(frameFileError, appendError(nil, bare(f.Err)))
	}
	version := uint64(0)
	if v, ok := f.Body.(rsyncx.Versioned); ok {
		version = v.Version()
	}
	a.scratch = appendEntry(binary.AppendUvarint(a.scratch[:0], version), &f.Entry, &rsyncx.Entry{})
	if err := a.send(frameFile, a.scratch); err != nil {
		return err
	}
	holes, _ := f.Body.(rsyncx.Holes)
	in := &a.body
	in.reset(f.Body)
	for {
		if holes != nil {
			if err := a.sendZeros(holes, in); err != nil {
				return err
			}
		}
		readErr := error(nil)
		if left := f.Entry.Size - in.n; left > 0 {
			var err error
			if _, readErr, err = a.out.fill(frameData, int(min(dataFrame, left)), in); err != nil {
				return &sessionError{fmt.Errorf("answer: %w", err)}
			}
		} else {
			readErr = atEnd(f.Body)
		}
		switch {
		case readErr == nil:
			continue
		case readErr == io.EOF: //nolint:errorlint // what a body wraps io.EOF in is no end
			a.scratch = appendSum(a.scratch[:0], in.n, &in.hash)
			return a.send(frameSum, a.scratch)
		}
		return a.send(frameCut, appendError(nil, readErr))
	}
}

// atEnd returns what a body says that has given all there should be.
func atEnd(body io.Reader) error {
	var one [1]byte
	n, err := body.Read(one[:])
	if n > 0 {
		return rsyncx.ErrTorn // it grew
	}
	return err
}

func (a *agent) sendZeros(holes rsyncx.Holes, in *hashed) error {
	n, err := holes.Hole()
	if err != nil || n <= 0 {
		return nil // Read tells the error again
	}
	in.zeros(n)
	a.scratch = binary.AppendUvarint(a.scratch[:0], uint64(n))
	return a.send(frameZeros, a.scratch)
}

// sums answers questions about content that does not travel.
func (a *agent) sums(ctx context.Context, d *decoder) error {
	src, err := a.source(d)
	if err != nil {
		return err
	}
	if err := d.end("request"); err != nil {
		return err
	}
	stop := a.keepAlive() // a large file takes its time
	defer stop()
	asked := questions{box: a.box}
	answered := int64(0)
	wants := func(yield func(rsyncx.SumWant) bool) {
		for q := range asked.all(ctx, true) {
			if !yield(rsyncx.SumWant{Path: q.path, Size: -1, Block: q.block, Weak: q.weak, Ranges: q.ranges, Kind: q.sum}) {
				return
			}
		}
	}
	for f, err := range src.Sums(ctx, wants) {
		if err != nil {
			stop()
			return err
		}
		if err := a.sendSums(&f); err != nil {
			return err
		}
		if err := a.answered(&answered, &asked); err != nil {
			return err
		}
	}
	stop()
	return a.endOfAnswers(ctx, &asked)
}

func (a *agent) sendSums(f *rsyncx.FileSums) error {
	if f.Err == nil {
		f.Err = sendable(&f.Entry)
	}
	if f.Err != nil {
		return a.send(frameFileError, appendError(nil, bare(f.Err)))
	}
	s := &f.Sums
	b := appendEntry(a.scratch[:0], &f.Entry, &rsyncx.Entry{})
	b = append(b, f.Whole[:]...)
	b = append(b, f.Other...) // as long as what was asked for says
	b = binary.AppendUvarint(b, uint64(max(s.Size, 0)))
	b = binary.AppendUvarint(b, uint64(len(s.Strong)))
	if err := a.send(frameSumsOf, b); err != nil {
		return err
	}
	for at := 0; at < len(s.Strong); at += blockFrame {
		end := min(at+blockFrame, len(s.Strong))
		b = b[:0]
		for _, v := range s.Strong[at:end] {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
		if len(s.Weak) == len(s.Strong) {
			for _, v := range s.Weak[at:end] {
				b = binary.LittleEndian.AppendUint32(b, v)
			}
		}
		if err := a.send(frameBlocks, b); err != nil {
			return err
		}
	}
	a.scratch = b[:0]
	return nil
}
