package program

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/cli"
	"github.com/drsync/drsync/rsyncx/filter"
)

// maxRuleFile bounds a file of rules, in bytes.
const maxRuleFile = 16 << 20

// ruleSet is the filter rules of the line, with their files read.
type ruleSet struct{ b *filter.Builder }

func (r *run) rules() (ruleSet, error) {
	b := filter.NewBuilder()
	var broken error
	b.ReadFile = func(name string) ([]byte, error) {
		content, err := r.read(name)
		if err != nil {
			broken = errors.Join(broken, err)
		}
		return content, err
	}
	b.CVSIgnore = r.cvsIgnore()
	err := r.c.AddRules(b)
	switch {
	case broken != nil:
		return ruleSet{}, failed{FileIO, err}
	case err != nil:
		return ruleSet{}, usage(err)
	}
	for _, dir := range r.c.OwnDirs() {
		if err := b.Filter("-p " + dir + "/"); err != nil {
			return ruleSet{}, usage(err)
		}
	}
	return ruleSet{b}, nil
}

func (s ruleSet) build(t *tree, deleteExcluded bool, source, dest string) (*filter.Rules, error) {
	return s.b.Rules(filter.Options{DeleteExcluded: deleteExcluded, Pull: t.host != nil, SourceRoot: source, DestRoot: dest})
}

// read returns the content of a file that the line names; "-" is standard input.
func (r *run) read(name string) ([]byte, error) {
	var from io.Reader = r.In
	if name != "-" {
		f, err := os.Open(r.here(name))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	content, err := io.ReadAll(io.LimitReader(from, maxRuleFile+1))
	if err == nil && len(content) > maxRuleFile {
		err = fmt.Errorf("%s has more than %d bytes", rsyncx.Printable(name), maxRuleFile)
	}
	return content, err
}

// cvsIgnore returns what -C, which a filter may be too, takes from the user:
// ~/.cvsignore, where it can be read, and $CVSIGNORE.
func (r *run) cvsIgnore() []string {
	if !slices.ContainsFunc(r.c.Rules, func(rule cli.Rule) bool { return rule.Option == "-C" || rule.Option == "--filter" }) {
		return nil
	}
	var all []string
	if home := r.env("HOME"); home != "" {
		content, err := os.ReadFile(filepath.Join(home, ".cvsignore"))
		if err == nil {
			all = append(all, string(content))
		}
	}
	if words := r.env("CVSIGNORE"); strings.TrimSpace(words) != "" {
		all = append(all, words)
	}
	return all
}

func (r *run) env(name string) string {
	if r.Env == nil {
		return ""
	}
	return r.Env(name)
}

// here makes a path of the line one of the process.
func (r *run) here(path string) string {
	if r.Dir == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(r.Dir, path)
}
