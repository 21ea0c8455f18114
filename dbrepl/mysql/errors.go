package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"

	gomysql "github.com/go-sql-driver/mysql"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// Numbers of server errors that mean something to us.
const (
	errWriting           = 3
	errDiskFull          = 1021
	errTableFull         = 1114
	errAccessDenied      = 1045
	errDatabaseExists    = 1007
	errNoSuchDatabase    = 1049
	errLockWaitTimeout   = 1205
	errDeadlock          = 1213 // also of one who reads with one who alters tables
	errUnknownColumn     = 1054
	errNoSuchTable       = 1146
	errTruncated         = 1265
	errTableChanged      = 1412
	errNoSuchRoutine     = 1305
	errParse             = 1064
	errInvalidView       = 1356
	errUnsafeFunction    = 1418
	errNeedsSuper        = 1419
	errNoSuchUser        = 1449
	errNoSuchEvent       = 1539
	errReadOnly          = 1290
	errHostNotPrivileged = 1130
	errNoDatabaseAccess  = 1044
	errAccessDeniedLocal = 1227
)

func isServerError(err error) bool {
	var e *gomysql.MySQLError
	return errors.As(err, &e)
}

// hasNumber says whether err is one of these errors of a server.
func hasNumber(err error, numbers ...uint16) bool {
	var e *gomysql.MySQLError
	return errors.As(err, &e) && slices.Contains(numbers, e.Number)
}

var errLost = errors.New("the server closed the connection")

// explain turns an error of the driver into one that says what happened: the
// cause of a cancellation, or why the connection was lost.
func (s *server) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return hint.With(context.Cause(ctx), hint.Of(err)) // of who dialled
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, gomysql.ErrInvalidConn), errors.Is(err, sql.ErrConnDone):
		if cause := s.given.Load(); cause != nil {
			return *cause
		}
		return fmt.Errorf("the %s database: %w (%w)", s.role, errLost, firstLine{err})
	}
	return err
}

// firstLine is an error of which the first line is told: what comes after it,
// of a connection that was lost, is that everything else failed too.
type firstLine struct{ err error }

func (f firstLine) Error() string {
	line, _, _ := strings.Cut(f.err.Error(), "\n")
	return line
}

func (f firstLine) Unwrap() error { return f.err }

// connectError says which server could not be reached, as whom, on one line
// and without the password.
func (s *server) connectError(ctx context.Context, err error) error {
	err = s.explain(ctx, err)
	err = fmt.Errorf("connect to the %s database at %s as %s: %w", s.role, s.spec.Address, s.spec.User, err)
	switch {
	case hint.Of(err) != "": // of who dialled
		return err
	case hasNumber(err, errAccessDenied, errHostNotPrivileged):
		return hint.With(err, fmt.Sprintf("check user and password of the %s database, and from which host the account may connect", s.role))
	case dbrepl.CertificateHint(s.role, err) != "":
		return hint.With(err, dbrepl.CertificateHint(s.role, err))
	case errors.Is(err, gomysql.ErrNoTLS):
		return hint.With(err, fmt.Sprintf("give the %s database server a certificate: without TLS nothing is sent to it", s.role))
	case !isServerError(err) && (ctx.Err() == nil || errors.Is(err, errSilent)):
		return hint.With(err, fmt.Sprintf("check that the %s database server runs and listens at this address", s.role))
	}
	return err
}
