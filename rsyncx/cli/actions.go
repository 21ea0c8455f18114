package cli

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/drsync/drsync/rsyncx"
)

const (
	compareDest = rsyncx.CompareDest
	copyDest    = rsyncx.CopyDest
	linkDest    = rsyncx.LinkDest
)

// sw is a switch with a --no form.
func sw(long string, short byte, help string, to func(c *Command, on bool)) option {
	return sw2(long, short, help, "", to)
}

func sw2(long string, short byte, help, tree string, to func(c *Command, on bool)) option {
	return option{
		long: long, short: short, help: help, tree: tree,
		do: do(func(c *Command) { to(c, true) }), no: do(func(c *Command) { to(c, false) }),
	}
}

// longNo is for an option of whose --no forms there is the long one only.
func longNo(o option) option {
	o.onlyLong = true
	return o
}

// super is --super, or --no-super: it is as asked, or needs somebody else.
func super(root bool) action {
	return func(*Command, string) error {
		switch is := os.Geteuid() == 0; {
		case root && !is:
			return errors.New("drsync cannot honour it: run it as root")
		case !root && is:
			return errors.New("drsync cannot honour it: run it as another user")
		}
		return nil
	}
}

func do(to func(c *Command)) action {
	return func(c *Command, _ string) error { to(c); return nil }
}

// already is for what is the case without asking.
func already(*Command, string) error { return nil }

func text(of func(c *Command) *string) action {
	return func(c *Command, value string) error {
		*of(c) = value
		return nil
	}
}

// shape takes a format of changes.
func shape(of func(c *Command) *string) action {
	return func(c *Command, value string) error {
		if has(value, 'c') {
			return errors.New("drsync cannot honour %c: sums of blocks go from the source to the destination, not the other way, and are not counted for each file")
		}
		*of(c) = value
		return nil
	}
}

var errNoName = errors.New("the name is empty")

func path(of func(c *Command) *string) action {
	return func(c *Command, value string) error {
		if value == "" {
			return errNoName
		}
		*of(c) = value
		return nil
	}
}

func archive(c *Command, _ string) error {
	if !c.Recursive {
		c.Recursive, c.archived = true, true
	}
	o := &c.Options
	o.Links, o.Perms, o.Times, o.Owner, o.Group, o.Devices, o.Specials = true, true, true, true, true, true, true
	return nil
}

// The moments of deletion that a line may name one of; --delete-delay is taken for
// one of the course of the copy, as rsync takes it.
const (
	before = 1 << iota
	during
	after
)

func deletes(c *Command, _ string) error {
	c.Options.Delete = true
	return nil
}

// deletesAt is deletes at a moment that the line names.
func deletesAt(c *Command, _ string) error {
	c.when |= during
	c.Options.Delete = true
	return nil
}

func rule(name string) action {
	return func(c *Command, value string) error {
		if value == "" && (name == "--exclude-from" || name == "--include-from") {
			return errNoName
		}
		c.Rules = append(c.Rules, Rule{Option: name, Value: value, NUL: c.NUL})
		return nil
	}
}

func oneFileSystem(c *Command, _ string) error {
	c.Options.OmitMounts = c.Options.OneFileSystem
	c.Options.OneFileSystem = true
	return nil
}

func moreHuman(c *Command, _ string) error {
	switch c.Numbers {
	case Plain:
		c.Numbers = Separated
	case Separated:
		c.Numbers = Thousands
	default:
		c.Numbers = Binary
	}
	return nil
}

func whole(value string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(value, "+"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("invalid numeric value %q", value)
	}
	return n, nil
}

func maxDelete(c *Command, value string) error {
	n, err := whole(value)
	if err != nil {
		return err
	}
	c.Options.DeleteUpTo, c.Options.DeleteLimited = max(n, 0), true
	return nil
}

func maxSize(c *Command, value string) (err error) {
	c.Options.MaxSize, err = size(value, 'B')
	c.Options.MaxSizeSet = err == nil
	return err
}

func minSize(c *Command, value string) (err error) {
	c.Options.MinSize, err = size(value, 'B')
	return err
}

func bwlimit(c *Command, value string) error {
	n, err := size(value, 'K')
	if err != nil {
		return err
	}
	if n > 0 {
		if n < 512 {
			return fmt.Errorf("%q is less than 512 bytes a second", value)
		}
		n = max(1, (n+512)/1024) * 1024
	}
	c.BytesPerSecond = n
	return nil
}

func seconds(_ string, of func(c *Command) *int) action {
	return func(c *Command, value string) error {
		n, err := whole(value)
		if err != nil {
			return err
		}
		if n > math.MaxInt32 {
			return fmt.Errorf("%q is no number of seconds", value)
		}
		*of(c) = max(0, int(n)) // less than none is none
		return nil
	}
}

func modifyWindow(c *Command, value string) error {
	n, err := whole(value)
	if err != nil {
		return err
	}
	c.Options.ModifyWindow = max(n, 0)
	c.Nanoseconds = n < 0
	return nil
}

func altDest(kind rsyncx.AltDest) action {
	return func(c *Command, value string) error {
		switch {
		case value == "":
			return errNoName
		case len(c.Options.AltDests) > 0 && c.Options.AltDest != kind:
			return errors.New("--compare-dest, --copy-dest and --link-dest cannot be mixed")
		case len(c.Options.AltDests) == 20:
			return errors.New("at most 20 directories may be named")
		}
		c.Options.AltDest = kind
		c.Options.AltDests = append(c.Options.AltDests, value)
		return nil
	}
}

func backupDir(c *Command, value string) error {
	if value == "." || value == "./" { // the destination itself
		value = ""
	}
	c.Options.BackupDir, c.backupDirSet = value, true
	return nil
}

func suffix(c *Command, value string) error {
	if strings.Contains(value, "/") {
		return fmt.Errorf("%q has a slash", value)
	}
	c.Options.Suffix, c.suffixSet = value, true
	return nil
}

func secluded(on bool) action {
	return func(c *Command, _ string) error {
		c.Secluded = &on
		return nil
	}
}

func outbuf(c *Command, value string) error {
	switch {
	case value == "":
	case strings.ContainsAny(value[:1], "NnUu"), strings.ContainsAny(value[:1], "Ll"):
		c.Blocks = false
		return nil
	case strings.ContainsAny(value[:1], "BbFf"):
		c.Blocks = true
		return nil
	}
	return errors.New("it is N, L or B")
}

func stderr(c *Command, value string) error {
	for _, mode := range []string{"errors", "all", "client"} {
		if value != "" && strings.HasPrefix(mode, value) {
			c.AllToErr = mode == "all"
			return nil
		}
	}
	return fmt.Errorf("%q is not one of errors, all and client", value)
}

func checksumChoice(c *Command, value string) error {
	transfer, compare, two := strings.Cut(value, ",")
	if !two {
		compare = transfer
	}
	for _, choice := range []struct {
		name string
		kind *rsyncx.SumKind
		none *bool
	}{{transfer, &c.transferSum, &c.noTransferSum}, {compare, &c.Options.ChecksumKind, &c.noCompareSum}} {
		if two && transfer != compare && choice.name == "auto" {
			choice.name = "md5" // as in rsync, which does not negotiate then
		}
		var known bool
		*choice.kind, known = rsyncx.ParseSumKind(choice.name)
		if *choice.none = choice.name == "none"; !known && !*choice.none {
			return unsupported("unknown checksum name: %q: drsync has xxh128 (also called auto), xxh3, xxh64, md5, sha1, md4 and none", choice.name)
		}
	}
	return nil
}

func compressChoice(c *Command, value string) error {
	switch value {
	case "auto", "zstd":
		c.Compress = CompressAlways
	case "none":
		c.Compress = CompressNever
	default:
		return unsupported("unknown compress name: %q: the agent speaks zstd (also called auto) and none", value)
	}
	return nil
}

func compressLevel(c *Command, value string) error {
	n, err := whole(value)
	if err != nil {
		return err
	}
	c.compressLevel = n
	if c.Compress = CompressAlways; n == 0 {
		c.Compress = CompressNever
	}
	return nil
}

// level is CompressAlways at the level of the line. As in rsync one that is too high or too low is the next there is.
func (c *Command) level() Compress {
	switch n := c.compressLevel; {
	case c.Compress != CompressAlways || n < 3:
		return c.Compress
	case n < 6:
		return CompressDefault
	case n < 10:
		return CompressBetter
	}
	return CompressBest
}

func marker(c *Command, value string) error {
	clean := strings.TrimSuffix(value, "/")
	if clean == "" {
		return errNoName
	}
	if err := rsyncx.CheckPath(clean); err != nil {
		return fmt.Errorf("%q is no path inside the source", value)
	}
	c.Options.Marker = clean
	return nil
}

func minEntries(c *Command, value string) error {
	n, err := whole(value)
	if err == nil && n < 0 {
		err = fmt.Errorf("%q is not a number of entries", value)
	}
	c.Options.MinEntries = max(n, 0)
	return err
}

func maxFraction(c *Command, value string) error {
	f, err := strconv.ParseFloat(strings.TrimSuffix(value, "%"), 64)
	if err != nil || !(f > 0 && f <= 100) {
		return fmt.Errorf("%q is no percentage above 0 and up to 100", value)
	}
	c.Options.MaxDeleteFraction = f / 100
	return nil
}
