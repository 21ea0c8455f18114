// Package hint attaches to an error what the operator can do about it.
//
// The text of the error says what went wrong; the hint says what to do. They
// are printed on two lines, so neither repeats the other.
package hint

import "errors"

type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// With returns err carrying a hint. A nil err stays nil, and with "" for a hint
// err stays as it is.
func With(err error, hint string) error {
	if err == nil || hint == "" {
		return err
	}
	return &hinted{err: err, hint: hint}
}

// Of returns the outermost hint that err or an error it wraps carries, or "".
// For joined errors it returns the hints of every branch, one a line.
func Of(err error) string {
	if err == nil {
		return ""
	}
	if h, ok := err.(*hinted); ok {
		return h.hint
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		return Of(u.Unwrap())
	case interface{ Unwrap() []error }:
		var all string
		for _, e := range u.Unwrap() {
			if h := Of(e); h != "" {
				if all != "" {
					all += "\n"
				}
				all += h
			}
		}
		return all
	}
	return ""
}

// New is With(errors.New(text), hint), for errors made on the spot.
func New(text, hint string) error { return With(errors.New(text), hint) }
