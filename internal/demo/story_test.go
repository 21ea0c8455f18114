package demo

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestStory(t *testing.T) {
	var b strings.Builder
	s := NewStory(&b, false)
	s.Title("drsync, a demonstration")
	s.Step("The first run")
	s.Say("Everything is new, so everything %s over, and this sentence is long enough that it must be wrapped once.", "comes")
	s.Fact("moved", "%s", Bytes(44_100_000))
	s.Check(CheckReport{Binaries: 1560, Bytes: 999_999, Nodes: 12, Files: 3, Behind: []string{"etc/x is missing"}})
	s.Command("drsync status")
	const want = `drsync, a demonstration
=======================

1. The first run
  Everything is new, so everything comes over, and this sentence is long
  enough that it must be wrapped once.
    moved              44.1 MB
  ok      each of the 1,560 blobs that the standby's database names is there with its length and SHA-1 (1.0 MB hashed)
  FAILED  its 12 rows of nodes and 3 other files are the active's; its own host-specific files are its own
  etc/x is missing
    drsync status
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	if s.Err() != nil {
		t.Error(s.Err())
	}
}

type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func TestStoryKeepsTheFirstError(t *testing.T) {
	s := NewStory(&full{left: 1}, true)
	s.Title("one")
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
	s.Step("two")
	s.Step("three")
	if s.Err() == nil {
		t.Error("no error")
	}
}

func TestFormats(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 1_200_000_000: "1.2 GB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 12_345_678: "12,345,678", -4_005: "-4,005"} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{1234567: "1ms", 2345 * time.Millisecond: "2.35s", 61400 * time.Millisecond: "1m1s"} {
		if got := Took(d); got != want {
			t.Errorf("Took(%d) = %q, want %q", d, got, want)
		}
	}
}
