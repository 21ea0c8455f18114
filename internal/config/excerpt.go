package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Lines of the file are shown with problems, also when the file is no YAML at
// all, so what must stay hidden is found in the text: what follows a key that
// is not known to be harmless, what follows anything that resembles the word
// password, and the lines after such a place up to the next harmless key.

const (
	maxShown  = 100 // runes of a source line
	hidden    = "(not shown)"
	secretKey = "password"
)

// harmlessKeys are all keys of the format but secretKey, sorted.
var harmlessKeys = []string{
	"active", "address", "agent", "application", "bandwidth_limit", "ca", "continuous", "database", "dumps", "engine", "exclude", "exclude_from",
	"failover", "files", "filestore", "home", "host", "identity", "install", "keep_daily", "keep_last", "keep_monthly", "keep_weekly",
	"known_hosts", "log_file", "max_fraction", "min_age", "mode", "name", "path", "port", "prune", "quarantine",
	"replication", "roots", "rpo", "rsync", "schedule", "service", "snapshots", "standby", "start", "state", "timeout", "tls",
	"transport", "user", "verify", "via",
}

var (
	// keyPattern finds what YAML may take for a key: a word, bare or quoted, and a colon.
	keyPattern = regexp.MustCompile(`([A-Za-z_][A-Za-z0-9_-]*)["']?\s*:(?:\s+|$)`)
	// firstKey is a key at the start of a line.
	firstKey = regexp.MustCompile(`^[\s-]*["']?([A-Za-z_][A-Za-z0-9_-]*)["']?\s*:(?:\s|$)`)
	// reference is a secret as it should be given: nothing to hide.
	reference = regexp.MustCompile(secretKey + `["']?\s*:\s*(?:"(?:env|file):[^"]*"|'(?:env|file):[^']*'|(?:env|file):[^\s,}"']+)`)
	keyShape  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,30}$`)
)

// printableKey reports whether an unknown key looks like a name, and not like
// a whole line that lost its colon.
func printableKey(key string) bool { return keyShape.MatchString(key) }

// show returns a line, counted from 1, as it may be printed.
func (s *source) show(line int) string {
	if s.shown == nil {
		s.shown = excerpts(s.lines)
	}
	return s.shown[line-1]
}

func excerpts(lines []string) []string {
	shown := make([]string, len(lines))
	secretAbove := false
	for i, line := range lines {
		if m := firstKey.FindStringSubmatch(line); m != nil && isHarmless(m[1]) {
			secretAbove = false
		}
		cut := secretAt(line)
		switch {
		case strings.TrimSpace(line) == "":
		case secretAbove:
			shown[i] = hidden
		case cut >= 0:
			shown[i] = printable(strings.TrimSpace(strings.TrimSpace(line[:cut])+" "+hidden), maxShown)
			secretAbove = true
		default:
			code, _, _ := strings.Cut(line, " #")
			shown[i] = printable(strings.TrimSpace(code), maxShown)
		}
	}
	return shown
}

func isHarmless(key string) bool {
	_, ok := slices.BinarySearch(harmlessKeys, key)
	return ok
}

// secretAt returns where in a line a secret may begin, or -1.
func secretAt(line string) int {
	clean := reference.ReplaceAllStringFunc(line, func(m string) string { return strings.Repeat(".", len(m)) })
	cut := passwordAt(clean)
	for _, k := range keyPattern.FindAllStringSubmatchIndex(clean, -1) {
		if cut >= 0 && k[0] > cut {
			break
		}
		if !isHarmless(clean[k[2]:k[3]]) {
			return k[1]
		}
	}
	return cut
}

// passwordAt finds the first place in a line whose letters resemble a word for
// a secret, whatever stands between them, and returns where it begins, or -1.
func passwordAt(line string) int {
	var letters []byte
	var at []int
	for i := range len(line) {
		if c := line[i] | 0x20; c >= 'a' && c <= 'z' {
			letters, at = append(letters, c), append(at, i)
		}
	}
	text := string(letters)
	first := -1
	for _, word := range []string{"pass", "passwd", "secret", "pwd", "token", "credential"} {
		if i := strings.Index(text, word); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	// Two changes leave one of three parts of the word whole.
	if strings.Contains(text, "pas") || strings.Contains(text, "swo") || strings.Contains(text, "rd") {
		if i := resembling(text); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	if first < 0 {
		return -1
	}
	return at[first]
}

// resembling returns where a part of text begins that at most two changes turn
// into the word password, or -1. Of overlapping parts it takes the closest.
func resembling(text string) int {
	best, distance, since := -1, 3, 0
	for i := range text {
		if best >= 0 && i-since > 4 {
			break
		}
		for n := len(secretKey) - 2; n <= len(secretKey)+2 && i+n <= len(text); n++ {
			d := editDistance(text[i:i+n], secretKey)
			if d < distance && best < 0 {
				since = i
			}
			if d < distance {
				best, distance = i, d
			}
		}
	}
	return best
}

// printable escapes what could disturb a terminal and shortens to limit runes.
func printable(s string, limit int) string {
	var b strings.Builder
	n := 0
	for i, r := range s {
		if n++; n > limit {
			return b.String() + "…"
		}
		switch {
		case r == utf8.RuneError && s[i] != "\uFFFD"[0]:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\t':
			b.WriteByte(' ')
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
