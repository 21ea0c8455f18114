package filter

import "strings"

// textBuffer holds the path of a query without touching the heap.
const textBuffer = 512

// query is one name that rules are asked about.
type query struct {
	scope *Scope
	side  Side
	isDir bool
	xattr bool // it is the name of an extended attribute
	path  string
	base  string // its last element
	text  []byte // "/" + path + "/"
}

// framed returns "/" + path + "/" in buf, or on the heap if it is longer.
func framed(buf []byte, path string) []byte {
	buf = append(buf, '/')
	buf = append(buf, path...)
	return append(buf, '/')
}

// base returns the last element of path.
func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// first returns the first rule of list that matches, or nil.
func (q *query) first(list []*rule) *rule {
	for _, r := range list {
		switch {
		case r.sides&q.side == 0 && r.sides != 0:
		case q.scope.doomed && r.flags&perishable != 0:
		case r.flags&perDir != 0:
			for i := range q.scope.merged {
				if q.scope.merged[i].by == r {
					if in := q.first(q.scope.merged[i].list); in != nil {
						return in
					}
				}
			}
		case isXattr(r) != q.xattr:
		case q.matches(r):
			return r
		}
	}
	return nil
}

// matches applies one rule, whatever its side.
func (q *query) matches(r *rule) bool {
	same := false
	if q.isDir || r.flags&dirOnly == 0 {
		same = q.compare(r)
	}
	return same != (r.flags&negate != 0)
}

func (q *query) compare(r *rule) bool {
	switch r.how {
	case nameLiteral:
		return q.base == r.lit
	case nameSuffix:
		return strings.HasSuffix(q.base, r.lit)
	case nameWild:
		return wildmatch(r.lit, q.text[len(q.text)-1-len(q.base):len(q.text)-1])
	}
	if r.flags&absolute != 0 {
		return q.compareAbsolute(r)
	}
	path, text := q.path, q.text[1:]
	if r.anchor != "" {
		if len(path) <= len(r.anchor) || path[len(r.anchor)] != '/' || path[:len(r.anchor)] != r.anchor {
			return false
		}
		path, text = path[len(r.anchor)+1:], text[len(r.anchor)+1:]
	}
	switch {
	case r.how == pathLiteral:
		return path == r.lit
	case r.how == tailLiteral:
		return strings.HasSuffix(path, r.lit) &&
			(len(path) == len(r.lit) || path[len(path)-len(r.lit)-1] == '/')
	case r.slash:
		text = q.text
	}
	if !r.dir3 || !q.isDir {
		text = text[:len(text)-1]
	}
	return compareWild(r, text)
}

func compareWild(r *rule, text []byte) bool {
	switch r.how {
	case tailWild:
		// A path of fewer elements is compared whole, and lacks a slash to match.
		at, left := len(text), r.tail
		for ; at > 0; at-- {
			if text[at-1] == '/' {
				if left--; left == 0 {
					break
				}
			}
		}
		return wildmatch(r.lit, text[at:])
	case anyWild:
		if wildmatch(r.lit, text) {
			return true
		}
		for i, c := range text {
			if c == '/' && wildmatch(r.lit, text[i+1:]) {
				return true
			}
		}
		return false
	}
	return wildmatch(r.lit, text)
}

// compareAbsolute matches against the path of the tree, without its leading
// '/', and the name in it.
func (q *query) compareAbsolute(r *rule) bool {
	root := q.scope.rules.opts.SourceRoot
	if q.side == Receiver {
		root = q.scope.rules.opts.DestRoot
	}
	one := *r
	one.flags &^= absolute
	path := q.path
	if root = strings.Trim(root, "/"); root != "" {
		path = root + "/" + path
	} else {
		one.slash = strings.HasPrefix(one.pattern, "**")
	}
	abs := query{scope: q.scope, side: q.side, isDir: q.isDir, xattr: q.xattr, path: path, base: base(path), text: framed(nil, path)}
	return abs.compare(&one)
}
