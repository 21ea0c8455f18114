package rsyncx

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// ParseChmod reads the clauses of rsync's --chmod, for example
// "Dg+s,ug+w,Fo-w,+X" or "D2775,F664". Clauses without a class leave out what
// the umask of this process masks. An error says which clause is wrong.
func ParseChmod(text string) ([]ModeSet, error) { return parseChmod(text, currentUmask()) }

func parseChmod(text string, umask uint32) ([]ModeSet, error) {
	var sets []ModeSet
	for clause := range strings.SplitSeq(text, ",") {
		set, ok := parseModeSet(clause, umask)
		if !ok {
			return nil, fmt.Errorf("the mode %q: the clause %q is not understood", text, clause)
		}
		sets = append(sets, set)
	}
	return sets, nil
}

// modeClause is one clause on the way to a ModeSet.
type modeClause struct {
	set   ModeSet
	who   uint32 // 0o100 for u, 0o010 for g, 0o001 for o
	top   uint32 // special bits that belong to who
	what  uint32 // rwx, as three bits
	extra uint32 // special bits that are asked for
}

func parseModeSet(clause string, umask uint32) (ModeSet, bool) {
	c := modeClause{}
	at := 0
	for ; at < len(clause); at++ {
		switch clause[at] {
		case 'D':
			c.set.Dirs = true
		case 'F':
			c.set.Files = true
		case 'u':
			c.who, c.top = c.who|0o100, c.top|unix.S_ISUID
		case 'g':
			c.who, c.top = c.who|0o010, c.top|unix.S_ISGID
		case 'o':
			c.who |= 0o001
		case 'a':
			c.who, c.top = c.who|0o111, c.top|unix.S_ISUID|unix.S_ISGID
		case '+', '-', '=':
			return c.finish(clause[at], clause[at+1:], umask)
		default:
			return c.octal(clause[at:])
		}
		if c.set.Dirs && c.set.Files {
			return ModeSet{}, false
		}
	}
	return ModeSet{}, false
}

// octal reads a clause like D2775, which sets the whole mode.
func (c *modeClause) octal(digits string) (ModeSet, bool) {
	if c.who != 0 {
		return ModeSet{}, false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '7' {
			return ModeSet{}, false
		}
		if c.set.Or = c.set.Or<<3 | uint32(digits[i]-'0'); c.set.Or > 0o7777 {
			return ModeSet{}, false
		}
	}
	return c.set, true
}

// finish reads what follows the operator.
func (c *modeClause) finish(operator byte, letters string, umask uint32) (ModeSet, bool) {
	for i := range len(letters) {
		switch letters[i] {
		case 'r':
			c.what |= 4
		case 'w':
			c.what |= 2
		case 'X':
			c.what |= 1
			c.set.ExecIf = true
		case 'x':
			c.what |= 1
		case 's':
			if c.top == 0 {
				c.extra |= unix.S_ISUID
			}
			c.extra |= c.top
		case 't':
			c.extra |= unix.S_ISVTX
		case 'u', 'g', 'o':
			if len(letters) > 1 {
				return ModeSet{}, false
			}
			c.set.CopyFrom = map[byte]uint8{'u': 7, 'g': 4, 'o': 1}[letters[i]]
		default:
			return ModeSet{}, false
		}
	}
	mask := uint32(0)
	if c.who == 0 {
		c.who, mask = 0o111, umask
	}
	bits := c.who * c.what &^ mask
	c.set.And = 0o7777
	if c.set.CopyFrom != 0 {
		return c.copying(operator, mask), true
	}
	switch operator {
	case '+':
		c.set.Or = bits | c.extra
	case '-':
		c.set.And &^= bits | c.extra
	case '=':
		c.set.And &^= c.who * 7
		if c.extra != 0 {
			c.set.And &^= c.top
		}
		c.set.Or = bits | c.extra
	}
	return c.set, true
}

// copying completes a clause like g=u, which with = also takes the special bit
// of every class it sets.
func (c *modeClause) copying(operator byte, mask uint32) ModeSet {
	c.set.CopyTo, c.set.CopyMask, c.set.CopyOff = c.who, mask, operator == '-'
	if operator != '=' {
		return c.set
	}
	c.set.And &^= c.who * 7
	for class, special := range map[uint32]uint32{0o100: unix.S_ISUID, 0o010: unix.S_ISGID, 0o001: unix.S_ISVTX} {
		if c.who&class != 0 {
			c.set.And &^= special
		}
	}
	return c.set
}

// changeMode applies sets to the permission bits of mode.
func changeMode(sets []ModeSet, mode uint32) uint32 {
	dir := mode&unix.S_IFMT == unix.S_IFDIR
	executable := mode&0o111 != 0
	for _, set := range sets {
		if set.Dirs != set.Files && set.Dirs != dir {
			continue
		}
		copied := uint32(0)
		if set.CopyFrom != 0 {
			copied = mode >> (set.CopyFrom - 1) & 7 * set.CopyTo &^ set.CopyMask
		}
		mode &= set.And | unix.S_IFMT
		or := set.Or
		if set.ExecIf && !executable && !dir {
			or &^= 0o111
		}
		if set.CopyOff {
			mode &^= copied
		} else {
			mode |= or | copied
		}
	}
	return mode
}
