package filter

// Match reports whether name matches pattern as rsync's wildcards do: '*' and '?'
// stop at a '/', "**" does not.
func Match(pattern, name string) bool { return wildmatch(pattern, []byte(name)) }
