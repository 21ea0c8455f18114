package sourcetest

import (
	"testing"

	"github.com/drsync/drsync/rsyncx"
)

// testFilter: rules are tested in their own package; here only that a source
// takes them.
func testFilter(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src := start(t, open, tree.dir)
	tree.checkWalk(t, src, walk(t, src.Walk(ctx, rsyncx.WalkOptions{OneFileSystem: true})))
}
