// Package show presents what happens to people and to log files: sinks for
// events, errors with their hints, and numbers with units.
//
// Its invariant: no text that came from elsewhere (a file name, an error, a
// server's message) reaches a terminal or a log with a control character in it,
// so that it can neither move the cursor nor forge a line.
package show

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bytes formats a length in binary units: 512 B, 1.5 KiB, 12.3 MiB.
func Bytes(n int64) string {
	if n < 0 {
		return "-" + strings.TrimPrefix(Bytes(-(n+1)), "-")
	}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v := float64(n) / 1024
	for _, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v < 1023.95 {
			return fmt.Sprintf("%.1f %s", v, unit)
		}
		v /= 1024
	}
	return Count(int64(v)) + " PiB"
}

// Count formats a number with thousands separators: 1,204.
func Count(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// Plural formats a number with its noun: 1 file, 1,204 files.
func Plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Count(n) + " " + many
}

// Duration formats a length of time in at most two units: 12 ms, 0.8 s, 34 s,
// 2 m 3 s, 3 h 12 m, 4 d 2 h. A negative one has a minus.
func Duration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		if d == -1<<63 {
			d++
		}
		return "-" + Duration(-d)
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d.Round(time.Second) < time.Minute:
		return fmt.Sprintf("%d s", d.Round(time.Second)/time.Second)
	case d.Round(time.Second) < time.Hour:
		return twoUnits(d.Round(time.Second), time.Minute, "m", time.Second, "s")
	case d.Round(time.Minute) < day:
		return twoUnits(d.Round(time.Minute), time.Hour, "h", time.Minute, "m")
	default:
		return twoUnits(d.Round(time.Hour), day, "d", time.Hour, "h")
	}
}

func twoUnits(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	text := fmt.Sprintf("%d %s", d/big, bigName)
	if rest := d % big / small; rest > 0 {
		text += fmt.Sprintf(" %d %s", rest, smallName)
	}
	return text
}

// Percent formats done of total: 24%. It says 100% only for all.
func Percent(done, total int64) string {
	switch {
	case total <= 0:
		return "?"
	case done >= total:
		return "100%"
	}
	return fmt.Sprintf("%d%%", min(99, int64(float64(done)/float64(total)*100)))
}
