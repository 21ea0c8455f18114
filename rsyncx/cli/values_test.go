package cli

import (
	"reflect"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/rsyncx"
)

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		text string
		unit byte
		want int64 // -1 is an error
	}{
		{"0", 'B', 0}, {"17", 'B', 17}, {"17b", 'B', 17}, {"1k", 'B', 1024}, {"1K", 'B', 1024}, {"1KiB", 'B', 1024}, {"1kb", 'B', 1000},
		{"1.5m", 'B', 1572864}, {"1.5mb-1", 'B', 1499999}, {"2g+1", 'B', 2147483649}, {"3", 'K', 3072}, {"1.5", 'K', 1536}, {"2t", 'B', 2 << 40},
		{"8192P-1", 'B', -1}, {"", 'B', -1}, {"x", 'B', -1}, {"1z", 'B', -1}, {"1kx", 'B', -1}, {"-1", 'B', -1}, {"1bb", 'B', -1}, {"1k+2", 'B', -1}, {"1.2.3", 'B', -1},
	} {
		got, err := size(c.text, c.unit)
		if (err != nil) != (c.want < 0) || err == nil && got != c.want {
			t.Errorf("%q: %d, %v, want %d", c.text, got, err, c.want)
		}
	}
}

func TestIDMaps(t *testing.T) {
	c, err := ParseLine([]string{"--usermap=0-99:root,wayne:7,:0,*:1", "--groupmap=5:root", "-r", "a", "b"})
	want := []rsyncx.IDMap{{Lo: 0, Hi: 99, ToName: "root"}, {Name: "wayne", To: 7}, {Unnamed: true, To: 0}, {Wildcard: true, To: 1}}
	if err != nil || !reflect.DeepEqual(c.Options.UserMap, want) || !c.Options.Owner || !c.Options.Group || len(c.Options.GroupMap) != 1 {
		t.Errorf("%v %+v", err, c.Options)
	}
	c, err = ParseLine([]string{"-r", "--chown=root:7", "a", "b"})
	if err != nil || !reflect.DeepEqual(c.Options.UserMap, []rsyncx.IDMap{{Wildcard: true, ToName: "root"}}) || !reflect.DeepEqual(c.Options.GroupMap, []rsyncx.IDMap{{Wildcard: true, To: 7}}) {
		t.Errorf("%v %+v", err, c.Options)
	}
	for _, bad := range []string{"--usermap=a", "--usermap=5-2:0", "--usermap=a:", "--usermap=1:99999999999"} {
		if _, err := ParseLine([]string{"-r", bad, "a", "b"}); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	c, err = ParseLine([]string{"-r", "--usermap=a:no such user,*:7", "--groupmap=*:no such group", "a", "b"})
	if err != nil || len(c.Options.UserMap) != 1 || len(c.Options.GroupMap) != 0 || !c.Options.Group ||
		!reflect.DeepEqual(c.Warnings, []string{"Unknown --usermap name on receiver: no such user", "Unknown --groupmap name on receiver: no such group"}) {
		t.Errorf("%v %+v", err, c)
	}
	if _, err := ParseLine([]string{"-r", "--chown=root", "--usermap=1:2", "a", "b"}); err == nil {
		t.Error("two mappings were taken")
	}
}

func TestLevels(t *testing.T) {
	for _, c := range []struct {
		line, name string
		want       int
	}{
		{"", "NAME", 0}, {"-v", "NAME", 1}, {"-vv", "NAME", 2}, {"-vvvv", "NAME", 2}, {"", "NONREG", 1}, {"--progress", "NAME", 1}, {"--progress", "FLIST", 2},
		{"-v --info=name0", "NAME", 0}, {"--info=all", "SKIP", 1}, {"--info=ALL4", "STATS", 3}, {"-vv --info=none", "DEL", 0}, {"--stats", "STATS", 2},
		{"-v", "STATS", 1}, {"--info=progress2,name", "PROGRESS", 2}, {"-q -v", "NAME", 0},
	} {
		got, err := ParseLine(append(strings.Fields(c.line), "a", "b"))
		if err != nil || got.Info(c.name) != c.want {
			t.Errorf("%s: %s is %d, %v, want %d", c.line, c.name, got.Info(c.name), err, c.want)
		}
	}
	for _, bad := range []string{"--info=nope", "--debug=nope", "--info=name99999999999999999999"} {
		if _, err := ParseLine([]string{bad, "a", "b"}); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	c, err := ParseLine([]string{"--debug=filter", "a", "b"})
	if err != nil || c.Debug("FILTER") != 1 || c.Info("DEL") != 0 {
		t.Errorf("%v", err)
	}
}

func TestFormats(t *testing.T) {
	e := change(">f+++++++++", "d/a", "")
	e.Entry = event.Entry{Mode: 0o100644, Size: 1234567, UID: 3, GID: 4}
	e.Bytes = 1234567
	c := Command{From: "src/"}
	if got := c.change("%U %G", e); got != "0 DEFAULT" { // neither is carried over
		t.Error(got)
	}
	c.Options.Owner, c.Options.Group = true, true
	for _, x := range []struct{ format, want string }{
		{"%i %n%L", ">f+++++++++ d/a"}, {"[%-5n][%5n]", "[d/a  ][  d/a]"}, {"%l %'l %''l %b", "1234567 1,234,567 1.23M 1234567"},
		{"%o %B %U %G %m%%", "send rw-r--r-- 3 4 %"}, {"%f", "src/d/a"}, {"%z %h %a %P %u %", "%z %h %a %P %u %"}, {"%-9999999999999n|", "d/a" + strings.Repeat(" ", maxWidth-3) + "|"},
	} {
		if got := c.change(x.format, e); got != x.want {
			t.Errorf("%q: %q, want %q", x.format, got, x.want)
		}
	}
	c.Remote = true
	if got := c.change("%o", e) + c.change(" %o %f", change(deleting, "x", "")); got != "recv del. x" {
		t.Error(got)
	}
	if !has("a%-20i", 'i') || has("a%%i", 'i') {
		t.Error("has is wrong")
	}
}

func FuzzFormat(f *testing.F) {
	for _, s := range []string{"%i %n%L", "%''-20l", "%", "%-", "%%%", "%9999999l"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, format string) {
		c := Command{}
		if got := c.change(format, change(">f+++++++++", "a", "")); !strings.Contains(format, "%") && got != format {
			t.Errorf("%q became %q", format, got)
		}
	})
}

// A name stays one line whatever is in it.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		name, plain, eight string
	}{
		{"a b", "a b", "a b"}, {"a\tb", "a\tb", "a\tb"}, {"a\nb", `a\#012b`, `a\#012b`}, {"\xe9", `\#351`, "\xe9"}, {"é", "é", "é"}, {`\#1`, `\#134#1`, `\#134#1`}, {"\x7f", `\#177`, `\#177`},
	} {
		if got := (&Command{}).name(c.name); got != c.plain {
			t.Errorf("%q: %q, want %q", c.name, got, c.plain)
		}
		if got := (&Command{EightBit: true}).name(c.name); got != c.eight {
			t.Errorf("-8 %q: %q, want %q", c.name, got, c.eight)
		}
	}
}

// An option is carried out or refused with a reason, and explained either way.
func TestEveryOptionIsExplained(t *testing.T) {
	for _, o := range table() {
		if (o.do == nil) == (o.why == "") || o.do != nil && o.help == "" {
			t.Errorf("%s: help %q, why %q", o.names(), o.help, o.why)
		}
		if !strings.Contains(OptionHelp()+RefusedHelp(), o.names()) {
			t.Errorf("%s is in no help", o.names())
		}
	}
}

func FuzzParseLine(f *testing.F) {
	for _, s := range []string{"-vvah\x00--del", "-a\x00--chmod=Dg+s", "--usermap=1-2:3,*:4", "--max-size=1.5m-1", "--info=name2,progress2", "-T\x00x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, err := ParseLine(strings.Split(line, "\x00"))
		if err == nil && c.Options.Delete && !c.Recursive && !c.Dirs {
			t.Errorf("%q deletes without a walk", line)
		}
	})
}

// What drsync cannot do is said, by the name of the option.
func TestRefusedValues(t *testing.T) {
	for _, line := range []string{
		"--out-format=%n_%c", "--log-file-format=%-5c", "--skip-compress=gz", "-yy --link-dest=x", "-y -y --copy-dest=x",
	} {
		_, err := ParseLine(append(strings.Fields(line), "a", "b"))
		if err == nil || !strings.Contains(err.Error(), "cannot honour") {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, line := range []string{"--out-format=%n_%b", "--out-format=%%c", "--compress-level=0", "--zl=1", "-yy", "-y --link-dest=x", "-y --no-y -y --link-dest=x"} {
		if _, err := ParseLine(append(strings.Fields(line), "a", "b")); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// The level of the line is one of those that there are, whatever stands beside it.
func TestCompressLevel(t *testing.T) {
	for line, want := range map[string]Compress{
		"-z": CompressAlways, "--zl=2": CompressAlways, "--zl=-3": CompressAlways, "--zl=3": CompressDefault, "--zl=5 -z": CompressDefault, "-z --zl=6": CompressBetter, "--zl=9": CompressBetter,
		"--zl=10": CompressBest, "--zl=22": CompressBest, "--zl=99 --zc=zstd": CompressBest, "--zl=0": CompressNever, "--zl=9 --no-z": CompressNever, "--zl=9 --zc=none": CompressNever, "": CompressAuto,
	} {
		c, err := ParseLine(append(strings.Fields(line), "a", "b"))
		if err != nil || c.Compress != want {
			t.Errorf("%s: %d, want %d; %v", line, c.Compress, want, err)
		}
	}
}
