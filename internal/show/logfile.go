package show

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
)

// LogFile writes events in the format of rsync's --log-file: date, process and
// one line for each change, such as
//
//	2026/11/21 20:32:45 [4570] >f+++++++++ d/a
//
// Warnings, facts and the ends of steps are lines of text. Its Sink may be
// called from several goroutines at once.
type LogFile struct {
	mu      sync.Mutex
	open    func() (io.WriteCloser, error) // called for the first line
	skip    func(event.Event) string
	f       io.WriteCloser
	w       *bufio.Writer
	pid     int
	flushed time.Time
	err     error
}

// flushEvery bounds how long a line stays in memory while others come.
const flushEvery = time.Second

// NewLogFile returns a log file that is opened when its first line is written:
// for appending, or created with mode 0640 and its directories with 0755. A
// symbolic link is followed only if it belongs to root or to this user. skip
// returns the line of a Skip event, or "" for none; nil is never one. What goes
// wrong is the error of Close.
func NewLogFile(path string, skip func(event.Event) string) *LogFile {
	l := newLogFile(nil, os.Getpid())
	l.skip = skip
	l.open = func() (io.WriteCloser, error) {
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		var f *os.File
		if err == nil {
			f, err = openOwned(path, 8)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return f, nil
	}
	return l
}

func newLogFile(f io.WriteCloser, pid int) *LogFile {
	l := &LogFile{f: f, pid: pid}
	if f != nil {
		l.w = bufio.NewWriterSize(f, 64<<10)
	}
	return l
}

// openOwned opens path without following a link in its last component. It
// reads a link itself, from a descriptor of that link, so that nobody can
// exchange it between the check of its owner and the use.
func openOwned(path string, links int) (*os.File, error) {
	// O_NONBLOCK: a pipe in the file's place must not make us wait.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if errors.Is(err, unix.ELOOP) {
		target, err := ownedLink(path)
		switch {
		case err != nil:
			return nil, err
		case links == 0:
			return nil, errors.New("too many symbolic links")
		case !filepath.IsAbs(target):
			target = filepath.Join(filepath.Dir(path), target)
		}
		return openOwned(target, links-1)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("is not a regular file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func ownedLink(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return "", hint.New(fmt.Sprintf("is a symbolic link of another user (uid %d)", st.Uid), "remove the link, or name the file it points to")
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// Sink writes one event.
func (l *LogFile) Sink(e event.Event) {
	text, urgent := "", false
	switch e.Kind {
	case event.Change:
		text = itemizeLine(e)
	case event.Warning:
		text, urgent = "warning: "+named(e), true
	case event.Info:
		text, urgent = named(e), true
	case event.StepDone:
		text, urgent = stepLine(e), true
	case event.Skip:
		if l.skip != nil {
			text = l.skip(e)
		}
	}
	if text == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.w == nil {
		if l.err != nil {
			return
		}
		if l.f, l.err = l.open(); l.err != nil {
			return
		}
		l.w = bufio.NewWriterSize(l.f, 64<<10)
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	_, err := fmt.Fprintf(l.w, "%s [%d] %s\n", e.Time.Local().Format("2006/01/02 15:04:05"), l.pid, text)
	if err == nil && (urgent || e.Time.Sub(l.flushed) >= flushEvery) {
		err = l.w.Flush()
		l.flushed = e.Time
	}
	if l.err == nil {
		l.err = err
	}
}

// Close writes what is left. It returns the first error of any write: a log
// that is not whole is worth a warning, not the end of a run.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.err
	if l.w != nil {
		if ferr := l.w.Flush(); err == nil {
			err = ferr
		}
		if cerr := l.f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	return nil
}
