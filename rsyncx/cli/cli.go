// Package cli reads the options of an rsync command line and writes what rsync
// prints and logs.
//
// It owns one invariant: an option is either honoured or an error. Every option
// that rsync 3.5 knows is in one table; those that drsync cannot carry out are
// refused by name, all of a line at once.
package cli

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// Command is what a line asks for.
type Command struct {
	// Options has everything but Filter, which AddRules and the caller's
	// filter.Builder make, because it depends on both trees.
	Options rsyncx.Options
	View    rsyncx.View

	Verbose   int // how often -v was given
	Quiet     bool
	Numbers   Numbers
	Progress  bool
	Itemize   int // how often -i was given
	Format    string
	Stats     bool
	EightBit  bool
	AllToErr  bool // what is printed goes where errors go
	Blocks    bool // the output is buffered
	List      bool
	DryRun    bool // Options.DryRun too
	LogFile   string
	LogFormat string
	Version   int // how often -V was given
	Help      bool
	HelpFlags bool // --info=help
	HelpDebug bool // --debug=help

	// Warnings are lines about what of the options is left out.
	Warnings []string

	// Rules are the filter options in the order of the line.
	Rules []Rule

	// What of the sources is looked at.
	Recursive     bool
	Dirs          bool
	Relative      bool
	NoImplied     bool // -R without the attributes of the directories on the way
	FilesFrom     string
	NUL           bool // --from0
	IgnoreMissing bool
	MakePath      bool

	Nanoseconds bool // --modify-window is negative
	Delta       bool // --no-whole-file
	NoRenames   bool
	Fsync       bool

	// Secluded is -s, or --no-s; nil is neither.
	Secluded *bool

	// The remote host.
	Shell          string // of --rsh
	Program        string // of --rsync-path
	Install        bool
	Compress       Compress
	BytesPerSecond int64 // of --bwlimit; 0 is no limit
	Timeout        int   // seconds; 0 is none
	ConnectTimeout int   // seconds; 0 is none

	// Paths are the words that are no options: sources and, last, the destination.
	Paths []string

	// From stands before names for the escape %f: where they come from. Remote says
	// that this is another host. Both are for the caller to set.
	From   string
	Remote bool

	levels         map[string]int
	compressLevel  int64 // 0 is none that was given
	transferSum    rsyncx.SumKind
	noTransferSum  bool // none was chosen
	noCompareSum   bool
	archived       bool // Recursive is only what -a made it
	notRelative    bool
	noDirs         bool
	oldDirs        bool
	usersMapped    bool // by --usermap or --chown, if only to a name that is not known here
	groupsMapped   bool
	delayUpdates   bool
	notIncremental bool
	backupDirSet   bool
	suffixSet      bool
	fuzzy          int  // how often -y was given
	when           uint // the moments of deletion that were named
}

// Compress says when what travels is compressed.
type Compress uint8

const (
	CompressAuto Compress = iota // when it pays
	CompressAlways
	CompressNever
	CompressDefault // always, at zstd's levels 3 to 5
	CompressBetter  // 6 to 9
	CompressBest    // 10 to 22
)

// Rule is one filter option.
type Rule struct {
	Option string // its long name, "-F" or "-C"
	Value  string // the pattern, the rule, or the name of the file
	NUL    bool   // --from0 was in force: the rules of the file end with NUL bytes
}

// AddRules adds the filter options to b, in their order. Files are read with
// b.ReadFile. All wrong options are reported at once.
func (c *Command) AddRules(b *filter.Builder) error {
	var errs []error
	for _, r := range c.Rules {
		if err := r.add(b); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (r Rule) add(b *filter.Builder) error {
	switch r.Option {
	case "--exclude":
		return b.Exclude(r.Value)
	case "--include":
		return b.Include(r.Value)
	case "--filter":
		was := b.From0
		defer func() { b.From0 = was }()
		b.From0 = was || r.NUL
		return b.Filter(r.Value)
	case "-F":
		return b.F()
	case "-C":
		b.CVS()
		return nil
	case "--exclude-from", "--include-from":
		if b.ReadFile == nil {
			return fmt.Errorf("%s=%s: no file can be read here", r.Option, r.Value)
		}
		content, err := b.ReadFile(r.Value)
		if err != nil {
			return fmt.Errorf("%s=%s: %w", r.Option, r.Value, err)
		}
		if r.Option == "--include-from" {
			return b.IncludeFrom(r.Value, bytes.NewReader(content), r.NUL)
		}
		return b.ExcludeFrom(r.Value, bytes.NewReader(content), r.NUL)
	}
	return fmt.Errorf("internal error: filter option %s", r.Option)
}

// Parse reads options, without the paths of a full command line. All problems
// are reported at once; files are not read yet.
func Parse(args []string) (Command, error) {
	p := parse(args, false)
	if !p.command.Recursive && len(p.errs) == 0 {
		p.wrong(hint.New("the options have neither -a nor -r", "drsync copies whole trees: add -a"))
	}
	p.limitTree()
	return *p.command, errors.Join(p.errs...)
}

// ParseLine reads a full command line. All problems are reported at once; files
// are not read yet.
func ParseLine(args []string) (Command, error) {
	if len(args) == 1 && args[0] == "-h" {
		args = []string{"--help"}
	}
	p := parse(args, true)
	p.settle()
	return *p.command, errors.Join(p.errs...)
}

// parse reads the words of a line. A word that is no option ends nothing: options may follow.
func parse(args []string, full bool) *parser {
	p := &parser{command: &Command{}, options: table(), full: full}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			for _, path := range args {
				p.path(path)
			}
			args = nil
		case strings.HasPrefix(arg, "--"):
			args = p.long(arg, args)
		case len(arg) > 1 && arg[0] == '-':
			args = p.short(arg[1:], args)
		default:
			p.path(arg)
		}
	}
	p.checkRules()
	return p
}

type parser struct {
	command *Command
	options []option
	full    bool // with paths
	errs    []error
}

func (p *parser) wrong(err error) { p.errs = append(p.errs, err) }

func (p *parser) path(arg string) {
	if p.full {
		p.command.Paths = append(p.command.Paths, arg)
		return
	}
	p.wrong(fmt.Errorf("argument %q: only options may stand here", arg))
}

// long takes one option that starts with "--" and returns what is left of args.
func (p *parser) long(arg string, args []string) []string {
	name, value, given := strings.Cut(arg[2:], "=")
	if off, ok := strings.CutPrefix(name, "no-"); ok {
		if o := p.find(func(o *option) bool { return o.no != nil && o.named(off) }); o != nil {
			if given {
				p.wrong(fmt.Errorf("option --%s takes no value", name))
			} else {
				p.run("--"+name, &option{}, o.no, "")
			}
			return args
		}
	}
	o := p.find(func(o *option) bool { return name != "" && (o.long == name || o.also == name) })
	switch {
	case o == nil:
		p.wrong(fmt.Errorf("--%s: unknown option", name))
	case !o.takes() && given:
		p.wrong(fmt.Errorf("option --%s takes no value", name))
	case o.takes() && !given:
		if len(args) == 0 {
			p.wrong(fmt.Errorf("option --%s needs a value", name))
			return nil
		}
		value, args = args[0], args[1:]
		fallthrough
	default:
		p.run("--"+name, o, o.do, value)
	}
	return args
}

// short takes the letters of one argument and returns what is left of args.
func (p *parser) short(letters string, args []string) []string {
	for i := range len(letters) {
		o := p.find(func(o *option) bool { return o.short == letters[i] })
		name := "-" + letters[i:i+1]
		switch {
		case o == nil:
			p.wrong(fmt.Errorf("%s: unknown option", name))
		case !o.takes():
			p.run(name, o, o.do, "")
		case i+1 < len(letters):
			p.run(name, o, o.do, strings.TrimPrefix(letters[i+1:], "="))
			return args
		case len(args) == 0:
			p.wrong(fmt.Errorf("option %s needs a value", name))
		default:
			p.run(name, o, o.do, args[0])
			return args[1:]
		}
	}
	return args
}

func (p *parser) find(is func(*option) bool) *option {
	for i := range p.options {
		if is(&p.options[i]) {
			return &p.options[i]
		}
	}
	return nil
}

func (p *parser) run(name string, o *option, do action, value string) {
	switch {
	case do == nil:
		p.wrong(fmt.Errorf("option %s: drsync cannot honour it: %s", name, o.why))
		return
	case !p.full && o.tree != "":
		p.wrong(fmt.Errorf("option %s has no place here: %s", name, o.tree))
		return
	}
	if err := do(p.command, value); err != nil {
		p.wrong(fmt.Errorf("option %s: %w", name, err))
	}
}

// unsupported is an error of a value that rsync would take.
func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errors.ErrUnsupported)
}

// checkRules finds mistakes in rules that are on the line itself.
func (p *parser) checkRules() {
	b := filter.NewBuilder()
	b.ReadFile = func(string) ([]byte, error) { return nil, nil }
	if err := p.command.AddRules(b); err != nil {
		p.wrong(err)
	}
}
