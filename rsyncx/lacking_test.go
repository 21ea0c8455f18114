package rsyncx

import (
	"slices"
	"testing"
)

// TestLacking: each loss is said once, and only when what is lost was asked for.
func TestLacking(t *testing.T) {
	all := Abilities{Nanoseconds: true, OwnerNames: true, HardLinks: true, Devices: true, Xattrs: true, Sums: true, Holes: true}
	for name, c := range map[string]struct {
		can  func(*Abilities)
		ask  func(*Options)
		want []string
	}{
		"times":  {func(a *Abilities) { a.Nanoseconds = false }, func(o *Options) { o.Times = true }, []string{"modification times are known in whole seconds only: the source has no finer ones"}},
		"owners": {func(a *Abilities) { a.OwnerNames = false }, func(o *Options) { o.Group = true }, []string{"owners were carried by number: the source does not know their names"}},
		"links":  {func(a *Abilities) { a.HardLinks = false }, func(o *Options) { o.HardLinks = true }, []string{"hard links became separate files: the source cannot tell them"}},
		"holes":  {func(a *Abilities) { a.Holes = false }, func(o *Options) { o.Sparse = true }, []string{"holes were read as zeros and made anew from those: the source does not tell them"}},
		"sums":   {func(a *Abilities) { a.Sums = false }, func(o *Options) { o.Checksum = true }, []string{"files were read in full to compare them: the source makes no sums"}},
		"moves": {func(a *Abilities) { a.Sums = false }, func(o *Options) { o.Renames, o.Fuzzy = true, true },
			[]string{"files of another name did not spare reading any: the source makes no sums"}},
		"halves": {func(a *Abilities) { a.Sums = false }, func(o *Options) { o.PartialDir = "p" },
			[]string{"half files of the partial directory were not gone on with: the source makes no sums"}},
		"xattrs": {func(a *Abilities) { a.Xattrs = false }, func(o *Options) { o.Xattrs = true }, []string{"extended attributes and access control lists were left as they are: the source does not tell them"}},
		"ACLs":   {func(a *Abilities) { a.Xattrs = false }, func(o *Options) { o.ACLs = true }, []string{"extended attributes and access control lists were left as they are: the source does not tell them"}},
	} {
		for _, asked := range []bool{false, true} {
			can := all
			c.can(&can)
			s := &stager{can: can}
			want := []string{}
			if asked {
				c.ask(&s.o)
				want = c.want
			}
			if s.lacking(); !slices.Equal(s.notes.lines(), want) {
				t.Errorf("%s, asked for: %v: %q", name, asked, s.notes.lines())
			}
		}
	}
}

// TestLackingSumsOnce: that there is no delta is said once, and not where none would be.
func TestLackingSumsOnce(t *testing.T) {
	old := map[string][]byte{"a": noise(1, 100_000), "b": noise(2, 100_000), "short": []byte("x")}
	for whole, want := range map[bool]int{false: 1, true: 0} {
		_, src, dst := pair(t, old, map[string][]byte{"a": noise(3, 100_000), "b": noise(4, 100_000), "short": []byte("xy")})
		o := Archive()
		o.WholeFile = whole
		stats, err := Sync(t.Context(), withoutSums{Source: src}, dst, o)
		must(t, err)
		if len(stats.Notes) != want {
			t.Errorf("WholeFile %v: %q", whole, stats.Notes)
		}
	}
}
