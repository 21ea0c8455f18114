package prune

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/filestore"
)

// Decide makes the plan for one store. It changes nothing but the plan's own
// temporary file. An error wraps ErrRefused when a guard tripped; then there is
// no plan. The caller closes the plan.
func Decide(in Input) (*Plan, error) {
	if err := in.Policy.check(); err != nil {
		return nil, fmt.Errorf("%w: the policy: %w", ErrRefused, err)
	}
	if len(in.Kept) == 0 {
		return nil, refuse("run drsync now once", "no snapshot is kept, so nothing says which blobs are needed")
	}
	p, err := newPlan(in.Spool)
	if err != nil {
		return nil, err
	}
	d := decision{in: in, plan: p}
	if err := errors.Join(d.merge(), p.seal()); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if err := d.guard(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

type decision struct {
	in    Input
	plan  *Plan
	lists []int64 // how many blobs each kept snapshot named
	aside int64   // how many blobs lie in quarantine
}

// merge walks all lists at once, blob by blob in ascending order.
func (d *decision) merge() error {
	d.lists = make([]int64, len(d.in.Kept))
	names := make([]*cursor[blob.Ref], len(d.in.Kept))
	for i, k := range d.in.Kept {
		names[i] = newCursor("the list of snapshot "+k.Snapshot, k.Refs, func(r blob.Ref) blob.Sum { return r.Sum })
		defer names[i].stop()
	}
	stored := newCursor("the listing of the store", d.in.Stored, infoSum)
	defer stored.stop()
	aside := newCursor("the listing of the quarantine", d.in.Quarantined, infoSum)
	defer aside.stop()

	for _, c := range names {
		if err := c.advance(); err != nil {
			return refuse("a snapshot's list is damaged: remove that snapshot, or look at the disk", "%w", err)
		}
	}
	if err := errors.Join(stored.advance(), aside.advance()); err != nil {
		return refuse("", "%w", err)
	}
	for {
		sum, any := least(names, stored, aside)
		if !any {
			return nil
		}
		named, ref := false, blob.Ref{}
		for i, c := range names {
			if !c.at(sum) {
				continue
			}
			if !sum.Valid() {
				return refuse("", "%s has the malformed name %q", c.what, sum)
			}
			if !named {
				named, ref = true, c.value
			}
			d.lists[i]++
			if err := c.advance(); err != nil {
				return refuse("a snapshot's list is damaged: remove that snapshot, or look at the disk", "%w", err)
			}
		}
		if err := d.judge(sum, named, ref, stored, aside); err != nil {
			return err
		}
	}
}

// judge decides about the blob sum wherever it lies, and steps over it.
func (d *decision) judge(sum blob.Sum, named bool, ref blob.Ref, stored, aside *cursor[filestore.Info]) error {
	inStore, replaced := stored.at(sum), false
	whole := inStore && (!named || stored.value.Size == ref.Size)
	if inStore {
		it := d.ofStored(stored.value, named)
		replaced = it.Action == Quarantine
		if err := d.record(it); err != nil {
			return err
		}
		if err := stored.advance(); err != nil {
			return refuse("", "%w", err)
		}
	}
	if aside.at(sum) {
		d.aside++
		it := d.ofQuarantined(aside.value, named, whole, ref)
		if replaced {
			// Its place is taken by the store's copy, whose time in quarantine begins now.
			it = Item{Action: Keep, Ref: aside.value.Ref, InQuarantine: true, Reason: ReasonReplaced}
		}
		if err := d.record(it); err != nil {
			return err
		}
		if err := aside.advance(); err != nil {
			return refuse("", "%w", err)
		}
	}
	return nil
}

// ofStored decides about a blob of the store.
func (d *decision) ofStored(b filestore.Info, named bool) Item {
	d.plan.Stored.add(b.Size)
	it := Item{Action: Keep, Ref: b.Ref}
	switch {
	case !b.Sum.Valid():
		it.Reason = ReasonMalformed
	case named:
		it.Reason = ReasonNamed
	case d.in.Now.Sub(time.Unix(b.ModTime, 0)) < d.in.Policy.MinAge:
		it.Reason = ReasonYoung
	case d.in.Policy.Quarantine == 0: // and DeleteAtOnce, see Policy.check
		it.Action, it.Reason = Delete, ReasonUnnamed
	default:
		it.Action, it.Reason = Quarantine, ReasonUnnamed
	}
	return it
}

// ofQuarantined decides about a blob in quarantine; whole says that the store
// has a copy of the length that the snapshots name.
func (d *decision) ofQuarantined(b filestore.Info, named, whole bool, ref blob.Ref) Item {
	it := Item{Action: Keep, Ref: b.Ref, InQuarantine: true}
	switch {
	case !b.Sum.Valid():
		it.Reason = ReasonMalformed
	case named && whole:
		it.Reason = ReasonDuplicate
	case named:
		it.Action, it.Reason, it.Ref = Restore, ReasonNeeded, ref
	case d.in.Now.Sub(time.Unix(b.ModTime, 0)) < d.in.Policy.Quarantine:
		it.Reason = ReasonRecent
	default:
		it.Action, it.Reason = Purge, ReasonQuarantined
	}
	return it
}

func (d *decision) record(it Item) error {
	if d.in.Explain != nil {
		d.in.Explain(it)
	}
	return d.plan.add(it)
}

// guard looks at the counts once everything was seen.
func (d *decision) guard() error {
	p := d.plan
	if p.Stored.Blobs == 0 && d.aside == 0 {
		return nil // there is nothing to lose
	}
	going := p.Quarantine.Blobs + p.Delete.Blobs
	for i, n := range d.lists {
		// An application that holds no artifacts names none: that is suspicious only when something would go for it.
		if n == 0 && going+p.Purge.Blobs > 0 {
			return refuse("a database without blobs is most likely the wrong one or a damaged one; remove that snapshot if it is right",
				"snapshot %s names no blob", d.in.Kept[i].Snapshot)
		}
	}
	share := d.in.Policy.MinShare
	if share == 0 {
		share = 0.5
	}
	previous := d.in.PreviousNamed
	if len(d.lists) > 1 {
		previous = max(previous, d.lists[1])
	}
	if float64(d.lists[0]) < share*float64(previous) {
		return refuse("if so many artifacts were really deleted, the next prune goes on once a further snapshot confirms it and the older ones are removed",
			"snapshot %s names %d blobs, the one before it named %d", d.in.Kept[0].Snapshot, d.lists[0], previous)
	}
	if float64(going) > d.in.Policy.MaxFraction*float64(p.Stored.Blobs) {
		return refuse("if this is expected, raise prune.max_fraction for one run",
			"%d of %d stored blobs would go, allowed are %.4g%%", going, p.Stored.Blobs, 100*d.in.Policy.MaxFraction)
	}
	return nil
}

func infoSum(i filestore.Info) blob.Sum { return i.Sum }

// cursor stands on one element of an ascending sequence.
type cursor[T any] struct {
	what  string
	key   func(T) blob.Sum
	next  func() (T, error, bool)
	stop  func()
	value T
	sum   blob.Sum
	ok    bool // false after the last element
	begun bool
}

func newCursor[T any](what string, seq iter.Seq2[T, error], key func(T) blob.Sum) *cursor[T] {
	if seq == nil {
		seq = func(func(T, error) bool) {}
	}
	next, stop := iter.Pull2(seq)
	return &cursor[T]{what: what, key: key, next: next, stop: stop}
}

// advance steps on. A sequence that fails or does not ascend is an error: a
// merge over it would take named blobs for unnamed ones.
func (c *cursor[T]) advance() error {
	v, err, ok := c.next()
	if err != nil {
		return fmt.Errorf("%s: %w", c.what, err)
	}
	if !ok {
		c.ok = false
		return nil
	}
	sum := c.key(v)
	if c.begun && sum <= c.sum {
		return fmt.Errorf("%s: %q after %q is not ascending", c.what, sum, c.sum)
	}
	c.value, c.sum, c.ok, c.begun = v, sum, true, true
	return nil
}

func (c *cursor[T]) at(sum blob.Sum) bool { return c.ok && c.sum == sum }

func least(names []*cursor[blob.Ref], places ...*cursor[filestore.Info]) (sum blob.Sum, any bool) {
	see := func(s blob.Sum, ok bool) {
		if ok && (!any || s < sum) {
			sum, any = s, true
		}
	}
	for _, c := range names {
		see(c.sum, c.ok)
	}
	for _, c := range places {
		see(c.sum, c.ok)
	}
	return sum, any
}
