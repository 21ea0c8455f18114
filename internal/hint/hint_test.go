package hint

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestHints(t *testing.T) {
	base := fmt.Errorf("open: %w", fs.ErrNotExist)
	a, b := With(base, "do a"), New("b", "do b")
	for _, c := range []struct {
		err        error
		text, hint string
	}{
		{nil, "", ""},
		{With(nil, "x"), "", ""},
		{base, base.Error(), ""},
		{a, base.Error(), "do a"},
		{b, "b", "do b"},
		{fmt.Errorf("run: %w", a), "run: " + base.Error(), "do a"},
		{With(fmt.Errorf("run: %w", a), "outer"), "run: " + base.Error(), "outer"},
		{errors.Join(a, base, b), base.Error() + "\n" + base.Error() + "\nb", "do a\ndo b"},
		{fmt.Errorf("%w and %w", b, errors.Join(b, a)), "b and b\n" + base.Error(), "do b\ndo b\ndo a"},
		{errors.Join(nil, nil), "", ""},
	} {
		if got := Of(c.err); got != c.hint {
			t.Errorf("%v: hint %q, want %q", c.err, got, c.hint)
		}
		if c.err != nil && c.err.Error() != c.text {
			t.Errorf("%q, want %q", c.err, c.text)
		}
	}
	if !errors.Is(With(fmt.Errorf("x: %w", a), "y"), fs.ErrNotExist) {
		t.Error("a hint hides the cause")
	}
}
