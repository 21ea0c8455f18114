package cli

import "strconv"

// Numbers says how sizes and counts are written.
type Numbers int

const (
	Separated Numbers = iota     // 12,345,000: rsync's default
	Thousands                    // 12.35M: -h
	Binary                       // 11.77M: -hh, powers of 1024
	Plain     Numbers = iota - 4 // 12345000: --no-h
)

// Count writes a size or a count.
func (n Numbers) Count(v int64) string {
	if s, ok := n.scaled(float64(v)); ok {
		return s
	}
	s := strconv.FormatInt(v, 10)
	if n == Plain {
		return s
	}
	return separate(s)
}

// Rate writes a number with two decimals.
func (n Numbers) Rate(v float64) string {
	if s, ok := n.scaled(v); ok {
		return s
	}
	return n.ratio(v)
}

// ratio is Rate without units.
func (n Numbers) ratio(v float64) string {
	s := strconv.FormatFloat(v, 'f', 2, 64)
	if n == Plain {
		return s
	}
	return separate(s)
}

// scaled writes v with a unit, if it is large enough to have one.
func (n Numbers) scaled(v float64) (string, bool) {
	step := 1000.0
	switch n {
	case Binary:
		step = 1024
	case Thousands:
	default:
		return "", false
	}
	if v < step && v > -step {
		return "", false
	}
	const units = "KMGTP"
	u := 0
	for v /= step; (v >= step || v <= -step) && u+1 < len(units); u++ {
		v /= step
	}
	return strconv.FormatFloat(v, 'f', 2, 64) + units[u:u+1], true
}

// separate puts commas into the whole part of a number.
func separate(s string) string {
	end := len(s)
	for i := range s {
		if s[i] == '.' {
			end = i
		}
	}
	start := 0
	if s[0] == '-' {
		start = 1
	}
	b := append([]byte{}, s[:start]...)
	for i := start; i < end; i++ {
		if i > start && (end-i)%3 == 0 {
			b = append(b, ',')
		}
		b = append(b, s[i])
	}
	return string(append(b, s[end:]...))
}
