package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/wire"
)

// execHost reaches the host through programs that it has anyway: GNU find and
// tar. Nothing is installed there and nothing is written there.
type execHost struct {
	far     far
	silence time.Duration
	tunnel  func(ctx context.Context, network, addr string) (net.Conn, error)

	slots chan struct{} // one for each program that reads files

	mu     sync.Mutex
	probed bool
	stat   bool // GNU stat is there
}

var _ Host = (*execHost)(nil)

// execReaders is how many programs may read files at once, of maxChannels; some
// are left for listings and small questions.
const execReaders = 5

func newExecHost(f far, c Config, tunnel func(ctx context.Context, network, addr string) (net.Conn, error)) *execHost {
	return &execHost{far: limited{f, make(chan struct{}, maxChannels)}, silence: c.Silence, tunnel: tunnel, slots: make(chan struct{}, execReaders)}
}

// environment makes the programs speak the same everywhere.
const environment = "LC_ALL=C; export LC_ALL; unset TAR_OPTIONS POSIXLY_CORRECT; "

// script returns the words that run a script on the host; its arguments are $1 and so on.
func script(text string, args ...string) []string {
	words := []string{"sh", "-c", quoteWord(environment + text), "sh"}
	for _, a := range args {
		words = append(words, quoteWord(a))
	}
	return words
}

// Source opens root after looking once whether the host has what is needed.
func (h *execHost) Source(ctx context.Context, root string, v rsyncx.View) (rsyncx.Source, error) {
	wrap := func(err error) error {
		return fmt.Errorf("open %s on %s with find and tar: %w", rsyncx.Printable(root), h.far, err)
	}
	switch {
	case v != (rsyncx.View{}):
		return nil, wrap(fmt.Errorf("following links: %w with find and tar", errors.ErrUnsupported))
	case !path.IsAbs(root):
		return nil, wrap(errors.New("it is not an absolute path"))
	case strings.IndexByte(root, 0) >= 0:
		return nil, wrap(errors.New("it has a NUL"))
	}
	if err := h.probe(ctx); err != nil {
		return nil, wrap(err)
	}
	s := &execSource{host: h, root: path.Clean(root), devices: h.stat}
	if err := s.enter(ctx); err != nil {
		return nil, wrap(err)
	}
	return s, nil
}

// probe asks for the versions of the programs, once.
func (h *execHost) probe(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.probed {
		return nil
	}
	text := "echo " + marker + "; for p in find xargs tar stat; do echo; $p --version 2> /dev/null; done"
	answer, err := exchange(ctx, h.far, h.silence, nil, script(text)...)
	var failed *ShellError
	if err != nil && !errors.As(err, &failed) {
		return err
	}
	_, versions, ok := strings.Cut(answer, marker+"\n")
	if !ok {
		if err == nil {
			err = fmt.Errorf("it answers %q", wire.Clean([]byte(answer[:min(len(answer), 200)])))
		}
		return hint.With(fmt.Errorf("run a shell: %w", err), "the key is perhaps bound to one command; use transport: agent or sftp")
	}
	for _, name := range []string{"find (GNU findutils)", "xargs (GNU findutils)", "tar (GNU tar)"} {
		if !strings.Contains("\n"+versions, "\n"+name) {
			return hint.With(fmt.Errorf("the host has no %s", name), "install GNU findutils and tar there, or use transport: sftp")
		}
	}
	h.stat = strings.Contains(versions, "\nstat (GNU coreutils)")
	h.probed = true
	return nil
}

// Clock asks once the shell is there, so that the bound is that of one round trip.
func (h *execHost) Clock(ctx context.Context) (skew, bound time.Duration, err error) {
	wrap := func(err error) error { return fmt.Errorf("read the clock of %s: %w", h.far, err) }
	ctx, cancel := context.WithTimeoutCause(ctx, h.silence, error(verdict{fmt.Errorf("%s was silent for %v", h.far, h.silence), ErrTimeout}))
	defer cancel()
	p, err := h.far.run(ctx, script("echo "+marker+"; read x; date +%s.%N")...)
	if err != nil {
		return 0, 0, wrap(err)
	}
	defer p.Close()
	defer context.AfterFunc(ctx, func() { p.Close() })()
	in := bufio.NewReaderSize(io.LimitReader(p, maxAnswer), 4<<10)
	for line := ""; err == nil && line != marker; line = strings.TrimSuffix(line, "\n") {
		line, err = in.ReadString('\n')
	}
	before := time.Now()
	if err == nil {
		_, err = io.WriteString(p, "\n")
	}
	var line string
	if err == nil {
		line, err = in.ReadString('\n')
	}
	after := time.Now()
	if ctx.Err() != nil {
		return 0, 0, wrap(context.Cause(ctx))
	}
	if err != nil {
		return 0, 0, wrap(p.explain(err))
	}
	there, err := parseClock(strings.TrimSuffix(line, "\n"))
	if err != nil {
		return 0, 0, wrap(err)
	}
	bound = after.Sub(before) / 2
	return there.Sub(before.Add(bound)), bound, nil
}

// parseClock reads seconds and nanoseconds since 1970.
func parseClock(text string) (time.Time, error) {
	sec, nsec, ok := strings.Cut(text, ".")
	s, err1 := strconv.ParseInt(sec, 10, 40)
	n, err2 := strconv.ParseUint(nsec, 10, 30)
	if !ok || err1 != nil || err2 != nil || len(nsec) != 9 || s < 0 {
		return time.Time{}, hint.With(fmt.Errorf("date answers %q", wire.Clean([]byte(text))), "install GNU coreutils there, or use transport: agent")
	}
	return time.Unix(s, int64(n)), nil
}

func (h *execHost) Stream(_ context.Context, name, _ string) (io.ReadCloser, error) {
	return nil, hint.With(fmt.Errorf("stream %s with find and tar: %w", rsyncx.Printable(name), errors.ErrUnsupported),
		"install drsync on the active and use transport: agent")
}

func (h *execHost) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return h.tunnel(ctx, network, addr)
}

func (h *execHost) Describe() string { return h.far.String() + " (find and tar)" }

func (h *execHost) Close() error { return h.far.close() }
