// Package app says what drsync must know about an application: which of its
// files are an ordinary tree, which are blobs that its database names, and
// which belong to one host.
//
// It owns one invariant: a file that makes a host this host (its addresses, its
// identity, its locks), and a file that the running application is in the middle
// of writing, are in none of the trees that a profile lets travel.
package app

import (
	"fmt"
	"slices"
	"strings"

	"github.com/drsync/drsync/internal/hint"
)

// Profile is an application as data. All paths are relative to its home and
// separated by '/'; patterns are rsync filter patterns anchored at the home.
type Profile struct {
	Name   string // as in the configuration: "artifactory"
	Layout string // which of the application's layouts the home has, for people

	BlobSets []BlobSet
	// Required are paths that every sane home of this application has, all of
	// them. A source that lacks one is not mounted, or not a home.
	Required []string
	// HostSpecific are patterns of what belongs to one host: it never travels
	// and is never deleted.
	HostSpecific []string
	// NotTree are patterns of blob directories, caches, scratch and logs: they
	// are not part of the tree, and a receiver keeps its own.
	NotTree []string
	// Identical are files that must have the same bytes on both hosts if both
	// have them.
	Identical []string

	DataDir   string // what relative paths of the filestore start from; "" without blobs
	ChainFile string // the filestore's configuration; "" without blobs
	LockFile  string // locked by the running application; "" if it has none
	// SystemFile is a host-specific file of which some settings should be equal
	// all the same: see CompareSystemYAML. "" if there is none.
	SystemFile string
	// dataDirFile may move DataDir elsewhere; see Profile.FindDataDir.
	dataDirFile string
}

// BlobSet is one family of blobs that the database names. The queries are
// plain enough for every engine.
type BlobSet struct {
	Name string
	// Refs returns name and length of every blob.
	Refs string
	// Named has one parameter, a name, and returns a row if it is named.
	Named string
	// Paths has one parameter, a name, and returns the artifacts that need the
	// blob; the columns of a row joined by "/" are an artifact's path.
	Paths string
}

// Names of the profiles.
const (
	NameArtifactory = "artifactory"
	NameCustom      = "custom"
)

// Lookup returns the profile called name for a home. exists reports whether a
// path relative to the home is there.
func Lookup(name string, exists func(path string) (bool, error)) (Profile, error) {
	switch name {
	case NameArtifactory:
		return Artifactory(exists)
	case NameCustom:
		return Custom(), nil
	}
	return Profile{}, hint.With(fmt.Errorf("unknown application %q", name),
		"known are "+NameArtifactory+" and "+NameCustom+", where the whole home is one tree")
}

// Custom is the profile of an unknown application: its whole home is one tree,
// and nothing is known about its blobs.
func Custom() Profile { return Profile{Name: NameCustom, Layout: "one tree"} }

// Excludes returns the patterns of everything that is not part of the tree.
// blobDirs are directories of blobs inside the home, relative to it, which
// depend on the filestore's configuration.
//
// No pattern is for directories alone: a symbolic link in the place of one is
// as little part of the tree as the directory.
func (p Profile) Excludes(blobDirs ...string) []string {
	var all []string
	for _, pattern := range slices.Concat(p.HostSpecific, p.NotTree) {
		all = append(all, strings.TrimSuffix(pattern, "/"))
	}
	for _, dir := range blobDirs {
		if pattern := Anchor(dir); !slices.Contains(all, pattern) {
			all = append(all, pattern)
		}
	}
	return all
}

// Anchor returns the rsync pattern that matches path, relative to the home, and
// nothing else.
func Anchor(path string) string {
	pattern := "/" + strings.Trim(path, "/")
	if !strings.ContainsAny(pattern, "*?[") {
		return pattern // without a wildcard a backslash is an ordinary byte
	}
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(pattern)
}
