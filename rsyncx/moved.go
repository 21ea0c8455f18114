package rsyncx

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sort"

	"github.com/zeebo/xxh3"
)

// leftovers are the files of the destination whose content goes away under their
// names, or that only the destination has: any of them may be what the source has under another
// name. They are looked for by length and time and proved by their sums.
//
// Each is summed once at most, and nothing that is done for one wish takes longer
// when there are more of them: thousands may be of one length and time.
type leftovers struct {
	all   [][]leftover // in chunks, so that to grow copies nothing
	count int32
	texts [][]byte // their paths, in chunks
	full  bool     // there are more than were kept

	order []int32                   // all of them by key, last name and path; nil until they are looked for
	turns map[leftoverRun]int       // how far long runs of order have been given out
	sums  map[leftoverContent]int32 // the first with a sum, plus 1, of those in long runs

	wanted int64 // bytes of what may be among them
	spent  int64 // bytes that were summed in the hope of more
}

// leftover is one of them.
type leftover struct {
	key  uint64 // of length and time
	name uint32 // hash of the last name
	at   uint32 // of its path in texts
	long uint16 // bytes of that
	is   leftoverState
	next int32    // with the same content, plus 1
	sum  [16]byte // XXH3-128, when summed
}

// leftoverState is what is known of a leftover and what is to become of it.
type leftoverState uint8

const (
	leftGoes   leftoverState = 1 << iota // Publish will delete it, if it deletes at all
	leftGone                             // Publish will delete or replace it
	leftSeen                             // somebody has summed it or will
	leftSummed                           // its sum is known
	leftTaken                            // it becomes another file, or must not
)

// leftoverRun is a part of leftovers.order.
type leftoverRun struct{ from, to int32 }

// leftoverContent tells contents apart, for each length and time by itself.
type leftoverContent struct {
	key uint64
	sum [16]byte
}

const (
	maxLeftovers     = 1 << 19
	maxLeftoverPaths = 24 << 20 // bytes
	leftoverChunk    = 1 << 12
	leftoverText     = 1 << 20 // bytes
	// shortRun is how many of one length and time are gone through one by one.
	shortRun = 16

	// What is summed in vain takes time that fetching would take too. The likeliest
	// file for each wish is summed while the source makes the sum of its own, and costs
	// nothing beyond. Of the others so many bytes are summed for each byte
	// wanted: a disk reads about that much faster than a line carries, and files that moved together
	// are found whatever their number, since there are as many wishes as files then.
	leftoversFor = 16
	// So much is summed in any case, in bytes: it takes about as long as a run that does nothing.
	leftoversFree = 256 << 20
	// leftoverCost is what it takes to open one, in bytes that could be read meanwhile.
	leftoverCost = 16 << 10
)

// add notes a leftover and returns its number, or 0 when there are too many.
func (l *leftovers) add(key uint64, path string, is leftoverState) int32 {
	if int(l.count) == maxLeftovers || len(l.texts) > maxLeftoverPaths/leftoverText || len(path) >= 1<<16 {
		l.full = true
		return 0
	}
	if n := len(l.texts); n == 0 || len(l.texts[n-1])+len(path) > leftoverText {
		l.texts = append(l.texts, make([]byte, 0, 4<<10))
	}
	if l.count%leftoverChunk == 0 {
		l.all = append(l.all, make([]leftover, 0, 64))
	}
	text := &l.texts[len(l.texts)-1]
	_, name := splitPath(path)
	chunk := &l.all[len(l.all)-1]
	*chunk = append(*chunk, leftover{key: key, name: uint32(xxh3.HashString(name)), is: is,
		at: uint32((len(l.texts)-1)*leftoverText + len(*text)), long: uint16(len(path))})
	*text = append(*text, path...)
	l.count++
	return l.count
}

// get returns the leftover with a number.
func (l *leftovers) get(number int32) *leftover {
	return &l.all[(number-1)/leftoverChunk][(number-1)%leftoverChunk]
}

func (l *leftovers) text(f *leftover) []byte {
	return l.texts[f.at/leftoverText][f.at%leftoverText:][:f.long]
}

func (l *leftovers) path(number int32) string { return string(l.text(l.get(number))) }

// settle puts them in order. Nothing is added after.
func (l *leftovers) settle() {
	if l.order != nil {
		return
	}
	l.order = make([]int32, l.count)
	for i := range l.order {
		l.order[i] = int32(i + 1)
	}
	slices.SortFunc(l.order, func(i, j int32) int {
		a, b := l.get(i), l.get(j)
		if c := cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.name, b.name)); c != 0 {
			return c
		}
		return cmp.Compare(string(l.text(a)), string(l.text(b)))
	})
	l.turns, l.sums = map[leftoverRun]int{}, map[leftoverContent]int32{}
}

// run returns those of one length and time.
func (l *leftovers) run(key uint64) leftoverRun {
	if l.count == 0 {
		return leftoverRun{}
	}
	l.settle()
	from := sort.Search(len(l.order), func(i int) bool { return l.get(l.order[i]).key >= key })
	to := from + sort.Search(len(l.order)-from, func(i int) bool { return l.get(l.order[from+i]).key > key })
	return leftoverRun{int32(from), int32(to)}
}

// named returns those of a run that have a last name.
func (l *leftovers) named(r leftoverRun, name string) leftoverRun {
	hash := uint32(xxh3.HashString(name))
	all := l.order[r.from:r.to]
	from := sort.Search(len(all), func(i int) bool { return l.get(all[i]).name >= hash })
	to := from + sort.Search(len(all)-from, func(i int) bool { return l.get(all[from+i]).name > hash })
	return leftoverRun{r.from + int32(from), r.from + int32(to)}
}

func (r leftoverRun) short() bool { return r.to-r.from <= shortRun }

// unseen gives out one of a run that nobody has summed or will, or 0.
func (l *leftovers) unseen(r leftoverRun) (number int32) {
	at := int(r.from)
	if !r.short() {
		at = max(at, l.turns[r])
	}
	for ; at < int(r.to) && number == 0; at++ {
		if f := l.get(l.order[at]); f.is&leftSeen == 0 {
			f.is |= leftSeen
			number = l.order[at]
		}
	}
	if !r.short() {
		l.turns[r] = at
	}
	return number
}

// likeliest gives out one that may be what is called name: of the same last name before others.
func (l *leftovers) likeliest(key uint64, name string) int32 {
	r := l.run(key)
	if number := l.unseen(l.named(r, name)); number > 0 {
		return number
	}
	return l.unseen(r)
}

// summed notes the sum of one that was given out.
func (l *leftovers) summed(number int32, sum [16]byte) {
	f := l.get(number)
	f.sum = sum
	f.is |= leftSummed
	if l.run(f.key).short() {
		return
	}
	content := leftoverContent{f.key, sum}
	f.next = l.sums[content]
	l.sums[content] = number
}

// find returns one with a sum, or 0. take asks for one that may become what was
// wanted; there may be none left, and mine says that there was. likely is looked at first.
func (l *leftovers) find(key uint64, sum [16]byte, likely int32, take bool) (number int32, mine bool) {
	free := func(number int32) bool { return take && l.get(number).is&leftTaken == 0 }
	fits := func(number int32) bool { f := l.get(number); return f.is&leftSummed != 0 && f.sum == sum }
	if likely > 0 && fits(likely) && (free(likely) || !take) {
		number = likely
	} else if r := l.run(key); r.short() {
		for _, other := range l.order[r.from:r.to] {
			if fits(other) && (number == 0 || free(other) && !free(number)) {
				number = other
			}
		}
	} else {
		content := leftoverContent{key, sum}
		number = l.sums[content]
		for number > 0 && l.get(number).is&leftTaken != 0 && l.get(number).next > 0 {
			number = l.get(number).next
		}
		if number > 0 {
			l.sums[content] = number // those before will not be free again
		}
	}
	if number > 0 && free(number) {
		l.get(number).is |= leftTaken
		mine = true
	}
	return number, mine
}

// afford reports whether another file of a length may be summed that is not the
// likeliest, and counts it.
func (l *leftovers) afford(size int64) bool {
	size += leftoverCost
	if l.spent+size > leftoversFree+leftoversFor*l.wanted {
		return false
	}
	l.spent += size
	return true
}

// movedKey puts together what a file has in common with itself under another name.
func (s *stager) movedKey(e *Entry) uint64 {
	var b [20]byte
	binary.LittleEndian.PutUint64(b[:], uint64(e.Size))
	binary.LittleEndian.PutUint64(b[8:], uint64(e.Mtime.Sec))
	if s.cmp.nanoseconds {
		binary.LittleEndian.PutUint32(b[16:], uint32(e.Mtime.Nsec))
	}
	return xxh3.Hash(b[:])
}
