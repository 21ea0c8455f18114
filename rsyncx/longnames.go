package rsyncx

import (
	"bytes"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// longDir is how many names a directory may have to be described as a whole. A
// longer one is kept as longNames and described in pieces of so many names.
const longDir = 16 << 10

// longNames are the names of a long directory, ascending, in as little memory as
// they need: some bytes for each beside the name. They do not change once sorted, and
// may then be used by several goroutines.
type longNames struct {
	chunks [][]byte // of each name its type, itself and a NUL byte
	at     []uint32 // where each begins: the number of its chunk, and the offset in that
	bytes  int
}

const (
	chunkBits = 20
	chunkSize = 1 << chunkBits
	maxName   = 255
)

func (n *longNames) add(name []byte, kind uint8) {
	last := len(n.chunks) - 1
	if last < 0 || len(n.chunks[last])+len(name)+2 > chunkSize {
		size := chunkSize
		if last < 0 {
			size = 64 << 10 // it may stay the only one
		}
		n.chunks = append(n.chunks, make([]byte, 0, size))
		last++
	}
	c := n.chunks[last]
	n.at = append(n.at, uint32(last<<chunkBits|len(c)))
	n.chunks[last] = append(append(append(c, kind), name...), 0)
	n.bytes += len(name) + 1
}

// sort puts the names in order. A name that the kernel gave twice, because the
// directory changed meanwhile, is one.
func (n *longNames) sort() {
	slices.SortFunc(n.at, func(a, b uint32) int { return bytes.Compare(n.from(a), n.from(b)) })
	n.at = slices.CompactFunc(n.at, func(a, b uint32) bool { return bytes.Equal(nameIn(n.from(a)), nameIn(n.from(b))) })
}

// from returns a name and what follows it, at least its NUL byte: enough to
// compare two different names, which end before they are the same.
func (n *longNames) from(at uint32) []byte {
	c := n.chunks[at>>chunkBits]
	begin := int(at&(chunkSize-1)) + 1
	return c[begin:min(begin+maxName+1, len(c))]
}

func (n *longNames) name(i int) []byte { return nameIn(n.from(n.at[i])) }

// nameIn cuts a name off what from returns.
func nameIn(from []byte) []byte { return from[:bytes.IndexByte(from, 0)] }

func (n *longNames) kind(i int) uint8 { return n.chunks[n.at[i]>>chunkBits][n.at[i]&(chunkSize-1)] }

func (n *longNames) len() int { return len(n.at) }

// size is about what they take in memory, in bytes.
func (n *longNames) size() int { return n.bytes + 6*len(n.at) }

// past returns the index of the first name that comes after name; of the first of
// all, when name is "".
func (n *longNames) past(name string) int {
	return sort.Search(len(n.at), func(i int) bool { return string(n.name(i)) > name })
}

// upTo is past for an upper bound, for which "" stands behind all.
func (n *longNames) upTo(name string) int {
	if name == "" {
		return len(n.at)
	}
	return n.past(name)
}

// span returns the names from index from up to index to; see cut.
func (n *longNames) span(from, to int) []dirent { return n.cut(indexes(from, to)) }

// indexes are those from the first up to the second.
func indexes(from, to int) []uint32 {
	all := make([]uint32, 0, max(0, to-from))
	for i := from; i < to; i++ {
		all = append(all, uint32(i))
	}
	return all
}

// cut returns the names of the indexes, in that order, each with a NUL byte behind it
// in memory. They share one string.
func (n *longNames) cut(which []uint32) []dirent {
	var b strings.Builder
	size := 0
	for _, i := range which {
		size += len(n.name(int(i))) + 1
	}
	b.Grow(size)
	for _, i := range which {
		b.Write(n.name(int(i)))
		b.WriteByte(0)
	}
	all := b.String()
	list := make([]dirent, 0, len(which))
	for _, i := range which {
		end := strings.IndexByte(all, 0)
		list = append(list, dirent{name: all[:end], kind: n.kind(int(i))})
		all = all[end+1:]
	}
	return list
}

// deletionOrder puts indexes in the order of the function of that name, as far
// as the directory tells what is one itself.
func (n *longNames) deletionOrder(which []uint32) []uint32 {
	var dirs, others []uint32
	for _, i := range which {
		if n.kind(int(i)) == unix.DT_DIR {
			dirs = append(dirs, i)
		} else {
			others = append(others, i)
		}
	}
	slices.SortFunc(dirs, func(a, b uint32) int {
		return strings.Compare(string(n.name(int(b)))+"/", string(n.name(int(a)))+"/")
	})
	slices.SortFunc(others, func(a, b uint32) int { return int(b) - int(a) })
	return append(dirs, others...)
}
