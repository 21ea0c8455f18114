package rsyncx

import (
	"errors"
	"os/user"
	"strconv"
	"sync"
)

// maxOwners bounds what a peer can make an owner cache hold.
const maxOwners = 1 << 16

// ownerNames finds and remembers the names of user and group ids of this host.
// Its methods may be called from several goroutines.
type ownerNames struct {
	mu     sync.Mutex
	users  map[uint32]string
	groups map[uint32]string
}

func (o *ownerNames) of(uid, gid uint32) (userName, groupName string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	userName = remember(&o.users, uid, func() string {
		if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
			return u.Username
		}
		return ""
	})
	groupName = remember(&o.groups, gid, func() string {
		if g, err := user.LookupGroupId(strconv.FormatUint(uint64(gid), 10)); err == nil {
			return g.Name
		}
		return ""
	})
	return userName, groupName
}

// ownerIDs maps the owners of a source to ids of this host: by the first rule
// that matches, else by name. 0 is never mapped by name, and a name that is unknown
// here leaves the number.
type ownerIDs struct {
	numeric          bool
	userMap          []IDMap
	groupMap         []IDMap
	users            map[string]int64
	groups           map[string]int64
	rootUser, rootGr string // the names of 0 here, which rules match instead of the source's
}

// newOwnerIDs returns an error when a rule maps to a name that is unknown here.
func newOwnerIDs(o *Options) (ids ownerIDs, err error) {
	ids.numeric = o.NumericIDs
	var userErr, groupErr error
	ids.userMap, userErr = settleMaps(o.UserMap, lookupUser)
	ids.groupMap, groupErr = settleMaps(o.GroupMap, lookupGroup)
	if !ids.numeric && len(ids.userMap)+len(ids.groupMap) > 0 {
		var names ownerNames
		ids.rootUser, ids.rootGr = names.of(0, 0)
	}
	return ids, errors.Join(userErr, groupErr)
}

func (o *ownerIDs) uid(e *Entry) uint32 { return o.user(e.UID, e.User) }
func (o *ownerIDs) gid(e *Entry) uint32 { return o.group(e.GID, e.Group) }

func (o *ownerIDs) user(id uint32, name string) uint32 {
	return o.one(o.userMap, id, name, o.rootUser, &o.users, lookupUser)
}

func (o *ownerIDs) group(id uint32, name string) uint32 {
	return o.one(o.groupMap, id, name, o.rootGr, &o.groups, lookupGroup)
}

func (o *ownerIDs) one(maps []IDMap, id uint32, name, zero string, known *map[string]int64, lookup func(string) (string, error)) uint32 {
	switch {
	case o.numeric:
		name = ""
	case id == 0:
		name = zero
	}
	for i := range maps {
		if maps[i].matches(id, name) {
			return maps[i].To
		}
	}
	if name == "" || id == 0 {
		return id
	}
	return mapped(id, remember(known, name, func() int64 {
		text, err := lookup(name)
		if err != nil {
			return -1
		}
		return parseID(text)
	}))
}

func mapped(id uint32, here int64) uint32 {
	if here < 0 {
		return id
	}
	return uint32(here)
}

func parseID(text string) int64 {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return -1
	}
	return int64(id)
}

func remember[K comparable, V any](known *map[K]V, key K, find func() V) V {
	if v, ok := (*known)[key]; ok {
		return v
	}
	if *known == nil || len(*known) >= maxOwners {
		*known = make(map[K]V)
	}
	v := find()
	(*known)[key] = v
	return v
}
