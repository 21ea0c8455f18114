package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// uploads is how many artifacts one Change uploads.
const uploads = 20

// Changes is what one call of Change did on the active.
type Changes struct {
	Uploaded      []string // repository and path
	UploadedBytes int64
	Collected     string   // repository and path of the artifact that was deleted
	CollectedSum  string   // its content's SHA-1, gone from the database and the filestore
	Edited        string   // a configuration file, relative to the home like the next three
	Added         string   // a plugin
	Removed       string   // the plugin it replaces
	HostFiles     []string // changed, and no business of the standby
}

// Change does what an hour of use does to the active, in the order in which
// Artifactory does it: 20 uploads (file, row of the content, row of the name),
// one deletion with garbage collection (the same backwards), a changed
// configuration file, a plugin replaced by a newer one, and new content in the
// active's own host-specific files. It may be called again.
func (l *Lab) Change(ctx context.Context) (Changes, error) {
	l.round++
	c := Changes{Edited: logback, Added: pluginPath(l.round), Removed: pluginPath(l.round - 1)}
	for i := range uploads {
		if err := l.upload(ctx, i, &c); err != nil {
			return c, fmt.Errorf("upload an artifact: %w", err)
		}
	}
	if err := l.collect(ctx, &c); err != nil {
		return c, fmt.Errorf("delete an artifact: %w", err)
	}
	if err := l.configure(&c); err != nil {
		return c, fmt.Errorf("change the configuration: %w", err)
	}
	return c, nil
}

func (l *Lab) upload(ctx context.Context, i int, c *Changes) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	size := 1_000 + int(l.random.Uint64()%19_000)
	if i == uploads-1 {
		size = 1_500_000
	}
	now := time.Now()
	b, err := l.store(l.bytes(size), now)
	if err != nil {
		return err
	}
	if err := insertBinary(ctx, l.db, b); err != nil {
		return err
	}
	file := fmt.Sprintf("org/acme/nightly/%d/nightly-%d-%02d.jar", l.round, l.round, i)
	if err := l.addFile(ctx, l.db, localRepo, file, b, now); err != nil {
		return err
	}
	c.Uploaded = append(c.Uploaded, localRepo+"/"+file)
	c.UploadedBytes += b.size
	l.Artifacts, l.Bytes = l.Artifacts+1, l.Bytes+b.size
	return nil
}

// collect deletes the first artifact of the remote cache whose content no
// other artifact shares, and collects its content at once.
func (l *Lab) collect(ctx context.Context, c *Changes) error {
	var node, size int64
	err := l.db.QueryRowContext(ctx, `
		SELECT n.node_id, n.repo || '/' || n.node_path || '/' || n.node_name, n.sha1_actual, n.bin_length
		FROM nodes n WHERE n.node_type = 1 AND n.repo = ? AND n.bin_length > 0
		AND NOT EXISTS (SELECT 1 FROM nodes o WHERE o.sha1_actual = n.sha1_actual AND o.node_id <> n.node_id)
		ORDER BY n.node_id LIMIT 1`, cacheRepo).Scan(&node, &c.Collected, &c.CollectedSum, &size)
	if err != nil {
		return err
	}
	if _, err := l.db.ExecContext(ctx, `DELETE FROM nodes WHERE node_id = ?`, node); err != nil {
		return err
	}
	if _, err := l.db.ExecContext(ctx, `DELETE FROM binaries WHERE sha1 = ?
		AND NOT EXISTS (SELECT 1 FROM nodes WHERE sha1_actual = binaries.sha1)`, c.CollectedSum); err != nil {
		return err
	}
	l.Artifacts, l.Bytes = l.Artifacts-1, l.Bytes-size
	return os.Remove(blobPath(l.ActiveHome, c.CollectedSum))
}

func (l *Lab) configure(c *Changes) error {
	levels := [...]string{"INFO", "DEBUG", "WARN", "ERROR"}
	files := []homeFile{
		{path: c.Edited, mode: 0o640, text: logbackConfig(levels[l.round%len(levels)])},
		{path: c.Added, mode: 0o644, text: plugin("quarantineLabels", l.round)},
	}
	host := activeHostFiles(l.round)
	for _, path := range sortedKeys(host) {
		c.HostFiles = append(c.HostFiles, path)
		files = append(files, homeFile{path: path, mode: 0o640, text: host[path]})
	}
	for _, f := range files {
		if err := writeFile(l.ActiveHome, f); err != nil {
			return err
		}
	}
	return os.Remove(filepath.Join(l.ActiveHome, c.Removed))
}
