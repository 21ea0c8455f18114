package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

func TestConfine(t *testing.T) {
	top := t.TempDir()
	for _, dir := range []string{"home/data", "home2", "elsewhere/sub"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"home/out": "../elsewhere", "home/in": "data", "alias": "home", "home/dangling": "nowhere"} {
		if err := os.Symlink(target, filepath.Join(top, link)); err != nil {
			t.Fatal(err)
		}
	}
	home := top + "/home"
	for _, c := range []struct {
		allowed []string
		root    string
		want    error // nil is allowed
	}{
		{[]string{home}, home, nil},
		{[]string{home}, home + "/", nil},
		{[]string{home + "/"}, home + "/data", nil},
		{[]string{home}, home + "/in", nil},
		{[]string{top + "/alias"}, top + "/alias/data", nil},
		{[]string{"/"}, home + "/data", nil},
		{[]string{top + "/home2", home}, home + "/data", nil},
		{[]string{home}, home + "2", ErrRefused},
		{[]string{home}, top, ErrRefused},
		{[]string{home}, home + "/../elsewhere", ErrRefused},
		{[]string{home}, home + "/out", ErrRefused},
		{[]string{home}, home + "/out/sub", ErrRefused},
		{[]string{home}, top + "/alias", ErrRefused}, // by its name it is another directory
		{[]string{home}, "home", ErrRefused},
		{[]string{home}, "", ErrRefused},
		{nil, home, ErrRefused},
		{[]string{home}, home + "/missing", fs.ErrNotExist},
		{[]string{home}, home + "/dangling", fs.ErrNotExist},
	} {
		src, err := confine(c.allowed, c.root, rsyncx.Local)
		if c.want == nil {
			if err != nil {
				t.Errorf("%q below %q: %v", c.root, c.allowed, err)
				continue
			}
			src.Close()
			continue
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%q below %q: %v, want %v", c.root, c.allowed, err, c.want)
		}
		if errors.Is(c.want, ErrRefused) && filepath.IsAbs(c.root) && !strings.Contains(hint.Of(err), "--root") {
			t.Errorf("%q: hint %q", c.root, hint.Of(err))
		}
	}
	// A link put in after the check is not followed.
	if src, err := openResolved(home+"/in", rsyncx.Local); err == nil {
		src.Close()
		t.Error("a path with a link in it was opened")
	}
}

func TestRefusedRootIsReported(t *testing.T) {
	p := newTestPool(t, Server{Roots: []string{t.TempDir()}})
	_, err := p.Source(t.Context(), "/etc", rsyncx.View{})
	if !errors.Is(err, ErrRefused) || !strings.Contains(hint.Of(err), "--root /etc") {
		t.Errorf("%v (hint %q)", err, hint.Of(err))
	}
	_, err = p.Source(t.Context(), "/no\x1bsuch", rsyncx.View{})
	if !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%v", err)
	}
}

func TestFilterIsAppliedByTheAgent(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"keep/a", "logs/b", "logs/c"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := filter.NewBuilder()
	if err := b.Exclude("/logs/"); err != nil {
		t.Fatal(err)
	}
	rules, err := b.Rules(filter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	src, err := newTestPool(t, Server{Roots: []string{dir}}).Source(t.Context(), dir, rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for d, err := range src.Walk(t.Context(), rsyncx.WalkOptions{Filter: rules}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range d.Entries {
			got = append(got, e.Name)
		}
	}
	if !slices.Equal(got, []string{"keep", "a"}) {
		t.Errorf("listed %q", got)
	}
}

func TestServeEnds(t *testing.T) {
	near, done := serve(t, Server{})
	c, err := Dial(t.Context(), near, quick())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Clock(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := <-done; err != nil {
		t.Errorf("after the client closed: %v", err)
	}

	began, ended := make(chan struct{}), make(chan error, 1)
	near, done = serve(t, Server{Streams: map[string]StreamFunc{"hang": func(ctx context.Context, _ string, _ io.Writer) error {
		close(began)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return context.Cause(ctx)
	}}})
	if c, err = Dial(t.Context(), near, quick()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Stream(t.Context(), "hang", "", func() {}); err != nil {
		t.Fatal(err)
	}
	<-began
	c.Close()
	if err := <-ended; !errors.Is(err, ErrClientGone) {
		t.Errorf("the stream ended with %v", err)
	}
	if err := <-done; err == nil {
		t.Error("Serve says all is well though the client left a request")
	}
}

func TestServeIsCancelled(t *testing.T) {
	mine := errors.New("mine")
	ctx, cancel := context.WithCancelCause(context.Background())
	near, far := pair()
	defer near.Close()
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, far, far, Server{Streams: map[string]StreamFunc{"endless": func(_ context.Context, _ string, w io.Writer) error {
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return err
				}
			}
		}}})
	}()
	c, err := Dial(t.Context(), near, quick())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Stream(t.Context(), "endless", "", func() {}); err != nil {
		t.Fatal(err)
	}
	cancel(mine) // while the writer is stuck, because nobody reads
	select {
	case err := <-done:
		if !errors.Is(err, mine) {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("Serve does not end")
	}
}

func TestHostileClients(t *testing.T) {
	greeting := magic + string(appendFrame(nil, frameHello, append(appendHello(nil, "x"), 0)))
	names := appendFrame(nil, frameNames, (&question{path: "../etc/passwd"}).append(nil, false))
	dir := t.TempDir()
	for _, c := range []struct{ name, sent string }{
		{"a person", "help\r\nquit\r\n"},
		{"another protocol", "SSH-2.0-x\r\n"},
		{"no hello", magic + string(appendFrame(nil, frameClock, nil))},
		{"two hellos", greeting + string(appendFrame(nil, frameHello, nil))},
		{"a huge frame", greeting + "W\xff\xff\xff\xff"},
		{"an unknown request", greeting + string(appendFrame(nil, '?', nil))},
		{"a malformed request", greeting + string(appendFrame(nil, frameOpen, []byte{0xff}))},
		{"a name that leaves the root", greeting + string(appendFrame(nil, frameRead, appendTree(nil, Tree{Root: dir}))) + string(names)},
		{"names without a read", greeting + string(names)},
		{"endless requests", greeting + strings.Repeat(string(appendFrame(nil, frameRead, appendTree(nil, Tree{Root: "/"})))+string(appendFrame(nil, frameOpen, appendTree(nil, Tree{Root: "/"}))), maxFrames)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			err := Serve(t.Context(), io.MultiReader(strings.NewReader(c.sent)), &out, Server{Roots: []string{dir}})
			if err == nil {
				t.Error("no error")
			}
			if strings.Contains(out.String(), "root:") {
				t.Error("it sent a file from outside")
			}
		})
	}
}

func TestEntryRoundTrip(t *testing.T) {
	entries := []rsyncx.Entry{
		{Name: "a", Mode: 0o100644, Size: 1 << 40, Mtime: rsyncx.Time{Sec: -5, Nsec: 999_999_999}, UID: 1, GID: 2, User: "u", Group: "g", Dev: 7, Ino: 8, Nlink: 9},
		{Name: "b", Mode: 0o120777, Target: "x\n\xff", UID: 1, GID: 2, User: "u", Group: "g", Dev: 7, Ino: 9, Nlink: 1},
		{Name: "c", Mode: 0o060660, Rdev: 1<<63 + 5, UID: 1<<32 - 1, Dev: 1, Ino: 1<<64 - 1, Nlink: 1},
		{Name: "d", Mode: 0o020660, Rdev: 3},
		{},
	}
	var b []byte
	var last rsyncx.Entry
	for i := range entries {
		b = appendEntry(b, &entries[i], &last)
		last = entries[i]
	}
	d := &decoder{b: b}
	last = rsyncx.Entry{}
	for _, want := range entries {
		got := d.entry(&last)
		if got != want {
			t.Errorf("%+v, want %+v (%v)", got, want, d.err)
		}
		last = got
	}
	if err := d.end("entries"); err != nil {
		t.Error(err)
	}
}

func TestPoolWaitsAndCloses(t *testing.T) {
	s := Server{Streams: map[string]StreamFunc{"hang": func(ctx context.Context, _ string, _ io.Writer) error { <-ctx.Done(); return nil }}}
	dials := 0
	p := NewPool(1, func(ctx context.Context) (*Conn, error) {
		dials++
		rwc, _ := serve(t, s)
		return Dial(ctx, rwc, quick())
	})
	for range 3 {
		if _, err := p.Clock(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if dials != 1 {
		t.Errorf("%d connections for requests one after the other", dials)
	}
	r, err := p.Stream(t.Context(), "hang", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(io.ErrNoProgress) })
	if _, err := p.Clock(ctx); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("waiting for a connection: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Clock(t.Context()); err != nil || dials != 2 {
		t.Errorf("after a stream that was left early: %v, %d connections", err, dials)
	}
	if r, err = p.Stream(t.Context(), "hang", ""); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p.Close()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("a stream of a closed pool: %v", err)
	}
	if _, err := p.Clock(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("a request to a closed pool: %v", err)
	}
}

// TestInboxIsBounded: who sends much ahead waits, and goes on when something was taken.
func TestInboxIsBounded(t *testing.T) {
	quit := make(chan struct{})
	close(quit)
	for name, f := range map[string]frame{"frames": {frameNames, nil}, "bytes": {frameNames, make([]byte, maxFrame)}} {
		b := newInbox()
		n := 0
		for n <= maxFrames && b.tryPut(f) {
			n++
		}
		if n == 0 || n > maxFrames {
			t.Errorf("%d %s were queued", n, name)
		}
		if err := b.put(f, quit); !errors.Is(err, errStopped) {
			t.Errorf("too many %s: %v", name, err)
		}
		if _, err := b.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.put(f, nil); err != nil {
			t.Errorf("after one was taken: %v", err)
		}
	}
}

// TestReadAnswersAtOnce: a client may wait for each file before it names the next.
func TestReadAnswersAtOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	src, err := newTestPool(t, Server{Roots: []string{dir}}).Source(t.Context(), dir, rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	arrived := make(chan struct{}, 1)
	want := func(yield func(string) bool) {
		for range 3 {
			if !yield("f") {
				return
			}
			select {
			case <-arrived:
			case <-ctx.Done():
				return
			}
		}
	}
	n := 0
	for f, err := range src.Read(ctx, rsyncx.Wants(want)) {
		if err != nil || f.Err != nil {
			t.Fatal(err, f.Err)
		}
		if _, err := io.ReadAll(f.Body); err != nil {
			t.Fatal(err)
		}
		n++
		arrived <- struct{}{}
	}
	if n != 3 {
		t.Errorf("%d files", n)
	}
}
