package demo

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"
)

// The repositories of the lab. Deleting from a remote repository's cache
// passes the trash by, so its binaries go with the next garbage collection.
const (
	localRepo = "libs-release-local"
	cacheRepo = "central-cache"
	trashRepo = "auto-trashcan"
)

// content says how many blobs a lab begins with.
type content struct {
	small  int // of 1 to 20 KB; at least as many as copies
	medium int // of 50 to 250 KB
	large  int // of 1 to 4 MB
}

const (
	trashBlobs = 12 // small ones that only the trash still names
	copies     = 30 // further artifacts with the content of another
	strayBlobs = 2  // files in the filestore that no row names
)

// stored is one file of the filestore.
type stored struct {
	sha1, md5, sha256 string
	size              int64
}

// fill uploads what the active has had for long.
func (l *Lab) fill(c content) error {
	ctx := context.Background()
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.Exec("PRAGMA defer_foreign_keys=1"); err != nil {
		return err
	}

	past := time.Now().Add(-200 * 24 * time.Hour)
	var all []stored
	for i := range c.small + c.medium + c.large {
		b, err := l.store(l.artifact(c, i), past.Add(time.Duration(i)*7*time.Hour))
		if err != nil {
			return err
		}
		if err := insertBinary(ctx, tx, b); err != nil {
			return err
		}
		all = append(all, b)
		l.Artifacts, l.Bytes = l.Artifacts+1, l.Bytes+b.size
		if err := l.addArtifact(ctx, tx, i, b, past); err != nil {
			return err
		}
	}
	for i := range copies {
		repo, file := localRepo, fmt.Sprintf("org/acme/promoted/%d/%s", i/10, path.Base(artifactPath(i)))
		if err := l.addFile(ctx, tx, repo, file, all[i], past); err != nil {
			return err
		}
	}
	for range strayBlobs {
		if _, err := l.store(l.bytes(4000), past); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// addArtifact adds the i-th artifact: most to a repository, some to the trash.
func (l *Lab) addArtifact(ctx context.Context, db execer, i int, b stored, when time.Time) error {
	if i < 1 || i > trashBlobs {
		return l.addFile(ctx, db, repoOf(i), artifactPath(i), b, when)
	}
	if err := l.addFile(ctx, db, trashRepo, localRepo+"/"+artifactPath(i), b, when); err != nil {
		return err
	}
	_, err := db.ExecContext(ctx, `INSERT INTO node_props VALUES (?, ?, 'trash.time', ?)`, i, l.nodeID, when.UnixMilli())
	return err
}

// addFile adds a file's node, after those of the folders above it.
func (l *Lab) addFile(ctx context.Context, db execer, repo, file string, b stored, when time.Time) error {
	var missing []string
	for dir := file; dir != ""; {
		if dir = path.Dir(dir); dir == "." {
			dir = ""
		}
		if l.folders[repo+"/"+dir] {
			break
		}
		l.folders[repo+"/"+dir] = true
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if _, err := l.insertNode(ctx, db, repo, missing[i], nil, when); err != nil {
			return err
		}
	}
	_, err := l.insertNode(ctx, db, repo, file, &b, when)
	return err
}

func repoOf(i int) string {
	if i%4 == 3 {
		return cacheRepo
	}
	return localRepo
}

func artifactPath(i int) string {
	modules := [...]string{"billing", "catalog", "checkout", "gateway", "identity", "ledger", "mailer", "pricing", "reports", "search", "stock", "tax"}
	kinds := [...]string{".jar", ".pom", "-sources.jar"}
	group := "org/acme"
	if repoOf(i) == cacheRepo {
		group = "org/example"
	}
	module := modules[i%len(modules)]
	version := fmt.Sprintf("1.%d.%d", i/90, i/9%10)
	return fmt.Sprintf("%s/%s/%s/%s-%s-%d%s", group, module, version, module, version, i, kinds[i%len(kinds)])
}

// artifact makes the content of the i-th one. The very first is empty, as the one named
// da39a3ee… is in most real filestores.
func (l *Lab) artifact(c content, i int) []byte {
	switch {
	case i == 0:
		return nil
	case i < c.small:
		return l.bytes(1_000 + int(l.random.Uint64()%19_000))
	case i < c.small+c.medium:
		return l.bytes(50_000 + int(l.random.Uint64()%200_000))
	default:
		return l.bytes(1_000_000 + int(l.random.Uint64()%3_000_000))
	}
}

func (l *Lab) bytes(n int) []byte {
	b := make([]byte, n)
	_, _ = l.random.Read(b) // its documentation rules an error out
	return b
}

// store puts content into the active's filestore as Artifactory does: into
// _pre, then by rename to the name that is its hash.
func (l *Lab) store(content []byte, when time.Time) (stored, error) {
	one, five, two := sha1.Sum(content), md5.Sum(content), sha256.Sum256(content)
	b := stored{
		sha1: hex.EncodeToString(one[:]), md5: hex.EncodeToString(five[:]), sha256: hex.EncodeToString(two[:]),
		size: int64(len(content)),
	}
	temp := filepath.Join(l.ActiveHome, "data/filestore/_pre", "dbRecord"+b.sha1[:12]+".bin")
	final := blobPath(l.ActiveHome, b.sha1)
	if err := os.WriteFile(temp, content, 0o640); err != nil {
		return stored{}, err
	}
	if err := os.Chtimes(temp, when, when); err != nil {
		return stored{}, err
	}
	if err := os.MkdirAll(filepath.Dir(final), 0o750); err != nil {
		return stored{}, err
	}
	return b, os.Rename(temp, final)
}

func blobPath(home, sum string) string {
	return filepath.Join(home, "data/filestore", sum[:2], sum)
}
