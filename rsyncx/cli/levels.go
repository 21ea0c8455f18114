package cli

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// flag is one word of --info or --debug, with the level that each count of -v
// gives it: at[0] without any.
type flag struct {
	name string
	at   []int
	most int
}

// infoFlags returns the words of --info, which are asked for with every file.
var infoFlags = sync.OnceValue(func() []flag {
	return []flag{
		{"BACKUP", []int{0, 0, 1}, 1}, {"COPY", []int{0, 1}, 1}, {"DEL", []int{0, 1}, 1}, {"FLIST", []int{0, 1}, 2},
		{"MISC", []int{0, 1, 2}, 2}, {"MOUNT", []int{0, 0, 1}, 1}, {"NAME", []int{0, 1, 2}, 2}, {"NONREG", []int{1}, 1},
		{"PROGRESS", []int{0}, 2}, {"REMOVE", []int{0, 0, 1}, 1}, {"SKIP", []int{0, 0, 1}, 2}, {"STATS", []int{0, 1}, 3},
		{"SYMSAFE", []int{0, 1}, 1},
	}
})

// debugFlags returns the words of --debug. FILTER and DELTASUM have an effect.
var debugFlags = sync.OnceValue(func() []flag {
	var all []flag
	for name := range strings.FieldsSeq("ACL BACKUP BIND CHDIR CONNECT CMD DEL DELTASUM DUP EXIT FILTER FLIST FUZZY GENR HASH HLINK ICONV IO NSTR OWN PROTO RECV SEND TIME") {
		at := []int{0}
		if name == "FILTER" || name == "DELTASUM" {
			at = []int{0, 0, 1}
		}
		all = append(all, flag{name, at, 4})
	}
	return all
})

// levels reads a list of words, each with a level behind it or none for 1.
func levels(words func() []flag) action {
	return func(c *Command, value string) error {
		if c.levels == nil {
			c.levels = make(map[string]int)
		}
		known := words()
		for word := range strings.SplitSeq(value, ",") {
			if word == "" {
				continue
			}
			name := strings.TrimRight(word, "0123456789")
			level, digits := 1, word[len(name):]
			if name = strings.ToUpper(name); digits != "" {
				n, err := strconv.Atoi(digits)
				if err != nil {
					return fmt.Errorf("unknown item %q", word)
				}
				level = n
			}
			if err := c.setLevel(known, name, level); err != nil {
				return err
			}
		}
		return nil
	}
}

func (c *Command) setLevel(known []flag, name string, level int) error {
	switch name {
	case "ALL":
	case "NONE":
		level = 0
	case "HELP":
		c.HelpFlags = known[0].name != "ACL"
		c.HelpDebug = !c.HelpFlags
		return nil
	default:
		for _, f := range known {
			if f.name == name {
				c.levels[key(known, name)] = min(level, f.most)
				return nil
			}
		}
		return fmt.Errorf("unknown item %q", name)
	}
	for _, f := range known {
		c.levels[key(known, f.name)] = min(level, f.most)
	}
	return nil
}

// key keeps --info=del and --debug=del apart.
func key(known []flag, name string) string {
	if known[0].name == "ACL" {
		return "debug " + name
	}
	return name
}

// Info returns the level of one flag of --info, by its name in capitals.
func (c *Command) Info(name string) int {
	if level, ok := c.levels[name]; ok {
		return level
	}
	level := byVerbosity(infoFlags(), name, c.Verbose)
	if c.Progress {
		switch name {
		case "NAME", "PROGRESS":
			level = max(level, 1)
		case "FLIST":
			level = max(level, 2)
		}
	}
	if name == "STATS" && c.Stats {
		level = max(level, 2)
	}
	return level
}

// Debug is Info for --debug.
func (c *Command) Debug(name string) int {
	if level, ok := c.levels["debug "+name]; ok {
		return level
	}
	return byVerbosity(debugFlags(), name, c.Verbose)
}

func byVerbosity(known []flag, name string, verbose int) int {
	for _, f := range known {
		if f.name == name {
			return f.at[min(verbose, len(f.at)-1)]
		}
	}
	return 0
}
