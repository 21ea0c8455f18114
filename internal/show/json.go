package show

import (
	"encoding/json"
	"io"
)

// JSON writes v as one indented object, with characters as they are.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
