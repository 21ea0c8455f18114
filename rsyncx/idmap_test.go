package rsyncx

import (
	"testing"
)

func TestParseIDMap(t *testing.T) {
	for _, text := range []string{"x", "x:", "1-:bin", "1-2-3:bin", "r*,b:bin", ",:bin", "root:bin,", "99999999999:bin", "1x:bin", "4294967295:0", ":4294967295"} {
		if maps, err := ParseIDMap(text); err == nil {
			t.Errorf("%q became %+v", text, maps)
		}
	}
	maps, err := ParseIDMap("0-99:5,wayne:6,w*:7,:8,*:9")
	if err != nil {
		t.Fatal(err)
	}
	ids := ownerIDs{userMap: maps, rootUser: "root"}
	for _, c := range []struct {
		id   uint32
		name string
		want uint32
	}{{0, "", 5}, {99, "x", 5}, {100, "wayne", 6}, {100, "wanda", 7}, {100, "", 8}, {100, "other", 9}} {
		if got := ids.user(c.id, c.name); got != c.want {
			t.Errorf("%d %q became %d, want %d", c.id, c.name, got, c.want)
		}
	}
	ids.numeric = true
	if got := ids.user(100, "wayne"); got != 8 {
		t.Errorf("a number alone became %d, want 8", got)
	}
	if _, err := newOwnerIDs(&Options{UserMap: []IDMap{{Wildcard: true, ToName: "nobody has this name"}}}); err == nil {
		t.Error("an unknown name was mapped to")
	}
}

func FuzzParseIDMap(f *testing.F) {
	for _, seed := range []string{"0-99:nobody,wayne:admin,*:normal", ":1", "[a-c]?:2", "5-2:3"} {
		f.Add(seed, uint32(7), "wayne")
	}
	f.Fuzz(func(t *testing.T, text string, id uint32, name string) {
		maps, err := ParseIDMap(text)
		if err != nil {
			return
		}
		for i := range maps {
			maps[i].matches(id, name)
		}
	})
}
