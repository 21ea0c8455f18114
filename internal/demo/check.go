package demo

import (
	"context"
	"crypto/sha1"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// CheckReport is what Check found on the standby.
type CheckReport struct {
	Binaries int   // rows of the standby's table binaries
	Bytes    int64 // of the blobs they name, as hashed
	Nodes    int   // rows of its table nodes
	Files    int   // of the home, without blobs
	Unnamed  int   // blobs that no row names: waste until the next prune

	// Broken is what breaks the promise: the standby could not be promoted as
	// it is. A line for each blob that is missing or wrong, each row of the
	// database that contradicts another, each host-specific file that lost its
	// content, each scratch directory that travelled.
	Broken []string
	// Behind is what differs from the active as it is now. Right after a run
	// it is empty.
	Behind []string
}

// OK reports that the standby can be promoted and has all the active has.
func (r CheckReport) OK() bool { return len(r.Broken) == 0 && len(r.Behind) == 0 }

// Check looks at the standby as an auditor would: it opens the standby's
// database, hashes every blob that this database names, and compares
// everything else of the home with the active's. It changes nothing. The error
// is for what could not be looked at; it wraps fs.ErrNotExist when the standby
// has no database.
func (l *Lab) Check(ctx context.Context) (CheckReport, error) {
	var r CheckReport
	if err := l.checkDatabase(ctx, &r); err != nil {
		return r, fmt.Errorf("check the standby's database: %w", err)
	}
	if err := l.checkHostFiles(&r); err != nil {
		return r, fmt.Errorf("check the standby's host-specific files: %w", err)
	}
	if err := l.checkHome(ctx, &r); err != nil {
		return r, fmt.Errorf("check the standby's home: %w", err)
	}
	return r, nil
}

func (l *Lab) checkDatabase(ctx context.Context, r *CheckReport) error {
	if _, err := os.Stat(l.StandbyDB); err != nil {
		return err
	}
	db, err := openSQLite(l.StandbyDB, "_pragma=query_only(1)")
	if err != nil {
		return err
	}
	defer db.Close()

	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		r.Broken = append(r.Broken, "the database is damaged: "+verdict)
	}
	var orphans int
	if err := db.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(SUM(sha1_actual IS NOT NULL AND NOT EXISTS
		(SELECT 1 FROM binaries b WHERE b.sha1 = nodes.sha1_actual)), 0) FROM nodes`).Scan(&r.Nodes, &orphans); err != nil {
		return err
	}
	if orphans > 0 {
		r.Broken = append(r.Broken, fmt.Sprintf("%d rows of nodes name content that binaries does not have", orphans))
	}
	named, err := l.checkBlobs(ctx, db, r)
	if err != nil {
		return err
	}
	if err := l.countUnnamed(named, r); err != nil {
		return err
	}
	return l.compareRows(ctx, db, r)
}

// checkBlobs hashes every blob that the standby's database names.
func (l *Lab) checkBlobs(ctx context.Context, db *sql.DB, r *CheckReport) (map[string]bool, error) {
	rows, err := db.QueryContext(ctx, `SELECT sha1, bin_length FROM binaries`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	named := map[string]bool{}
	for rows.Next() {
		var sum string
		var length int64
		if err := rows.Scan(&sum, &length); err != nil {
			return nil, err
		}
		if digest, err := hex.DecodeString(sum); err != nil || len(digest) != sha1.Size {
			r.Broken = append(r.Broken, fmt.Sprintf("blob %q is no SHA-1", sum))
			continue
		}
		named[sum] = true
		r.Binaries++
		got, n, err := hashFile(blobPath(l.StandbyHome, sum))
		r.Bytes += n
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.Broken = append(r.Broken, "blob "+sum+" is missing")
		case err != nil:
			return nil, err
		case n != length:
			r.Broken = append(r.Broken, fmt.Sprintf("blob %s has %d bytes instead of %d", sum, n, length))
		case got != sum:
			r.Broken = append(r.Broken, "blob "+sum+" has the hash "+got)
		}
	}
	return named, rows.Err()
}

func hashFile(path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha1.New()
	n, err := io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), n, err
}

func (l *Lab) countUnnamed(named map[string]bool, r *CheckReport) error {
	files, err := filepath.Glob(filepath.Join(l.StandbyHome, "data/filestore/[0-9a-f][0-9a-f]/*"))
	for _, f := range files {
		if !named[filepath.Base(f)] {
			r.Unnamed++
		}
	}
	return err
}

// compareRows compares every table with the active's as it is now.
func (l *Lab) compareRows(ctx context.Context, standby *sql.DB, r *CheckReport) error {
	active := l.db
	if active == nil {
		var err error
		if active, err = openSQLite(l.ActiveDB, "_pragma=query_only(1)"); err != nil {
			return err
		}
		defer active.Close()
	}
	for _, table := range []string{"db_properties", "binaries", "nodes", "node_props"} {
		want, err := fingerprint(ctx, active, table)
		if err != nil {
			return err
		}
		got, err := fingerprint(ctx, standby, table)
		if err != nil {
			return err
		}
		if got != want {
			r.Behind = append(r.Behind, "table "+table+" differs from the active's")
		}
	}
	return nil
}

// fingerprint hashes every value of a table in the order of its first column, the primary key.
func fingerprint(ctx context.Context, db *sql.DB, table string) (string, error) {
	rows, err := db.QueryContext(ctx, "SELECT * FROM "+table+" ORDER BY 1")
	if err != nil {
		return "", err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return "", err
	}
	h := sha1.New()
	fmt.Fprintf(h, "%q\n", columns)
	values := make([]any, len(columns))
	for i := range values {
		values[i] = new(any)
	}
	for rows.Next() {
		if err := rows.Scan(values...); err != nil {
			return "", err
		}
		for _, v := range values {
			fmt.Fprintf(h, "%T %q\t", *v.(*any), fmt.Sprint(*v.(*any)))
		}
		fmt.Fprintln(h)
	}
	return hex.EncodeToString(h.Sum(nil)), rows.Err()
}

func (l *Lab) checkHostFiles(r *CheckReport) error {
	want := standbyHostFiles()
	for _, path := range sortedKeys(want) {
		got, err := os.ReadFile(filepath.Join(l.StandbyHome, path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.Broken = append(r.Broken, path+", the standby's own, is gone")
		case err != nil:
			return err
		case string(got) != want[path]:
			r.Broken = append(r.Broken, path+", the standby's own, was overwritten")
		}
	}
	return nil
}

// checkHome compares the homes without their blobs and host-specific files.
func (l *Lab) checkHome(ctx context.Context, r *CheckReport) error {
	want, err := readHome(ctx, l.ActiveHome)
	if err != nil {
		return err
	}
	got, err := readHome(ctx, l.StandbyHome)
	if err != nil {
		return err
	}
	for _, path := range sortedKeys(got) {
		switch {
		case neverTravel(path):
			r.Broken = append(r.Broken, path+" is scratch and must not travel")
		case want[path] == "":
			r.Behind = append(r.Behind, path+" is not on the active")
		}
		r.Files++
	}
	for _, path := range sortedKeys(want) {
		switch {
		case neverTravel(path) || got[path] == want[path]:
		case got[path] == "":
			r.Behind = append(r.Behind, path+" is missing")
		default:
			r.Behind = append(r.Behind, fmt.Sprintf("%s is %s, not %s", path, got[path], want[path]))
		}
	}
	return nil
}

// readHome describes every file and link of a home by kind, mode, time and
// content, except blobs, host-specific files and drsync's own names.
func readHome(ctx context.Context, home string) (map[string]string, error) {
	ownFiles := standbyHostFiles()
	found := map[string]string{}
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		name, err := filepath.Rel(home, path)
		if err != nil {
			return err
		}
		switch _, own := ownFiles[name]; {
		case strings.HasPrefix(d.Name(), ".drsync"), strings.HasPrefix(d.Name(), "drsync-"), d.Name() == "_drsync", d.IsDir() && isShard(name):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir() || own:
			return nil
		}
		found[name], err = describe(path)
		return err
	})
	return found, err
}

// isShard reports whether a path is one of the filestore's 256 directories.
func isShard(path string) bool {
	name, ok := strings.CutPrefix(path, "data/filestore/")
	_, err := hex.DecodeString(name)
	return ok && len(name) == 2 && err == nil
}

func describe(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(path)
		return "a link to " + target, err
	}
	sum, n, err := hashFile(path)
	return fmt.Sprintf("%s of %d bytes, %s, sha1 %.10s", info.Mode(), n, info.ModTime().UTC().Format("2006-01-02T15:04:05Z"), sum), err
}
