package status

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/internal/snapshot"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
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

var now = time.Date(2026, 11, 21, 20, 30, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// record is a complete snapshot of d before now, the active's clock 2 s ahead.
func record(d time.Duration, change ...func(*snapshot.Record)) snapshot.Record {
	r := snapshot.Record{
		Format: 1, ID: snapshot.IDFor(ago(d)), Time: ago(d), Published: ago(d - time.Minute), Complete: true, Epoch: 3,
		Source:    snapshot.Source{Host: "active.example.com", Home: "/var/opt/jfrog/artifactory", Transport: "agent"},
		Clock:     snapshot.Clock{Measured: true, Skew: 2, Error: 0.004},
		Databases: []snapshot.Database{{Engine: "mysql", Mode: "dump", Name: "art", Server: "MariaDB 10.11.19", Time: ago(d), Position: "0-1-4711", Tables: 42, Rows: 120400, Bytes: 34 << 20}},
		BlobSets:  []snapshot.BlobSet{{Name: "filestore", Named: 5000, NamedBytes: 12 << 30, Copied: 12, CopiedBytes: 3 << 20}},
		Trees:     []snapshot.Tree{{Path: "home", Files: 310, Bytes: 1 << 20, Transferred: 2, TransferredBytes: 4096, Deleted: 1}},
		Steps:     []snapshot.Step{{Name: "capture", Seconds: 12.5}, {Name: "copy", Seconds: 31}, {Name: "publish", Seconds: 0.25}},
		Version:   "1.0.0",
	}
	for _, c := range change {
		c(&r)
	}
	return r
}

func incomplete(r *snapshot.Record) {
	r.Complete = false
	r.BlobSets[0].Missing = 2
	r.Missing = []snapshot.Missing{{Set: "filestore", Sum: blob.Sum(strings.Repeat("ab", 20)), Size: 1500, Reason: snapshot.ReasonCollected,
		Paths: []string{"libs-release/org/a/1.0/a-1.0.jar", "evil\x1b[2J\nname"}, MorePaths: 3}}
	r.Warnings = []string{"owners are not kept: not root"}
}

func base(change ...func(*Input)) Input {
	in := Input{
		Now: now, Host: "standby", Version: "1.0.0", RPO: 30 * time.Minute,
		Role:      role.State{Format: 1, Role: role.Standby, Epoch: 3, Since: ago(48 * time.Hour)},
		Snapshots: []snapshot.Record{record(12 * time.Minute), record(27 * time.Minute)},
		NextRun:   now.Add(3 * time.Minute),
		Prune:     &Prune{Last: ago(11 * time.Minute), QuarantinedFiles: 12, QuarantinedBytes: 3 << 20},
	}
	for _, c := range change {
		c(&in)
	}
	return in
}

var cases = []struct {
	name string
	in   Input
	code int
	can  bool
	loss float64 // seconds; -1 for none
}{
	{"good", base(), OK, true, 722},
	{"fresh", Input{Now: now, Host: "standby", Role: role.State{Role: role.Standby}}, Critical, false, -1},
	{"late", base(func(in *Input) { in.Snapshots = []snapshot.Record{record(45 * time.Minute)} }), Warning, true, 2702},
	{"very-late", base(func(in *Input) { in.Snapshots = []snapshot.Record{record(3 * time.Hour)} }), Critical, true, 10802},
	{"no-target", base(func(in *Input) { in.RPO = 0; in.Snapshots = []snapshot.Record{record(90 * 24 * time.Hour)} }), OK, true, 7776002},
	{"exactly-on-target", base(func(in *Input) {
		in.Snapshots = []snapshot.Record{record(30*time.Minute, func(r *snapshot.Record) { r.Clock = snapshot.Clock{} })}
	}), OK, true, 1800},
	{"incomplete", base(func(in *Input) { in.Snapshots = []snapshot.Record{record(12*time.Minute, incomplete)} }), Warning, true, 722},
	{"incomplete-tree", base(func(in *Input) {
		in.Snapshots = []snapshot.Record{record(12*time.Minute, func(r *snapshot.Record) { r.Complete = false })}
	}), Warning, true, 722},
	{"running", base(func(in *Input) {
		in.Holder = &role.Holder{PID: 4570, Command: "drsync now\x1b[2J", Since: ago(125 * time.Second)}
	}), OK, true, 722},
	{"publishing", base(func(in *Input) {
		in.Holder = &role.Holder{PID: 4570, Command: "drsync now", Since: ago(125 * time.Second)}
		in.Publish = &Publish{ID: "20261121T202800Z", Time: ago(2 * time.Minute)}
	}), OK, true, 722},
	{"interrupted", base(func(in *Input) { in.Publish = &Publish{ID: "20261121T202800Z", Time: ago(2 * time.Minute)} }), Warning, true, 122},
	{"interrupted-first", base(func(in *Input) {
		in.Snapshots = nil
		in.Publish = &Publish{ID: "20261121T202800Z", Time: ago(2 * time.Minute)}
	}), Warning, true, 120},
	{"unfinishable", base(func(in *Input) {
		in.Publish = &Publish{ID: "20261121T202800Z", Time: ago(2 * time.Minute), Failure: "publish the database: connection refused | twice", Failed: ago(time.Minute)}
	}), Critical, false, 122},
	{"unfinishable-tried-again", base(func(in *Input) {
		in.Holder = &role.Holder{PID: 4570, Command: "drsync now", Since: ago(125 * time.Second)}
		in.Publish = &Publish{ID: "20261121T202800Z", Time: ago(2 * time.Minute), Failure: "publish the database: connection refused", Failed: ago(time.Minute)}
	}), OK, true, 722},
	{"active", base(func(in *Input) { in.Role.Role = role.Active; in.NextRun = time.Time{} }), OK, false, -1},
	{"promotion-interrupted", base(func(in *Input) { in.Role.Role = role.Promoting }), Critical, true, 722},
	{"promotion-running", base(func(in *Input) {
		in.Role.Role = role.Promoting
		in.Holder = &role.Holder{PID: 1, Command: "drsync failover", Since: ago(time.Second)}
	}), Warning, true, 722},
	{"unreadable", base(func(in *Input) {
		in.Unreadable = []string{"read role: /var/lib/drsync/role.json: unknown role \"x|y\"", "list snapshots: permission denied"}
		in.Role, in.Snapshots = role.State{}, nil
	}), Unknown, false, -1},
	{"clock-unknown", base(func(in *Input) {
		in.Snapshots = []snapshot.Record{record(12*time.Minute, func(r *snapshot.Record) { r.Clock = snapshot.Clock{Skew: 99} })}
	}), OK, true, 720},
	// 1 s ahead is within what clocks differ; an hour is not, and then only this host's clock counts.
	{"just-now", base(func(in *Input) { in.Snapshots = []snapshot.Record{record(-3 * time.Second)} }), OK, true, 0},
	{"from-the-future", base(func(in *Input) {
		in.Snapshots = []snapshot.Record{record(-time.Hour, func(r *snapshot.Record) { r.Published = ago(5 * time.Minute) })}
		in.NextRun = ago(time.Minute)
	}), Warning, true, 300},
	{"from-the-future-unmeasured", base(func(in *Input) {
		in.Snapshots = []snapshot.Record{record(-time.Hour, func(r *snapshot.Record) { r.Published, r.Clock = ago(40*time.Minute), snapshot.Clock{} })}
	}), Warning, true, 2400},
	{"verified", base(func(in *Input) {
		in.Verify = &Verify{Last: ago(26 * time.Hour), Snapshot: "20261120T183000Z", Equal: ago(26 * time.Hour)}
		in.VerifyBy = now.Add(time.Hour)
	}), OK, true, 722},
	{"verify-overdue", base(func(in *Input) {
		in.Verify = &Verify{Last: ago(15 * 24 * time.Hour), Snapshot: "20261106T203000Z", Equal: ago(15 * 24 * time.Hour)}
		in.VerifyBy = ago(24 * time.Hour)
	}), Warning, true, 722},
	{"differs", base(func(in *Input) {
		in.Verify = &Verify{Last: ago(time.Hour), Snapshot: "20261121T193000Z", Difference: "verify database art: the database differs from the active's: t from 'x\x1b[2J'", Equal: ago(26 * time.Hour)}
		in.VerifyBy = now.Add(time.Hour)
	}), Critical, true, 722},
	// The active's clock was set back: T fell, but the later publish is what is there.
	{"clock-set-back", base(func(in *Input) {
		in.Snapshots = []snapshot.Record{record(10 * time.Minute), record(70*time.Minute, func(r *snapshot.Record) { r.Published = ago(time.Minute) })}
	}), Critical, true, 4202},
}

func TestStatus(t *testing.T) {
	var all bytes.Buffer
	for _, c := range cases {
		before := fmt.Sprintf("%+v", c.in)
		s := Build(c.in)
		if fmt.Sprintf("%+v", c.in) != before {
			t.Errorf("%s: the input was changed", c.name)
		}
		code, line := Check(s)
		if code != c.code {
			t.Errorf("%s: code %d, want %d (%s)", c.name, code, c.code, line)
		}
		if s.Failover.Can != c.can || s.Failover.Can != (len(s.Failover.Reasons) == 0) {
			t.Errorf("%s: can fail over %v, want %v, because %q", c.name, s.Failover.Can, c.can, s.Failover.Reasons)
		}
		if loss := s.Failover.ExpectedLoss; (loss == nil) != (c.loss < 0) || loss != nil && *loss != c.loss {
			t.Errorf("%s: loss %v, want %v", c.name, loss, c.loss)
		}
		if s.Failover.Can && s.Failover.ExpectedLoss == nil {
			t.Errorf("%s: can fail over to nothing", c.name)
		}
		if !pluginLine.MatchString(line) {
			t.Errorf("%s: %q is not what a plugin prints", c.name, line)
		}
		fmt.Fprintf(&all, "=== %s\n", c.name)
		if err := Text(&all, s, now); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "--- %d %s\n", code, line)
	}
	if bytes.ContainsAny(all.Bytes(), "\x1b\x07") {
		t.Error("control characters are shown")
	}
	golden(t, "status.txt", all.Bytes())
}

var pluginLine = regexp.MustCompile(`^DRSYNC (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+ \|( [a-z]+=\d+s?(;\d*){0,3})+$`)

func TestStatusJSON(t *testing.T) {
	var out bytes.Buffer
	for _, name := range []string{"good", "interrupted", "incomplete", "fresh", "differs"} {
		for _, c := range cases {
			if c.name != name {
				continue
			}
			s := Build(c.in)
			var one bytes.Buffer
			if err := show.JSON(&one, s); err != nil {
				t.Fatal(err)
			}
			var back Status
			if err := json.Unmarshal(one.Bytes(), &back); err != nil || !reflect.DeepEqual(back, s) {
				t.Errorf("%s: not the same when read back: %v\n%+v\n%+v", name, err, back, s)
			}
			out.Write(one.Bytes())
		}
	}
	golden(t, "status.json", out.Bytes())
}

func TestSnapshots(t *testing.T) {
	all := []snapshot.Record{record(12*time.Minute, incomplete), record(27 * time.Minute), record(26 * time.Hour)}
	var out bytes.Buffer
	if err := errors.Join(Snapshots(&out, all, now), Snapshots(&out, nil, now), Detail(&out, all[0], now), Detail(&out, all[1], now)); err != nil {
		t.Fatal(err)
	}
	golden(t, "snapshots.txt", out.Bytes())
	out.Reset()
	if err := errors.Join(show.JSON(&out, List(all[1:2])), show.JSON(&out, List(nil))); err != nil {
		t.Fatal(err)
	}
	golden(t, "snapshots.json", out.Bytes())
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestWriteErrors(t *testing.T) {
	all := []snapshot.Record{record(time.Minute)}
	for name, err := range map[string]error{
		"Text": Text(brokenPipe{}, Build(base()), now), "Snapshots": Snapshots(brokenPipe{}, all, now),
		"none": Snapshots(brokenPipe{}, nil, now), "Detail": Detail(brokenPipe{}, all[0], now), "JSON": show.JSON(brokenPipe{}, List(all)),
	} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
