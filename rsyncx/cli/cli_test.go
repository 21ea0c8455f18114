package cli

import (
	"errors"
	"io/fs"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

func TestParse(t *testing.T) {
	with := func(change func(c *Command)) Command {
		c := Command{Options: rsyncx.Archive(), Recursive: true}
		change(&c)
		return c
	}
	for _, c := range []struct {
		line string
		want Command
	}{
		{"-a", with(func(c *Command) {})},
		{"-vvah --del", with(func(c *Command) { c.Verbose, c.Numbers, c.Options.Delete = 2, Thousands, true })},
		{"-r", Command{Recursive: true}},
		{"-rlptgoD", with(func(c *Command) {})},
		{"-r --links --perms --times --group --owner --devices --specials", with(func(c *Command) {})},
		{"-a --no-l --no-perms --no-t --no-o --no-group --no-D", Command{Recursive: true}},
		{"--no-o -a", with(func(c *Command) {})},
		{"-a --no-specials --no-devices", with(func(c *Command) { c.Options.Devices, c.Options.Specials = false, false })},
		{"-aHxcI --size-only --numeric-ids", with(func(c *Command) {
			o := &c.Options
			o.HardLinks, o.OneFileSystem, o.Checksum, o.IgnoreTimes, o.SizeOnly, o.NumericIDs = true, true, true, true, true, true
		})},
		{"-aHxc --no-H --no-x --no-checksum", with(func(c *Command) {})},
		{"-a --delete", with(func(c *Command) { c.Options.Delete = true })},
		{"-a --delete-before", with(func(c *Command) { c.Options.Delete = true })},
		{"-a --delete-during", with(func(c *Command) { c.Options.Delete = true })},
		{"-a --delete-delay", with(func(c *Command) { c.Options.Delete = true })},
		{"-a --delete-after --delay-updates", with(func(c *Command) { c.Options.Delete, c.Options.DeleteAfter = true, true })},
		{"-a --delete-excluded --max-delete=7", with(func(c *Command) {
			c.Options.Delete, c.Options.DeleteExcluded, c.Options.MaxDelete = true, true, 7
		})},
		{"-ainhh --progress --stats --log-file /l", with(func(c *Command) {
			c.Itemize, c.DryRun, c.Options.DryRun, c.Numbers, c.Progress, c.Stats, c.LogFile = 1, true, true, Binary, true, true, "/l"
		})},
		{"-avhi --progress --no-v --no-h --no-i --no-progress", with(func(c *Command) { c.Numbers = Plain })},
		{"-a --no-inplace --no-S", with(func(c *Command) {})},
		{"-a --exclude=*.o --include '+ a b' -f'P x' -f=-_y -FFC -0 --exclude-from list --no-from0 --include-from=l2 --filter=S_z", with(func(c *Command) {
			c.Rules = []Rule{
				{"--exclude", "*.o", false}, {"--include", "+ a b", false}, {"--filter", "P x", false}, {"--filter", "-_y", false},
				{"-F", "", false}, {"-F", "", false}, {"-C", "", false}, {"--exclude-from", "list", true}, {"--include-from", "l2", false},
				{"--filter", "S_z", false},
			}
		})},
	} {
		words, err := SplitLine(c.line)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(words)
		c.want.NUL, c.want.levels, c.want.archived, c.want.when = got.NUL, got.levels, got.archived, got.when
		c.want.delayUpdates = got.delayUpdates
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v\n got  %+v\n want %+v", c.line, err, got, c.want)
		}
	}
}

func TestParseReportsEverything(t *testing.T) {
	words, err := SplitLine(`-aZP --inplace --foo=1 --no-foo --del=1 --max-delete=x --max-delete=0 -xxU --log-file= --no-W -e ssh -f bogus --exclude '- ' home/ --bwlimit=5 -z --zc=lz4 --exclude`)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Parse(words)
	want := []string{
		"-Z: unknown option",
		"option --inplace has no place here: drsync publishes all files in one step",
		"--foo: unknown option",
		"--no-foo: unknown option",
		"option --del takes no value",
		`option --max-delete: invalid numeric value "x"`,
		"option -U: drsync cannot honour it: access times are not carried",
		"option --log-file: the name is empty",
		"option -e has no place here: the configuration's keys say this",
		`argument "home/": only options may stand here`,
		"option --bwlimit has no place here: the configuration's keys say this",
		"option -z has no place here: the configuration's keys say this",
		"option --zc has no place here: the configuration's keys say this",
		"option --exclude needs a value",
		`filter rule "bogus": not a filter rule; it starts with one of + - . : H S P R ! or such a word`,
		`filter rule "- ": unexpected end of filter rule`,
		"option --max-delete: drsync cannot honour the value 0; leave the options of deletion away instead",
	}
	if err == nil {
		t.Fatal("no error")
	}
	if got := strings.Split(err.Error(), "\n"); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, line := range []string{"-v --del", "-a --no-r", "", "-a -- x", "-a -f", "-", "-a --"} {
		words, err := SplitLine(line)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(words); (err == nil) != (line == "-a --") {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestAddRules(t *testing.T) {
	c, err := Parse([]string{"-a", "--include=keep.o", "--exclude-from=list", "-f", ". more", "-0", "--exclude-from=nul", "-f", ". rules0", "-F", "-C", "--delete-excluded"})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"list": "*.o\n/work/\n", "more": "P mine\n", "nul": "a\nb\x00c", "rules0": "- q\nr\x00- s"}
	b := filter.NewBuilder()
	b.ReadFile = func(name string) ([]byte, error) {
		content, ok := files[name]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return []byte(content), nil
	}
	if err := c.AddRules(b); err != nil {
		t.Fatal(err)
	}
	rules, err := b.Rules(filter.Options{DeleteExcluded: c.Options.DeleteExcluded})
	if err != nil {
		t.Fatal(err)
	}
	if !rules.PerDirectory() {
		t.Error("-F did nothing")
	}
	for _, e := range []struct {
		name string
		dir  bool
		side filter.Side
		want bool
	}{
		{"keep.o", false, filter.Sender, false}, {"a.o", false, filter.Sender, true}, {"a.o", false, filter.Receiver, false},
		{"work", true, filter.Sender, true}, {"mine", false, filter.Receiver, true}, {"mine", false, filter.Sender, false},
		{"a\nb", false, filter.Sender, true}, {"c", false, filter.Sender, true}, {"q\nr", false, filter.Sender, true}, {"s", false, filter.Sender, true}, {"x.bak", false, filter.Sender, true},
	} {
		if got, why := rules.Root().Excluded(e.name, e.dir, e.side); got != e.want {
			t.Errorf("%q for side %d: %v because of %q", e.name, e.side, got, why)
		}
	}
	delete(files, "list")
	delete(files, "more")
	err = c.AddRules(b)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "--exclude-from=list: ") || !strings.Contains(err.Error(), `". more"`) {
		t.Errorf("missing files: %v", err)
	}
}

// Every option in rsync's help is in the table, with or without a value as it is there.
func TestTableKnowsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	help, err := exec.Command("rsync", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^(--?[A-Za-z0-9-]+)(=\S+)?((?:, --?[A-Za-z0-9@-]+)*)\s`)
	p := &parser{command: &Command{}, options: table()}
	seen := 0
	for text := range strings.Lines(string(help)) {
		m := line.FindStringSubmatch(text)
		if m == nil || m[1] == "--no-OPTION" {
			continue
		}
		for name := range strings.SplitSeq(m[1]+m[3], ", ") {
			seen++
			p.errs = nil
			var o *option
			if long, ok := strings.CutPrefix(name, "--"); ok {
				if _, off := strings.CutPrefix(long, "no-"); off {
					p.long(name, nil)
					if len(p.errs) > 0 && strings.Contains(p.errs[0].Error(), "unknown") {
						t.Errorf("%s is unknown", name)
					}
					continue
				}
				o = p.find(func(o *option) bool { return o.long == long || o.also == long })
			} else {
				o = p.find(func(o *option) bool { return o.short == name[1] })
			}
			switch {
			case o == nil && name != "-h":
				t.Errorf("%s is unknown", name)
			case o != nil && o.takes() != (m[2] != ""):
				t.Errorf("%s takes a value: %v", name, o.takes())
			}
		}
	}
	if seen < 150 {
		t.Errorf("read only %d options from rsync's help", seen)
	}
}

// What the table says of --no forms is what rsync accepts.
func TestNoFormsAreThoseOfRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	t.Parallel()
	for _, o := range table() {
		if o.ours {
			continue
		}
		name := "--no-" + o.long
		if o.long == "" {
			name = "--no-" + string(o.short)
		}
		text, _ := exec.Command("rsync", name, "--version").CombinedOutput()
		if known := !strings.Contains(string(text), "unknown option"); known != (o.no != nil) {
			t.Errorf("%s: rsync knows it: %v", name, known)
		}
	}
}

func TestSplitLine(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
	}{
		{"", nil}, {" \t\n", nil}, {"-vvah --del", []string{"-vvah", "--del"}},
		{`a'b c'd "e $x\"\\\n" f\ g ''`, []string{"ab cd", `e $x"\\n`, "f g", ""}},
		{"--exclude='*.o' --exclude=#* $HOME `id` a;b", []string{"--exclude=*.o", "--exclude=#*", "$HOME", "`id`", "a;b"}},
		{"a\\\nb \"c\\\nd\"", []string{"ab", "cd"}},
	} {
		got, err := SplitLine(c.line)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v, want %q", c.line, got, err, c.want)
		}
	}
	for _, line := range []string{`a'`, `"a\"`, `a\`} {
		if got, err := SplitLine(line); err == nil {
			t.Errorf("%q: %q", line, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"-vvah --del", "-a --exclude='a b' -f=-_x", `-aP --no-r "x`, "--no- -- -f", "-FFC --max-delete -1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words, err := SplitLine(line)
		if err != nil {
			return
		}
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
		}
		if again, err := SplitLine(strings.Join(quoted, " ")); err != nil || !slices.Equal(again, words) {
			t.Errorf("%q: %q, quoted %q, %v", line, words, again, err)
		}
		if c, err := Parse(words); err == nil && !c.Recursive {
			t.Errorf("%q was accepted", line)
		}
	})
}
