package mysql

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// What a server shows of a definition it converts from the character set of the client
// that made it. A text with a character set of its own, _utf8mb4'é' from a client of
// latin1, is then another one. So the bytes are kept too, where they are not UTF-8, and
// sent with that character set.

// reshow returns the definition of o without any conversion.
func reshow(ctx context.Context, c *sql.Conn, o object, column string) (string, error) {
	if err := execAll(ctx, c, "SET SESSION character_set_results=NULL"); err != nil {
		return "", err
	}
	r, err := showCreate(ctx, c, o)
	if err == nil || isServerError(err) || errors.Is(err, errChanged) {
		err = errors.Join(err, execAll(ctx, c, "SET SESSION character_set_results=utf8mb4"))
	}
	if err != nil {
		return "", err
	}
	return r.get(column), nil
}

// asUTF8 says whether names are as they were written for a client of that character set.
func asUTF8(client string) bool {
	return client == "" || client == "binary" || inUTF8(client)
}

func inUTF8(client string) bool {
	return client == "utf8" || client == "utf8mb3" || client == "utf8mb4"
}

// shownAsWritten says whether what is shown of o is surely what was written.
func shownAsWritten(client, shown string) bool {
	if client == "utf8mb4" || client == "" {
		return utf8.ValidString(shown)
	}
	return isASCII(shown) && !strings.Contains(shown, "?") // which stands for what cannot be shown
}

// written notes the bytes of o's definition if what is shown of it will not do. by is
// what makes the statement that creates o of the definition, o.SQL being made of shown;
// names are those in it that the server wrote, in UTF-8, beside the author's text.
func (o *object) written(ctx context.Context, c *sql.Conn, column, shown string, by func(string) string, names ...string) error {
	if o.SQL == "" || shownAsWritten(o.Client, shown) {
		return nil
	}
	raw, err := reshow(ctx, c, *o, column)
	if err != nil {
		return err
	}
	if raw == shown && inUTF8(o.Client) && utf8.ValidString(raw) {
		return nil
	}
	if isASCII(raw) && raw == shown {
		return nil
	}
	if o.SQL = strings.ToValidUTF8(o.SQL, "?"); asUTF8(o.Client) || !slices.ContainsFunc(names, func(s string) bool { return !isASCII(s) }) {
		if statement := by(raw); statement != "" {
			o.Bytes = base64.StdEncoding.EncodeToString([]byte(statement))
			return nil
		}
	}
	same := o.Kind == "TRIGGER" && !introduces(o.SQL, o.Mode) // the names are shown as they are, and the text means the same
	if same {
		if same, err = converts(ctx, c, shown, o.Client, raw); err != nil {
			return err
		}
	}
	// Names are shown as they are, too, and texts without others than ASCII characters mean the same.
	same = same || o.Kind == "VIEW" && utf8.ValidString(shown) && isASCII(withoutNames(shown)) && !introduces(withoutNames(shown), o.Mode)
	if !same {
		o.SQL = ""
		o.odd = fmt.Sprintf("was made by a client of the character set %s, with names or a comment in others than ASCII characters", o.Client)
	}
	return nil
}

// withoutNames is a statement as a server words it, without the names in it.
func withoutNames(statement string) string { return quotedName.ReplaceAllString(statement, "") }

var quotedName = regexp.MustCompile("`(?:[^`]|``)*`")

// converts says whether a text is what raw is in a character set, nothing being lost.
func converts(ctx context.Context, c *sql.Conn, text, charset, raw string) (bool, error) {
	r, err := one(ctx, c, "SELECT CAST(CONVERT(? USING "+quote(charset)+") AS BINARY) b", text)
	if err != nil {
		return false, fmt.Errorf("character set %s: %w", charset, err)
	}
	return r.get("b") == raw, nil
}

// introduces says whether there may be a text with a character set of its own.
func introduces(statement, mode string) bool {
	return slices.ContainsFunc(words(statement, mode), func(w word) bool {
		next := firstByte(statement[w.end:])
		return strings.HasPrefix(w.name, "_") && (next == '\'' || next == '"' || next == '/' || next == '#' || next == '-')
	})
}

// statement is what creates o, in the character set of its client.
func (o object) statement() (string, error) {
	if o.Bytes == "" {
		return o.SQL, nil
	}
	b, err := base64.StdEncoding.DecodeString(o.Bytes)
	return string(b), err
}
