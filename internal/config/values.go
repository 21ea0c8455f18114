package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

var units = []struct {
	name string
	is   time.Duration
}{
	{"ms", time.Millisecond}, // before m and s
	{"s", time.Second},
	{"m", time.Minute},
	{"h", time.Hour},
	{"d", 24 * time.Hour},
	{"w", 7 * 24 * time.Hour},
}

// ParseDuration reads a length of time such as 90s, 1h30m, 7d or 2w. A day is
// 24 hours. There is no sign, and every number has a unit.
func ParseDuration(text string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a length of time; write 90s, 30m, 24h, 7d or 2w", text)
	rest := strings.TrimSpace(text)
	if rest == "" {
		return 0, bad
	}
	var sum float64
	for rest != "" {
		digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789."))]
		n, err := strconv.ParseFloat(digits, 64)
		if err != nil {
			return 0, bad
		}
		rest = rest[len(digits):]
		found := false
		for _, u := range units {
			if after, ok := strings.CutPrefix(rest, u.name); ok {
				sum, rest, found = sum+n*float64(u.is), after, true
				break
			}
		}
		if !found {
			return 0, bad
		}
	}
	if sum >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too long", text)
	}
	return time.Duration(math.Round(sum)), nil
}

// ParsePercent reads a percentage from 0% to 100% as a part of 1.
func ParsePercent(text string) (float64, error) {
	digits, ok := strings.CutSuffix(strings.TrimSpace(text), "%")
	digits = strings.TrimSpace(digits)
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || strings.Trim(digits, "0123456789.") != "" || n > 100 {
		return 0, fmt.Errorf("%q is not a percentage from 0%% to 100%%", text)
	}
	return n / 100, nil
}

// SplitWords splits a command line into words the way a shell does, without
// expanding anything: blanks separate; '…' keeps all, "…" all but \" and \\;
// a backslash outside quotes keeps the next character.
func SplitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case '\'':
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, errors.New("a ' is not closed")
			}
			word.WriteString(line[i+1 : i+1+end])
			inWord = true
			i += 1 + end
		case '"':
			n, err := doubleQuoted(line[i+1:], &word)
			if err != nil {
				return nil, err
			}
			inWord = true
			i += n
		case '\\':
			if i++; i == len(line) {
				return nil, errors.New("a backslash at the end keeps nothing")
			}
			word.WriteByte(line[i])
			inWord = true
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// doubleQuoted copies up to the closing quote and returns how many bytes it
// used, that quote included.
func doubleQuoted(s string, into *strings.Builder) (int, error) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return i + 1, nil
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
		}
		into.WriteByte(s[i])
	}
	return 0, errors.New(`a " is not closed`)
}

// ParseRate reads a number of bytes per second with a unit, such as 500K, 10M or
// 1.5G: powers of 1024. The least is 1K.
func ParseRate(text string) (int64, error) {
	bad := fmt.Errorf("%q is not a rate; write 500K, 10M or 1G: bytes per second in powers of 1024", text)
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, bad
	}
	shift := map[byte]float64{'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}[text[len(text)-1]]
	digits := text[:len(text)-1]
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || strings.Trim(digits, "0123456789.") != "" || shift == 0 || n*shift < 1<<10 || n*shift > 1<<40 {
		return 0, bad
	}
	return int64(n * shift), nil
}
