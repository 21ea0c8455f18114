package rsyncx

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"github.com/drsync/drsync/rsyncx/filter"
)

// ParseIDMap reads the rules of rsync's --usermap or --groupmap, for example
// "0-99:nobody,wayne:admin,*:normal,:guest". Names behind the colon are looked
// up by Stage.
func ParseIDMap(text string) ([]IDMap, error) {
	var maps []IDMap
	for rule := range strings.SplitSeq(text, ",") {
		from, to, found := strings.Cut(rule, ":")
		switch {
		case !found:
			return nil, fmt.Errorf("the owner rule %q has no colon", rule)
		case to == "":
			return nil, fmt.Errorf("the owner rule %q names nobody behind the colon", rule)
		}
		m := IDMap{}
		if isDigits(to) {
			id, err := parseMapID(to)
			if err != nil {
				return nil, fmt.Errorf("the owner rule %q: %w", rule, err)
			}
			m.To = id
		} else {
			m.ToName = to
		}
		if err := m.from(from); err != nil {
			return nil, fmt.Errorf("the owner rule %q: %w", rule, err)
		}
		maps = append(maps, m)
	}
	return maps, nil
}

// from reads what stands before the colon.
func (m *IDMap) from(text string) (err error) {
	low, high, isRange := strings.Cut(text, "-")
	switch {
	case text == "":
		m.Unnamed = true
	case text == "*":
		m.Wildcard = true
	case text[0] < '0' || text[0] > '9':
		m.Name = text
	case isRange:
		if m.Lo, err = parseMapID(low); err == nil {
			m.Hi, err = parseMapID(high)
		}
	default:
		m.Lo, err = parseMapID(text)
		m.Hi = m.Lo
	}
	return err
}

func isDigits(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }

// parseMapID leaves out the highest number, which means no id to the kernel.
func parseMapID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || !isDigits(text) || id == 1<<32-1 {
		return 0, fmt.Errorf("%q is not the number of an owner", text)
	}
	return uint32(id), nil
}

// matches reports whether m is the rule for an owner with this number and name.
func (m *IDMap) matches(id uint32, name string) bool {
	switch {
	case m.Wildcard:
		return true
	case m.Unnamed:
		return name == ""
	case m.Name == "":
		return id >= m.Lo && id <= m.Hi
	case strings.ContainsAny(m.Name, "*?["):
		return filter.Match(m.Name, name)
	}
	return name == m.Name
}

// settleMaps looks up the names that owners are mapped to.
func settleMaps(maps []IDMap, lookup func(name string) (string, error)) ([]IDMap, error) {
	settled := make([]IDMap, 0, len(maps))
	var errs []error
	for _, m := range maps {
		if m.ToName != "" {
			text, err := lookup(m.ToName)
			id := parseID(text)
			if err != nil || id < 0 {
				errs = append(errs, fmt.Errorf("map an owner to %q: this host does not know the name", Printable(m.ToName)))
				continue
			}
			m.To = uint32(id)
		}
		settled = append(settled, m)
	}
	return settled, errors.Join(errs...)
}

func lookupUser(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func lookupGroup(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}
