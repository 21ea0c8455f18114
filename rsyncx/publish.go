package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/drsync/drsync/internal/event"
	"golang.org/x/sys/unix"
)

// Publish makes the staged tree visible: new directories, files, links, deletions,
// then the attributes of directories, deepest first. After a crash or an error at
// any point a new Publish, of OpenStaged's answer if need be, ends in the same
// state; after its end it does nothing. It returns when all of it is durable, unless
// Options.NoSync was set, and the staging directory is gone.
//
// What somebody else changed in the destination since Stage, so that an entry
// has no place any more, is left, and added to Stats.
func (s *Staged) Publish(ctx context.Context) error {
	switch {
	case s.dry:
		return errors.New("publish: a dry run has staged nothing")
	case s.done:
		return nil
	case s.seal == "":
		return errors.New("publish: nothing is staged")
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	if err := s.Sync(); err != nil {
		return err
	}
	p := &publisher{Staged: s, again: s.seal == sealBegun}
	if !p.again {
		if err := s.reseal(sealBegun); err != nil {
			return err
		}
	}
	err := p.run(ctx)
	s.root.refused.tell(&s.stats, &s.notes, s.sink)
	if err != nil {
		return fmt.Errorf("publish into %s: %w", s.root.path, err)
	}
	if err := s.carry(); err != nil {
		return err
	}
	if !s.noSync {
		if err := s.root.syncFS(); err != nil {
			return err
		}
	}
	s.done = true
	if err := s.clean(s.half); err != nil {
		return fmt.Errorf("clean up after the publish into %s: %w", s.root.path, err)
	}
	return nil
}

// publisher is one Publish at work.
type publisher struct {
	*Staged
	again   bool // an earlier Publish may have done any of it
	at      descent
	from    descent // of hard links
	content [lanes]descent
	trees   descent
	outside backupBase
	left    map[string]bool // what stays as it is: something else is in its place, or its backup cannot be made
}

func (p *publisher) run(ctx context.Context) error {
	p.outside.fd = -1
	defer p.outside.close()
	p.trees.root = p.stage
	defer p.trees.close()
	for i := range p.content {
		p.content[i].root = p.stage
		defer p.content[i].close()
	}
	for _, part := range p.parts {
		if err := p.replay(ctx, part, false); err != nil {
			return err
		}
	}
	return nil
}

// replay does the operations of one part: those that opOldBackups does early, or the others.
func (p *publisher) replay(ctx context.Context, part *spool, early bool) error {
	// Directories come and go between parts; no descriptor outlives one.
	p.at, p.from = descent{root: p.root.fd}, descent{root: p.root.fd}
	defer func() {
		p.at.close()
		p.from.close()
	}()
	r := part.records()
	for n := int64(0); ; n++ {
		record, err := r.next()
		if errors.Is(err, io.EOF) && n == part.count {
			return nil
		}
		if errors.Is(err, io.EOF) {
			err = errFormat
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		o, err := parseOp(record)
		switch {
		case err != nil || o.early() != early:
		case o.kind == opOldBackups:
			err = p.oldBackups(ctx)
		default:
			err = p.once(&o)
		}
		if err != nil {
			return err
		}
	}
}

// oldBackups moves earlier backups that are to go away from where new ones come.
func (p *publisher) oldBackups(ctx context.Context) error {
	at, from := p.at, p.from
	defer func() { p.at, p.from = at, from }()
	return p.replay(ctx, p.parts[partDelete], true)
}

func (o *op) early() bool { return o.kind == opBackup && o.number&backupEarly != 0 }

// once does one operation. An error that only says that the place is not as it
// was when Stage looked leaves this entry and goes on.
func (p *publisher) once(o *op) error {
	if p.left[o.path] {
		return nil
	}
	err := p.do(o)
	if err == nil {
		return nil
	}
	if slices.ContainsFunc(placeErrors, func(e error) bool { return errors.Is(err, e) }) {
		p.stats.Skipped++
		p.stats.Left++
		p.notes.add(noteLeft)
		p.sink.Emit(event.Event{Kind: event.Warning, Name: o.path, Text: "left as it was: " + Printable(err.Error())})
		return nil
	}
	return fmt.Errorf("%s: %w", Printable(o.path), err)
}

const noteLeft = "an entry was left as it was: the destination changed meanwhile, or refused"

// leave keeps later operations from the name path.
func (p *publisher) leave(path string) {
	if p.left == nil {
		p.left = map[string]bool{}
	}
	p.left[path] = true
}

var errMoved = errors.New("it is another one by now")

// placeErrors are about one name, not about the disk.
var placeErrors = []error{errMoved, fs.ErrNotExist, unix.EPERM, unix.EACCES, unix.EBUSY, unix.EISDIR, unix.ENOTDIR, unix.ELOOP,
	unix.ENOTEMPTY, unix.EEXIST}

func (p *publisher) do(o *op) error {
	if o.kind == opBackupDir {
		p.outside.path = o.target
		return nil
	}
	if o.path == "" {
		return p.attrs(p.root.fd, ".", o)
	}
	dir, name, err := p.at.parent(o.path)
	if err != nil {
		if o.kind == opRemove || o.kind == opRmdir || o.kind == opEnter || o.kind == opBackup {
			return notThere(gone(err))
		}
		return err
	}
	switch o.kind {
	case opRemove:
		return notThere(p.remove(dir, name, o))
	case opRmdir:
		return notThere(p.rmdir(dir, name, o))
	case opTree:
		return p.tree(dir, name, o)
	case opEnter, opAttr, opDirAttr:
		return p.attrs(dir, name, o)
	case opFile:
		return p.file(dir, name, o)
	case opPatch:
		return p.patch(dir, name, o)
	case opLink:
		return p.link(dir, name, o)
	case opBackup:
		return p.backup(dir, name, o)
	}
	return fmt.Errorf("internal error: operation %d", o.kind)
}

// notThere makes it no error that something to remove is gone.
func notThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (p *publisher) remove(dir int, name string, o *op) error {
	if o.ino != 0 {
		if st, err := statAt(dir, name); err != nil || st.Dev != o.dev || st.Ino != o.ino {
			return err // a new backup, which stays
		}
	}
	err := p.root.unlink(dir, name)
	if errors.Is(err, unix.EISDIR) && p.again {
		return nil // the new directory, made by an earlier try
	}
	return err
}

func (p *publisher) rmdir(dir int, name string, o *op) error {
	err := p.root.rmdir(dir, name)
	switch {
	case errors.Is(err, unix.ENOTDIR) && p.again:
		return nil // the new file, renamed by an earlier try
	case errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST):
		p.sink.Emit(event.Event{Kind: event.Info, Name: o.path, Text: "cannot delete non-empty directory: " + Printable(o.path)})
		return nil
	}
	return err
}

// tree renames a new directory with all that is in it to its place. What came
// there meanwhile stays as it is.
func (p *publisher) tree(dir int, name string, o *op) error {
	from, err := p.trees.dir(treeDir(o.number))
	if err != nil {
		return fmt.Errorf("open the staged tree: %w", asLost(err))
	}
	err = p.root.renameNew(from, treeName(o.number), dir, name)
	if err == nil {
		return nil
	}
	if _, gone := statAt(from, treeName(o.number)); errors.Is(gone, fs.ErrNotExist) {
		if !p.again {
			return asLost(err)
		}
		if st, err := statAt(dir, name); err == nil && st.isDir() && st.Ino == o.ino {
			return nil
		}
		err = errMoved
	}
	p.leave(o.path)
	return err
}

// attrs sets attributes through a descriptor, after a look at what it is, so
// that all of them go to the thing that was meant.
func (p *publisher) attrs(dir int, name string, o *op) error {
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		if o.kind == opEnter {
			return notThere(err)
		}
		return err
	}
	defer unix.Close(fd)
	st, err := statFd(fd)
	if err != nil {
		return err
	}
	switch {
	case o.kind == opEnter && !st.isDir():
		return nil
	case o.kind == opAttr && (st.Dev != o.dev || st.Ino != o.ino || st.Mode&unix.S_IFMT != o.kindOf), o.kind == opDirAttr && !st.isDir():
		return errMoved
	}
	set := o.attr
	if o.kind == opDirAttr && o.number > 0 && near(st.Mtime.Sec, set.mtime.Sec, int64(o.number-1)) {
		set.set &^= setTime
	}
	return p.root.apply(fd, set)
}

// near reports whether two times in seconds are no further apart than that.
func near(a, b, most int64) bool { return a-b <= most && b-a <= most }

// file renames a staged file to its place. In a later try it may be there already.
func (p *publisher) file(dir int, name string, o *op) error {
	from, err := p.content[o.number%lanes].dir(contentDir + "/" + contentDirName(o.number))
	if err != nil {
		return fmt.Errorf("open the staged content: %w", asLost(err))
	}
	err = p.root.rename(from, contentName(o.number), dir, name)
	if errors.Is(err, unix.EISDIR) { // an empty one in its place
		if p.root.rmdir(dir, name) == nil {
			err = p.root.rename(from, contentName(o.number), dir, name)
		}
	}
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if !p.again {
		return asLost(err)
	}
	st, err := statAt(dir, name)
	if err != nil || st.Mode&unix.S_IFMT != o.kindOf || o.kindOf == unix.S_IFREG && st.Size != o.size {
		return errors.New("its staged content is gone, and it is not in its place")
	}
	return nil
}

// asLost keeps a staged file that is not there from being taken for a change of
// the destination.
func asLost(err error) error {
	return fmt.Errorf("its staged content is lost: %v", err) //nolint:errorlint // wrapping is what it must not do
}

// link makes name another name of o.target, which has its final content by now.
func (p *publisher) link(dir int, name string, o *op) error {
	const as = "new"
	from, fromName, err := p.from.parent(o.target)
	if err != nil {
		return err
	}
	if err := notThere(p.root.unlink(p.stage, as)); err != nil {
		return err
	}
	if err := p.root.do("link", func() error { return unix.Linkat(from, fromName, p.stage, as, 0) }); err != nil {
		return err
	}
	if err := p.root.rename(p.stage, as, dir, name); err != nil {
		return err
	}
	// rename leaves both names when they are links to one file already.
	return notThere(p.root.unlink(p.stage, as))
}
