package program_test

// exception takes out of a comparison what is known to differ, with the reason.
type exception struct {
	lines func([]string) []string
	tree  func(map[string]string) map[string]string
}

// exceptions is the whole list of what the two programs may do differently.
func exceptions(c diffCase, run command, rsync outcome) exception {
	var ex exception
	return ex
}
