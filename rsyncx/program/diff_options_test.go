package program_test

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// command draws a command line, and adds what it needs to the world.
func (g *gen) command() command {
	c := command{dest: pick(g, "to/", "to/", "to/", "to")}
	c.opts = g.base()
	c.opts = append(c.opts, pick(g, []string{"-i"}, []string{"-i"}, []string{"-i"}, []string{"-v"}, []string{"-ii"}, []string{"-vi"}, []string{"-vv"},
		[]string{"--out-format=%i %n%L"}, []string{"--out-format=%o %M %B %U:%G %n"}, []string{"-iv", "--stats"})...)
	if g.chance(55) {
		c.opts = append(c.opts, g.deletion()...)
	}
	if g.chance(45) {
		c.opts = append(c.opts, g.rules()...)
	}
	for range g.IntN(4) {
		c.opts = append(c.opts, g.extra()...)
	}
	g.sources(&c)
	return c
}

// base draws what is carried over.
func (g *gen) base() []string {
	opts := []string{"-a"}
	if g.chance(25) {
		var letters strings.Builder
		for _, l := range "lptogD" {
			if g.chance(60) {
				letters.WriteRune(l)
			}
		}
		opts = []string{"-r" + letters.String()}
	} else if g.chance(15) {
		opts = append(opts, pick(g, "--no-p", "--no-t", "--no-o", "--no-g", "--no-l", "--no-D", "--no-perms", "--no-specials", "--no-devices"))
	}
	if g.hard && g.chance(75) {
		opts = append(opts, "-H")
	}
	if g.attrs {
		opts = append(opts, pick(g, "-X", "-A", "-AX", "-AX")) // -A without lists, too
	}
	return opts
}

func (g *gen) deletion() []string {
	opts := []string{pick(g, "--del", "--delete", "--delete-before", "--delete-during", "--delete-delay", "--delete-after", "--delete-excluded")}
	if g.chance(15) {
		opts = append(opts, pick(g, "--delete-excluded", "--force", "--ignore-errors", "--max-delete=0", "--max-delete=1", "--max-delete=3", "--max-delete=1000"))
	}
	return opts
}

// extra draws one more option.
func (g *gen) extra() []string {
	one := func(o ...string) func() []string { return func() []string { return o } }
	of := func(o ...string) func() []string { return func() []string { return []string{pick(g, o...)} } }
	table := []func() []string{
		of("-c", "-I", "-u", "--size-only", "--existing", "--ignore-existing", "--ignore-non-existing"),
		of("--max-size=3", "--min-size=2", "--max-size=1K", "--min-size=1k", "--max-size=0", "--max-size=1.5K", "--min-size=700", "--max-size=1m-1"),
		of("--modify-window=1", "--modify-window=-1", "-@1", "--modify-window=2"),
		of("-W", "--no-W", "--inplace", "-S", "--partial", "--partial-dir=.part", "--delay-updates", "--temp-dir=@/tmp", "--fsync", "--append", "--append-verify", "-y"),
		of("-m", "-O", "-J", "-E", "--safe-links", "--copy-links", "-k", "--copy-unsafe-links", "-K", "--keep-dirlinks", "--munge-links"),
		of("--chmod=u+w", "--chmod=Dg+s,ugo-x", "--chmod=F644,D755", "--chmod=a+rX", "--chmod=ug=rwX,o=", "--chmod=Fo-rwx", "--chmod=D2775", "--chmod=+X", "--chmod=u=g,o=u"),
		of("--chown=1:7", "--chown=daemon:lp", "--chown=:1", "--chown=7", "--usermap=7:1", "--usermap=*:7", "--usermap=daemon:lp,12345:root", "--groupmap=0-7:1", "--groupmap=*:bin", "--usermap=12000-13000:7", "--numeric-ids", "--groupmap=12345:lp"),
		of("-b", "-b", "--suffix=.bak", "-z", "--bwlimit=100m", "--timeout=60", "--checksum-choice=md5", "--checksum-choice=xxh128", "--compress-choice=zstd", "-h", "-hh", "--info=all0", "--info=name1,del1", "--stats", "--numeric-ids", "-x"),
		g.backup, g.altDest,
		one("--force"), one("-q"), one("--no-i-r"), one("--list-only"),
	}
	if o := pick(g, table...)(); o[0] != "--list-only" && o[0] != "-q" || g.chance(20) {
		if strings.HasPrefix(o[0], "--temp-dir") {
			g.add(node{path: "tmp", kind: 'd', mode: 0o755, sec: 1_000_000_000})
		}
		return o
	}
	return nil
}

func (g *gen) backup() []string {
	opts := []string{"-b", pick(g, "--backup-dir=@/bak", "--backup-dir=bak", "--backup-dir=../bak")}
	if g.chance(30) {
		opts = append(opts, "--suffix="+pick(g, ".bak", "", "~~"))
	}
	if g.chance(30) {
		g.add(node{path: "bak", kind: 'd', mode: 0o700, sec: 1_000_000_000})
	}
	return opts
}

// altDest adds one or two more earlier states.
func (g *gen) altDest() []string {
	kind := pick(g, "--compare-dest", "--copy-dest", "--link-dest")
	var opts []string
	var from []node
	for _, n := range g.nodes {
		if n.path == "from" || strings.HasPrefix(n.path, "from/") {
			from = append(from, n)
		}
	}
	for _, top := range []string{"alt", "alt2"}[:1+g.IntN(2)] {
		for _, n := range from {
			g.earlier(n, top)
		}
		opts = append(opts, kind+"="+pick(g, "@/", "../")+top)
	}
	return opts
}

// sources draws what is copied.
func (g *gen) sources(c *command) {
	var paths []string
	for _, n := range g.nodes {
		if strings.HasPrefix(n.path, "from/") && !strings.ContainsAny(n.path, "\n\t") {
			paths = append(paths, n.path)
		}
	}
	c.srcs = []string{"from/"}
	switch k := g.IntN(100); {
	case k < 60 || len(paths) == 0:
	case k < 68:
		c.srcs = []string{"from"}
	case k < 76: // some names, with and without their content
		c.srcs = nil
		for range 1 + g.IntN(3) {
			p := pick(g, paths...)
			if g.kindOf(p) == 'd' && g.chance(40) {
				p += "/"
			}
			c.srcs = append(c.srcs, p)
		}
	case k < 79:
		c.srcs = []string{pick(g, paths...)}
		c.dest = pick(g, "to/", "to", "to/new", "new/")
	case k < 88: // relative
		c.opts = append(c.opts, "-R")
		if g.chance(20) {
			c.opts = append(c.opts, "--no-implied-dirs")
		}
		c.srcs = nil
		for range 1 + g.IntN(3) {
			dir, base := path.Split(pick(g, paths...))
			c.srcs = append(c.srcs, pick(g, strings.Replace(dir, "from/", "from/./", 1)+base, dir+"./"+base))
		}
	case k < 97:
		g.filesFrom(c, paths)
	case k < 98:
		c.srcs = append(c.srcs, "from/missing")
	default:
		c.srcs = []string{"missing/"}
	}
	for i, s := range c.srcs { // no patterns for the remote shell
		if strings.ContainsAny(s, "*?[\\") {
			c.srcs[i] = "from/"
		}
	}
}

func (g *gen) filesFrom(c *command, paths []string) {
	var b strings.Builder
	end := "\n"
	c.opts = append(c.opts, "--files-from=@/list")
	if g.chance(30) {
		end = "\x00"
		c.opts = append(c.opts, "-0")
	} else if g.chance(20) {
		b.WriteString("# a remark\n;another\n\n")
	}
	if g.chance(30) {
		c.opts = append(c.opts, pick(g, "-r", "--no-R", "--no-d", "--no-implied-dirs"))
	}
	for range 1 + g.IntN(4) {
		p := strings.TrimPrefix(pick(g, paths...), "from/")
		b.WriteString(pick(g, "", "", "/", "./") + p + pick(g, "", "", "/") + end)
	}
	if g.chance(10) {
		b.WriteString(pick(g, "missing", ".", "../from/a", "a/./b") + end)
	}
	g.add(node{path: "list", kind: 'f', mode: 0o644, sec: 1_000_000_000, content: []segment{{kind: 't', text: b.String()}}})
}

// rules draws filter rules in all their forms.
func (g *gen) rules() []string {
	var opts []string
	for i := range 1 + g.IntN(4) {
		switch k := g.IntN(20); {
		case k < 6:
			opts = append(opts, "--exclude="+g.pattern())
		case k < 9:
			opts = append(opts, "--include="+g.pattern())
		case k < 14:
			opts = append(opts, "--filter="+g.rule())
		case k < 16:
			name := fmt.Sprintf("rules%d", i)
			g.addRules(name, func() string { return pick(g, "", "", "+ ", "- ", "# ", "!") + g.pattern() })
			opts = append(opts, pick(g, "--exclude-from=@/", "--include-from=@/")+name)
		case k < 17:
			name := fmt.Sprintf("rules%d", i)
			g.addRules(name, g.rule)
			opts = append(opts, "--filter="+pick(g, ". ", "merge ")+"@/"+name)
		case k < 18:
			opts = append(opts, pick(g, "-F", "-FF", "-C"))
			g.perDirectory(".rsync-filter", g.rule)
		case k < 19:
			name := pick(g, ".rules", "b")
			mods := pick(g, "", "e", "n", "s", "r", "C", "-", "+", "w-", "en", "p", "ne-")
			write := g.rule
			if strings.ContainsAny(mods, "C-+") {
				write = g.pattern
			}
			g.perDirectory(name, write)
			opts = append(opts, "--filter="+pick(g, ":", "dir-merge,")+mods+" "+name)
		default:
			opts = append(opts, "--filter="+pick(g, "!", "-C", "S *", "P *", "R a", "H a/", "-! */", "- /", "+ /a/***", "-x user.a", "-s *.o"))
		}
	}
	return opts
}

func (g *gen) addRules(name string, line func() string) {
	var b strings.Builder
	for range 1 + g.IntN(4) {
		b.WriteString(line() + "\n")
	}
	g.add(node{path: name, kind: 'f', mode: 0o644, sec: 1_000_000_000, content: []segment{{kind: 't', text: b.String()}}})
}

// perDirectory puts lists of rules into directories of both trees.
func (g *gen) perDirectory(name string, line func() string) {
	for range 1 + g.IntN(3) {
		dirs := append(g.dirsOf("from"), g.dirsOf("to")...)
		g.addRules(path.Join(pick(g, dirs...), name), line)
	}
}

func (g *gen) rule() string {
	if g.chance(8) {
		return pick(g, "exclude ", "include ", "hide ", "show ", "protect ", "risk ", "exclude,s ", "include,r ", "-,p ", "+_") + g.pattern()
	}
	kind := pick(g, "-", "-", "-", "+", "+", "H", "S", "P", "R")
	if kind == "-" || kind == "+" {
		kind += pick(g, "", "", "", "", "s", "r", "p", "!", "sr", "/")
	}
	return kind + " " + g.pattern()
}

func (g *gen) pattern() string {
	name := pick(g, g.names...)
	var inside []string
	for _, n := range g.nodes {
		if _, below, ok := strings.Cut(n.path, "/"); ok && strings.HasPrefix(n.path, "from/") {
			inside = append(inside, below)
		}
	}
	if len(inside) > 0 && g.chance(40) {
		name = pick(g, inside...)
		if g.chance(60) {
			name = "/" + name
		}
	}
	switch k := g.IntN(100); {
	case k < 45:
	case k < 55:
		name += "/"
	case k < 62:
		name += "/" + pick(g, "*", "**", "***")
	case k < 68:
		name = pick(g, "*.o", "*", "*~", "?", "[a-c]*", "[!a]", "[[:alpha:]]", "**/b", "a**", "*/", "sub/*/", "/*", "**", "b*", "*.*", "**.o", "/**/a", "***", "/*/b")
	case k < 75 && len(name) > 1:
		at := g.IntN(len(name))
		name = name[:at] + pick(g, "?", "*", "**") + name[at+1:]
	case k < 80:
		name = "**/" + name
	case k < 83:
		name = pick(g, "/from/", "from/") + name
	}
	if slices.Contains([]string{"", " "}, name) {
		return "a"
	}
	return strings.NewReplacer("\n", "?", "\x00", "?").Replace(name)
}
