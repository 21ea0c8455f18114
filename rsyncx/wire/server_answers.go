package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/drsync/drsync/rsyncx"
)

func appendTime(b []byte, t time.Time) []byte { return binary.AppendVarint(b, t.UnixNano()) }

func (a *agent) walk(ctx context.Context, d *decoder) error {
	src, err := a.source(d)
	if err != nil {
		return err
	}
	var o rsyncx.WalkOptions
	o.OneFileSystem = d.uint("option", 1) == 1
	o.MaxEntries = int64(d.uint("bound", math.MaxInt64))
	rules := d.bytes("filter", maxFrame)
	if err := d.end("request"); err != nil {
		return err
	}
	if o.Filter, err = decodeFilter(rules); err != nil {
		return err
	}
	stop := a.keepAlive()
	defer stop()
	var buf []byte
	for dir, err := range src.Walk(ctx, o) {
		if a.box.more() {
			if err := a.calledOff(ctx); err != nil {
				return err
			}
			break
		}
		var single *rsyncx.PathError
		if errors.As(err, &single) {
			if err := a.sendDirError(single); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			stop()
			return err
		}
		if buf, err = a.sendDir(dir, buf[:0]); err != nil {
			return err
		}
		if dir.Path == "" { // the client may want no more than this
			if err := a.out.flush(); err != nil {
				return &sessionError{fmt.Errorf("answer: %w", err)}
			}
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	stop()
	return a.send(frameDone, nil)
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
	buf = appendEntry(appendString(buf, dir.Path), &dir.Self, &rsyncx.Entry{})
	if err := a.send(frameDir, buf); err != nil {
		return buf, err
	}
	buf = buf[:0]
	var last rsyncx.Entry
	var odd []*rsyncx.PathError
	for i := range dir.Entries {
		e := &dir.Entries[i]
		if err := sendable(e); err != nil {
			odd = append(odd, &rsyncx.PathError{Path: join(dir.Path, clip(e.Name, 255)), Err: err})
			continue
		}
		buf = appendEntry(buf, e, &last)
		last = *e
		if len(buf) >= batchBytes {
			if err := a.send(frameEntries, buf); err != nil {
				return buf, err
			}
			buf, last = buf[:0], rsyncx.Entry{}
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

func (a *agent) read(ctx context.Context, d *decoder) error {
	src, err := a.source(d)
	if err != nil {
		return err
	}
	if err := d.end("request"); err != nil {
		return err
	}
	names := names{box: a.box}
	buf := make([]byte, dataFrame)
	answered := int64(0)
	for f, err := range src.Read(ctx, rsyncx.Wants(names.all(ctx))) {
		if err != nil {
			return err
		}
		if err := a.sendFile(f, buf); err != nil {
			return err
		}
		// The client may wait for this file before it asks for another.
		if answered++; answered == names.taken.Load() && !a.box.more() {
			if err := a.out.flush(); err != nil {
				return &sessionError{fmt.Errorf("answer: %w", err)}
			}
		}
	}
	if names.err != nil {
		return &sessionError{names.err}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return a.send(frameDone, nil)
}

// names is what a client asks for in one read.
type names struct {
	box   *inbox
	taken atomic.Int64 // names that left the box
	err   error        // what ended them, unless it was their end
}

func (n *names) all(ctx context.Context) iter.Seq[string] {
	return func(yield func(string) bool) {
		for {
			batch, last, err := n.batch(ctx)
			if err != nil || last {
				n.err = err
				return
			}
			for _, path := range batch {
				if !yield(path) {
					return
				}
			}
		}
	}
}

func (n *names) batch(ctx context.Context) (batch []string, last bool, err error) {
	f, err := n.box.take(ctx)
	if err != nil {
		return nil, false, err
	}
	d := &decoder{b: f.payload}
	switch f.kind {
	case frameNamesEnd:
		return nil, true, d.end("end of names")
	case frameNames:
		for len(d.b) > 0 {
			path := d.string("name", maxPath)
			if d.err == nil {
				d.err = rsyncx.CheckPath(path)
			}
			batch = append(batch, path)
		}
		n.taken.Add(int64(len(batch)))
		return batch, false, d.err
	}
	return nil, false, hostile("a frame of type %q among names", f.kind)
}

func (a *agent) sendFile(f rsyncx.File, buf []byte) error {
	if f.Err == nil {
		f.Err = sendable(&f.Entry)
	}
	if f.Err != nil {
		return a.send(frameFileError, appendError(nil, bare(f.Err)))
	}
	if err := a.send(frameFile, appendEntry(nil, &f.Entry, &rsyncx.Entry{})); err != nil {
		return err
	}
	var hash xxh3.Hasher
	var total int64
	for {
		n, err := f.Body.Read(buf)
		if int64(n) > f.Entry.Size-total {
			n, err = int(f.Entry.Size-total), rsyncx.ErrTorn // it grew
		}
		if n > 0 {
			_, _ = hash.Write(buf[:n])
			total += int64(n)
			if err := a.send(frameData, buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
			continue
		case err == io.EOF && total == f.Entry.Size:
			return a.send(frameSum, appendSum(nil, total, &hash))
		case err == io.EOF:
			err = rsyncx.ErrTorn // it shrank
		}
		return a.send(frameCut, appendError(nil, err))
	}
}

func (a *agent) stream(ctx context.Context, d *decoder) error {
	name, arg := d.string("name", maxStream), d.string("argument", maxStream)
	if err := d.end("request"); err != nil {
		return err
	}
	write, ok := a.Streams[name]
	if !ok {
		return fmt.Errorf("this drsync (%s) has no stream %q: %w", a.Version, name, errors.ErrUnsupported)
	}
	if err := errors.Join(a.send(frameDone, nil), a.out.flush()); err != nil {
		return &sessionError{err}
	}
	stop := a.keepAlive()
	defer stop()
	w := &streamWriter{a: a}
	err := write(ctx, arg, w)
	stop()
	if w.err != nil {
		return w.err
	}
	if err != nil {
		return a.send(frameCut, appendError(nil, err))
	}
	return a.send(frameSum, appendSum(nil, w.total, &w.hash))
}

// streamWriter sends what is written to it as the content of a stream.
type streamWriter struct {
	a     *agent
	hash  xxh3.Hasher
	total int64
	err   error
}

var _ io.Writer = (*streamWriter)(nil)

func (w *streamWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 && w.err == nil {
		part := p[:min(len(p), dataFrame)]
		_, _ = w.hash.Write(part)
		if w.err = w.a.send(frameData, part); w.err == nil {
			written += len(part)
			w.total += int64(len(part))
			p = p[len(part):]
		}
	}
	return written, w.err
}
