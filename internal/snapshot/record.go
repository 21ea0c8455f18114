// Package snapshot keeps what is known about each published snapshot: its
// record and, for every blob set, the list of blobs that its database names.
//
// Its invariant: a snapshot exists when its directory has its final name, and
// then record and lists are complete. Everything else is a draft, which nothing
// but the run that owns it reads.
package snapshot

import (
	"fmt"
	"time"

	"github.com/drsync/drsync/internal/blob"
)

// Record is what is known about one published snapshot. It is stored as
// indented JSON; fields are only ever added.
type Record struct {
	Format    int        `json:"format"`
	ID        string     `json:"id"`
	Time      time.Time  `json:"time"`      // T: the database's time, on the active's clock (UTC)
	Published time.Time  `json:"published"` // when it became the standby's state, on this host's clock (UTC)
	Complete  bool       `json:"complete"`  // every named blob is present and nothing was skipped
	Epoch     uint64     `json:"epoch"`
	Source    Source     `json:"source"`
	Clock     Clock      `json:"clock"`
	Databases []Database `json:"databases,omitempty"`
	BlobSets  []BlobSet  `json:"blob_sets,omitempty"`
	Trees     []Tree     `json:"trees,omitempty"`
	Missing   []Missing  `json:"missing,omitempty"` // at most MaxMissing; BlobSet.Missing has the count
	Warnings  []string   `json:"warnings,omitempty"`
	// RestoredFrom is the snapshot whose kept dump this one was made of; "" when it was captured.
	RestoredFrom string `json:"restored_from,omitempty"`
	Steps        []Step `json:"steps"`
	Version      string `json:"drsync_version"`
}

// MaxMissing bounds Record.Missing.
const MaxMissing = 1000

// Source says where the snapshot came from.
type Source struct {
	Host      string `json:"host"`
	Home      string `json:"home"`
	Transport string `json:"transport"`
}

// Clock is the active's clock minus this host's, as measured. The true value
// lies within Skew ± Error. Both are seconds; Measured is false if the
// transport could not tell.
type Clock struct {
	Measured bool    `json:"measured"`
	Skew     float64 `json:"skew_seconds"`
	Error    float64 `json:"error_seconds"`
}

// Database is one captured database.
type Database struct {
	Engine   string    `json:"engine"`
	Mode     string    `json:"mode"`
	Name     string    `json:"name"`
	Server   string    `json:"server"` // product and version of the active's server
	Time     time.Time `json:"time"`
	Position string    `json:"position"` // the engine's own words: GTID, binlog file and offset, …
	Tables   int       `json:"tables"`
	Rows     int64     `json:"rows"`
	Bytes    int64     `json:"bytes"`
	// Locked is for how many seconds the capture kept others on the active from
	// what LockedAgainst says, at most; 0 is not at all.
	Locked        float64 `json:"locked_seconds,omitempty"`
	LockedAgainst string  `json:"locked_against,omitempty"`

	Dump *Dump `json:"dump,omitempty"` // what drsync restore needs, if it is kept
}

// BlobSet counts one family of blobs.
type BlobSet struct {
	Name        string `json:"name"`
	Named       int64  `json:"named"`       // blobs that the database names
	NamedBytes  int64  `json:"named_bytes"` // their total length
	Copied      int64  `json:"copied"`      // fetched by this run
	CopiedBytes int64  `json:"copied_bytes"`
	Missing     int64  `json:"missing"` // named, and neither side has them
	// ListSum is the SHA-256 of the file that lists them; "" in records that are older than it.
	ListSum string `json:"list_sha256,omitempty"`
}

// Tree counts one tree synced by rsync rules.
type Tree struct {
	Path             string `json:"path"`
	Files            int64  `json:"files"` // entries of the source after filtering, directories included
	Bytes            int64  `json:"bytes"`
	Transferred      int64  `json:"transferred"`
	TransferredBytes int64  `json:"transferred_bytes"`
	Deleted          int64  `json:"deleted"`
	Torn             int64  `json:"torn"`    // changed while being read, each time it was read
	Skipped          int64  `json:"skipped"` // could not be read or not be written as they are
}

// Missing is a blob that the database names and the active could not serve.
type Missing struct {
	Set       string   `json:"set"`
	Sum       blob.Sum `json:"sum"`
	Size      int64    `json:"size"`
	Reason    string   `json:"reason"`          // one of the Reason constants
	Paths     []string `json:"paths,omitempty"` // artifacts that need it, at most MaxPaths
	MorePaths int64    `json:"more_paths,omitempty"`
}

// MaxPaths bounds Missing.Paths.
const MaxPaths = 20

// Why a blob is missing.
const (
	ReasonCollected = "garbage-collected" // the active's database no longer names it either
	ReasonLost      = "lost"              // the active's database still names it
	ReasonCorrupt   = "corrupt"           // the active has a file of that name with other content
	ReasonUnknown   = "unknown"           // the active's database could not be asked again
	ReasonMalformed = "malformed"         // the name in the database is no hash
)

// Step is how long one step of the run took.
type Step struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// IDFor returns the id of a snapshot of time t: 20261121T201500Z.
func IDFor(t time.Time) string { return t.UTC().Format("20060102T150405Z") }

// validID says whether id can be a directory name of a snapshot: IDFor's form,
// with -2, -3, … appended when several fall into one second.
func validID(id string) bool {
	base, n := id, 0
	if len(id) > 17 && id[16] == '-' {
		base = id[:16]
		if _, err := fmt.Sscanf(id[17:], "%d", &n); err != nil || n < 2 || fmt.Sprintf("%s-%d", base, n) != id {
			return false
		}
	}
	t, err := time.Parse("20060102T150405Z", base)
	return err == nil && IDFor(t) == base
}
