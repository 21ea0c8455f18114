package filter

// wildmatch reports whether the whole of text matches pattern, byte by byte:
// '*' is any run without '/', two or more are any run, '?' is one byte but '/',
// '[…]' is a class, and '\' makes the next byte literal. A pattern that is broken
// off inside a class, or names an unknown one, matches nothing.
//
// Only the last '*' and the last '**' need to be tried again: what stands before
// them was matched as early as possible, so a later match of it leaves less text.
func wildmatch(pattern string, text []byte) bool {
	i, j := 0, 0              // what is to be matched next
	star, starText := -1, 0   // where to go on after the last '*', and where its run ends
	stars, starsText := -1, 0 // the same for the last '**'
	for {
		if i < len(pattern) && pattern[i] == '*' {
			n := i + 1
			for n < len(pattern) && pattern[n] == '*' {
				n++
			}
			switch {
			case n == i+1:
				star, starText = n, j
			case n == len(pattern):
				return true
			default:
				star, stars, starsText = -1, n, j
			}
			i = n
			continue
		}
		if j == len(text) {
			return i == len(pattern)
		}
		if i < len(pattern) {
			next, same := element(pattern, i, text[j])
			if next < 0 {
				return false
			}
			if same {
				i, j = next, j+1
				continue
			}
		}
		switch {
		case star >= 0 && text[starText] != '/':
			starText++
			i, j = star, starText
		case stars >= 0:
			starsText++
			star, i, j = -1, stars, starsText
		default:
			return false
		}
	}
}

// element compares c with the element of pattern at i, which is no '*', and
// returns where the next element is, or -1 when this one can match nothing.
func element(pattern string, i int, c byte) (next int, same bool) {
	switch pattern[i] {
	case '\\':
		if i+1 == len(pattern) {
			return -1, false
		}
		return i + 2, pattern[i+1] == c
	case '?':
		return i + 1, c != '/'
	case '[':
		next, same = class(pattern, i+1, c)
		return next, same && c != '/'
	default:
		return i + 1, pattern[i] == c
	}
}

// class reports whether c is in the class whose first byte after the '[' is
// pattern[i], and returns the index after its ']', or -1 when it has none.
func class(pattern string, i int, c byte) (next int, in bool) {
	negated := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negated {
		i++
	}
	// prev is the byte a '-' would start a range from; 0 is none.
	for prev, first := byte(0), true; ; first = false {
		if i >= len(pattern) {
			return -1, false
		}
		ch := pattern[i]
		switch {
		case ch == ']' && !first:
			return i + 1, in != negated
		case ch == '\\':
			if i+1 >= len(pattern) {
				return -1, false
			}
			prev = pattern[i+1]
			in = in || c == prev
			i += 2
		case ch == '-' && prev != 0 && i+1 < len(pattern) && pattern[i+1] != ']':
			i++
			if pattern[i] == '\\' {
				i++
				if i >= len(pattern) {
					return -1, false
				}
			}
			in = in || prev <= c && c <= pattern[i]
			prev = 0
			i++
		case ch == '[' && i+1 < len(pattern) && pattern[i+1] == ':':
			end := i + 2
			for end < len(pattern) && pattern[end] != ']' {
				end++
			}
			if end == len(pattern) {
				return -1, false
			}
			if end == i+2 || pattern[end-1] != ':' { // a plain '['
				in = in || c == '['
				prev = '['
				i++
				continue
			}
			is, known := named(pattern[i+2:end-1], c)
			if !known {
				return -1, false
			}
			in = in || is
			prev = 0
			i = end + 1
		default:
			in = in || c == ch
			prev = ch
			i++
		}
	}
}

// named reports whether c is in the class [:name:]. Only ASCII bytes are in any.
func named(name string, c byte) (is, known bool) {
	lower := 'a' <= c && c <= 'z'
	upper := 'A' <= c && c <= 'Z'
	digit := '0' <= c && c <= '9'
	graph := '!' <= c && c <= '~'
	switch name {
	case "alnum":
		return lower || upper || digit, true
	case "alpha":
		return lower || upper, true
	case "blank":
		return c == ' ' || c == '\t', true
	case "cntrl":
		return c < ' ' || c == 0x7f, true
	case "digit":
		return digit, true
	case "graph":
		return graph, true
	case "lower":
		return lower, true
	case "print":
		return graph || c == ' ', true
	case "punct":
		return graph && !lower && !upper && !digit, true
	case "space":
		return isSpace(c), true
	case "upper":
		return upper, true
	case "xdigit":
		return digit || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F', true
	}
	return false, false
}

// isSpace is C's isspace, which splits words in rules too.
func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }
