package program_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A diffCase is a world and what is run in it, one command after the other, by
// either program in a world of its own. In arguments and in contents "@" at the
// start of a path stands for the world's directory.
type diffCase struct {
	note   string
	remote bool // from a host: rsync through a remote shell, drsync through an agent
	runs   []command
	nodes  []node
}

// command is a command line: options, where from, and where to.
type command struct {
	opts, srcs []string
	dest       string
	changes    []node // of the world, before it runs
}

func (c command) has(opt string) bool { return slices.Contains(c.opts, opt) }

// hasPrefix says whether an option starts so.
func (c command) hasPrefix(prefix string) bool {
	return slices.ContainsFunc(c.opts, func(o string) bool { return strings.HasPrefix(o, prefix) })
}

// args is the command line for a world in dir; host prefixes the sources.
func (c command) args(dir, host string) []string {
	var args []string
	for _, o := range c.opts {
		args = append(args, strings.ReplaceAll(o, "@", dir))
	}
	for _, s := range c.srcs {
		if host != "" {
			s = host + ":" + dir + "/" + s
		}
		args = append(args, s)
	}
	if c.dest != "" {
		args = append(args, c.dest)
	}
	return args
}

// text writes a case down for testdata.
func (c diffCase) text() string {
	var b strings.Builder
	for line := range strings.Lines(c.note) {
		fmt.Fprintf(&b, "# %s\n", strings.TrimSpace(line))
	}
	if c.remote {
		b.WriteString("remote\n")
	}
	for _, r := range c.runs {
		b.WriteString("run")
		for _, o := range r.opts {
			fmt.Fprintf(&b, " %q", o)
		}
		b.WriteString(" from")
		for _, s := range r.srcs {
			fmt.Fprintf(&b, " %q", s)
		}
		if r.dest != "" {
			fmt.Fprintf(&b, " to %q", r.dest)
		}
		b.WriteByte('\n')
		for _, n := range r.changes {
			b.WriteString("+ " + n.text())
		}
	}
	for _, n := range c.nodes {
		b.WriteString(n.text())
	}
	return b.String()
}

// text is a node's line.
func (n node) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%c %q %04o %d:%d %d.%09d", n.kind, n.path, n.mode, n.uid, n.gid, n.sec, n.nsec)
	if n.target != "" {
		fmt.Fprintf(&b, " to %q", n.target)
	}
	for _, x := range n.xattrs {
		fmt.Fprintf(&b, " x %q %q", x.name, x.value)
	}
	for _, s := range n.content {
		if s.kind == 't' {
			fmt.Fprintf(&b, " t %q", s.text)
		} else {
			fmt.Fprintf(&b, " %c %d %d %d", s.kind, s.seed, s.off, s.len)
		}
	}
	b.WriteByte('\n')
	return b.String()
}

// parseCase reads what text wrote.
func parseCase(text string) (diffCase, error) {
	var c diffCase
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if note, ok := strings.CutPrefix(line, "# "); ok {
			c.note += note + "\n"
			continue
		}
		f := &fields{rest: line}
		switch word := f.next(); {
		case word == "":
		case word == "remote":
			c.remote = true
		case word == "run":
			c.runs = append(c.runs, f.command())
		case word == "+" && len(c.runs) > 0:
			r := &c.runs[len(c.runs)-1]
			r.changes = append(r.changes, f.node(f.next()[0]))
		case len(word) == 1:
			c.nodes = append(c.nodes, f.node(word[0]))
		default:
			return c, fmt.Errorf("unknown word %q", word)
		}
		if f.err != nil {
			return c, fmt.Errorf("%w in %q", f.err, line)
		}
	}
	return c, nil
}

type fields struct {
	rest string
	err  error
}

// next takes a word or a quoted string; "" is the end.
func (f *fields) next() string {
	f.rest = strings.TrimLeft(f.rest, " ")
	if strings.HasPrefix(f.rest, `"`) {
		q, err := strconv.QuotedPrefix(f.rest)
		if err != nil {
			f.err, f.rest = err, ""
			return ""
		}
		f.rest = f.rest[len(q):]
		s, err := strconv.Unquote(q)
		if err != nil {
			f.err = err
		}
		return s
	}
	word, rest, _ := strings.Cut(f.rest, " ")
	f.rest = rest
	return word
}

func (f *fields) more() bool { return f.err == nil && strings.TrimLeft(f.rest, " ") != "" }

// word says whether an unquoted word comes next, and takes it.
func (f *fields) word(w string) bool {
	rest := strings.TrimLeft(f.rest, " ")
	if rest == w || strings.HasPrefix(rest, w+" ") {
		f.rest = rest[len(w):]
		return true
	}
	return false
}

func (f *fields) number() int64 {
	n, err := strconv.ParseInt(f.next(), 10, 64)
	f.err = errors.Join(f.err, err)
	return n
}

func (f *fields) command() command {
	var c command
	for f.more() && !f.word("from") {
		c.opts = append(c.opts, f.next())
	}
	for f.more() && !f.word("to") {
		c.srcs = append(c.srcs, f.next())
	}
	c.dest = f.next()
	return c
}

func (f *fields) node(kind byte) node {
	n := node{kind: kind, path: f.next()}
	if _, err := fmt.Sscanf(f.next()+" "+f.next()+" "+f.next(), "%o %d:%d %d.%d", &n.mode, &n.uid, &n.gid, &n.sec, &n.nsec); err != nil {
		f.err = errors.Join(f.err, err)
	}
	for f.more() {
		switch k := f.next(); k {
		case "to":
			n.target = f.next()
		case "x":
			n.xattrs = append(n.xattrs, xattr{f.next(), f.next()})
		case "t":
			n.content = append(n.content, segment{kind: 't', text: f.next()})
		case "r", "z", "h":
			n.content = append(n.content, segment{kind: k[0], seed: uint64(f.number()), off: f.number(), len: f.number()})
		default:
			f.err = errors.Join(f.err, fmt.Errorf("unknown part %q", k))
		}
	}
	return n
}

// script is the case for a person with a shell; $PROGRAM is rsync or drsync.
func (c diffCase) script() string {
	var b strings.Builder
	b.WriteString("cd \"$(mktemp -d)\"\n")
	for _, n := range c.nodes {
		b.WriteString(n.shell())
	}
	for _, n := range slices.Backward(c.nodes) {
		if n.kind == 'd' {
			fmt.Fprintf(&b, "touch -d @%d.%09d %s\n", n.sec, n.nsec, shellQuote(n.path))
		}
	}
	for _, r := range c.runs {
		for _, n := range r.changes {
			b.WriteString("rm -rf " + shellQuote(n.path) + "\n" + n.shell())
		}
		host := ""
		if c.remote {
			host = "host"
		}
		b.WriteString("$PROGRAM")
		for _, a := range r.args("$PWD", host) {
			b.WriteString(" " + shellQuote(a))
		}
		b.WriteByte('\n')
	}
	return b.String()
}
