package postgres

import (
	"bytes"
	"strings"
	"testing"
)

func TestNumberParameter(t *testing.T) {
	for query, want := range map[string]string{
		"SELECT 1 FROM t WHERE x = ?":                                    "SELECT 1 FROM t WHERE x = $3",
		"SELECT '?', \"?\" -- ?\n /* ? /* ? */ ? */ FROM t WHERE x=?":    "SELECT '?', \"?\" -- ?\n /* ? /* ? */ ? */ FROM t WHERE x=$3",
		"SELECT E'\\'?', 'it''s ?', $$ ? $$, $a$ $$ ? $a$ WHERE ? = a$b": "SELECT E'\\'?', 'it''s ?', $$ ? $$, $a$ $$ ? $a$ WHERE $3 = a$b",
		`SELECT '\' WHERE x = ?`:                                         `SELECT '\' WHERE x = $3`,
		"SELECT type'\\'?":                                               "SELECT type'\\'$3",
		"SELECT 1":                                                       "",
		"SELECT ? WHERE y = ?":                                           "",
		"SELECT '?":                                                      "",
		"SELECT /* ?":                                                    "",
		"SELECT $x$ ?":                                                   "",
	} {
		got, err := numberParameter(query, 3)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s\ngives %s, %v\nwant  %s", query, got, err, want)
		}
	}
}

func FuzzNumberParameter(f *testing.F) {
	f.Add("SELECT E'\\'?' FROM t WHERE x = ? -- ?")
	f.Fuzz(func(t *testing.T, query string) {
		got, err := numberParameter(query, 1)
		if err == nil && (len(got) != len(query)+1 || strings.Count(got, "?") != strings.Count(query, "?")-1) {
			t.Errorf("%q gives %q", query, got)
		}
	})
}

func TestAssignments(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"search_path", `""`, `"search_path" = E''`},
		{"search_path", ``, `"search_path" = E''`},
		{"search_path", `"$user", Public,"A ""b" , ""`, `"search_path" = E'$user', E'public', E'A "b', E''`},
		{"local_preload_libraries", `Auto, "it's"`, `"local_preload_libraries" = E'Auto', E'it''s'`},
		{"search_path", `"a`, `"search_path" = E'"a'`},
		{"search_path", `a b`, `"search_path" = E'a b'`},
		{"search_path", `a,`, `"search_path" = E'a,'`},
		{"DateStyle", `ISO, MDY`, `"DateStyle" = E'ISO, MDY'`},
		{"DateStyle", ``, `"DateStyle" = E''`},
		{"an.extension", `"x"`, `"an"."extension" = E'"x"'`},
	} {
		if got := (preset{Name: c.name, Value: c.value}).assignment(); got != c.want {
			t.Errorf("%s=%s is %s, want %s", c.name, c.value, got, c.want)
		}
	}
}

func TestPlaces(t *testing.T) {
	for address, want := range map[string]string{
		"db.example.com:5433":   "tcp db.example.com:5433",
		"[::1]:5432":            "tcp [::1]:5432",
		"/var/run/postgresql":   "unix /var/run/postgresql/.s.PGSQL.5432",
		"/var/run/postgresql/":  "unix /var/run/postgresql/.s.PGSQL.5432",
		"/srv/pg/.s.PGSQL.6000": "unix /srv/pg/.s.PGSQL.6000",
	} {
		network, addr := Server{Address: address}.Target()
		if got := network + " " + addr; got != want {
			t.Errorf("%s is %s, want %s", address, got, want)
		}
	}
}

func TestOptions(t *testing.T) {
	good := Options{Name: "artifactory", Scratch: "/var/lib/drsync/postgres", Active: Server{Address: "a:5432", User: "d"}, Standby: Server{Address: "/run", User: "d"}}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(o *Options){
		"name":     func(o *Options) { o.Name = "" },
		"own":      func(o *Options) { o.Name = "x" + newSuffix },
		"template": func(o *Options) { o.Name = "template1" },
		"long":     func(o *Options) { o.Name = strings.Repeat("x", 51) },
		"newline":  func(o *Options) { o.Name = "a\nb" },
		"user":     func(o *Options) { o.Active.User = "" },
		"address":  func(o *Options) { o.Standby.Address = "nowhere" },
		"port":     func(o *Options) { o.Standby.Address = "a:b" },
		"scratch":  func(o *Options) { o.Scratch = "x" },
	} {
		o := good
		spoil(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted %+v", name, o)
		}
	}
}

// The offer that a program on an unencrypted end would refuse is taken out, and
// nothing else is touched.
func TestWithoutBinding(t *testing.T) {
	const asks = "R\x00\x00\x00\x2a\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00"
	for in, want := range map[string]string{
		asks:                                "R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00",
		"v\x00\x00\x00\x05x" + asks:         "v\x00\x00\x00\x05xR\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00",
		"R\x00\x00\x00\x08\x00\x00\x00\x00": "R\x00\x00\x00\x08\x00\x00\x00\x00",
		"E\x00\x00\x00\x06ab":               "E\x00\x00\x00\x06ab",
	} {
		var out bytes.Buffer
		if err := withoutBinding(&out, strings.NewReader(in)); err != nil || out.String() != want {
			t.Errorf("%q gives %q, %v", in, out.String(), err)
		}
	}
	for _, bad := range []string{"", "R\x00\x00", "R\xff\xff\xff\xff", "R\x00\x00\x00\x00", "R\x00\x00\x00\x09ab"} {
		if err := withoutBinding(&bytes.Buffer{}, strings.NewReader(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add([]byte((&generation{Format: 1, Engine: tokenEngine, Name: "x", ID: "y"}).token()))
	f.Fuzz(func(t *testing.T, text []byte) {
		g, err := parseToken(text, "x")
		if err == nil {
			if _, err := parseToken(g.token(), "x"); err != nil {
				t.Error(err)
			}
		}
	})
}
