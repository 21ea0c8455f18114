package show

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/drsync/drsync/internal/event"
)

// barOptions are for tests; zero is a terminal that redraws by itself.
type barOptions struct {
	width   int
	refresh <-chan any // redraws on each value
}

// barWidth is in columns; what it leaves is for the numbers.
const barWidth = 24

// barScreen draws one bar for each running step below the lines.
type barScreen struct {
	p    *mpb.Progress
	bars map[string]*stepBar
}

type stepBar struct {
	bar  *mpb.Bar
	text atomic.Pointer[string] // drawn by another goroutine
}

func newBarScreen(w io.Writer, o barOptions) *barScreen {
	options := []mpb.ContainerOption{mpb.WithOutput(w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(150 * time.Millisecond)}
	if o.width > 0 {
		options = append(options, mpb.WithWidth(o.width))
	}
	if o.refresh != nil {
		options = append(options, mpb.WithManualRefresh(o.refresh))
	}
	return &barScreen{p: mpb.New(options...), bars: map[string]*stepBar{}}
}

func (b *barScreen) println(line string) { fmt.Fprintln(b.p, line) }

func (b *barScreen) progress(step string, e event.Event, since time.Duration) {
	done, total := e.Bytes, e.Size
	if total <= 0 {
		done, total = e.Items, e.Total
	}
	text := progressLine(e, since)
	s := b.bars[step]
	if s == nil {
		s = &stepBar{}
		s.text.Store(&text)
		bar, err := b.p.Add(0, filler(),
			mpb.BarRemoveOnComplete(),
			mpb.BarWidth(barWidth),
			mpb.PrependDecorators(decor.Name(strings.TrimSuffix(column(step), " "))),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return *s.text.Load() })))
		if err != nil {
			return
		}
		s.bar = bar
		b.bars[step] = s
	}
	s.text.Store(&text)
	// A bar that reaches its total ends itself; only done ends ours.
	if total > 0 {
		s.bar.SetTotal(total+1, false)
		s.bar.SetCurrent(min(done, total))
	}
}

func filler() mpb.BarFiller {
	return mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]").Build()
}

func (b *barScreen) done(step string) {
	if s := b.bars[step]; s != nil {
		s.bar.Abort(true)
		delete(b.bars, step)
	}
}

func (b *barScreen) close() {
	for step := range b.bars {
		b.done(step)
	}
	b.p.Shutdown()
}
