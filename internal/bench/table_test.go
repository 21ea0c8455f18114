package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// line is one line of the result: the same task done by both.
type line struct {
	task         string
	peer, drsync []time.Duration // one for each repeat; none when it did not run
}

// table is one Markdown table.
type table struct {
	title string
	peer  string // the other contestant
	lines []line
	notes []string
}

func (t table) write(w io.Writer) {
	fmt.Fprintf(w, "\n### %s\n\n| | %s | drsync | drsync / peer |\n|---|---:|---:|---:|\n", t.title, t.peer)
	for _, l := range t.lines {
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", l.task, spread(l.peer), spread(l.drsync), ratio(l))
	}
	for _, n := range t.notes {
		fmt.Fprintf(w, "\n%s\n", n)
	}
}

// spread shows the median, and the extremes when there are several.
func spread(d []time.Duration) string {
	switch len(d) {
	case 0:
		return "–"
	case 1:
		return seconds(d[0])
	}
	return fmt.Sprintf("%s (%s–%s)", seconds(median(d)), seconds(slices.Min(d)), seconds(slices.Max(d)))
}

func ratio(l line) string {
	if len(l.peer) == 0 || len(l.drsync) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", float64(median(l.drsync))/float64(median(l.peer)))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// median returns the middle one, or the mean of the two in the middle.
func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	if len(s) == 0 {
		return 0
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func TestMedian(t *testing.T) {
	for want, d := range map[time.Duration][]time.Duration{
		0: nil, 7: {7}, 5: {9, 1, 5}, 4: {9, 1, 5, 3}, 3: {3, 3, 3, 100},
	} {
		if got := median(d); got != want {
			t.Errorf("median(%v) = %v, want %v", d, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	table{title: "Files", peer: "rsync", lines: []line{
		{task: "first copy", peer: []time.Duration{4e9, 2e9, 3e9}, drsync: []time.Duration{1e9, 2e9, 1500e6}},
		{task: "nothing changed", peer: []time.Duration{1e9}},
	}, notes: []string{"Both equal."}}.write(&b)
	const want = `
### Files

| | rsync | drsync | drsync / peer |
|---|---:|---:|---:|
| first copy | 3.00 s (2.00 s–4.00 s) | 1.50 s (1.00 s–2.00 s) | 0.50 |
| nothing changed | 1.00 s | – | – |

Both equal.
`
	if b.String() != want {
		t.Errorf("got %s", b.String())
	}
}
