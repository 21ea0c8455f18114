package rsyncx_test

import (
	"testing"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/sourcetest"
)

func TestLocalIsASource(t *testing.T) {
	sourcetest.TestSource(t, func(t *testing.T, dir string) rsyncx.Source {
		src, err := rsyncx.Local(dir)
		if err != nil {
			t.Fatal(err)
		}
		return src
	})
}
