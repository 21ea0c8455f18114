package mysql

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	gomysql "github.com/go-sql-driver/mysql"

	"github.com/drsync/drsync/internal/hint"
)

// rowReader reads rows, one after the other.
type rowReader interface {
	// next returns the values of the next row as a plan reads them, nil for NULL,
	// or io.EOF. They are valid until the next call.
	next() ([]sql.RawBytes, error)
}

// rowSource counts the rows of a rowReader on their way to the standby.
type rowSource struct {
	from  rowReader
	send  []encoding
	moved func(rows, bytes int64) // what was read since the last call
	kept  *keptPart               // gets the same rows; nil: nothing does

	raw     []sql.RawBytes
	count   int64 // rows
	invalid int64 // values of ENUM columns that are no member: the number 0
	err     error
}

func newRowSource(from rowReader, p plan, moved func(rows, bytes int64)) *rowSource {
	return &rowSource{from: from, send: p.send, moved: moved}
}

// next reads the next row into raw.
func (s *rowSource) next() bool {
	if s.err != nil {
		return false
	}
	var err error
	if s.raw, err = s.from.next(); err != nil {
		if !errors.Is(err, io.EOF) {
			s.err = err
		}
		return false
	}
	s.count++
	for i, send := range s.send {
		if send == member && len(s.raw[i]) == 1 && s.raw[i][0] == '0' {
			s.invalid++
		}
	}
	return true
}

// appendLine appends the row as a line of LOAD DATA.
func (s *rowSource) appendLine(line []byte) []byte {
	for i, value := range s.raw {
		if i > 0 {
			line = append(line, '\t')
		}
		line = appendField(line, value, s.send[i])
	}
	return append(line, '\n')
}

// keep writes lines to the dump.
func (s *rowSource) keep(lines []byte) {
	if err := s.kept.write(lines); err != nil && s.err == nil {
		s.err = err
	}
}

// lines is a rowSource as the lines of LOAD DATA.
type lines struct {
	*rowSource
	buffer []byte
	rest   []byte // of buffer, not yet read
	told   int64
}

func (l *lines) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		l.fill()
	}
	if len(l.rest) == 0 {
		if l.err != nil {
			return 0, l.err
		}
		return 0, io.EOF
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func (l *lines) fill() {
	l.buffer = l.buffer[:0]
	for len(l.buffer) < 128<<10 && l.next() {
		l.buffer = l.appendLine(l.buffer)
	}
	l.keep(l.buffer)
	l.rest = l.buffer
	l.moved(l.count-l.told, int64(len(l.buffer)))
	l.told = l.count
}

// loader puts rows into tables of the staging schema.
type loader struct {
	server *server
	conn   *sql.Conn
	local  bool // LOAD DATA LOCAL is allowed
	packet int  // bytes that a statement may have
}

// load moves all rows of src into the table of p, or none: what the server
// took is only committed if it is all that was read and the server has no
// remark. LOAD DATA LOCAL turns errors into warnings and leaves rows out, and
// it keeps what it has when the sender stops in the middle.
//
// MariaDB could write an empty table as a whole, without logging each row
// (unique_checks=0). With nothing but a primary key, whose order the rows come
// in, that takes twice the processor time, and for ever with rows that exceed its
// sort buffer (10.11), so it is not asked to.
func (l *loader) load(ctx context.Context, p plan, src *rowSource) error {
	tx, err := l.conn.BeginTx(ctx, nil)
	if err != nil {
		return l.server.explain(ctx, err)
	}
	defer func() { _ = tx.Rollback() }()
	put := l.insert
	if l.local {
		put = l.loadLocal
	}
	taken, err := put(ctx, tx, p, src)
	if src.err != nil && ctx.Err() == nil {
		return &readError{src.err}
	}
	if err != nil {
		return l.server.explain(ctx, err)
	}
	if taken != src.count {
		return fmt.Errorf("%d rows were sent, but the standby took %d", src.count, taken)
	}
	if err := tx.Commit(); err != nil {
		return l.server.explain(ctx, err)
	}
	return nil
}

// count compares how many rows a table has with how many were sent.
func (l *loader) count(ctx context.Context, name string, sent int64) error {
	r, err := one(ctx, l.conn, "SELECT COUNT(*) n FROM "+quote(name))
	if err != nil {
		return l.server.explain(ctx, err)
	}
	if r.get("n") != strconv.FormatInt(sent, 10) {
		return fmt.Errorf("%d rows were sent, but the standby has %s", sent, r.get("n"))
	}
	return nil
}

// readError is an error of the side of a load that the rows come from, or of
// the dump that they are kept in.
type readError struct{ err error }

func (r *readError) Error() string { return r.err.Error() }
func (r *readError) Unwrap() error { return r.err }

func (l *loader) loadLocal(ctx context.Context, tx *sql.Tx, p plan, src *rowSource) (int64, error) {
	name := "drsync-" + rand.Text() // the driver keeps one list for the whole process
	gomysql.RegisterReaderHandler(name, func() io.Reader { return &lines{rowSource: src} })
	defer gomysql.DeregisterReaderHandler(name)
	res, err := tx.ExecContext(ctx, "LOAD DATA LOCAL INFILE 'Reader::"+name+"' INTO TABLE "+quote(p.table.name)+
		" CHARACTER SET "+p.set+` FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n' `+p.into)
	if err != nil {
		return 0, err
	}
	if err := remarks(ctx, tx, "the standby", src.invalid); err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// remarks returns an error with the warnings of the last statement, if it had
// any but those that it must have: the server stores the invalid member of an
// ENUM as it is, and says each time that it does.
func remarks(ctx context.Context, c asker, who string, invalid int64) error {
	r, err := one(ctx, c, "SHOW COUNT(*) WARNINGS")
	if err != nil {
		return err
	}
	count := r.get("@@session.warning_count")
	if count == "0" && invalid == 0 {
		return nil
	}
	all, err := records(ctx, c, "SHOW WARNINGS LIMIT 64")
	if err != nil {
		return err
	}
	var said []string
	for _, r := range all {
		if r.get("code") != strconv.Itoa(errTruncated) || count != strconv.FormatInt(invalid, 10) {
			said = append(said, fmt.Sprintf("%s %s: %s", strings.ToLower(r.get("level")), r.get("code"), r.get("message")))
		}
	}
	if said == nil && len(all) > 0 {
		return nil
	}
	return fmt.Errorf("%s did not take every value as it is, with %s remarks: %s", who, count, strings.Join(said[:min(3, len(said))], "; "))
}

// insert is for servers that refuse LOAD DATA LOCAL.
func (l *loader) insert(ctx context.Context, tx *sql.Tx, p plan, src *rowSource) (taken int64, err error) {
	head := "INSERT INTO " + quote(p.table.name) + " " + p.names + " VALUES "
	limit := min(1<<20, l.packet/2)
	statement := []byte(head)
	told, invalid := int64(0), int64(0)
	var kept []byte // LOAD DATA's lines of the same rows
	flush := func() error {
		if len(statement) == len(head) {
			return nil
		}
		src.keep(kept)
		kept = kept[:0]
		if src.err != nil {
			return src.err
		}
		if len(statement)+1 >= l.packet {
			return hint.With(fmt.Errorf("a row takes %d bytes to insert, more than the standby's max_allowed_packet of %d", len(statement), l.packet),
				"SET GLOBAL local_infile=1 on the standby's server, or a greater max_allowed_packet")
		}
		res, err := tx.ExecContext(ctx, string(statement))
		if err != nil {
			return err
		}
		if err := remarks(ctx, tx, "the standby", src.invalid-invalid); err != nil {
			return err
		}
		invalid = src.invalid
		n, err := res.RowsAffected()
		taken += n
		src.moved(src.count-told, int64(len(statement)))
		told = src.count
		statement = statement[:len(head)]
		return err
	}
	for src.next() {
		if len(statement) > len(head) {
			statement = append(statement, ',')
		}
		statement = appendRow(statement, src.raw, p)
		if src.kept != nil {
			kept = src.appendLine(kept)
		}
		if len(statement) >= limit {
			if err := flush(); err != nil {
				return taken, err
			}
		}
	}
	if src.err != nil {
		return taken, src.err
	}
	return taken, flush()
}

// appendRow appends a row as INSERT wants it.
func appendRow(statement []byte, row []sql.RawBytes, p plan) []byte {
	statement = append(statement, '(')
	for i, value := range row {
		if i > 0 {
			statement = append(statement, ',')
		}
		before, after, _ := strings.Cut(p.store[i], "%s")
		statement = append(statement, before...)
		statement = appendLiteral(statement, value, p.send[i])
		statement = append(statement, after...)
	}
	return append(statement, ')')
}

func appendLiteral(statement, value []byte, send encoding) []byte {
	if value == nil {
		return append(statement, "NULL"...)
	}
	statement = append(statement, '\'')
	if send == hexed {
		statement = hex.AppendEncode(statement, value)
	} else {
		for _, b := range value {
			switch b {
			case '\'', '\\':
				statement = append(statement, '\\', b)
			case 0:
				statement = append(statement, '\\', '0')
			default:
				statement = append(statement, b)
			}
		}
	}
	return append(statement, '\'')
}
