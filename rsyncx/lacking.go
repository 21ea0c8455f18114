package rsyncx

// lacking notes what was asked for and the source cannot tell: one line for each
// loss, and none for what nobody asked for.
func (s *stager) lacking() {
	o, can := &s.o, &s.can
	for _, l := range []struct {
		lost bool
		text string
	}{
		{o.Times && !can.Nanoseconds, "modification times are known in whole seconds only: the source has no finer ones"},
		{(o.Owner || o.Group) && !o.NumericIDs && !can.OwnerNames, "owners were carried by number: the source does not know their names"},
		{o.HardLinks && !can.HardLinks, "hard links became separate files: the source cannot tell them"},
		{(o.Xattrs || o.ACLs) && !can.Xattrs, "extended attributes and access control lists were left as they are: the source does not tell them"},
		{o.Sparse && !can.Holes, "holes were read as zeros and made anew from those: the source does not tell them"},
		{o.Checksum && !can.Sums, "files were read in full to compare them: the source makes no sums"},
		{(o.Renames || o.Fuzzy) && !can.Sums, "files of another name did not spare reading any: the source makes no sums"},
		{o.PartialDir != "" && !can.Sums, "half files of the partial directory were not gone on with: the source makes no sums"},
	} {
		if l.lost {
			s.notes.add(l.text)
		}
	}
}

// ancient notes that a time of d may be another one: a source that knows whole
// seconds only has 32 bits for them (SFTP).
func (s *stager) ancient(d *Dir) {
	if s.can.Nanoseconds || !s.o.Times {
		return
	}
	guess := func(e *Entry) {
		if e.Mtime.Sec < 0 {
			s.notes.add("a modification time was taken to be before 1970: the source's protocol cannot tell it from one after 2038")
		}
	}
	if d.Path == "" { // the others are entries of their directories too
		guess(&d.Self)
	}
	for i := range d.Entries {
		guess(&d.Entries[i])
	}
}

// noDelta notes, once, that a file is read in full although some of it is here.
func (s *stager) noDelta() {
	const text = "changed files were read in full: the source makes no sums"
	if s.notes.count[text] == 0 {
		s.notes.add(text)
	}
}
