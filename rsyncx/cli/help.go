package cli

import (
	"fmt"
	"strings"
)

// OptionHelp lists the options that are honoured, one a line.
func OptionHelp() string {
	var b strings.Builder
	for _, o := range table() {
		if o.do == nil {
			continue
		}
		fmt.Fprintf(&b, "%-24s %s\n", o.names(), o.help)
	}
	fmt.Fprintf(&b, "%-24s %s\n", "--no-OPTION", "turn an option off, as --no-D")
	return b.String()
}

// RefusedHelp lists the options of rsync that are refused, and why.
func RefusedHelp() string {
	var b strings.Builder
	for _, o := range table() {
		if o.do == nil {
			fmt.Fprintf(&b, "%-24s %s\n", o.names(), o.why)
		}
	}
	return b.String()
}

func (o *option) names() string {
	value := ""
	if o.takes() {
		value = "=" + o.arg
	}
	if o.long == "" {
		return "-" + string(o.short)
	}
	name := "--" + o.long + value
	if o.also != "" {
		name += ", --" + o.also
	}
	if o.short != 0 {
		name += ", -" + string(o.short)
	}
	return name
}

// FlagHelp lists the flags of --info or --debug, whichever was asked for.
func (c *Command) FlagHelp() string {
	known, what := infoFlags(), "--info"
	if c.HelpDebug {
		known, what = debugFlags(), "--debug"
	}
	var b strings.Builder
	b.WriteString("Use OPT or OPT1 for level 1 output, OPT2 for level 2, etc.; OPT0 silences.\n\n")
	for _, f := range known {
		fmt.Fprintf(&b, "%-10s levels up to %d\n", f.name, f.most)
	}
	fmt.Fprintf(&b, "\nALL        Set all %s options (e.g. all4)\nNONE       Silence all %s options (same as all0)\nHELP       Output this help message\n", what, what)
	return b.String()
}

// Incremental reports whether rsync would list as it goes, and says so in its first line.
func (c *Command) Incremental() bool {
	return c.Recursive && !c.Options.DeleteBefore && !c.Options.DeleteAfter && !c.delayUpdates && !c.Options.PruneEmpty && !c.notIncremental
}
