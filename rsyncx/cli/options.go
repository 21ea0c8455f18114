package cli

import (
	"errors"
	"fmt"
	"strconv"
)

// action carries out one option.
type action func(c *Command, value string) error

// option is one option of rsync. Without do it is refused.
type option struct {
	long  string
	also  string // another long name
	short byte   // 0 is none
	takes bool   // a value
	do    action
	no    action // of --no-long and --no-short; nil if rsync has none
}

func (o *option) named(name string) bool {
	return name == o.long || o.also != "" && name == o.also || len(name) == 1 && o.short == name[0]
}

// set returns the two actions of a switch.
func set(to func(c *Command, on bool)) (do, no action) {
	return func(c *Command, _ string) error { to(c, true); return nil },
		func(c *Command, _ string) error { to(c, false); return nil }
}

func do(to func(c *Command)) action {
	return func(c *Command, _ string) error { to(c); return nil }
}

// already is for what is the case without asking.
func already(*Command, string) error { return nil }

func deletes(c *Command, _ string) error {
	c.Options.Delete = true
	return nil
}

func archive(c *Command, _ string) error {
	c.Recursive = true
	o := &c.Options
	o.Links, o.Perms, o.Times, o.Owner, o.Group, o.Devices, o.Specials = true, true, true, true, true, true, true
	return nil
}

func maxDelete(c *Command, value string) error {
	n, err := strconv.ParseInt(value, 10, 64)
	switch {
	case err != nil || n < 0:
		return fmt.Errorf("%q is not a number of entries", value)
	case n == 0:
		return errors.New("drsync cannot honour the value 0; leave the options of deletion away instead")
	}
	c.Options.MaxDelete = n
	return nil
}

func rule(name string) action {
	return func(c *Command, value string) error {
		if value == "" && (name == "--exclude-from" || name == "--include-from") {
			return errors.New("the name of the file is empty")
		}
		c.Rules = append(c.Rules, Rule{Option: name, Value: value, NUL: c.nul})
		return nil
	}
}

func logFile(c *Command, value string) error {
	if value == "" {
		return errors.New("the name of the file is empty")
	}
	c.LogFile = value
	return nil
}

func oneFileSystem(c *Command, _ string) error {
	if c.Options.OneFileSystem {
		return errors.New("drsync cannot honour it twice")
	}
	c.Options.OneFileSystem = true
	return nil
}

func partialProgress(*Command, string) error {
	return errors.New("drsync cannot honour its --partial; use --progress")
}

func moreHuman(c *Command, _ string) error {
	switch c.Numbers {
	case Thousands, Binary:
		c.Numbers = Binary
	default:
		c.Numbers = Thousands
	}
	return nil
}

// honoured returns the options that drsync carries out.
func honoured() []option {
	sw := func(long string, short byte, to func(c *Command, on bool)) option {
		o := option{long: long, short: short}
		o.do, o.no = set(to)
		return o
	}
	return []option{
		{long: "archive", short: 'a', do: archive},
		{long: "recursive", short: 'r', do: do(func(c *Command) { c.Recursive = true }), no: refuse},
		sw("links", 'l', func(c *Command, on bool) { c.Options.Links = on }),
		sw("perms", 'p', func(c *Command, on bool) { c.Options.Perms = on }),
		sw("times", 't', func(c *Command, on bool) { c.Options.Times = on }),
		sw("owner", 'o', func(c *Command, on bool) { c.Options.Owner = on }),
		sw("group", 'g', func(c *Command, on bool) { c.Options.Group = on }),
		sw("devices", 0, func(c *Command, on bool) { c.Options.Devices = on }),
		sw("specials", 0, func(c *Command, on bool) { c.Options.Specials = on }),
		sw("", 'D', func(c *Command, on bool) { c.Options.Devices, c.Options.Specials = on, on }),
		sw("hard-links", 'H', func(c *Command, on bool) { c.Options.HardLinks = on }),
		sw("numeric-ids", 0, func(c *Command, on bool) { c.Options.NumericIDs = on }),
		sw("checksum", 'c', func(c *Command, on bool) { c.Options.Checksum = on }),
		{long: "one-file-system", short: 'x', do: oneFileSystem, no: do(func(c *Command) { c.Options.OneFileSystem = false })},
		{long: "ignore-times", short: 'I', do: do(func(c *Command) { c.Options.IgnoreTimes = true })},
		{long: "size-only", do: do(func(c *Command) { c.Options.SizeOnly = true })},

		// drsync deletes when it publishes, after everything was copied: that is
		// later than any of these forms asks for, and with the same result.
		{long: "del", do: deletes},
		{long: "delete", do: deletes},
		{long: "delete-before", do: deletes},
		{long: "delete-during", do: deletes},
		{long: "delete-delay", do: deletes},
		{long: "delete-after", do: deletes},
		{long: "delay-updates", do: already, no: refuse}, // drsync always does
		{long: "delete-excluded", do: do(func(c *Command) { c.Options.Delete, c.Options.DeleteExcluded = true, true })},
		{long: "max-delete", takes: true, do: maxDelete},

		{long: "exclude", takes: true, do: rule("--exclude")},
		{long: "include", takes: true, do: rule("--include")},
		{long: "filter", short: 'f', takes: true, do: rule("--filter")},
		{long: "exclude-from", takes: true, do: rule("--exclude-from")},
		{long: "include-from", takes: true, do: rule("--include-from")},
		{short: 'F', do: rule("-F")},
		{long: "cvs-exclude", short: 'C', do: rule("-C")},
		sw("from0", '0', func(c *Command, on bool) { c.nul = on }),

		{long: "verbose", short: 'v', do: do(func(c *Command) { c.Verbose++ }), no: do(func(c *Command) { c.Verbose = 0 })},
		{long: "human-readable", short: 'h', do: moreHuman, no: do(func(c *Command) { c.Numbers = Plain })},
		sw("itemize-changes", 'i', func(c *Command, on bool) { c.Itemize = on }),
		sw("progress", 0, func(c *Command, on bool) { c.Progress = on }),
		{long: "stats", do: do(func(c *Command) { c.Stats = true })},
		{long: "dry-run", short: 'n', do: do(func(c *Command) { c.DryRun, c.Options.DryRun = true, true })},
		{long: "log-file", takes: true, do: logFile},
		{short: 'P', do: partialProgress},
	}
}

func refuse(*Command, string) error { return errors.New("drsync cannot honour it") }
