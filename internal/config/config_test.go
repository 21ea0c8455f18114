package config

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s differs (run with -update to accept):\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// parseSample parses as if the file lay in /etc/drsync.
func parseSample(t *testing.T, path string) (*Config, error) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return Parse("/etc/drsync/"+filepath.Base(path), data)
}

func samples(t *testing.T, pattern string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(all) == 0 {
		t.Fatal(pattern, err)
	}
	return all
}

func TestGoodSamples(t *testing.T) {
	for _, path := range samples(t, "good-*.yaml") {
		c, err := parseSample(t, path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		out, err := json.MarshalIndent(c, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, strings.TrimSuffix(path, ".yaml")+".golden", append(out, '\n'))
	}
}

func TestBadSamples(t *testing.T) {
	for _, path := range samples(t, "bad-*.yaml") {
		c, err := parseSample(t, path)
		if err == nil || c != nil {
			t.Errorf("%s: accepted", path)
			continue
		}
		var e *Error
		if !errors.As(err, &e) || len(e.Unwrap()) != len(e.Problems) {
			t.Errorf("%s: %T is no *Error", path, err)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the message shows a secret:\n%v", path, err)
		}
		golden(t, strings.TrimSuffix(path, ".yaml")+".golden", []byte(err.Error()+"\n"))
	}
}

// TestEveryFieldArrives compares the full sample with its values, and then
// demands that no field was left out of the comparison.
func TestEveryFieldArrives(t *testing.T) {
	got, err := parseSample(t, "testdata/good-full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	spec, err := ParseSchedule("*/15 * * * *")
	if err != nil {
		t.Fatal(err)
	}
	weekly, err := ParseSchedule("0 3 * * 7")
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		File: "/etc/drsync/good-full.yaml",
		Active: Active{Host: "active.example.com", User: "artifactory", Port: 2222, Identity: "/etc/drsync/id_ed25519",
			KnownHosts: "/etc/drsync/known_hosts", Home: "/var/opt/jfrog/artifactory", Transport: TransportAgent, Agent: []string{"sudo", "-n", "/usr/bin/drsync"}, Roots: []string{"/srv/filestore"}, Install: true, Bandwidth: 2560 << 10},
		Standby:     Standby{Home: "/srv/artifactory", State: "/srv/drsync", Filestore: []string{"/mnt/blobs"}},
		Application: Artifactory,
		Database: Database{Engine: EngineMySQL, Mode: ModeDump, Name: "artdb",
			Active:  Endpoint{Address: "127.0.0.1:3306", User: "drsync", Password: Secret{"file", "/etc/drsync/active.pw"}, Via: ViaSSH, TLS: TLSVerify, CA: "/etc/drsync/ca.pem"},
			Standby: Endpoint{Address: "/run/mysqld/mysqld.sock", User: "standby", Password: Secret{"env", "DRSYNC_STANDBY_PASSWORD"}, TLS: TLSOff}},
		Files: Files{Rsync: []string{"-vvah", "--del", "--exclude=a b"}, Exclude: []string{"/work/", "/data/tmp*/"},
			ExcludeFrom: "/etc/drsync/rsync-excludes.txt", LogFile: "/var/log/drsync/replication.log"},
		Schedule:  spec,
		RPO:       30 * time.Minute,
		Verify:    Verify{Database: weekly},
		Snapshots: Snapshots{KeepLast: 4, KeepDaily: 7, KeepWeekly: 5, KeepMonthly: 12, Dumps: true},
		Prune:     Prune{MinAge: 48 * time.Hour, MaxFraction: 0.025, Quarantine: 7 * 24 * time.Hour},
		Failover:  Failover{Service: Service{Start: []string{"systemctl", "start", "artifactory.service"}, Timeout: 90 * time.Second}},
	}
	want.source, got.source = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	elsewhere := []string{"Database.Active.Path", "Database.Standby.Path", "Database.Standby.Via", "Database.Standby.CA",
		"Database.Replication.Address", "Database.Replication.User", "Database.Replication.Password", "Database.Replication.TLS", "Database.Replication.CA", "Database.Replication.Continuous",
		"Database.Replica.DataDirectory", "Database.Replica.Account", "Database.Replica.Slot", "Database.Replica.Start", "Database.Replica.Stop"}
	noZero(t, "", reflect.ValueOf(*want), elsewhere)

	lite, err := parseSample(t, "testdata/good-sqlite-local.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if d := lite.Database; d.Active.Path != "/srv/active/app.db" || d.Standby.Path != "/srv/standby/app.db" {
		t.Errorf("sqlite paths: %+v", d)
	}
	if p := lite.Prune; p != (Prune{MaxFraction: 1}) {
		t.Errorf("explicit zeros: %+v", p)
	}
	replicated, err := parseSample(t, "testdata/good-replication.yaml")
	if err != nil {
		t.Fatal(err)
	}
	through := Replication{Address: "active.example.com:3306", User: "drsync_replication", Password: Secret{"file", "/etc/drsync/replication.pw"}, TLS: TLSVerify, CA: "/etc/drsync/active-ca.pem", Continuous: true}
	if d := replicated.Database; d.Mode != ModeReplication || d.Replication != through {
		t.Errorf("replication: %+v", d)
	}
	followed, err := parseSample(t, "testdata/good-postgres-replication.yaml")
	if err != nil {
		t.Fatal(err)
	}
	how := Replica{DataDirectory: "/var/lib/postgresql/15/main", Account: "pg", Slot: "standby_1",
		Start: []string{"systemctl", "start", "postgresql@15-main"}, Stop: []string{"systemctl", "stop", "postgresql@15-main"}}
	if d := followed.Database; d.Mode != ModeReplication || !reflect.DeepEqual(d.Replica, how) {
		t.Errorf("replication: %+v", d)
	}
	verify, err := Parse("x.yaml", []byte(mysqlWith(`standby: {address: "db:3306", user: u, tls: verify, ca: /ca.pem}`)))
	if err != nil {
		t.Fatal(err)
	}
	if e := verify.Database.Standby; e.TLS != TLSVerify || e.CA != "/ca.pem" {
		t.Errorf("standby TLS: %+v", e)
	}
}

func mysqlWith(standby string) string {
	return "active: {host: a, home: /srv/a}\nstandby: {home: /srv/a}\napplication: artifactory\n" +
		"database:\n  engine: mysql\n  name: a\n  active: {address: \"127.0.0.1:3306\", user: u}\n  " + standby + "\n"
}

// Through SSH nothing is in clear, wherever the server listens.
func TestTunnelNeedsNoTLS(t *testing.T) {
	text := strings.Replace(mysqlWith("standby: {address: /s, user: u}"), "127.0.0.1:3306", "db.internal:3306", 1)
	c, err := Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if e := c.Database.Active; e.Via != ViaSSH || e.TLS != TLSOff || e.Address != "db.internal:3306" {
		t.Errorf("%+v", e)
	}
	if _, err := Parse("x.yaml", []byte(strings.Replace(text, "user: u}", "user: u, via: direct}", 1))); err == nil {
		t.Error("direct to another host without a word about TLS was accepted")
	}
}

func noZero(t *testing.T, path string, v reflect.Value, except []string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := strings.TrimPrefix(path+"."+f.Name, ".")
		if !f.IsExported() || slices.Contains(except, name) {
			continue
		}
		if v.Field(i).Kind() == reflect.Struct && f.Type != reflect.TypeFor[Secret]() && f.Type != reflect.TypeFor[Schedule]() {
			noZero(t, name, v.Field(i), except)
		} else if v.Field(i).IsZero() {
			t.Errorf("no test shows that %s arrives", name)
		}
	}
}

func TestDefaults(t *testing.T) {
	c, err := parseSample(t, "testdata/good-minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.Active.Transport != TransportAgent || !slices.Equal(c.Active.Agent, []string{"drsync"}) || c.Standby.State != "/var/lib/drsync" {
		t.Errorf("hosts: %+v %+v", c.Active, c.Standby)
	}
	if c.Snapshots != (Snapshots{KeepLast: 3}) || c.Prune != (Prune{24 * time.Hour, 0.05, 7 * 24 * time.Hour}) {
		t.Errorf("retention: %+v %+v", c.Snapshots, c.Prune)
	}
	if !slices.Equal(c.Files.Rsync, []string{"-a", "--del"}) || !c.Schedule.IsZero() || c.RPO != 0 || c.Failover.Service.Start != nil {
		t.Errorf("rest: %+v", c)
	}
	direct, err := parseSample(t, "testdata/good-direct.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if direct.Active.Agent != nil || direct.Database.Active.Via != ViaDirect || direct.Database.Standby.TLS != TLSOff || direct.Database.Mode != ModeDump {
		t.Errorf("direct: %+v", direct)
	}
}

// TestKeyTables holds the list of harmless keys against what the decoder asks for.
func TestKeyTables(t *testing.T) {
	if !slices.IsSorted(harmlessKeys) {
		t.Error("harmlessKeys is not sorted")
	}
	if slices.Contains(harmlessKeys, secretKey) {
		t.Error("password is not harmless")
	}
	asked := map[string]bool{}
	for _, engine := range []string{"mysql", "postgres", "sqlite", "none"} {
		r := &reader{source: newSource("x", nil)}
		s := recordAll(r, asked)
		s.values["engine"] = stringNode(t, engine)
		database(s, TransportAgent)
		collect(s, asked)
	}
	for _, decode := range []func(*section){
		func(s *section) { active(s) }, func(s *section) { standby(s) }, func(s *section) { files(s) },
		func(s *section) { snapshots(s) }, func(s *section) { prune(s) }, func(s *section) { failover(s) },
		func(s *section) { service(s) }, func(s *section) { sqliteEndpoint(s) },
		func(s *section) { mysqlReplication(s) },
		func(s *section) { serverEndpoint(s, EngineMySQL, TransportAgent, true) }, func(s *section) { (&Config{}).decode(s) },
	} {
		s := recordAll(&reader{source: newSource("x", nil)}, asked)
		decode(s)
		collect(s, asked)
	}
	delete(asked, secretKey)
	for key := range asked {
		if !slices.Contains(harmlessKeys, key) {
			t.Errorf("%s is missing in harmlessKeys", key)
		}
	}
	for _, key := range harmlessKeys {
		if !asked[key] {
			t.Errorf("%s is no key of the format", key)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "drsync.yaml")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	data, err := os.ReadFile("testdata/good-full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "rsync-excludes.txt"); c.Files.ExcludeFrom != want {
		t.Errorf("relative path: %s, want %s", c.Files.ExcludeFrom, want)
	}
	err = c.Problem("files.rsync", errors.New("unknown option --dell"))
	if want := path + ":26: files.rsync: unknown option --dell\n    26 | rsync: \"-vvah --del --exclude='a b'\""; err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("#", MaxSize+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("long file: %v", err)
	}
}

func TestDeepNesting(t *testing.T) {
	for _, text := range []string{strings.Repeat("[", MaxSize-1), "a: " + strings.Repeat("{a: ", 10000), strings.Repeat("- ", 30000), strings.Repeat("? ", 30000)} {
		if _, err := Parse("x", []byte(text)); err == nil || !strings.Contains(err.Error(), "deeply") {
			t.Errorf("%.10s…: %v", text, err)
		}
	}
}

// TestSecretsNeverShown breaks a file with literal secrets in every way that
// one lost or added byte can, and looks for the secret in the message.
func TestSecretsNeverShown(t *testing.T) {
	const secret = "hunter2"
	texts := []string{
		mysqlWith("standby: {address: /s, user: u, password: " + secret + "}"),
		mysqlWith("standby: {password: \"" + secret + "\", address: /s, user: u}"),
		mysqlWith("standby:\n    address: /s\n    user: u\n    password: '" + secret + "'"),
		mysqlWith("standby:\n    address: /s\n    user: u\n    password: |\n      " + secret + "\n    via: x"),
		mysqlWith("standby:\n    address: /s\n    pw:\n      " + secret + "\n    user: u"),
		mysqlWith("standby:\n    address: /s\n    password:\n      " + secret + "\n    user: u"),
	}
	shown := 0
	check := func(text string) {
		if _, err := Parse("x.yaml", []byte(text)); err != nil && strings.Contains(err.Error(), secret) {
			if shown++; shown > 20 {
				t.Fatal("and more")
			}
			t.Errorf("%s\nshows the secret:\n%v", text, err)
		}
	}
	for _, text := range texts {
		if _, err := Parse("x.yaml", []byte(text)); err == nil {
			t.Error("a literal secret was accepted")
		}
		from := strings.Index(text, "  standby:")
		at := strings.Index(text, secret)
		for i := from; i < len(text); i++ {
			if i > at && i < at+len(secret) {
				continue
			}
			check(text[:i] + text[i+1:])
			for _, c := range "\n \t:#[]{}-,\"'|x" {
				check(text[:i] + string(c) + text[i:])
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good-*.yaml", "testdata/bad-*.yaml"} {
		all, _ := filepath.Glob(pattern)
		for _, path := range all {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("x.yaml", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v and %v", c, err)
		}
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || len(e.Problems) == 0 {
				t.Fatalf("%T %v", err, err)
			}
			for _, p := range e.Problems {
				if p.Line < 1 || strings.ContainsAny(p.Source, "\n\x1b\x00") {
					t.Fatalf("%+v", p)
				}
			}
			return
		}
		if c.Active.Home == "" || c.Standby.Home == "" || c.Standby.State == "" || c.Snapshots.KeepLast < 1 || c.Application == "" || c.Database.Engine == "" {
			t.Fatalf("accepted without what a run needs: %+v", c)
		}
	})
}
