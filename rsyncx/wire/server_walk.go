package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/drsync/drsync/rsyncx"
)

// walkFlags of a request, the first one the lowest bit.
func appendWalk(b []byte, o *rsyncx.WalkOptions) []byte {
	b = append(b, bits(o.OneFileSystem, o.OmitMounts, o.Flat, o.Xattrs, o.ACLs, o.Only != nil, o.Same != nil, o.Hidden))
	g := &o.Digest
	return append(b, bits(g.Perms, g.Owner, g.Group, g.NumericIDs, g.Times, g.Nanoseconds, g.HardLinks),
		bits(g.OmitDirTimes, g.OmitLinkTimes))
}

// walk decodes what appendWalk wrote.
func (d *decoder) walk() (o rsyncx.WalkOptions, only, digests bool) {
	v := d.flags("option", 255)
	o.OneFileSystem, o.OmitMounts, o.Flat, o.Xattrs, o.ACLs = v&1 != 0, v&2 != 0, v&4 != 0, v&8 != 0, v&16 != 0
	o.Hidden = v&128 != 0
	g := d.flags("option", 127)
	t := d.flags("option", 3)
	o.Digest = rsyncx.DigestOptions{Perms: g&1 != 0, Owner: g&2 != 0, Group: g&4 != 0, NumericIDs: g&8 != 0, Times: g&16 != 0,
		Nanoseconds: g&32 != 0, HardLinks: g&64 != 0, OmitDirTimes: t&1 != 0, OmitLinkTimes: t&2 != 0}
	return o, v&32 != 0, v&64 != 0
}

func (a *agent) walk(ctx context.Context, d *decoder) error {
	src, err := a.source(d)
	if err != nil && d.err != nil {
		return err
	}
	o, only, digests := d.walk()
	o.MaxEntries = int64(d.uint("bound", math.MaxInt64))
	rules := d.bytes("filter", maxFrame)
	if err := d.end("request"); err != nil {
		return err
	}
	if only { // it is sent in any case
		if o.Only, d.err = a.only(ctx); d.err != nil {
			return &sessionError{d.err}
		}
	}
	if err != nil {
		return err
	}
	if o.Filter, err = decodeFilter(rules); err != nil {
		return err
	}
	stop := a.keepAlive()
	defer stop()
	s := dirSender{a: a}
	var ahead *announcer
	if digests {
		ahead = newAnnouncer(&s, o.Digest)
	}
	for dir, err := range src.Walk(ctx, o) {
		var single *rsyncx.PathError
		if err != nil && !errors.As(err, &single) {
			stop()
			return err
		}
		switch {
		case ahead != nil:
			err = ahead.next(ctx, dir, single)
		case a.box.more():
			if err = a.calledOff(ctx); err == nil {
				err = errStopped
			}
		default:
			err = s.send(dir, single)
		}
		if errors.Is(err, errStopped) {
			stop()
			return a.send(frameDone, nil)
		}
		if err != nil {
			return err
		}
		if dir.Path == "" { // the client may want no more than this
			if err := a.flush(); err != nil {
				return err
			}
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if ahead != nil {
		if err := ahead.finish(ctx); err != nil && !errors.Is(err, errStopped) {
			return err
		}
	}
	stop()
	return a.send(frameDone, nil)
}

// only reads the paths that a walk is restricted to.
func (a *agent) only(ctx context.Context) ([]string, error) {
	paths := []string{}
	room := maxOnly
	for {
		f, err := a.box.take(ctx)
		if err != nil {
			return nil, err
		}
		d := decoder{b: f.payload}
		switch f.kind {
		case frameNamesEnd:
			return paths, d.end("end of names")
		case frameNames:
		default:
			return nil, hostile("a frame of type %q among names", f.kind)
		}
		for len(d.b) > 0 && d.err == nil {
			path := d.string("name", maxPath)
			if d.err == nil {
				d.err = rsyncx.CheckPath(path)
			}
			if room -= len(path) + entryCost; room < 0 {
				d.err = hostile("names of more than %d bytes", maxOnly)
			}
			paths = append(paths, path)
		}
		if d.err != nil {
			return nil, d.err
		}
	}
}

// calledOff takes what the client sent during a walk: that it wants no more.
func (a *agent) calledOff(ctx context.Context) error {
	f, err := a.box.take(ctx)
	if err == nil && f.kind != frameStop {
		err = hostile("a request of type %q in the middle of a listing", f.kind)
	}
	if err != nil {
		return &sessionError{err}
	}
	return nil
}

// dirSender sends directories.
type dirSender struct {
	a   *agent
	buf []byte
}

// send sends a directory, or what is wrong with a name.
func (s *dirSender) send(dir rsyncx.Dir, single *rsyncx.PathError) (err error) {
	if single != nil {
		return s.a.sendDirError(single)
	}
	s.buf, err = s.a.sendDir(dir, s.buf[:0])
	return err
}

func (a *agent) sendDirError(single *rsyncx.PathError) error {
	path := single.Path
	for len(path) > maxPath { // the nearest directory that has a usable name
		path = path[:strings.LastIndexByte(path, '/')]
	}
	return a.send(frameDirError, appendError(appendString(nil, path), single.Err))
}

// sendDir sends one directory. Entries that cannot be carried become errors about them.
func (a *agent) sendDir(dir rsyncx.Dir, buf []byte) ([]byte, error) {
	total := 0
	for i := range dir.Entries {
		total += weight(&dir.Entries[i])
	}
	if total > rsyncx.MaxDirBytes {
		return buf, fmt.Errorf("%s: %d entries in one directory are more than can be carried", rsyncx.Printable(orDot(dir.Path)), len(dir.Entries))
	}
	buf = append(appendString(buf, dir.Path), bits(dir.Partial))
	buf = appendString(appendString(buf, dir.After), dir.Upto)
	buf = binary.AppendUvarint(buf, uint64(len(dir.Entries)))
	buf = appendEntry(buf, &dir.Self, &rsyncx.Entry{})
	if err := a.send(frameDir, buf); err != nil {
		return buf, err
	}
	buf = buf[:0]
	last := &rsyncx.Entry{}
	var odd []*rsyncx.PathError
	for i := range dir.Entries {
		e := &dir.Entries[i]
		if err := sendable(e); err != nil {
			odd = append(odd, &rsyncx.PathError{Path: join(dir.Path, clip(e.Name, 255)), Err: err})
			continue
		}
		buf = appendEntry(buf, e, last)
		last = e
		if len(buf) >= batchBytes {
			if err := a.send(frameEntries, buf); err != nil {
				return buf, err
			}
			buf, last = buf[:0], &rsyncx.Entry{}
		}
	}
	if len(buf) > 0 {
		if err := a.send(frameEntries, buf); err != nil {
			return buf, err
		}
	}
	if err := a.send(frameDirEnd, nil); err != nil {
		return buf, err
	}
	for _, o := range odd {
		if err := a.sendDirError(o); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
