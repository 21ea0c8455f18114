package remote

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// spool sorts records of any number in bounded memory: what does not fit lies
// in a file without a name in the directory for temporary files.
type spool struct {
	arena []byte // records of the current run, each a key and a value
	at    []item
	file  *os.File
	runs  []run
	size  int64 // of the file, bytes

	memory int   // the longest run; tests set less
	most   int64 // the largest file
}

type item struct{ key, value span }

type span struct{ from, to int }

type run struct{ from, to int64 }

const (
	spoolMemory = 16 << 20
	spoolMost   = 16 << 30
)

func newSpool() *spool { return &spool{memory: spoolMemory, most: spoolMost} }

// close gives the memory and the file back.
func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
	}
	*s = spool{}
}

// add takes a record; what key and value hold is copied.
func (s *spool) add(key, value []byte) error {
	if len(s.arena)+len(key)+len(value) > s.memory && len(s.at) > 0 {
		if err := s.spill(); err != nil {
			return fmt.Errorf("sort the listing: %w", err)
		}
	}
	from := len(s.arena)
	s.arena = append(append(s.arena, key...), value...)
	s.at = append(s.at, item{span{from, from + len(key)}, span{from + len(key), len(s.arena)}})
	return nil
}

func (s *spool) bytes(p span) []byte { return s.arena[p.from:p.to] }

func (s *spool) sort() {
	slices.SortFunc(s.at, func(a, b item) int { return bytes.Compare(s.bytes(a.key), s.bytes(b.key)) })
}

// spill writes the current run to the file.
func (s *spool) spill() (err error) {
	if s.file == nil {
		if s.file, err = os.CreateTemp("", "drsync-listing-"); err != nil {
			return err
		}
		if err := os.Remove(s.file.Name()); err != nil {
			return err
		}
	}
	s.sort()
	if s.size+int64(len(s.arena)+20*len(s.at)) > s.most {
		return fmt.Errorf("it is longer than %d bytes", s.most)
	}
	w := bufio.NewWriterSize(s.file, 256<<10)
	r := run{from: s.size}
	var head []byte
	for _, it := range s.at {
		head = binary.AppendUvarint(head[:0], uint64(it.key.to-it.key.from))
		head = binary.AppendUvarint(head, uint64(it.value.to-it.value.from))
		n := len(head) + it.value.to - it.key.from
		if _, err := w.Write(head); err != nil {
			return err
		}
		if _, err := w.Write(s.arena[it.key.from:it.value.to]); err != nil {
			return err
		}
		s.size += int64(n)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	r.to = s.size
	s.runs = append(s.runs, r)
	s.arena, s.at = s.arena[:0], s.at[:0]
	return nil
}

// each gives all records in the order of their keys, which are valid until yield
// returns. Nothing may be added afterwards.
func (s *spool) each(yield func(key, value []byte) error) error {
	s.sort()
	if s.file == nil {
		for _, it := range s.at {
			if err := yield(s.bytes(it.key), s.bytes(it.value)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := s.spill(); err != nil {
		return fmt.Errorf("sort the listing: %w", err)
	}
	s.arena, s.at = nil, nil
	var h heads
	for _, r := range s.runs {
		c := &cursor{r: bufio.NewReaderSize(io.NewSectionReader(s.file, r.from, r.to-r.from), 32<<10)}
		if err := c.next(); err == nil {
			h = append(h, c)
		} else if !errors.Is(err, io.EOF) {
			return fmt.Errorf("sort the listing: %w", err)
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		if err := yield(h[0].key, h[0].value); err != nil {
			return err
		}
		switch err := h[0].next(); {
		case err == nil:
			heap.Fix(&h, 0)
		case errors.Is(err, io.EOF):
			heap.Pop(&h)
		default:
			return fmt.Errorf("sort the listing: %w", err)
		}
	}
	return nil
}

// cursor reads one run.
type cursor struct {
	r          *bufio.Reader
	record     []byte
	key, value []byte
}

func (c *cursor) next() error {
	key, err := binary.ReadUvarint(c.r)
	if err != nil {
		return err // io.EOF at the end
	}
	value, err := binary.ReadUvarint(c.r)
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	c.record = slices.Grow(c.record[:0], int(key+value))[:key+value]
	if _, err := io.ReadFull(c.r, c.record); err != nil {
		return io.ErrUnexpectedEOF
	}
	c.key, c.value = c.record[:key], c.record[key:]
	return nil
}

// heads is a heap of runs by their next record.
type heads []*cursor

func (h heads) Len() int           { return len(h) }
func (h heads) Less(i, j int) bool { return bytes.Compare(h[i].key, h[j].key) < 0 }
func (h heads) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *heads) Push(x any)        { *h = append(*h, x.(*cursor)) }
func (h *heads) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
