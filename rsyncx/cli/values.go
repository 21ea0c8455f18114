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
	sets, err := rsyncx.ParseChmod(value)
	c.Options.Chmod = append(c.Options.Chmod, sets...)
	return err
}

// idMap reads --usermap or --groupmap.
func idMap(users bool) action {
	return func(c *Command, value string) error {
		list, given := &c.Options.GroupMap, &c.groupsMapped
		if users {
			list, given = &c.Options.UserMap, &c.usersMapped
		}
		if *given {
			return fmt.Errorf("a mapping is given already, by this option or by --chown")
		}
		*given = true
		for pair := range strings.SplitSeq(value, ",") {
			from, to, ok := strings.Cut(pair, ":")
			if !ok {
				return fmt.Errorf("no colon in %q", pair)
			}
			m, err := mapping(from, to)
			if err != nil {
				return err
			}
			if m.ToName != "" && !known(m.ToName, users) { // as rsync does without the rule
				kind := "group"
				if users {
					kind = "user"
				}
				c.Warnings = append(c.Warnings, fmt.Sprintf("Unknown --%smap name on receiver: %s", kind, rsyncx.Printable(m.ToName)))
				continue
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

func mapping(from, to string) (rsyncx.IDMap, error) {
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
	if to == "" {
		return m, fmt.Errorf("%q names nobody behind the colon", from+":")
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
