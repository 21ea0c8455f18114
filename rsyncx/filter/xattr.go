package filter

// isXattr reports whether a rule is about names of extended attributes.
func isXattr(r *rule) bool { return r.flags&(xattr|perDir) == xattr }

// settleXattrs finds out on which sides rules stand in for rsync's own about the
// names of extended attributes. asked says that the modifier x was seen at all,
// which is enough on the host where the rules are written. Another host that is
// the source knows of it only by the rules that are sent there.
func (r *Rules) settleXattrs(asked bool) {
	if !asked {
		return
	}
	r.xattrs = Receiver
	if !r.opts.Pull || r.sendsXattr() {
		r.xattrs |= Sender
	}
}

// sendsXattr reports whether a rule with the modifier x has a say at the sender.
func (r *Rules) sendsXattr() bool {
	for _, one := range r.list {
		if one.flags&xattr != 0 && one.sides != Receiver {
			return true
		}
	}
	return false
}

// NamesXattrs reports whether rules (with the modifier x) say for side which
// extended attributes count, so that ExcludedXattr has to be asked about every
// one. Otherwise rsync's own rule does, which depends on who runs it.
func (s *Scope) NamesXattrs(side Side) bool {
	return s != nil && (s.xattrs || s.rules.xattrs&side != 0)
}

// ExcludedXattr reports whether the first rule for names of extended attributes
// that matches name, as seen from side, excludes it: the sender does not tell of
// the attribute, the receiver neither takes, sets nor removes it.
func (s *Scope) ExcludedXattr(name string, side Side) bool {
	if s == nil || name == "" {
		return false
	}
	var buf [textBuffer]byte
	q := query{scope: s, side: side, xattr: true, path: name, base: base(name), text: framed(buf[:0], name)}
	r := q.first(s.rules.list)
	return r != nil && r.flags&include == 0
}
