package mysql

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// identity is what a server says about itself.
type identity struct {
	MariaDB     bool
	Version     string // as the server words it
	Number      [3]int
	User        string // the account that was matched: user@host
	Datadir     string
	BinaryLog   bool
	ReadOnly    bool
	LocalInfile bool
	LowerCase   string // lower_case_table_names
	Scheduler   string // event_scheduler
}

func isMariaDB(version string) bool { return strings.Contains(strings.ToLower(version), "mariadb") }

func (i identity) product() string {
	if i.MariaDB {
		return "MariaDB"
	}
	return "MySQL"
}

func (i identity) String() string { return i.product() + " " + i.Version }

// series is what two servers must have in common: 10.11, 8.0.
func (i identity) series() string {
	return fmt.Sprintf("%s %d.%d", i.product(), i.Number[0], i.Number[1])
}

func (i identity) atLeast(major, minor, patch int) bool {
	for k, want := range [3]int{major, minor, patch} {
		if i.Number[k] != want {
			return i.Number[k] > want
		}
	}
	return true
}

// atomicRename says whether a RENAME TABLE of many tables is all or nothing,
// also in a crash.
func (i identity) atomicRename() bool {
	if i.MariaDB {
		return i.atLeast(10, 6, 1)
	}
	return i.atLeast(8, 0, 0)
}

// parseVersion reads the numbers of VERSION(), such as 10.11.6-MariaDB-log,
// 8.0.36 or, from old replication-safe servers, 5.5.5-10.4.8-MariaDB.
func parseVersion(version string) (number [3]int, err error) {
	v := version
	if isMariaDB(v) {
		v = strings.TrimPrefix(v, "5.5.5-")
	}
	v, _, _ = strings.Cut(v, "-")
	parts := strings.SplitN(v, ".", 4)
	if len(parts) < 2 {
		return number, fmt.Errorf("the server's version %q is not understood", version)
	}
	for k := range min(3, len(parts)) {
		digits := parts[k]
		if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
			digits = digits[:end]
		}
		if number[k], err = strconv.Atoi(digits); err != nil {
			return number, fmt.Errorf("the server's version %q is not understood", version)
		}
	}
	return number, nil
}

func (s *server) identify(ctx context.Context, c *sql.Conn) (identity, error) {
	r, err := one(ctx, c, `SELECT VERSION() v, CURRENT_USER() u, @@datadir d, @@GLOBAL.log_bin b, @@GLOBAL.read_only r,
		@@GLOBAL.local_infile l, @@GLOBAL.lower_case_table_names c, @@GLOBAL.event_scheduler e`)
	if err != nil {
		return identity{}, s.explain(ctx, err)
	}
	number, err := parseVersion(r.get("v"))
	return identity{
		MariaDB:     isMariaDB(r.get("v")),
		Version:     strings.TrimPrefix(r.get("v"), "5.5.5-"),
		Number:      number,
		User:        r.get("u"),
		Datadir:     r.get("d"),
		BinaryLog:   r.get("b") == "1",
		ReadOnly:    r.get("r") != "0",
		LocalInfile: r.get("l") == "1",
		LowerCase:   r.get("c"),
		Scheduler:   r.get("e"),
	}, err
}

// sameServer says whether two sessions are on one and the same server, by
// whatever addresses it was reached: a lock taken in one shows in the other.
func sameServer(ctx context.Context, a, b *sql.Conn) (bool, error) {
	name := "drsync " + rand.Text()
	r, err := one(ctx, a, "SELECT GET_LOCK(?, 0) got", name)
	if err != nil {
		return false, err
	}
	if r.get("got") != "1" {
		return false, fmt.Errorf("the server did not give a lock that nobody else can hold")
	}
	used, err := one(ctx, b, "SELECT IS_USED_LOCK(?) holder", name)
	if _, rerr := one(ctx, a, "SELECT RELEASE_LOCK(?) released", name); err == nil {
		err = rerr
	}
	return err == nil && used["holder"].Valid, err
}

// clock is how far a server's clock is from this host's.
type clock struct {
	skew, within time.Duration
}

// readClock asks a server for its time a few times and believes the answer
// that took least.
func readClock(ctx context.Context, c asker) (clock, error) {
	var best clock
	for i := range 3 {
		before := time.Now()
		now, err := serverTime(ctx, c)
		took := time.Since(before)
		if err != nil {
			return clock{}, err
		}
		if i == 0 || took/2 < best.within {
			best = clock{skew: now.Sub(before.Add(took / 2)).Round(time.Microsecond), within: took / 2}
		}
	}
	return best, nil
}

func serverTime(ctx context.Context, c asker) (time.Time, error) {
	r, err := one(ctx, c, "SELECT UTC_TIMESTAMP(6) t")
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse("2006-01-02 15:04:05.999999", r.get("t"))
	if err != nil {
		return time.Time{}, fmt.Errorf("the server's time: %w", err)
	}
	return t, nil
}
