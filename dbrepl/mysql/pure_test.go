package mysql

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
)

func TestVersions(t *testing.T) {
	for version, want := range map[string]string{
		"10.11.6-MariaDB-1:10.11.6+maria~ubu2204-log": "MariaDB 10.11",
		"5.5.5-10.4.8-MariaDB":                        "MariaDB 10.4",
		"8.0.36":                                      "MySQL 8.0",
		"8.4.0-commercial":                            "MySQL 8.4",
		"8.0.35-27":                                   "MySQL 8.0",
		"11.4.2-MariaDB-ubu2404":                      "MariaDB 11.4",
	} {
		n, err := parseVersion(version)
		id := identity{MariaDB: isMariaDB(version), Number: n}
		if err != nil || id.series() != want {
			t.Errorf("%s is %s, %v; want %s", version, id.series(), err, want)
		}
	}
	for _, version := range []string{"", "x", "8", "a.b", ".."} {
		if n, err := parseVersion(version); err == nil {
			t.Errorf("%q is understood as %v", version, n)
		}
	}
	for _, c := range []struct {
		maria  bool
		number [3]int
		atomic bool
	}{
		{true, [3]int{10, 6, 0}, false}, {true, [3]int{10, 6, 1}, true}, {true, [3]int{11, 0, 0}, true}, {true, [3]int{10, 5, 99}, false},
		{false, [3]int{5, 7, 44}, false}, {false, [3]int{8, 0, 0}, true},
	} {
		if got := (identity{MariaDB: c.maria, Number: c.number}).atomicRename(); got != c.atomic {
			t.Errorf("%+v: atomic rename %v", c, got)
		}
	}
}

func TestServersMustMatch(t *testing.T) {
	good := identity{MariaDB: true, Number: [3]int{10, 11, 6}, LowerCase: "0", BinaryLog: true}
	e := &Engine{}
	for name, spoil := range map[string]func(*identity){
		"product": func(i *identity) { i.MariaDB, i.Number = false, [3]int{8, 0, 30} },
		"series":  func(i *identity) { i.Number[1] = 6 },
		"case":    func(i *identity) { i.LowerCase = "1" },
		"old":     func(i *identity) { i.Number = [3]int{10, 5, 1} },
	} {
		p := &pair{active: good, standby: good}
		e.compareServers(p)
		if err := dbrepl.Refuse(p.findings); err != nil {
			t.Fatal(err)
		}
		spoil(&p.standby)
		e.compareServers(p)
		if err := dbrepl.Refuse(p.findings); err == nil {
			t.Errorf("another %s is accepted", name)
		}
	}
}

func TestSpace(t *testing.T) {
	e := &Engine{opt: Options{Standby: Server{Address: "/run/s"}}}
	for size, want := range map[int64]int{0: 0, 1 << 62: 1} {
		p := &pair{standby: identity{Datadir: t.TempDir()}}
		e.inspectSpace(p, nil, contents{size: size})
		if len(p.findings) != want {
			t.Errorf("tables of %d bytes: %+v", size, p.findings)
		}
	}
	e.opt.Standby.Address = "far:3306"
	p := &pair{standby: identity{Datadir: t.TempDir()}}
	e.inspectSpace(p, nil, contents{size: 1 << 62})
	if p.findings != nil {
		t.Errorf("a directory of another host was looked at: %+v", p.findings)
	}
}

func TestPrivileges(t *testing.T) {
	for _, c := range []struct {
		lines     string
		privilege string
		schema    string
		want      bool
	}{
		{"GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION", "SELECT", "art", true},
		{"GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost`", "SET USER", "*", true},
		{"GRANT SELECT, SHOW VIEW ON `art`.* TO `u`@`%`", "SHOW VIEW", "art", true},
		{"GRANT SELECT, SHOW VIEW ON `art`.* TO `u`@`%`", "VIEW", "art", false},
		{"GRANT SELECT ON `art`.* TO `u`@`%`", "SELECT", "*", false},
		{"GRANT SELECT ON `art`.`t` TO `u`@`%`", "SELECT", "art", false},
		{"GRANT SELECT (`a`, `b`), INSERT ON `art`.* TO `u`@`%`", "SELECT", "art", false},
		{"GRANT SELECT (`a`, `b`), INSERT ON `art`.* TO `u`@`%`", "INSERT", "art", true},
		{`GRANT SELECT ON "art".* TO "u"@"%"`, "SELECT", "art", true},
		{"GRANT SELECT ON `a_t`.* TO `u`@`%`", "SELECT", "art", true},
		{"GRANT SELECT ON `a\\_t`.* TO `u`@`%`", "SELECT", "art", false},
		{"GRANT SELECT ON `a\\_t`.* TO `u`@`%`", "SELECT", "a_t", true},
		{"GRANT SELECT ON `a%`.* TO `u`@`%`", "SELECT", "art", true},
		{"GRANT SELECT ON `%x%`.* TO `u`@`%`", "SELECT", "art", false},
		{"GRANT ALL PRIVILEGES ON `art`.* TO `u`@`%`", "TRIGGER", "art", true},
		{"GRANT ALL PRIVILEGES ON `art`.* TO `u`@`%`", "SUPER", "*", false},
		{"GRANT USAGE ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*ABC ON `art`.* TO '", "SELECT", "art", false},
		{"GRANT `SELECT` TO `u`@`%`", "SELECT", "art", false},
		{"GRANT EXECUTE ON PROCEDURE `art`.`p` TO `u`@`%`", "EXECUTE", "art", false},
		{"GRANT PROXY ON ``@`%` TO `root`@`localhost`", "PROXY", "*", false},
		{"GRANT SELECT ON *.* TO `u`@`%`\nREVOKE SELECT ON `art`.* FROM `u`@`%`", "SELECT", "art", false},
		{"GRANT SELECT ON *.* TO `u`@`%`\nREVOKE SELECT ON `art`.* FROM `u`@`%`", "SELECT", "other", true},
		{"GRANT BACKUP_ADMIN,SET_USER_ID ON *.* TO `u`@`%`", "SET_USER_ID", "*", true},
		{"GRANT SELECT ON `a``t`.* TO `u`@`%`", "SELECT", "a`t", true},
	} {
		if got := privileges(parseGrants(strings.Split(c.lines, "\n"))).has(c.privilege, c.schema); got != c.want {
			t.Errorf("%s on %s by %s: %v", c.privilege, c.schema, c.lines, got)
		}
	}
}

func FuzzGrants(f *testing.F) {
	f.Add("GRANT SELECT (`a`), INSERT ON `a\\_%`.* TO `u`@`%`", "art")
	f.Add("REVOKE ALL PRIVILEGES ON *.* FROM `u`@`%`", "a")
	f.Fuzz(func(t *testing.T, line, schema string) {
		privileges(parseGrants([]string{line})).has("SELECT", schema)
		if pattern := unquote(asPattern(schema)); !likeMatch(pattern, schema) {
			t.Errorf("the pattern %q does not match %q", pattern, schema)
		}
		if schema != "" && likeMatch(unquote(asPattern(schema)), schema+"x") {
			t.Errorf("the pattern of %q matches more", schema)
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add([]byte(`{"format":1,"engine":"mysql-dump","name":"art","id":"x","charset":"utf8","collation":"utf8_bin","objects":[{"kind":"VIEW","name":"v","sql":"CREATE VIEW"}]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := parseToken(dbrepl.Token(data), "art")
		if err != nil {
			return
		}
		again, err := parseToken(g.token(), "art")
		if err != nil || fmt.Sprint(again) != fmt.Sprint(g) {
			t.Errorf("%s became %+v, %v", data, again, err)
		}
	})
}

// FuzzField reads fields back by LOAD DATA's own rules.
func FuzzField(f *testing.F) {
	f.Add([]byte("a\tb\\N\n\x00"), []byte("\\N"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if a == nil || b == nil {
			return
		}
		line := appendField(nil, a, plain)
		line = append(line, '\t')
		line = appendField(line, b, plain)
		line = append(line, '\n')
		fields := readLine(t, line)
		if len(fields) != 2 || !bytes.Equal(fields[0], a) || !bytes.Equal(fields[1], b) {
			t.Errorf("%q and %q came back as %q", a, b, fields)
		}
	})
}

func readLine(t *testing.T, line []byte) (fields [][]byte) {
	field := []byte{}
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case '\t', '\n':
			fields = append(fields, field)
			field = []byte{}
			if line[i] == '\n' && i != len(line)-1 {
				t.Errorf("%q is more than one line", line)
			}
		case '\\':
			i++
			switch line[i] {
			case 't':
				field = append(field, '\t')
			case 'n':
				field = append(field, '\n')
			case '0':
				field = append(field, 0)
			case 'N':
				t.Errorf("%q has a NULL", line)
			default:
				field = append(field, line[i])
			}
		default:
			field = append(field, line[i])
		}
	}
	return fields
}

func TestEventsAreDisabledInTheirDefinition(t *testing.T) {
	for in, want := range map[string]string{
		"CREATE DEFINER=`a`@`b` EVENT `e` ON SCHEDULE EVERY 1 HOUR ON COMPLETION NOT PRESERVE ENABLE DO x":                                                                                       "ENABLE",
		"CREATE DEFINER=`a`@`b` EVENT `e`` ON SCHEDULE y ON COMPLETION PRESERVE ENABLE` ON SCHEDULE AT 'x' ON COMPLETION PRESERVE DISABLE ON SLAVE COMMENT 'ON COMPLETION PRESERVE ENABLE' DO x": "DISABLE ON SLAVE",
	} {
		m := eventState.FindStringSubmatchIndex(in)
		if m == nil || in[m[4]:m[5]] != want {
			t.Errorf("%s: %v", in, m)
		}
	}
}
