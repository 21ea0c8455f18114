package delta

import (
	"encoding/binary"
	"hash"
	"math/bits"
)

// xxh64 is XXH64 with the seed 0, which rsync has among its sums.
type xxh64 struct {
	v    [4]uint64
	size uint64
	held [32]byte
	n    int // bytes of held
}

// The primes of the algorithm.
const (
	prime1 = 0x9E3779B185EBCA87
	prime2 = 0xC2B2AE3D27D4EB4F
	prime3 = 0x165667B19E3779F9
	prime4 = 0x85EBCA77C2B2AE63
	prime5 = 0x27D4EB2F165667C5
)

var _ hash.Hash64 = (*xxh64)(nil)

// NewXXH64 returns a hash.Hash64 whose Sum is in big endian order.
func NewXXH64() hash.Hash64 {
	x := &xxh64{}
	x.Reset()
	return x
}

func (x *xxh64) Reset() {
	one := uint64(prime1)
	*x = xxh64{v: [4]uint64{one + prime2, prime2, 0, -one}}
}

func (x *xxh64) Size() int      { return 8 }
func (x *xxh64) BlockSize() int { return len(x.held) }

func (x *xxh64) Write(p []byte) (int, error) {
	all := len(p)
	x.size += uint64(all)
	if x.n > 0 {
		n := copy(x.held[x.n:], p)
		x.n, p = x.n+n, p[n:]
		if x.n < len(x.held) {
			return all, nil
		}
		x.stripes(x.held[:])
		x.n = 0
	}
	whole := len(p) &^ 31
	x.stripes(p[:whole])
	x.n = copy(x.held[:], p[whole:])
	return all, nil
}

func (x *xxh64) stripes(p []byte) {
	v := x.v
	for ; len(p) >= 32; p = p[32:] {
		v[0] = round(v[0], binary.LittleEndian.Uint64(p))
		v[1] = round(v[1], binary.LittleEndian.Uint64(p[8:]))
		v[2] = round(v[2], binary.LittleEndian.Uint64(p[16:]))
		v[3] = round(v[3], binary.LittleEndian.Uint64(p[24:]))
	}
	x.v = v
}

func round(v, in uint64) uint64 { return bits.RotateLeft64(v+in*prime2, 31) * prime1 }

func (x *xxh64) Sum64() uint64 {
	h := uint64(prime5)
	if x.size >= 32 {
		h = bits.RotateLeft64(x.v[0], 1) + bits.RotateLeft64(x.v[1], 7) + bits.RotateLeft64(x.v[2], 12) + bits.RotateLeft64(x.v[3], 18)
		for _, v := range x.v {
			h = (h^round(0, v))*prime1 + prime4
		}
	}
	h += x.size
	p := x.held[:x.n]
	for ; len(p) >= 8; p = p[8:] {
		h = bits.RotateLeft64(h^round(0, binary.LittleEndian.Uint64(p)), 27)*prime1 + prime4
	}
	if len(p) >= 4 {
		h = bits.RotateLeft64(h^uint64(binary.LittleEndian.Uint32(p))*prime1, 23)*prime2 + prime3
		p = p[4:]
	}
	for _, c := range p {
		h = bits.RotateLeft64(h^uint64(c)*prime5, 11) * prime1
	}
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}

func (x *xxh64) Sum(b []byte) []byte { return binary.BigEndian.AppendUint64(b, x.Sum64()) }
