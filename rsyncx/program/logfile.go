package program

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx/cli"
)

// logFile is the file of --log-file. It is written a line at a time.
type logFile struct {
	mu  sync.Mutex
	f   *os.File
	now func() time.Time
	err error // the first of writing
}

// openLog opens the log for appending. A symbolic link that another user has
// made is not followed: it may lead anywhere.
func openLog(path string, now func() time.Time) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if errors.Is(err, unix.ELOOP) {
		f, err = followOwn(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open the log file: %w", err)
	}
	return &logFile{f: f, now: now}, nil
}

func followOwn(path string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s is a symbolic link of another user", path)
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NONBLOCK, 0o644)
}

func (l *logFile) line(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.f.WriteString(cli.Stamp(l.now(), os.Getpid()) + text + "\n")
	if l.err == nil {
		l.err = err
	}
}

func (l *logFile) close() error { return errors.Join(l.err, l.f.Close()) }
