package filestore

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/hint"
)

// Layout is where a chain keeps its blobs on a host.
type Layout struct {
	// Dirs are the directories that together hold every blob. New blobs go to
	// the first. Empty when Database is set.
	Dirs []Directory
	// Waiting are directories where complete blobs may lie that have not reached
	// Dirs yet.
	Waiting []Waiting
	// Database says that blobs are rows and travel with the database.
	Database bool
	// Notes are what the operator should know about this chain.
	Notes []string
}

// Directory is a directory of blobs, ab/abcdef….
type Directory struct {
	Path    string // absolute, or relative as the data directory was
	TempDir string // name of the directory below Path for files that are not complete
}

// Waiting is a directory of blobs on their way. Blobs below it may be at
// ab/abcdef… or directly in it.
type Waiting struct{ Path string }

// Paths returns where below a Waiting directory the blob sum may be.
func (Waiting) Paths() []func(blob.Sum) string {
	return []func(blob.Sum) string{Fanned, func(s blob.Sum) string { return string(s) }}
}

// Fanned is the path of a blob relative to its Directory: ab/abcdef….
func Fanned(sum blob.Sum) string { return string(sum[:2]) + "/" + string(sum) }

const defaultTempDir = "_pre"

// Layout says where the chain's blobs are when the application's data directory
// is dataDir. A chain whose blobs this version cannot copy is an error that
// names the provider.
func (c Chain) Layout(dataDir string) (Layout, error) {
	l := layouter{data: filepath.Clean(dataDir), types: providerTypes()}
	if err := l.add(c.Root, true); err != nil {
		return Layout{}, err
	}
	if len(l.out.Dirs) > 1 {
		// The application writes only where it may; so does the store.
		slices.SortStableFunc(l.out.Dirs, func(a, b Directory) int {
			return boolInt(l.readOnly[a.Path]) - boolInt(l.readOnly[b.Path])
		})
	}
	if l.out.Database && len(l.out.Dirs) > 0 {
		return Layout{}, errors.New("the chain keeps blobs in files and in the database; drsync cannot tell which")
	}
	for i, d := range l.out.Dirs {
		for _, other := range l.out.Dirs[:i] {
			if d.Path == other.Path {
				return Layout{}, fmt.Errorf("two providers of the chain share the directory %s", d.Path)
			}
		}
	}
	for _, u := range c.Unused {
		l.note("binarystore.xml: " + u + "; its settings have no effect")
	}
	return l.out, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

type layouter struct {
	data     string
	types    map[string]nature
	out      Layout
	readOnly map[string]bool
}

func (l *layouter) note(text string) { l.out.Notes = append(l.out.Notes, text) }

func (l *layouter) add(p Provider, only bool) error {
	refuse := func(why string) error {
		return hint.With(fmt.Errorf("provider %s: drsync cannot copy %s in this version", p.name(), why),
			"only chains whose blobs are local files or database rows can be carried; `drsync chain` shows the whole chain")
	}
	switch l.types[p.Type] {
	case wrapper:
		if p.Type == "cache-fs" && l.types[p.Children[0].Type] != bucket {
			l.note("the cache of " + p.ID + " is not copied; the application fills it again")
		}
		return l.add(p.Children[0], only)
	case waiting:
		for _, name := range []string{"_add", "_queue"} {
			l.out.Waiting = append(l.out.Waiting, Waiting{filepath.Join(l.data, "eventual", name)})
		}
		if len(p.Children) != 1 {
			return fmt.Errorf("provider %s wraps %d providers; drsync can follow only one", p.name(), len(p.Children))
		}
		return l.add(p.Children[0], only)
	case shards:
		for _, child := range p.Children {
			if err := l.add(child, false); err != nil {
				return err
			}
		}
		if n, ok, err := p.Number("redundancy"); err != nil {
			return err
		} else if ok && n > 1 {
			l.note(fmt.Sprintf("%s keeps %v copies of each blob; drsync writes one, and the application's own balancing adds the others", p.ID, n))
		}
		return nil
	case files:
		return l.addFiles(p, only)
	case database:
		l.out.Database = true
		return nil
	case bucket:
		return refuse("blobs that live in a bucket")
	case cluster:
		return refuse("blobs that are spread over the nodes of a cluster")
	case hadoop:
		return refuse("blobs that live in HDFS")
	case foreign:
		return refuse("blobs of external directories")
	}
	return fmt.Errorf("unknown provider type %q (provider %s)", p.Type, p.ID)
}

func (p Provider) name() string {
	if p.ID == p.Type {
		return p.ID
	}
	return p.ID + " (" + p.Type + ")"
}

func (l *layouter) addFiles(p Provider, only bool) error {
	for _, name := range []string{"dir", "binariesDir"} {
		if v := p.Settings[name]; v != "" {
			return hint.With(fmt.Errorf("provider %s: drsync does not know what the setting %s means in this version of the application", p.name(), name),
				"say where the blobs are with fileStoreDir")
		}
	}
	dir, set := p.Settings["fileStoreDir"]
	if !set || dir == "" {
		if !only {
			return fmt.Errorf("provider %s: a shard needs its own fileStoreDir", p.name())
		}
		dir = "filestore"
	}
	temp := p.Settings["tempDir"]
	if temp == "" {
		temp = defaultTempDir
	}
	if strings.Contains(dir, "${") || strings.Contains(temp, "${") {
		return fmt.Errorf("provider %s: fileStoreDir or tempDir has a ${placeholder} that drsync cannot resolve", p.name())
	}
	if strings.ContainsAny(dir, "\x00\n") {
		return fmt.Errorf("provider %s: fileStoreDir %q is no path", p.name(), dir)
	}
	if strings.ContainsAny(temp, "/\x00\n") || temp == "." || temp == ".." || isPrefixName(temp) || temp == ownDir {
		return fmt.Errorf("provider %s: drsync needs a tempDir that is a plain name, not %q", p.name(), temp)
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(l.data, dir)
	}
	d := Directory{Path: filepath.Clean(dir), TempDir: temp}
	l.out.Dirs = append(l.out.Dirs, d)
	if strings.EqualFold(strings.TrimSpace(p.Settings["writeEnabled"]), "false") {
		if l.readOnly == nil {
			l.readOnly = map[string]bool{}
		}
		l.readOnly[d.Path] = true
	}
	return nil
}

// Below returns the paths of the layout's directories that lie inside home,
// relative to it: what of the home is not an ordinary tree.
func (l Layout) Below(home string) []string {
	var inside []string
	add := func(path string) {
		rel, err := filepath.Rel(home, path)
		if err == nil && rel != "." && filepath.IsLocal(rel) {
			inside = append(inside, rel)
		}
	}
	for _, d := range l.Dirs {
		add(d.Path)
	}
	for _, w := range l.Waiting {
		add(w.Path)
	}
	return inside
}
