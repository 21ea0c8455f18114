package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestRestoreMySQL keeps dumps with two snapshots, changes the active's schema,
// and brings the first snapshot's database back: beside, and in place.
func TestRestoreMySQL(t *testing.T) {
	p := newPair(t, "local")
	text, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	p.write(p.config, strings.Replace(string(text), "snapshots: {keep_last: 3}", "snapshots: {keep_last: 3, dumps: true}", 1), 0o600)
	p.must(exitDone, "now", "--json")
	first := p.snapshotIDs()[0]
	count := func(schema string) (nodes, audit int) {
		t.Helper()
		if err := p.open(p.standby, schema).QueryRow("SELECT (SELECT COUNT(*) FROM nodes), (SELECT COUNT(*) FROM audit)").Scan(&nodes, &audit); err != nil {
			t.Fatal(err)
		}
		return nodes, audit
	}
	nodes, audit := count("artdb")
	for range 5 {
		p.upload(1000)
	}
	p.exec("ALTER TABLE nodes ADD COLUMN later INT")
	p.exec("DROP VIEW big_nodes")
	p.must(exitDone, "now")
	if n, _ := count("artdb"); n != nodes+5 {
		t.Fatalf("the standby has %d nodes, want %d", n, nodes+5)
	}

	out, _ := p.must(exitDone, "restore", first, "--into", "artdb_then", "--json")
	var beside struct {
		Snapshot, Database string
		Tables             int
		Rows               int64
	}
	if err := json.Unmarshal([]byte(out), &beside); err != nil || beside.Snapshot != first || beside.Database != "artdb_then" || beside.Tables != 3 || beside.Rows == 0 {
		t.Errorf("restore --into says %s, %v", out, err)
	}
	if n, a := count("artdb_then"); n != nodes || a != audit {
		t.Errorf("beside there are %d nodes and %d lines, want %d and %d", n, a, nodes, audit)
	}
	if n, _ := count("artdb"); n != nodes+5 {
		t.Errorf("restore --into changed the standby: %d nodes", n)
	}
	if _, err := p.open(p.standby, "artdb_then").Exec("DELETE FROM nodes LIMIT 1"); err != nil {
		t.Error(err)
	}
	if _, a := count("artdb_then"); a != audit+1 {
		t.Error("the trigger beside does not work")
	}
	if _, errs, status := p.drsync("restore", first, "--into", "artdb_then"); status != exitFailed || !strings.Contains(errs, "it exists") {
		t.Errorf("into a database that exists: status %d, %s", status, errs)
	}

	p.active.Kill() // a restore needs no active
	out, _ = p.must(exitDone, "restore", first, "--yes", "--json")
	if !json.Valid([]byte(out)) || !strings.Contains(out, first) {
		t.Errorf("restore says %s", out)
	}
	if n, a := count("artdb"); n != nodes || a != audit {
		t.Errorf("restored there are %d nodes and %d lines, want %d and %d", n, a, nodes, audit)
	}
	var big int
	if err := p.open(p.standby, "artdb").QueryRow("SELECT COUNT(*) FROM big_nodes").Scan(&big); err != nil || big == 0 {
		t.Errorf("the view shows %d, %v", big, err)
	}
	p.must(exitDone, "verify")
	p.active.Start()
	p.must(exitDone, "now")
	if n, _ := count("artdb"); n != nodes+5 {
		t.Errorf("after the next run the standby has %d nodes, want %d", n, nodes+5)
	}
}

// snapshotIDs returns the snapshots, the latest first.
func (p *pair) snapshotIDs() (ids []string) {
	p.t.Helper()
	out, _ := p.must(exitDone, "snapshots", "--json")
	var all struct {
		Snapshots []struct {
			ID string `json:"id"`
		} `json:"snapshots"`
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		p.t.Fatalf("snapshots: %v in %s", err, out)
	}
	for _, s := range all.Snapshots {
		ids = append(ids, s.ID)
	}
	return ids
}
