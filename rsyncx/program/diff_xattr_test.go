package program_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// newRuledCase is a case of a third kind: rules for the names of extended
// attributes, with the options that they have to do with.
func newRuledCase(seed uint64) diffCase {
	g := &gen{Rand: rand.New(rand.NewPCG(seed, 0x78617474)), taken: map[string]bool{}}
	g.attrs = true
	alt := pick(g, "", "", "", "--link-dest=@/alt", "--copy-dest=@/alt", "--compare-dest=@/alt")
	// rsync gives these at times what the other tree has.
	if alt == "" {
		g.symlinks, g.special, g.hard = g.chance(40), g.chance(20), g.chance(25)
	}
	g.names = slices.Clone(plainNames)
	g.links = []string{"a", "sub", "../a", "d/e.tmp"}
	g.add(g.node("from", 'd'))
	g.tree("from", 2, 6)
	g.destination()
	for i := range g.nodes {
		if n := &g.nodes[i]; n.kind != 'h' && g.chance(20) {
			n.xattrs = append(slices.Clone(n.xattrs), xattr{"security.own", pick(g, "1", "2")})
		}
	}
	c := diffCase{remote: g.chance(50)}
	run := command{dest: "to/", srcs: []string{"from/"}}
	run.opts = []string{pick(g, "-aX", "-aX", "-aX", "-aXc", "-rptX")}
	if g.hard {
		run.opts = append(run.opts, "-H") // itemized by when rsync comes to look
	} else {
		run.opts = append(run.opts, "-i")
	}
	// rsync leaves a new directory the default list that it inherits until the next run,
	// and with -A lets rules take away what it has just set.
	shielded := g.chance(40)
	if shielded {
		run.opts = append(run.opts, "--filter=-xsr system.*")
		if g.chance(40) {
			run.opts = append(run.opts[:1:1], append([]string{"-A"}, run.opts[2:]...)...)
		}
	}
	run.opts = append(run.opts, g.xattrRules()...)
	if g.chance(40) {
		run.opts = append(run.opts, pick(g, "--del", "--delete-after", "--delete-before", "--delete-excluded"))
	}
	g.add(g.node("to", 'd'))
	switch g.IntN(6) {
	case 0:
		if alt == "" {
			run.opts = append(run.opts, "--inplace")
		}
	case 1:
		run.opts = append(run.opts, "-b")
	case 2:
		if !run.has("-A") && !g.hard && alt == "" {
			run.opts = append(run.opts, "-b", "--inplace")
		}
	case 3:
		run.opts = append(run.opts, "--backup-dir=@/old")
	}
	if alt != "" {
		g.alternate("alt")
		run.opts = append(run.opts, alt)
	}
	for i := range g.nodes {
		if n := &g.nodes[i]; !shielded {
			n.xattrs = slices.DeleteFunc(slices.Clone(n.xattrs), func(x xattr) bool { return x.name == aclDefault })
		}
	}
	if g.chance(15) {
		run.opts = append(run.opts, pick(g, "--exclude=a", "--exclude=*.o", "--size-only", "--existing", "-u", "-I"))
	}
	if alt == "" && !g.special && g.chance(30) { // else rsync's dry run sets attributes, or sees those of what it would replace
		dry := run
		dry.opts = append([]string{"-n"}, run.opts...)
		c.runs = append(c.runs, dry)
	}
	c.runs = append(c.runs, run, run)
	c.nodes = g.nodes
	c.note = fmt.Sprintf("ruled seed %d", seed)
	return c
}

// alternate makes a tree much like from.
func (g *gen) alternate(top string) {
	for _, n := range slices.Clone(g.nodes) {
		if n.path != "from" && !strings.HasPrefix(n.path, "from/") || n.kind == 'h' {
			continue
		}
		n.path = top + strings.TrimPrefix(n.path, "from")
		if g.chance(30) {
			g.dressAttrs(&n)
		}
		g.add(n)
	}
}

func (g *gen) xattrRules() []string {
	var opts []string
	for range 1 + g.IntN(4) {
		opts = append(opts, "--filter="+g.xattrRule())
	}
	if g.chance(50) {
		opts = append(opts, "--filter=-x system.*")
	}
	if g.chance(10) {
		g.addRules("names", g.xattrRule)
		opts = append(opts, "--filter="+pick(g, ". ", ".x ")+"@/names")
	}
	if g.chance(10) && slices.ContainsFunc(opts, func(o string) bool { return strings.HasPrefix(o, "--filter=-x ") }) {
		// Only where the command line has such a rule rsync does not change its mind on the way.
		for range 2 {
			g.addRules(pick(g, g.dirsOf("from")...)+"/.names", g.xattrRule)
		}
		opts = append(opts, "--filter=: .names")
	}
	return opts
}

func (g *gen) xattrRule() string {
	kind := pick(g, "-x", "-x", "-x", "+x", "+x", "-xr", "-xs", "+xr", "+xs", "-x!", "Hx", "Sx", "Px", "Rx", "-xp", "-x/", "-xsr", "exclude,x", "protect,x")
	name := pick(g, "user.*", "user.*", "user.a", "user.a", "user.b", "user.sp ace", "trusted.*", "trusted.t", "security.*", "security.own",
		"system.*", "system.posix_acl_access", "system.posix_acl_default", "*", "**", "*.a", "**a", "u*r.?", "user.[ab]", "/user.a", "user.a/", "**/user.a", "us**", "*.own")
	return kind + " " + name
}

// TestXattrRulesAsRsync compares random cases of the third kind.
func TestXattrRulesAsRsync(t *testing.T) {
	base := bench(t)
	first := number(t, "DRSYNC_DIFF_FIRST", 0)
	for i := range number(t, "DRSYNC_DIFF_CASES", 80) {
		t.Run(strconv.Itoa(first+i), func(t *testing.T) {
			t.Parallel()
			check(t, base, newRuledCase(uint64(first+i)), runProgram)
		})
	}
}
