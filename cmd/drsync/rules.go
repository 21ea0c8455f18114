package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/drsync/drsync/internal/app"
	"github.com/drsync/drsync/internal/config"
	"github.com/drsync/drsync/rsyncx/cli"
	"github.com/drsync/drsync/rsyncx/filter"
)

// fileRules returns what adds the configured filter rules: those of
// files.rsync, then files.exclude, then the file files.exclude_from, which is
// read now so that a mistake in it is found before anything starts.
func fileRules(cfg *config.Config, command cli.Command) (func(*filter.Builder) error, error) {
	text := ""
	if cfg.Files.ExcludeFrom != "" {
		data, err := os.ReadFile(cfg.Files.ExcludeFrom)
		if err != nil {
			return nil, cfg.Problem("files.exclude_from", err)
		}
		text = string(data)
	}
	add := func(b *filter.Builder) error {
		for _, pattern := range databasePatterns(cfg) {
			if err := b.Own(pattern, filter.Sender|filter.Receiver); err != nil {
				return err
			}
		}
		if err := command.AddRules(b); err != nil {
			return err
		}
		for _, pattern := range cfg.Files.Exclude {
			if err := b.Exclude(pattern); err != nil {
				return err
			}
		}
		return b.ExcludeFrom(cfg.Files.ExcludeFrom, strings.NewReader(text), false)
	}
	if err := add(filter.NewBuilder()); err != nil {
		return nil, cfg.Problem("files", err)
	}
	return add, nil
}

// databasePatterns keep a database file that lies in a home out of the tree:
// it travels by its engine. With it go what SQLite and the engine put beside it.
func databasePatterns(cfg *config.Config) []string {
	if cfg.Database.Engine != config.EngineSQLite {
		return nil
	}
	var patterns []string
	for home, path := range map[string]string{cfg.Active.Home: cfg.Database.Active.Path, cfg.Standby.Home: cfg.Database.Standby.Path} {
		rel, err := filepath.Rel(home, path)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		pattern := app.Anchor(rel)
		dir, name := filepath.Split(pattern)
		patterns = append(patterns, pattern, pattern+"-wal", pattern+"-shm", pattern+"-journal", dir+"."+name+".drsync*")
	}
	return patterns
}
