package rsyncx

import (
	"os"
	"slices"
	"strings"

	"github.com/drsync/drsync/rsyncx/filter"
)

// xattrRules says which extended attributes count on one side: the filter rules
// with the modifier x, or when there are none, rsync's own rule. The zero value
// has none.
//
// Rules of per-directory files count at the source alone. With --delete rsync applies
// at the destination those of whichever directory it looked through last, which
// may be another one in each run. Where access control lists are kept (-A), rules have
// no say about them: rsync lets the receiver's take away what -A has just set.
type xattrRules struct {
	scope *filter.Scope
	side  filter.Side
}

// given reports whether filter rules decide.
func (r xattrRules) given() bool { return r.scope.NamesXattrs(r.side) }

// carry tells which attributes rsync -X takes along, and at the destination sets
// and removes. By its own rule those are for a user the ones of users, for root all but
// those of the system. What rsync keeps for itself never counts.
func (r xattrRules) carry(name string) bool {
	switch {
	case strings.HasPrefix(name, rsyncXattr):
		return false
	case r.given():
		return !r.scope.ExcludedXattr(name, r.side)
	case os.Geteuid() == 0:
		return !strings.HasPrefix(name, systemXattr)
	}
	return strings.HasPrefix(name, userXattr)
}

// takes returns the name here of an attribute that the source tells, or "" when
// it is left out. As in rsync, rules let a user keep what only root can set, by another name.
func (r xattrRules) takes(told string) string {
	name := told
	if raw, ok := strings.CutPrefix(told, rawXattr); ok {
		if name = systemXattr + raw; !r.given() || !isACL(name) {
			return ""
		}
	}
	switch {
	case !r.carry(name):
		return ""
	case r.given() && os.Geteuid() != 0 && !strings.HasPrefix(name, userXattr):
		return parkedXattr + name
	}
	return told
}

// realXattr is the name by which the kernel knows an attribute of a list.
func realXattr(name string) string {
	if raw, ok := strings.CutPrefix(name, rawXattr); ok {
		return systemXattr + raw
	}
	return name
}

const (
	userXattr = "user."
	// parkedXattr is put before the name of an attribute that only root could set.
	parkedXattr = "user.rsync."
	longestName = 255 // bytes, of an attribute
)

// encodeXattrs encodes attributes in any order. Of several of one name the first
// counts; what is too long is left out.
func encodeXattrs(all []heldXattr) string {
	slices.SortStableFunc(all, func(a, b heldXattr) int { return strings.Compare(a.name, b.name) })
	var list []byte
	last := ""
	for _, x := range all {
		if x.name == last || len(x.name) > longestName {
			continue
		}
		if more := AppendXattr(list, x.name, x.value); len(more) <= maxXattrs {
			list, last = more, x.name
		}
	}
	return string(list)
}

// goneXattrs are the names of the plain attributes in now that want has not.
func goneXattrs(now, want string) string {
	if now == "" || now == want {
		return ""
	}
	keep := map[string]bool{}
	for name := range Xattrs(want) {
		keep[name] = true
	}
	var gone []byte
	for name := range Xattrs(now) {
		if !keep[name] && !isACL(name) {
			gone = AppendXattr(gone, name, "")
		}
	}
	return string(gone)
}
