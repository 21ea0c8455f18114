package program_test

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// newWideCase is a case of a second kind: more of the rarer options, together,
// and runs with changes of both trees between them.
func newWideCase(seed uint64) diffCase {
	g := &gen{Rand: rand.New(rand.NewPCG(seed, 0x77696465)), taken: map[string]bool{}}
	g.owners, g.hard, g.special = g.chance(50), g.chance(50), g.chance(25)
	g.symlinks, g.attrs, g.big, g.fine = g.chance(50), g.chance(35), g.chance(35), g.chance(30)
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
	run := command{dest: pick(g, "to/", "to/", "to")}
	run.opts = append(g.base(), g.output()...)
	if g.chance(60) {
		run.opts = append(run.opts, g.deletion()...)
		if g.chance(25) {
			run.opts = append(run.opts, pick(g, "--max-delete=1", "--max-delete=2", "--max-delete=5", "--delete-excluded", "--force", "--ignore-errors"))
		}
	}
	if g.chance(40) {
		run.opts = append(run.opts, g.wideRules()...)
	}
	for range 1 + g.IntN(4) {
		run.opts = append(run.opts, g.rare()...)
	}
	if g.chance(15) {
		run.opts = append(run.opts, g.contradiction()...)
	}
	if g.chance(70) {
		g.sources(&run)
	} else {
		g.wideSources(&run)
	}
	if g.chance(30) {
		dry := run
		dry.opts = append([]string{"-n"}, run.opts...)
		c.runs = append(c.runs, dry)
	}
	c.runs = append(c.runs, run)
	for range g.IntN(3) {
		again := run
		again.changes = g.changes()
		c.runs = append(c.runs, again)
	}
	c.nodes = g.nodes
	c.note = fmt.Sprintf("wide seed %d", seed)
	return c
}

// output draws what is shown.
func (g *gen) output() []string {
	switch g.IntN(8) {
	case 0, 1, 2:
		return []string{pick(g, "-i", "-ii", "-vi", "-v", "-vv")}
	case 3:
		return []string{"--out-format=" + g.format()}
	case 4:
		return []string{"-i", "--info=" + pick(g, "backup", "copy", "del2", "name2", "skip1", "skip2", "symsafe", "nonreg0", "remove", "misc2", "name0", "all2,progress0,flist0,stats0", "stats2,name1", "mount,skip", "backup,del,skip")}
	case 5:
		return []string{"-v", pick(g, "--stats", "--no-v", "--no-verbose", "-h", "-8", "--info=none", "--info=name0", "--no-i", "--no-h")}
	case 6:
		return []string{"--list-only"}
	}
	return []string{"-i", pick(g, "--stats", "--info=stats2", "--info=stats3", "--info=stats1")}
}

// format draws a format of every escape that tells of the tree.
func (g *gen) format() string {
	var b strings.Builder
	for range 1 + g.IntN(4) {
		b.WriteString("%" + pick(g, "", "", "", "12", "-12", "'", "''", "'''", "'10", "-3") + pick(g, "i", "n", "f", "L", "o", "l", "M", "B", "U", "G", "%", "m", "q", "h", "a", "u") + pick(g, " ", "|", ""))
	}
	return b.String() + "%n"
}

// rare draws one more option, of those that are drawn too seldom elsewhere.
func (g *gen) rare() []string {
	of := func(o ...string) func() []string { return func() []string { return strings.Fields(pick(g, o...)) } }
	table := []func() []string{
		of("--inplace", "--append", "--append-verify", "--inplace --no-W", "--append --no-W", "--no-W -y", "-y", "--inplace -S", "-S --no-W", "--inplace -b", "--inplace --backup-dir=bak", "--append-verify --no-W", "--inplace -c"),
		of("--usermap=*:7", "--usermap=0:1,*:7", "--usermap=root:daemon", "--usermap=:3", "--usermap=d*:lp", "--usermap=0-10:12345", "--usermap=1:7,7:1", "--groupmap=*:root", "--groupmap=:bin", "--groupmap=l*:7,0:5", "--chown=:lp", "--chown=7:", "--chown=*:7", "--chown=12345:54321", "--chown=daemon --groupmap=0:1", "--usermap=*:7 --numeric-ids"),
		of("--max-size=1kb", "--max-size=1kib", "--max-size=1K+1", "--max-size=5kb-1", "--min-size=1b", "--min-size=.5k", "--max-size=1.25kB", "--max-size=0.1m", "--min-size=32K --max-size=200K", "--max-size=2b+1", "--min-size=3-1", "--max-size=1g"),
		of("-x", "-xx", "-C", "-m", "-J", "-O", "-E", "--force", "-u", "--existing", "--ignore-existing", "--size-only", "-c", "-I", "--existing --ignore-existing", "--safe-links", "--copy-unsafe-links", "-k", "-L", "--no-links", "--ignore-missing-args", "--mkpath"),
		of("-b", "-b --suffix=.old", "--backup-dir=bak -b --suffix=~", "-b --suffix=.a", "-b --backup-dir=bak/deep/er", "-b --backup-dir=@/bak/x", "-b --backup-dir=./bak", "-b --backup-dir=a", "-b --backup-dir=sub", "-b --suffix=.o", "-b --exclude=*~"),
		of("-s", "--protect-args", "--secluded-args", "--old-args", "--no-s", "--no-secluded-args", "--no-old-args", "--no-protect-args", "--outbuf=L", "--trust-sender", "--no-motd", "--blocking-io", "--stderr=all", "--msgs2stderr", "--no-inc-recursive"),
		of("--delete-excluded", "--delete --delete-excluded", "--del --max-delete=2", "--del --max-delete=-1", "--del --ignore-errors", "--del -m", "--del --existing", "--del --ignore-existing", "--del -b --backup-dir=bak", "--delete-after -b", "--delete-delay -b --suffix=.o", "--del --partial-dir=.part"),
		of("--partial-dir=.part", "--partial-dir=a", "--partial-dir=@/part", "--partial --no-partial", "-T @/tmp", "--temp-dir=a", "-P --no-progress --info=progress0,flist0", "--delay-updates -b"),
		of("--chmod=D0700,F0600", "--chmod=a-w", "--chmod=u=rwX,go=rX", "--chmod=Da+t", "--chmod=Fu+s,Fg+s", "--chmod=o+w,o-w", "--chmod=F+X,D-x", "--chmod=755", "--chmod=Dug=rwx,Dg+s,Fug=rw", "--chmod=go=u", "--chmod=g=o --chmod=u=rwx"),
		func() []string { return g.altDests() },
	}
	o := pick(g, table...)()
	for _, x := range o {
		if strings.Contains(x, "@/tmp") {
			g.add(node{path: "tmp", kind: 'd', mode: 0o755, sec: 1_000_000_000})
		}
	}
	return o
}

// contradiction draws options that take others back.
func (g *gen) contradiction() []string {
	return strings.Fields(pick(g, "-a --no-o --no-g", "--no-a -r", "-r --no-r", "--no-p -p", "-W --no-W", "--no-W -W", "-H --no-H", "-X --no-X", "-A --no-A", "--no-D --devices", "-D --no-devices --specials", "--inplace --no-inplace",
		"-S --no-S", "-c --no-c", "-x --no-x", "-m --no-m", "-R --no-R", "-d -r", "--no-r -d", "--no-t -t -O --no-O", "--modify-window=2 -@0", "--append --no-append", "-b --no-backup", "--force --no-force", "-y --no-y",
		"--no-l -l", "-l --no-l", "--numeric-ids --no-numeric-ids", "-ii --no-i", "-i --no-i -i", "-v --no-v -v", "--partial-dir=x --no-partial", "-z --no-z", "--no-links --links", "-rl --no-r -d", "--no-a -a", "-a --no-p -A", "--no-recursive --dirs",
		"--delay-updates --no-delay-updates", "--no-implied-dirs --implied-dirs", "-J --no-J", "--omit-dir-times --no-O", "--ignore-errors --no-ignore-errors", "-0 --no-from0", "--mkpath --no-mkpath", "--no-whole-file", "-a --no-times --times", "--old-d --no-r"))
}

// altDests adds one to three more earlier states, some of which are not there.
func (g *gen) altDests() []string {
	kind := pick(g, "--compare-dest", "--copy-dest", "--link-dest")
	var opts []string
	var from []node
	for _, n := range g.nodes {
		if n.path == "from" || strings.HasPrefix(n.path, "from/") {
			from = append(from, n)
		}
	}
	for _, top := range []string{"alt", "alt2", "alt3"}[:1+g.IntN(3)] {
		if !g.chance(8) {
			for _, n := range from {
				g.earlier(n, top)
			}
		}
		opts = append(opts, kind+"="+pick(g, "@/", "../")+top)
	}
	return opts
}

// wideRules draws rules that concern what may be deleted, some of them of directories.
func (g *gen) wideRules() []string {
	opts := g.rules()
	for range g.IntN(3) {
		switch g.IntN(5) {
		case 0:
			opts = append(opts, "--filter="+pick(g, "P ", "R ", "H ", "S ", "P! ", "-s ", "-r ", "+r ", "+s ", "-p ", "-sp ")+g.pattern())
		case 1:
			opts = append(opts, pick(g, "-F", "-FF"))
			g.perDirectory(".rsync-filter", func() string {
				return pick(g, "P ", "R ", "H ", "S ", "- ", "+ ", "-s ", "-r ", "!", "-p ") + g.pattern()
			})
		case 2:
			opts = append(opts, "-C")
			g.perDirectory(".cvsignore", func() string { return pick(g, "", "! ", "*.o ", "a b ") + g.pattern() })
		case 3:
			g.add(node{path: ".cvsignore", kind: 'f', mode: 0o644, sec: 1_000_000_000, content: []segment{{kind: 't', text: pick(g, "a\n", "b d\n", "!\n", "core ! a\n")}}})
			opts = append(opts, "-C")
		case 4:
			opts = append(opts, "--filter="+pick(g, ":", "dir-merge,")+pick(g, "s", "r", "e", "n", "p", "sn", "rp", "/", "!")+" .rules")
			g.perDirectory(".rules", g.rule)
		}
	}
	return opts
}

// wideSources draws several names, relative ones, and lists of odd names.
func (g *gen) wideSources(c *command) {
	c.srcs = []string{"from/"}
	var paths []string
	for _, n := range g.nodes {
		if strings.HasPrefix(n.path, "from/") && !strings.ContainsAny(n.path, "*?[\\\n") {
			paths = append(paths, n.path)
		}
	}
	if len(paths) == 0 {
		return
	}
	if g.chance(50) { // a list
		var b strings.Builder
		c.opts = append(c.opts, "--files-from=@/list", "-0")
		c.opts = append(c.opts, strings.Fields(pick(g, "", "-r", "--no-R", "--no-d", "--no-implied-dirs", "-R -r", "--no-r", "-m", "--del -r"))...)
		for range 1 + g.IntN(6) {
			p := strings.TrimPrefix(pick(g, paths...), "from/")
			b.WriteString(pick(g, "", "", "", "/", "./", "a/../", "//", "./././") + pick(g, p, p, strings.ReplaceAll(p, "/", "//"), strings.ReplaceAll(p, "/", "/./")) + pick(g, "", "", "/", "/.", "//") + "\x00")
		}
		g.add(node{path: "list", kind: 'f', mode: 0o644, sec: 1_000_000_000, content: []segment{{kind: 't', text: b.String()}}})
		return
	}
	relative := g.chance(60)
	if relative {
		c.opts = append(c.opts, strings.Fields(pick(g, "-R", "-R", "-R --no-implied-dirs"))...)
	}
	c.srcs = nil
	for range 1 + g.IntN(4) {
		p := pick(g, paths...)
		dir, base := path.Split(p)
		if relative {
			p = pick(g, p, strings.Replace(p, "from/", "from/./", 1), dir+"./"+base, dir+"/"+base, "./"+p, strings.Replace(p, "from/", "from//", 1))
		}
		c.srcs = append(c.srcs, p+pick(g, "", "", "", "/", "/.", "//"))
	}
}

// changes draws what is changed in both trees between two runs.
func (g *gen) changes() []node {
	var known, out []node
	for _, n := range g.nodes {
		if strings.HasPrefix(n.path, "from/") || strings.HasPrefix(n.path, "to/") {
			known = append(known, n)
		}
	}
	for range g.IntN(6) {
		dirs := append(g.dirsOf("from"), g.dirsOf("to")...)
		fresh := path.Join(pick(g, dirs...), pick(g, g.names...))
		if len(known) == 0 || g.chance(30) {
			out = append(out, g.node(fresh, g.kind()))
			continue
		}
		n := pick(g, known...)
		switch k := g.IntN(100); {
		case k < 25:
			out = append(out, node{path: n.path, kind: 'x'})
		case k < 45 && n.kind == 'f':
			n.content = g.changed(n.content)
			n.sec += int64(g.IntN(3))
			out = append(out, n)
		case k < 60 && n.kind != 'h':
			g.dress(&n)
			out = append(out, n)
		case k < 75:
			out = append(out, g.node(n.path, g.kind()))
		case k < 85 && n.kind != 'h':
			out = append(out, node{path: n.path, kind: 'x'})
			n.path = fresh
			out = append(out, n)
		case g.hard && n.kind != 'd':
			out = append(out, node{path: fresh, kind: 'h', target: n.path})
		}
	}
	return out
}

// TestWideAsRsync compares random cases of the second kind.
func TestWideAsRsync(t *testing.T) {
	base := bench(t)
	differ := unsettled(t, "testdata/unsettled-wide")
	first := number(t, "DRSYNC_DIFF_FIRST", 0)
	for i := range number(t, "DRSYNC_DIFF_CASES", 60) {
		if differ[strconv.Itoa(first+i)] {
			continue
		}
		t.Run(strconv.Itoa(first+i), func(t *testing.T) {
			t.Parallel()
			check(t, base, newWideCase(uint64(first+i)), runProgram)
		})
	}
}
