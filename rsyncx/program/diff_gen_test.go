package program_test

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// gen makes cases. The same seed makes the same case.
type gen struct {
	*rand.Rand
	nodes []node
	taken map[string]bool
	names []string
	links []string // where links of this case lead to

	// What this case's trees have, so that not every case has everything.
	owners, hard, special, symlinks, attrs, big, fine bool
}

func (g *gen) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *gen, of ...T) T { return of[g.IntN(len(of))] }

var plainNames = []string{"a", "b", "c.o", "d", "e.tmp", "f1", ".hid", "x~", "sub", "core"}

var oddNames = []string{"sp ace", "-rf", "new\nline", "bad\xff\xfe", "*", "back\\slash", "#x", "ünï", "[x]", "a?", "esc\x1b[1m", "...", "lock.", "tab\t", "a\\#001", "\x7f", " lead"}

// newCase is the case of a seed.
func newCase(seed uint64) diffCase {
	g := &gen{Rand: rand.New(rand.NewPCG(seed, 0x64727379)), taken: map[string]bool{}}
	g.owners, g.hard, g.special = g.chance(40), g.chance(35), g.chance(30)
	g.symlinks, g.attrs, g.big, g.fine = g.chance(60), g.chance(15), g.chance(20), g.chance(30)
	g.names = slices.Clone(plainNames)
	if g.chance(40) {
		for range 4 {
			g.names = append(g.names, pick(g, oddNames...))
		}
	}
	g.links = []string{"a", "sub", "../a", "/no/where", "b/../../x", "d/e.tmp", "../../../../up", "new\nline"}
	g.add(g.node("from", 'd'))
	g.tree("from", 2+g.IntN(2), 8)
	g.destination()
	c := diffCase{remote: g.chance(40)}
	run := g.command()
	if g.chance(50) {
		dry := run
		dry.opts = append([]string{"-n"}, run.opts...)
		c.runs = append(c.runs, dry)
	}
	c.runs = append(c.runs, run)
	if g.chance(50) {
		c.runs = append(c.runs, run)
	}
	c.nodes = g.nodes
	c.note = fmt.Sprintf("seed %d", seed)
	return c
}

func (g *gen) add(n node) bool {
	if g.taken[n.path] {
		return false
	}
	g.taken[n.path] = true
	g.nodes = append(g.nodes, n)
	return true
}

func (g *gen) node(p string, kind byte) node {
	n := node{path: p, kind: kind, mode: 0o644, sec: 1_000_000_000 + int64(g.IntN(3))}
	if kind == 'd' {
		n.mode = 0o755
	}
	g.dress(&n)
	switch kind {
	case 'f':
		n.content = g.content()
	case 'l':
		n.target = pick(g, g.links...)
	}
	return n
}

// dress gives a node attributes that are seldom all plain.
func (g *gen) dress(n *node) {
	if g.chance(30) {
		n.mode = pick[uint32](g, 0o755, 0o644, 0o600, 0o4755, 0o2755, 0o1777, 0o000, 0o400, 0o664, 0o700, 0o111, 0o6711)
	}
	if g.owners && g.chance(50) {
		n.uid, n.gid = pick(g, 0, 1, 7, 12345), pick(g, 0, 1, 7, 12345)
	}
	if g.fine && g.chance(50) {
		n.nsec = int64(g.IntN(3)) * 250_000_001
	}
	if g.chance(4) {
		n.sec = pick[int64](g, -1000, 0, 1, 4_000_000_000, 5_000_000_000)
	}
	if g.attrs && g.chance(40) {
		g.dressAttrs(n)
	}
}

func (g *gen) dressAttrs(n *node) {
	set := func(name, value string) {
		n.xattrs = slices.DeleteFunc(slices.Clone(n.xattrs), func(x xattr) bool { return x.name == name })
		n.xattrs = append(n.xattrs, xattr{name, value})
	}
	if n.kind == 'f' || n.kind == 'd' {
		if g.chance(60) {
			set(pick(g, "user.a", "user.b", "user.sp ace"), strings.Repeat(pick(g, "v", "w\x00", "\xff"), pick(g, 0, 1, 3, 31, 32, 33, 100)))
		}
	}
	if g.chance(20) {
		set("trusted.t", pick(g, "1", "2"))
	}
	if n.kind != 'l' && g.chance(40) {
		set(aclAccess, g.acl())
	}
	if n.kind == 'd' && g.chance(30) {
		set(aclDefault, g.acl())
	}
}

func (g *gen) acl() string {
	p := func() uint16 { return pick[uint16](g, 0, 4, 5, 6, 7) }
	return acl([6]uint16{pick[uint16](g, 6, 7), p(), p(), p(), p(), pick[uint16](g, 0, 4, 5)})
}

func (g *gen) content() []segment {
	switch {
	case g.chance(15):
		return nil
	case g.big && g.chance(30):
		return g.large()
	}
	return []segment{{kind: 't', text: strings.Repeat(pick(g, "a", "b", "xy\n"), 1+g.IntN(3))}}
}

func (g *gen) large() []segment {
	var c []segment
	for range 1 + g.IntN(3) {
		n := int64(pick(g, 100, 700, 5000, 33000, 131072, 300000))
		c = append(c, segment{kind: pick(g, byte('r'), 'r', 'r', 'z', 'h'), seed: uint64(g.IntN(3)), off: int64(g.IntN(2)) * 64, len: n + int64(g.IntN(3))})
	}
	return c
}

// changed is a later state of a content.
func (g *gen) changed(c []segment) []segment {
	size := contentSize(c)
	if size < 50 {
		if size > 0 && g.chance(40) { // of the same size
			return []segment{{kind: 't', text: strings.Repeat(pick(g, "p", "q"), int(size))}}
		}
		return g.content()
	}
	at, n := g.Int64N(size), g.Int64N(size/3+1)
	extra := []segment{{kind: 'r', seed: 9, off: g.Int64N(1000), len: min(n, 40000) + 1}}
	switch g.IntN(5) {
	case 0: // in place
		return slices.Concat(cut(c, 0, at), cut(extra, 0, min(n, size-at)), cut(c, at+min(n, extra[0].len, size-at), size))
	case 1: // something put in
		return slices.Concat(cut(c, 0, at), extra, cut(c, at, size))
	case 2: // something taken out
		return slices.Concat(cut(c, 0, at), cut(c, at+n, size))
	case 3: // longer
		return slices.Concat(c, extra)
	}
	return slices.Concat(cut(c, at, size), cut(c, 0, at)) // turned round
}

func (g *gen) kind() byte {
	switch n := g.IntN(100); {
	case n < 30:
		return 'd'
	case n < 45 && g.symlinks:
		return 'l'
	case n < 60 && g.special:
		return pick(g, byte('p'), 's', 'c', 'b')
	}
	return 'f'
}

func (g *gen) tree(dir string, depth, most int) {
	for range 1 + g.IntN(most) {
		p := path.Join(dir, pick(g, g.names...))
		kind := g.kind()
		if kind == 'd' && depth == 0 {
			kind = 'f'
		}
		if g.hard && g.chance(20) && g.hardLink(p) {
			continue
		}
		if g.add(g.node(p, kind)) && kind == 'd' {
			g.tree(p, depth-1, 4)
		}
	}
}

// hardLink makes p another name of something in the same tree.
func (g *gen) hardLink(p string) bool {
	top, _, _ := strings.Cut(p, "/")
	var of []node
	for _, n := range g.nodes {
		if strings.HasPrefix(n.path, top+"/") && n.kind != 'd' && n.kind != 'h' {
			of = append(of, n)
		}
	}
	if len(of) == 0 {
		return false
	}
	return g.add(node{path: p, kind: 'h', target: pick(g, of...).path})
}

// destination makes "to": usually an earlier state of "from".
func (g *gen) destination() {
	switch n := g.IntN(10); {
	case n == 0: // there is none
		return
	case n == 1:
		g.add(g.node("to", 'd'))
		g.tree("to", 2, 6)
		return
	}
	for _, n := range slices.Clone(g.nodes) {
		g.earlier(n, "to")
	}
	for range g.IntN(4) { // names that the source has not
		dirs := g.dirsOf("to")
		p := path.Join(pick(g, dirs...), pick(g, append(g.names, "extra", "old.o", "gone")...))
		kind := g.kind()
		if g.add(g.node(p, kind)) && kind == 'd' {
			g.tree(p, 1, 3)
		}
	}
}

func (g *gen) dirsOf(top string) []string {
	var dirs []string
	for _, n := range g.nodes {
		if n.kind == 'd' && (n.path == top || strings.HasPrefix(n.path, top+"/")) {
			dirs = append(dirs, n.path)
		}
	}
	return dirs
}

// earlier adds what n of "from" was before, in the tree top.
func (g *gen) earlier(n node, top string) {
	rename := func(p string) string { return top + strings.TrimPrefix(p, "from") }
	n.path = rename(n.path)
	if parent := path.Dir(n.path); parent != "." && (!g.taken[parent] || g.kindOf(parent) != 'd') {
		return
	}
	if n.kind == 'h' {
		n.target = rename(n.target)
		if k := g.kindOf(n.target); k == 0 || k == 'd' || g.chance(15) {
			n = g.node(n.path, 'f')
		}
		g.add(n)
		return
	}
	if n.path == top {
		if g.chance(30) {
			g.dress(&n)
		}
		g.add(n)
		return
	}
	switch k := g.IntN(100); {
	case k < 50:
	case k < 60:
		return
	case k < 68:
		n.sec += int64(g.IntN(3)) - 1
		n.nsec = 0
	case k < 82 && n.kind == 'f':
		n.content = g.changed(n.content)
		if g.chance(60) {
			n.sec--
		}
	case k < 90:
		g.dress(&n)
	case k < 95:
		n = g.node(n.path, g.kind())
	case k < 97 && n.kind != 'd':
		n.path = path.Join(path.Dir(n.path), "renamed")
	case n.kind == 'l':
		n.target = pick(g, g.links...)
	}
	g.add(n)
}

func (g *gen) kindOf(p string) byte {
	for _, n := range g.nodes {
		if n.path == p {
			return n.kind
		}
	}
	return 0
}
