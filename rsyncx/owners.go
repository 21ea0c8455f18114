package rsyncx

import (
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

// ownerIDs maps the owners of a source to ids of this host, by name: 0 is
// never mapped, and a name that is unknown here leaves the number.
type ownerIDs struct {
	numeric bool
	users   map[string]int64
	groups  map[string]int64
}

func (o *ownerIDs) uid(e *Entry) uint32 {
	if o.numeric || e.UID == 0 || e.User == "" {
		return e.UID
	}
	return mapped(e.UID, remember(&o.users, e.User, func() int64 {
		u, err := user.Lookup(e.User)
		if err != nil {
			return -1
		}
		return parseID(u.Uid)
	}))
}

func (o *ownerIDs) gid(e *Entry) uint32 {
	if o.numeric || e.GID == 0 || e.Group == "" {
		return e.GID
	}
	return mapped(e.GID, remember(&o.groups, e.Group, func() int64 {
		g, err := user.LookupGroup(e.Group)
		if err != nil {
			return -1
		}
		return parseID(g.Gid)
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
