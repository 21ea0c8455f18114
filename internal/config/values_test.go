package config

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "30m": 30 * time.Minute, "24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour,
		"2w": 14 * 24 * time.Hour, "1d12h": 36 * time.Hour, "1.5h": 90 * time.Minute, "250ms": 250 * time.Millisecond, "0s": 0,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: %v %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", " ", "7", "d", "-7d", "+7d", "7 d", "7y", "1h30", "1e9h", "999999999999w", ".", "1..2h", "NaNs", "1mm"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q accepted as %v", text, got)
		}
	}
}

func TestParsePercent(t *testing.T) {
	for text, want := range map[string]float64{"5%": 0.05, "2.5 %": 0.025, "0%": 0, "100%": 1} {
		if got, err := ParsePercent(text); err != nil || got != want {
			t.Errorf("%s: %v %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "5", "0.05", "-1%", "101%", "NaN%", "1e1%", "0x5%", "inf%"} {
		if got, err := ParsePercent(text); err == nil {
			t.Errorf("%q accepted as %v", text, got)
		}
	}
}

func TestSplitWords(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
	}{
		{"-vvah --del", []string{"-vvah", "--del"}},
		{" -a\t\n  -H ", []string{"-a", "-H"}},
		{`--exclude='a b' "c \"d\\ e" f\ g ''`, []string{"--exclude=a b", `c "d\ e`, "f g", ""}},
		{`'\' "\x"`, []string{`\`, `\x`}},
		{"", nil},
	} {
		if got, err := SplitWords(c.line); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q %v, want %q", c.line, got, err, c.want)
		}
	}
	for _, line := range []string{"'", `"`, `a "b\"`, `\`, `a '`} {
		if got, err := SplitWords(line); err == nil {
			t.Errorf("%q accepted as %q", line, got)
		}
	}
}

func FuzzSplitWords(f *testing.F) {
	f.Add("-a", "b c'd", `"\`)
	f.Fuzz(func(t *testing.T, a, b, c string) {
		want := []string{a, b, c}
		quoted := make([]string, len(want))
		for i, w := range want {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		if got, err := SplitWords(strings.Join(quoted, " ")); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q: %q %v", want, got, err)
		}
		_, _ = SplitWords(a)
	})
}

func TestParseSchedule(t *testing.T) {
	from := time.Date(2026, 11, 21, 20, 7, 0, 0, time.UTC) // a Saturday
	for spec, want := range map[string]string{
		"*/15 * * * *":                     "2026-11-21T20:15:00Z",
		"0 3 * * 7":                        "2026-11-22T03:00:00Z",
		"0 3 * * 0":                        "2026-11-22T03:00:00Z",
		"0 3 * * sun":                      "2026-11-22T03:00:00Z",
		"0 3 * * 2-7/5":                    "2026-11-22T03:00:00Z", // Tuesday and Sunday
		"0 3 * * fri-7":                    "2026-11-22T03:00:00Z",
		"0 3 * * 1,7":                      "2026-11-22T03:00:00Z",
		"0 3 * * 1-5":                      "2026-11-23T03:00:00Z",
		"0 0 29 2 *":                       "2028-02-29T00:00:00Z",
		"@every 90s":                       "2026-11-21T20:08:30Z",
		"@daily":                           "2026-11-22T00:00:00Z",
		"CRON_TZ=Asia/Tokyo 0 6 * * *":     "2026-11-21T21:00:00Z",
		"  CRON_TZ=Asia/Tokyo  0 6 * * * ": "2026-11-21T21:00:00Z",
		"TZ=UTC 0 6 * * *":                 "2026-11-22T06:00:00Z",
		"0 22 ? * *":                       "2026-11-21T22:00:00Z",
	} {
		s, err := ParseSchedule(spec)
		if err != nil {
			t.Errorf("%q: %v", spec, err)
			continue
		}
		if got := s.Cron.Next(from).UTC().Format(time.RFC3339); got != want {
			t.Errorf("%q: next %s, want %s", spec, got, want)
		}
	}
	for _, spec := range []string{
		"", "TZ=", "CRON_TZ=", "TZ=UTC", "CRON_TZ= * * * * *", "CRON_TZ=Nowhere/No * * * * *", "0 0 31 2 *", "0 0 30 feb *", "* * * *",
		"60 * * * *", "* * * * * *", "*/0 * * * *", "@every -1h", "@every 1s", "@every soon", "@reboot", "0 0 * * 8", "0 0 * * 7-9", "0 0 * * 6-8", ", * * * *",
	} {
		if s, err := ParseSchedule(spec); err == nil {
			t.Errorf("%q accepted: %v", spec, s.Cron.Next(from))
		}
	}
}

func FuzzParseSchedule(f *testing.F) {
	for _, s := range []string{"*/15 * * * *", "0 3 * * 2-7/5", "TZ=", "@every 90s", "CRON_TZ=Asia/Tokyo 0 6 * * *"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		if len(spec) > 200 {
			return
		}
		s, err := ParseSchedule(spec)
		if err == nil && s.Cron.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
			t.Fatalf("%q never comes", spec)
		}
	})
}

func TestParseRate(t *testing.T) {
	for text, want := range map[string]int64{"1K": 1 << 10, "10M": 10 << 20, "1.5G": 3 << 29, " 2M ": 2 << 20} {
		if got, err := ParseRate(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "K", "5", "0.5K", "-1M", "1e3K", "2000G", "1KB", "1 M", "NaNK", "InfK"} {
		if got, err := ParseRate(text); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
}

func TestLongestGap(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	for spec, want := range map[string]time.Duration{
		"*/15 * * * *": 15 * time.Minute, "CRON_TZ=UTC 0 3 * * 0": 168 * hour, "CRON_TZ=UTC * 9-17 * * 1-5": 63*hour + time.Minute,
		"CRON_TZ=UTC 0 0 1 * *": 31 * 24 * hour, "@every 90m": 90 * time.Minute, "CRON_TZ=UTC 0 3 1 1 *": 365 * 24 * hour,
	} {
		s, err := ParseSchedule(spec)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.LongestGap(time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)); got != want {
			t.Errorf("%s: %v, want %v", spec, got, want)
		}
	}
	if got := (Schedule{}).LongestGap(time.Now()); got != 0 {
		t.Errorf("none: %v", got)
	}
}
