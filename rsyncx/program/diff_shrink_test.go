package program_test

import (
	"slices"
	"strings"
	"time"
)

// shrink drops what can be dropped from c while differs still says so, for at
// most as long as given.
func shrink(c diffCase, patience time.Duration, differs func(diffCase) bool) diffCase {
	end := time.Now().Add(patience)
	for changed := true; changed; {
		changed = false
		for _, step := range smaller(c) {
			if time.Now().After(end) {
				return c
			}
			if differs(step) {
				c, changed = step, true
				break
			}
		}
	}
	return c
}

// smaller returns variants of c, the greatest steps first.
func smaller(c diffCase) []diffCase {
	var out []diffCase
	with := func(change func(*diffCase)) {
		n := c
		n.nodes = slices.Clone(c.nodes)
		n.runs = slices.Clone(c.runs)
		change(&n)
		out = append(out, n)
	}
	for i := range c.runs {
		if len(c.runs) > 1 {
			with(func(n *diffCase) { n.runs = slices.Delete(n.runs, i, i+1) })
		}
	}
	for part := 2; part <= len(c.nodes); part *= 2 {
		size := (len(c.nodes) + part - 1) / part
		for at := 0; at < len(c.nodes); at += size {
			with(func(n *diffCase) { n.nodes = dropNodes(n.nodes, at, min(at+size, len(n.nodes))) })
		}
	}
	for i := range c.nodes {
		with(func(n *diffCase) { n.nodes = dropNodes(n.nodes, i, i+1) })
	}
	for i, r := range c.runs {
		for k := range r.opts {
			with(func(n *diffCase) { n.runs[i].opts = slices.Delete(slices.Clone(r.opts), k, k+1) })
			if o := r.opts[k]; len(o) > 2 && o[0] == '-' && o[1] != '-' {
				for at := 1; at < len(o); at++ {
					with(func(n *diffCase) {
						n.runs[i].opts = slices.Clone(r.opts)
						n.runs[i].opts[k] = o[:at] + o[at+1:]
					})
				}
			}
		}
		for k := range r.changes {
			with(func(n *diffCase) { n.runs[i].changes = slices.Delete(slices.Clone(r.changes), k, k+1) })
		}
		for k := range r.srcs {
			if len(r.srcs) > 1 {
				with(func(n *diffCase) { n.runs[i].srcs = slices.Delete(slices.Clone(r.srcs), k, k+1) })
			}
		}
	}
	if c.remote {
		with(func(n *diffCase) { n.remote = false })
	}
	for i, n := range c.nodes {
		for _, plain := range plainer(n) {
			with(func(c *diffCase) { c.nodes[i] = plain })
		}
	}
	return out
}

// dropNodes takes nodes i to j out, with what is below and other names of them.
func dropNodes(nodes []node, i, j int) []node {
	gone := map[string]bool{}
	for _, n := range nodes[i:j] {
		if n.path != "from" && n.path != "to" {
			gone[n.path] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(n node) bool {
		for p := n.path; ; {
			if gone[p] {
				return true
			}
			at := strings.LastIndexByte(p, '/')
			if at < 0 {
				break
			}
			p = p[:at]
		}
		if n.kind == 'h' && gone[n.target] {
			gone[n.path] = true
			return true
		}
		return false
	})
}

// plainer returns n with one thing less to wonder about.
func plainer(n node) []node {
	var out []node
	add := func(differs bool, change func(*node)) {
		if differs {
			p := n
			change(&p)
			out = append(out, p)
		}
	}
	mode := uint32(0o644)
	if n.kind == 'd' {
		mode = 0o755
	}
	if n.kind != 'h' {
		add(n.uid != 0 || n.gid != 0, func(p *node) { p.uid, p.gid = 0, 0 })
		add(n.mode != mode, func(p *node) { p.mode = mode })
		add(n.nsec != 0, func(p *node) { p.nsec = 0 })
		add(n.sec != 1_000_000_000 && n.kind != 'c' && n.kind != 'b', func(p *node) { p.sec = 1_000_000_000 })
		for i := range n.xattrs {
			add(true, func(p *node) { p.xattrs = slices.Delete(slices.Clone(n.xattrs), i, i+1) })
		}
	}
	if n.kind == 'f' {
		add(len(n.content) > 0, func(p *node) { p.content = nil })
		add(contentSize(n.content) > 1, func(p *node) { p.content = []segment{{kind: 't', text: "x"}} })
		for i := range n.content {
			if len(n.content) > 1 {
				add(true, func(p *node) { p.content = slices.Delete(slices.Clone(n.content), i, i+1) })
			}
			if s := n.content[i]; s.kind == 't' && strings.Count(s.text, "\n") > 1 { // a list of rules
				lines := strings.SplitAfter(s.text, "\n")
				for k := range lines {
					add(lines[k] != "", func(p *node) {
						p.content = slices.Clone(n.content)
						p.content[i].text = strings.Join(slices.Delete(slices.Clone(lines), k, k+1), "")
					})
				}
			}
		}
	}
	return out
}
