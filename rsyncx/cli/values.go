package cli

import (
	"fmt"
	"math"
	"os/user"
	"strconv"
	"strings"

	"github.com/drsync/drsync/rsyncx"
)

// size reads a SIZE of rsync in bytes: a number, which may have a fraction, a
// unit and +1 or -1 behind it. unit is meant where there is none.
func size(value string, unit byte) (int64, error) {
	bad := fmt.Errorf("%q is no size", value)
	digits := 0
	for digits < len(value) && (value[digits] >= '0' && value[digits] <= '9' || value[digits] == '.') {
		digits++
	}
	number, err := strconv.ParseFloat(value[:digits], 64)
	if err != nil {
		return 0, bad
	}
	rest := strings.ToUpper(value[digits:])
	var offset float64
	if left, ok := strings.CutSuffix(rest, "+1"); ok {
		rest, offset = left, 1
	} else if left, ok := strings.CutSuffix(rest, "-1"); ok {
		rest, offset = left, -1
	}
	step := 1024.0
	if rest != "" {
		unit = rest[0]
		switch rest[1:] {
		case "", "IB":
		case "B":
			step = 1000
		default:
			return 0, bad
		}
	}
	power := strings.IndexByte("BKMGTP", unit)
	if power < 0 || power == 0 && len(rest) > 1 {
		return 0, bad
	}
	number = math.Floor(number*math.Pow(step, float64(power))) + offset
	if number < 0 || number >= math.MaxInt64 {
		return 0, bad
	}
	return int64(number), nil
}

func chmod(c *Command, value string) error {
	for clause := range strings.SplitSeq(value, ",") {
		set, err := modeSet(clause, Umask())
		if err != nil {
			return err
		}
		c.Options.Chmod = append(c.Options.Chmod, set)
	}
	return nil
}

// modeSet reads one clause of --chmod, such as "Dg+s" or "F664".
func modeSet(clause string, mask uint32) (rsyncx.ModeSet, error) {
	bad := fmt.Errorf("%q is no change of permissions", clause)
	set := rsyncx.ModeSet{Dirs: true, Files: true}
	s := clause
	for len(s) > 0 && (s[0] == 'D' || s[0] == 'F') {
		set.Dirs, set.Files = s[0] == 'D', s[0] == 'F'
		s = s[1:]
	}
	if s != "" && s[0] >= '0' && s[0] <= '7' {
		n, err := strconv.ParseUint(s, 8, 32)
		if err != nil || n > 0o7777 {
			return set, bad
		}
		set.Or = uint32(n)
		return set, nil
	}
	where, special := uint32(0), uint32(0)
	for ; s != ""; s = s[1:] {
		switch s[0] {
		case 'u':
			where, special = where|0o100, special|0o4000
		case 'g':
			where, special = where|0o010, special|0o2000
		case 'o':
			where |= 0o001
		case 'a':
			where |= 0o111
		default:
			goto operator
		}
	}
operator:
	if s == "" || strings.IndexByte("+-=", s[0]) < 0 {
		return set, bad
	}
	what, top := uint32(0), uint32(0)
	for _, letter := range []byte(s[1:]) {
		switch letter {
		case 'r':
			what |= 4
		case 'w':
			what |= 2
		case 'X':
			set.ExecIf = true
			what |= 1
		case 'x':
			what |= 1
		case 's':
			if top |= special; special == 0 {
				top |= 0o4000
			}
		case 't':
			top |= 0o1000
		case 'u', 'g', 'o':
			return set, unsupported("%q copies permissions from one class to another, which drsync cannot do", clause)
		default:
			return set, bad
		}
	}
	bits := where * what
	if where == 0 {
		where = 0o111
		bits = where * what &^ mask
	}
	switch s[0] {
	case '+':
		set.And, set.Or = 0o7777, bits|top
	case '-':
		set.And = 0o7777 &^ (bits | top)
	case '=':
		set.And, set.Or = 0o7777&^(where*7), bits|top
		if top != 0 {
			set.And &^= special
		}
	}
	return set, nil
}

// idMap reads --usermap or --groupmap.
func idMap(users bool) action {
	return func(c *Command, value string) error {
		list := &c.Options.GroupMap
		if users {
			list = &c.Options.UserMap
		}
		if len(*list) > 0 {
			return fmt.Errorf("a mapping is given already, by this option or by --chown")
		}
		for pair := range strings.SplitSeq(value, ",") {
			from, to, ok := strings.Cut(pair, ":")
			if !ok {
				return fmt.Errorf("no colon in %q", pair)
			}
			m, err := mapping(from, to, users)
			if err != nil {
				return err
			}
			*list = append(*list, m)
		}
		if users {
			c.Options.Owner = true
		} else {
			c.Options.Group = true
		}
		return nil
	}
}

func mapping(from, to string, users bool) (rsyncx.IDMap, error) {
	var m rsyncx.IDMap
	switch lo, hi, isRange := strings.Cut(from, "-"); {
	case from == "*":
		m.Wildcard = true
	case from == "":
		m.Unnamed = true
	case number(lo) && (!isRange || number(hi)):
		if !isRange {
			hi = lo
		}
		a, errA := strconv.ParseUint(lo, 10, 32)
		b, errB := strconv.ParseUint(hi, 10, 32)
		if errA != nil || errB != nil || b < a {
			return m, fmt.Errorf("%q is no range of ids", from)
		}
		m.Lo, m.Hi = uint32(a), uint32(b)
	case number(from[:1]):
		return m, fmt.Errorf("%q is neither a number nor a range", from)
	default:
		m.Name = from
	}
	if number(to) {
		n, err := strconv.ParseUint(to, 10, 32)
		if err != nil {
			return m, fmt.Errorf("%q is no id", to)
		}
		m.To = uint32(n)
		return m, nil
	}
	if !known(to, users) {
		return m, fmt.Errorf("%q is unknown on this host", to)
	}
	m.ToName = to
	return m, nil
}

func number(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func known(name string, users bool) bool {
	var err error
	if users {
		_, err = user.Lookup(name)
	} else {
		_, err = user.LookupGroup(name)
	}
	return err == nil
}

func chown(c *Command, value string) error {
	owner, group, _ := strings.Cut(value, ":")
	if owner != "" {
		if err := idMap(true)(c, "*:"+owner); err != nil {
			return err
		}
	}
	if group != "" {
		return idMap(false)(c, "*:"+group)
	}
	return nil
}
