package postgres

import (
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/hint"
)

// TestWhoseTableNamesTheBlobs: the list of blobs is the application's, whatever path
// drsync's own account has, or there is none.
func TestWhoseTableNamesTheBlobs(t *testing.T) {
	t.Parallel()
	l := startLab(t)
	const list, named = "SELECT sha1, bin_length FROM binaries WHERE sha1 NOT LIKE '##%'", "SELECT sha1 FROM binaries WHERE sha1 = ?"
	refs := func() (got []string, err error) {
		t.Helper()
		c := l.sync(t, l.engine(t))
		for ref, err := range c.Refs(t.Context(), list) {
			if err != nil {
				return nil, err
			}
			got = append(got, string(ref.Sum))
		}
		still, err := l.engine(t).StillNamed(t.Context(), named, []blob.Sum{"new", "old"})
		if err == nil && (still["new"] != slices.Contains(got, "new") || still["old"] != slices.Contains(got, "old")) {
			t.Errorf("the active still names %v, and the list has %q", still, got)
		}
		return got, err
	}
	want := func(what, sum string) {
		t.Helper()
		if got, err := refs(); err != nil || !slices.Equal(got, []string{sum}) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	refused := func(what string) {
		t.Helper()
		for _, err := range []error{func() error { _, err := refs(); return err }(), func() error {
			_, err := l.engine(t).StillNamed(t.Context(), named, []blob.Sum{"new"})
			return err
		}()} {
			if err == nil || !strings.Contains(err.Error(), "the schemas art, public each have a table binaries") || !strings.Contains(hint.Of(err), "rename those") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	l.onActive(t, "CREATE SCHEMA art; CREATE TABLE art.binaries (sha1 text, bin_length bigint); INSERT INTO art.binaries VALUES ('new', 1)")
	want("one table, which no path leads to", "new")
	l.onActive(t, "CREATE TABLE public.binaries (sha1 text, bin_length bigint); INSERT INTO public.binaries VALUES ('old', 1)")
	refused("two tables")
	l.onActive(t, "ALTER DATABASE "+l.name+" SET search_path = art, public")
	refused("two tables, and a path, which a role may not have")
	l.onActive(t, "DROP TABLE art.binaries")
	want("one table", "old")
}
