package wire

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

const (
	// maxHeld bounds the directories that wait for a verdict, in bytes of memory.
	maxHeld = 16 << 20
	// entryMemory is about what an Entry takes, besides its strings.
	entryMemory = 192
	// announceFrame and announceEvery bound how long an announcement is kept for company.
	announceFrame = 8 << 10
	announceEvery = 10 * time.Millisecond
)

// Kinds of what frameAhead announces.
const (
	aheadGiven = iota // a directory or an error that is sent in any case
	aheadAsked        // a directory whose digest follows: a verdict is due
	aheadRoot         // the same of the root, with its own entry
)

// announcer sends a walk of which most may be known to the client: what comes
// is announced in order, with digests, and what the client does not have follows
// in the same order, once its verdicts have arrived.
type announcer struct {
	s      *dirSender
	digest rsyncx.DigestOptions
	mounts rsyncx.MountTops

	held   []heldDir // announced and not settled, oldest first
	judged int       // of held, how many have their verdict
	bytes  int       // of held
	frame  []byte    // announcements that were not sent
	last   string    // the path announced last
	since  time.Time // when the first of them was made
}

type heldDir struct {
	dir    rsyncx.Dir
	single *rsyncx.PathError
	asked  bool
	send   bool // what the verdict says
	bytes  int
}

func newAnnouncer(s *dirSender, o rsyncx.DigestOptions) *announcer {
	return &announcer{s: s, digest: o}
}

// next announces one step of the walk. It sends what is settled, and waits
// for verdicts when too much is not. errStopped says that the client wants no more.
func (n *announcer) next(ctx context.Context, dir rsyncx.Dir, single *rsyncx.PathError) error {
	h := heldDir{dir: dir, single: single, send: true, bytes: entryMemory}
	for i := range dir.Entries {
		h.bytes += entryMemory + weight(&dir.Entries[i])
	}
	var digest rsyncx.DirDigest
	// The client remembers mount points, and a digest would not tell it of one.
	top := single == nil && n.mounts.Top(dir.Path, &dir.Self)
	if single == nil && !top && !dir.Partial && len(dir.Path) <= maxPath && carried(dir.Entries) && !rsyncx.RacyEntries(dir.Entries, time.Now()) {
		digest, h.asked = rsyncx.DigestEntries(dir.Entries, n.digest)
	}
	n.announce(&h, digest)
	n.held = append(n.held, h)
	n.bytes += h.bytes
	for {
		wait := len(n.held) >= maxAhead || n.bytes > maxHeld
		if err := n.settle(ctx, wait); err != nil || !wait {
			return err
		}
	}
}

// carried says whether all entries can be sent, so that none is left out silently.
func carried(entries []rsyncx.Entry) bool {
	for i := range entries {
		if sendable(&entries[i]) != nil {
			return false
		}
	}
	return true
}

// finish settles what is left.
func (n *announcer) finish(ctx context.Context) error {
	for len(n.held) > 0 {
		if err := n.settle(ctx, true); err != nil {
			return err
		}
	}
	return n.sendFrame()
}

func (n *announcer) announce(h *heldDir, digest rsyncx.DirDigest) {
	if len(n.frame) == 0 {
		n.since = time.Now()
	}
	if !h.asked {
		n.frame = append(n.frame, aheadGiven)
		return
	}
	path := h.dir.Path
	if path == "" {
		n.frame = appendEntry(append(n.frame, aheadRoot), &h.dir.Self, &rsyncx.Entry{})
	} else {
		shared := sharedPrefix(n.last, path)
		n.frame = binary.AppendUvarint(append(n.frame, aheadAsked), uint64(shared))
		n.frame = appendString(n.frame, path[shared:])
	}
	n.frame = appendString(appendString(n.frame, h.dir.After), h.dir.Upto)
	n.frame = append(n.frame, digest[:]...)
	n.last = path
}

func sharedPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func (n *announcer) sendFrame() error {
	if len(n.frame) == 0 {
		return nil
	}
	err := n.s.a.send(frameAhead, n.frame)
	n.frame = n.frame[:0]
	return err
}

// settle takes the verdicts that are there, or waits for some, and sends the
// directories that are due.
func (n *announcer) settle(ctx context.Context, wait bool) error {
	if len(n.frame) >= announceFrame || len(n.frame) > 0 && time.Since(n.since) >= announceEvery {
		if err := n.sendFrame(); err != nil {
			return err
		}
		if err := n.s.a.flush(); err != nil {
			return err
		}
	}
	if err := n.give(); err != nil {
		return err
	}
	if !n.s.a.box.more() {
		if !wait || len(n.held) == 0 {
			return nil
		}
		// The client cannot answer what it has not heard.
		if err := n.sendFrame(); err != nil {
			return err
		}
		if err := n.s.a.flush(); err != nil {
			return err
		}
	}
	f, err := n.s.a.box.take(ctx)
	switch {
	case err != nil:
	case f.kind == frameStop:
		return errStopped
	case f.kind == frameVerdicts:
		err = n.judge(f.payload)
	default:
		err = hostile("a request of type %q in the middle of a listing", f.kind)
	}
	if err != nil {
		return &sessionError{err}
	}
	return n.give()
}

// judge takes verdicts: their number, then a bit for each, 1 for the same.
func (n *announcer) judge(payload []byte) error {
	d := decoder{b: payload}
	count := int(d.uint("number of verdicts", maxAhead))
	set := d.b
	if d.err != nil || len(set) != (count+7)/8 {
		return hostile("malformed verdicts")
	}
	for i := range count {
		for n.judged < len(n.held) && !n.held[n.judged].asked {
			n.judged++
		}
		if n.judged == len(n.held) {
			return hostile("a verdict on a directory that was not announced")
		}
		n.held[n.judged].send = set[i/8]&(1<<(i%8)) == 0
		n.judged++
	}
	return nil
}

// give sends, in order, what needs no more verdict.
func (n *announcer) give() error {
	sent := 0
	for ; sent < len(n.held); sent++ {
		h := &n.held[sent]
		if h.asked && sent >= n.judged {
			break
		}
		n.bytes -= h.bytes
		if h.send {
			if err := n.sendFrame(); err != nil { // it says what this is
				return err
			}
			if err := n.s.send(h.dir, h.single); err != nil {
				return err
			}
		}
		*h = heldDir{}
	}
	if sent > 0 {
		n.held = n.held[sent:]
		n.judged = max(0, n.judged-sent)
	}
	return nil
}
