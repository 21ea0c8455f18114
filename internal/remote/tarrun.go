package remote

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// tarRun is one command on the host that describes some names, archives them,
// and describes them again. It belongs to one goroutine, but for end.
type tarRun struct {
	s      *execSource
	ctx    context.Context
	p      program
	names  map[string]bool // that it was given, and nothing else may come back
	left   int             // entries that the archive may still have: one for each
	in     *bufio.Reader
	sofar  int64 // bytes of the archive
	record int64 // the archive's length is a multiple of this
	files  *tar.Reader
	idle   *time.Timer
	silent atomic.Bool
	stop   func() bool
	writer sync.WaitGroup
	once   sync.Once
	done   func()
}

// tarBlocks is how many blocks of 512 bytes tar writes at once: the end of an
// archive is filled up to a multiple of them.
const tarBlocks = 128

// startTar starts the command for the paths. done is called by end. The names
// are names: unless it is told so, tar takes a backslash in one for an escape,
// and one that is spelled x\057.. leads out of the root.
func startTar(ctx context.Context, s *execSource, paths []string, done func()) (*tarRun, error) {
	text := looking + `printf 'e\0%s\0' 0; ` +
		`tar --format=gnu --hard-dereference --no-recursion --no-unquote --quoting-style=escape -b ` + strconv.Itoa(tarBlocks) + ` -cf - "$@"; t=$?; ` +
		looking + `printf 'e\0%s\0' $t`
	p, err := s.host.far.run(ctx, s.forNames(text)...)
	if err != nil {
		done()
		return nil, err
	}
	t := &tarRun{s: s, ctx: ctx, p: p, names: make(map[string]bool, len(paths)), left: len(paths), record: tarBlocks * 512, done: done}
	for _, path := range paths {
		t.names[path] = true
	}
	t.idle = time.AfterFunc(s.host.silence, func() {
		t.silent.Store(true)
		p.Close()
	})
	t.idle.Stop()
	t.stop = context.AfterFunc(ctx, func() { p.Close() })
	t.in = bufio.NewReaderSize(patient{t}, 64<<10)
	t.files = tar.NewReader(archived{t})
	t.writer.Go(func() {
		_, _ = io.Copy(p, nameList(paths)) // its end is told by what comes back
		_ = p.CloseWrite()
	})
	return t, nil
}

// end ends the command if it still runs. It may be called again.
func (t *tarRun) end() {
	t.once.Do(func() {
		t.stop()
		t.idle.Stop()
		t.p.Close()
		t.writer.Wait()
		t.done()
	})
}

// patient reads what the command prints, as long as it is not silent for too long.
type patient struct{ t *tarRun }

func (r patient) Read(p []byte) (int, error) {
	r.t.idle.Reset(r.t.s.host.silence)
	defer r.t.idle.Stop()
	return r.t.p.Read(p)
}

// archived is the part that tar prints, counted.
type archived struct{ t *tarRun }

func (r archived) Read(p []byte) (int, error) {
	n, err := r.t.in.Read(p)
	r.t.sofar += int64(n)
	return n, err
}

// fail says why the output is not as it must be.
func (t *tarRun) fail(err error) error {
	switch {
	case t.ctx.Err() != nil:
		return context.Cause(t.ctx)
	case t.silent.Load():
		return verdict{fmt.Errorf("%s was silent for %v", t.s.host.far, t.s.host.silence), ErrTimeout}
	case errors.Is(err, rsyncx.ErrHostile):
		return err
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF): //nolint:errorlint // a lost connection wraps io.EOF
		err = errors.New("the archive broke off")
	}
	return t.s.explainRoot(t.p.explain(err))
}

// look reads one description of the names, and the status behind it.
func (t *tarRun) look() (*found, int, error) {
	f := &found{entries: map[string]described{}}
	var r findRecord
	for range len(t.names) + 1 {
		if err := readRecord(t.in, &r); err != nil {
			return nil, 0, t.fail(err)
		}
		if r.kind == finished {
			status, err := strconv.ParseUint(string(r.path), 10, 8) // the second of two fields
			if err != nil {
				return nil, 0, t.fail(fmt.Errorf("%w: a status of tar", rsyncx.ErrHostile))
			}
			return f, int(status), nil
		}
		if !t.names[string(r.path)] {
			break
		}
		if err := f.take(&r); err != nil {
			return nil, 0, t.fail(err)
		}
	}
	return nil, 0, t.fail(fmt.Errorf("%w: records of other names than were asked for", rsyncx.ErrHostile))
}

// next returns the path and the length of the next regular file in the
// archive; its content is read from t.files. The path is "" at the end.
func (t *tarRun) next() (string, int64, error) {
	for {
		h, err := t.files.Next()
		switch {
		case err == io.EOF:
			return "", 0, nil
		case err != nil:
			return "", 0, t.fail(err)
		case t.left == 0:
			return "", 0, t.fail(fmt.Errorf("%w: more in an archive than was asked for", rsyncx.ErrHostile))
		}
		t.left--
		switch {
		case h.Typeflag != tar.TypeReg:
			continue
		}
		path := strings.TrimPrefix(h.Name, "./")
		if path == "" || rsyncx.CheckPath(path) != nil {
			return "", 0, t.fail(fmt.Errorf("%w: the name %s in an archive", rsyncx.ErrHostile, rsyncx.Printable(h.Name)))
		}
		return path, h.Size, nil
	}
}

// outcome is how a tarRun ended.
type outcome struct {
	after  *found
	status int
	said   []string // lines of stderr
}

// finish reads what comes behind the archive.
func (t *tarRun) finish() (*outcome, error) {
	if left := t.sofar % t.record; left != 0 {
		if _, err := t.in.Discard(int(t.record - left)); err != nil {
			return nil, t.fail(err)
		}
	}
	o := &outcome{}
	var err error
	if o.after, o.status, err = t.look(); err != nil {
		return nil, err
	}
	if _, err := t.in.Peek(1); err != io.EOF {
		return nil, t.fail(fmt.Errorf("%w: more behind the end of an archive", rsyncx.ErrHostile))
	}
	ctx, cancel := context.WithTimeoutCause(t.ctx, t.s.host.silence, error(verdict{errors.New("a command did not end"), ErrTimeout}))
	defer cancel()
	if err := t.p.wait(ctx); err != nil {
		return nil, t.fail(err)
	}
	o.said = t.p.lines()
	if o.status > 2 {
		return nil, withStderr(fmt.Errorf("tar ended with status %d", o.status), t.p.said())
	}
	return o, nil
}

// verdicts says for each of the files, which are in the archive, what is wrong
// with it: ErrTorn, or what tar said. sure is false if it said something that
// belongs to no file, which leaves all in doubt.
func (o *outcome) verdicts(files map[string]described) (wrong map[string]error, sure bool) {
	wrong, sure = map[string]error{}, true
	for path, before := range files {
		after, ok := o.after.entries[path]
		if !ok || after.Size != before.Size || after.Mtime != before.Mtime || after.Ino != before.Ino || after.changed != before.changed {
			wrong[path] = rsyncx.ErrTorn
		}
	}
	if o.status == 0 {
		return wrong, true
	}
	for _, line := range o.said {
		path, why, ok := tarComplaint(line)
		switch {
		case line == "tar: Exiting with failure status due to previous errors", strings.HasPrefix(line, "find: "):
		case !ok:
			sure = false
		case strings.HasPrefix(why, "file changed as we read it"), strings.HasPrefix(why, "File shrank by "), strings.HasPrefix(why, "File removed before we read it"):
			wrong[path] = rsyncx.ErrTorn
		case strings.HasSuffix(why, ": Permission denied"):
			wrong[path] = fmt.Errorf("%w: %s", fs.ErrPermission, rsyncx.Printable(why))
		case strings.HasSuffix(why, ": No such file or directory"):
			wrong[path] = fmt.Errorf("%w: %s", fs.ErrNotExist, rsyncx.Printable(why))
		default:
			wrong[path] = errors.New(rsyncx.Printable(why))
		}
	}
	return wrong, sure
}

// tarComplaint takes a line of tar apart: tar: ./name: reason. The name is
// written as C writes strings, and with a backslash before each colon.
func tarComplaint(line string) (path, why string, ok bool) {
	rest, ok := strings.CutPrefix(line, "tar: ./")
	if !ok {
		return "", "", false
	}
	var b []byte
	for i := 0; i < len(rest); i++ {
		c := rest[i]
		if c == ':' {
			why, ok = strings.CutPrefix(rest[i:], ": ")
			return string(b), why, ok && rsyncx.CheckPath(string(b)) == nil
		}
		if c != '\\' {
			b = append(b, c)
			continue
		}
		if i++; i == len(rest) {
			break
		}
		const letters, meant = `abfnrtv`, "\a\b\f\n\r\t\v"
		switch k := strings.IndexByte(letters, rest[i]); {
		case k >= 0:
			b = append(b, meant[k])
		case rest[i] >= '0' && rest[i] <= '3' && i+2 < len(rest):
			n, err := strconv.ParseUint(rest[i:i+3], 8, 8)
			if err != nil {
				return "", "", false
			}
			b = append(b, byte(n))
			i += 2
		default:
			b = append(b, rest[i])
		}
	}
	return "", "", false
}
