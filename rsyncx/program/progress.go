package program

import (
	"context"
	"io"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/cli"
)

// progress shows how far the run is.
type progress struct {
	mu      sync.Mutex
	last    time.Time // of the file before
	arrived event.Event
	whole   event.Event // the last about the whole
	files   int64
	shown   string // the file that stands open with its name above; "" for none
}

// named reports whether the name of a change was written when its file was under way.
func (p *progress) named(e event.Event) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown != "" && p.shown == e.Name
}

// file shows a file that has arrived; what is left is told by the event that follows.
func (p *progress) file(r *run, e event.Event) {
	if r.c.Info("PROGRESS") != 1 || r.c.DryRun || !strings.HasPrefix(e.Itemize, ">") {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arrived = e
}

// take takes the state of the whole run.
func (p *progress) take(r *run, e event.Event) {
	level := r.c.Info("PROGRESS")
	if level == 0 || r.c.DryRun {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.whole = e
	if level > 1 {
		r.out.over(r.c.ProgressLine(cli.Progressed{
			Bytes: e.Bytes, Size: max(e.Size, e.Bytes), Elapsed: e.Time.Sub(r.began),
			Files: e.Items, ToCheck: max(e.Total-e.Items, 0), Total: e.Total,
		}), false)
		return
	}
	if p.arrived.Name == "" || e.Items <= p.files {
		return
	}
	since := p.last
	if since.IsZero() {
		since = r.began
	}
	p.last, p.files, p.shown = e.Time, e.Items, ""
	r.out.over(r.c.ProgressLine(cli.Progressed{
		Bytes: p.arrived.Bytes, Size: p.arrived.Bytes, Elapsed: e.Time.Sub(since),
		Files: e.Items, ToCheck: max(e.Total-e.Items, 0), Total: e.Total,
	}), true)
	p.arrived = event.Event{}
}

// under shows a file under way, of which at bytes are here and elapsed is how
// long that took.
func (p *progress) under(r *run, path string, at, size int64, now time.Time, elapsed time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := cli.Progressed{Bytes: at, Size: size, Elapsed: elapsed}
	if r.c.Info("PROGRESS") > 1 {
		state.Bytes, state.Size, state.Elapsed = p.whole.Bytes+at, max(p.whole.Size, p.whole.Bytes+size), now.Sub(r.began)
	} else if e := (event.Event{Kind: event.Change, Itemize: ">f", Name: r.shownAs(path)}); r.c.NamesOnly() && p.shown != e.Name {
		if line := r.c.Line(e); line != "" {
			r.out.line(line)
			p.shown = e.Name
		}
	}
	if rate := float64(state.Bytes) / state.Elapsed.Seconds(); rate > 0 {
		state.Left = time.Duration(float64(state.Size-state.Bytes) / rate * float64(time.Second))
	}
	r.out.over(r.c.ProgressLine(state)+"  ", false)
}

// watched is a source whose long files show how far they are while they are read.
type watched struct {
	rsyncx.Source
	r *run
}

var _ rsyncx.Source = (*watched)(nil)

// watch makes source one that shows its progress, if that is asked for.
func (r *run) watch(source rsyncx.Source) rsyncx.Source {
	if r.c.Info("PROGRESS") == 0 || r.c.DryRun || r.c.Quiet {
		return source
	}
	return &watched{source, r}
}

func (w *watched) Read(ctx context.Context, want iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] {
	return func(yield func(rsyncx.File, error) bool) {
		var mu sync.Mutex
		var asked [][]rsyncx.Range // of what was drawn and is not answered
		drawn := func(yield func(rsyncx.Want) bool) {
			for one := range want {
				mu.Lock()
				asked = append(asked, one.Ranges)
				mu.Unlock()
				if !yield(one) {
					return
				}
			}
		}
		for f, err := range w.Source.Read(ctx, drawn) {
			mu.Lock()
			var ranges []rsyncx.Range
			if len(asked) > 0 {
				ranges, asked = asked[0], asked[1:]
			}
			mu.Unlock()
			if f.Body != nil {
				now := w.r.Now()
				f.Body = &watchedBody{r: w.r, body: f.Body, path: f.Path, size: f.Entry.Size, ranges: ranges, began: now, told: now}
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

// watchedBody tells at most once a second how far it was read.
type watchedBody struct {
	r           *run
	body        io.Reader
	path        string
	size, read  int64
	ranges      []rsyncx.Range // nil is the whole
	began, told time.Time
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.read += int64(n)
	if now := b.r.Now(); now.Sub(b.told) >= time.Second && err == nil {
		b.told = now
		b.r.progress.under(b.r, b.path, b.offset(), b.size, now, now.Sub(b.began))
	}
	return n, err
}

// offset is where in the file the last byte that was read lies.
func (b *watchedBody) offset() int64 {
	if b.ranges == nil {
		return b.read
	}
	left := b.read
	for _, part := range b.ranges {
		if left <= part.Len {
			return part.Off + left
		}
		left -= part.Len
	}
	return b.size
}
