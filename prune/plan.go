package prune

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"

	"github.com/drsync/drsync/internal/blob"
)

// Plan is what Decide decided. Close gives its temporary file up.
type Plan struct {
	Stored     Count `json:"stored"` // what the store holds
	Quarantine Count `json:"quarantine"`
	Delete     Count `json:"delete"`
	Restore    Count `json:"restore"`
	Purge      Count `json:"purge"`
	// Kept counts what stays, in the store or in quarantine, by reason.
	Kept map[string]Count `json:"kept"`

	file  *os.File
	w     *bufio.Writer
	items int64
	size  int64
}

// Empty says that there is nothing to do.
func (p *Plan) Empty() bool { return p.items == 0 }

func newPlan(dir string) (*Plan, error) {
	f, err := os.CreateTemp(dir, "drsync-prune-*")
	if err == nil {
		// Unlinked at once: whatever happens, the kernel takes it away.
		if err = os.Remove(f.Name()); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("spool the plan: %w", err)
	}
	return &Plan{Kept: map[string]Count{}, file: f, w: bufio.NewWriterSize(f, 64<<10)}, nil
}

// add counts an item, and spools it unless it stays. Only well-formed names get here with another action than Keep.
func (p *Plan) add(it Item) error {
	switch it.Action {
	case Keep:
		c := p.Kept[it.Reason]
		c.add(it.Ref.Size)
		p.Kept[it.Reason] = c
		return nil
	case Quarantine:
		p.Quarantine.add(it.Ref.Size)
	case Delete:
		p.Delete.add(it.Ref.Size)
	case Restore:
		p.Restore.add(it.Ref.Size)
	case Purge:
		p.Purge.add(it.Ref.Size)
	default:
		return fmt.Errorf("internal error: %v of %s", it.Action, it.Ref.Sum)
	}
	if !it.Ref.Sum.Valid() {
		return fmt.Errorf("internal error: %v of the malformed name %q", it.Action, it.Ref.Sum)
	}
	p.items++
	n, err := fmt.Fprintf(p.w, "%c%s %d\n", it.Action, it.Ref.Sum, it.Ref.Size)
	p.size += int64(n)
	if err != nil {
		return fmt.Errorf("spool the plan: %w", err)
	}
	return nil
}

func (p *Plan) seal() error {
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("spool the plan: %w", err)
	}
	return nil
}

// Close gives up what the plan holds. Its counts stay readable.
func (p *Plan) Close() error { return p.file.Close() }

// Items yields what is to be done, ascending by name. It may be called again.
func (p *Plan) Items() iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		r := bufio.NewReaderSize(io.NewSectionReader(p.file, 0, p.size), 64<<10)
		for range p.items {
			it, err := readItem(r)
			if err != nil {
				yield(Item{}, fmt.Errorf("read the plan back: %w", err))
				return
			}
			if !yield(it, nil) {
				return
			}
		}
	}
}

var reasonOf = map[Action]string{
	Quarantine: ReasonUnnamed, Delete: ReasonUnnamed, Restore: ReasonNeeded, Purge: ReasonQuarantined,
}

func readItem(r *bufio.Reader) (Item, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return Item{}, err
	}
	name, size, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
	if name == "" {
		return Item{}, errors.New("an empty line")
	}
	it := Item{Action: Action(name[0]), Ref: blob.Ref{Sum: blob.Sum(name[1:])}}
	it.Ref.Size, err = strconv.ParseInt(size, 10, 64)
	it.Reason = reasonOf[it.Action]
	it.InQuarantine = it.Action == Restore || it.Action == Purge
	if err != nil || it.Reason == "" || !it.Ref.Sum.Valid() {
		return Item{}, fmt.Errorf("malformed line %q", line)
	}
	return it, nil
}
