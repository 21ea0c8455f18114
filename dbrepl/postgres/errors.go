package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// Codes of server errors that mean something to us.
const (
	codeWrongPassword    = "28P01"
	codeNotAllowed       = "28000"
	codeNoDatabase       = "3D000"
	codeInUse            = "55006"
	codeDiskFull         = "53100"
	codeDatabaseExists   = "42P04"
	codeNoTable          = "42P01"
	codeNoSchema         = "3F000"
	codeWrongObject      = "42809"
	codeStarting         = "57P03"
	codeShutdown         = "57P01"
	codeCrashed          = "57P02"
	codeLockNotAvailable = "55P03"
	codeUndefinedObject  = "42704"
	codeNoPrivilege      = "42501"
	codeInvalidParameter = "22023"
	codeTooMany          = "53300" // sessions
)

// errSilent is the cause when a server does not answer in time.
var errSilent = errors.New("no answer in time")

func isServerError(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e)
}

// hasCode says whether err is one of these errors of a server.
func hasCode(err error, codes ...string) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && slices.Contains(codes, e.Code)
}

// hidesRows says whether err is a server's refusal to read a table of which row
// security hides rows. Other refusals have the same code, and what the server
// says is in its own language.
func hidesRows(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == codeNoPrivilege && e.Routine == "check_enable_rls"
}

// explain turns an error of the driver into one line that says what happened:
// the cause of a cancellation, what the server said, or why the connection was lost.
func (s *server) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return hint.With(context.Cause(ctx), hint.Of(err)) // of who dialled
	}
	var said *pgconn.PgError
	var network *net.OpError
	var attempt *pgconn.ConnectError
	switch {
	case errors.As(err, &said) && strings.ContainsAny(err.Error(), "\n\t"):
		return said
	case errors.As(err, &network) && errors.As(err, &attempt):
		return network
	case errors.As(err, &attempt):
		return &oneLine{err}
	}
	return err
}

// oneLine is an error whose text the driver has spread over several lines.
type oneLine struct{ err error }

func (o *oneLine) Error() string { return strings.Join(strings.Fields(o.err.Error()), " ") }
func (o *oneLine) Unwrap() error { return o.err }

// connectError says which server could not be reached, as whom, on one line
// and without the password.
func (s *server) connectError(ctx context.Context, err error) error {
	err = s.explain(ctx, err)
	if ctx.Err() != nil && !errors.Is(err, errSilent) {
		return err
	}
	wrapped := fmt.Errorf("connect to the %s database at %s as %s: %w", s.role, s.spec.Address, s.spec.User, err)
	switch {
	case hint.Of(err) != "": // of who dialled
		return wrapped
	case hasCode(err, codeWrongPassword, codeNotAllowed):
		return hint.With(wrapped, fmt.Sprintf("check user and password of the %s database, and whether its pg_hba.conf lets the account in from here", s.role))
	case hasCode(err, codeNoDatabase), hasCode(err, codeNoPrivilege):
		return hint.With(wrapped, fmt.Sprintf("check the name of the database, and that %s may connect to it", s.spec.User))
	case dbrepl.CertificateHint(s.role, err) != "":
		return hint.With(wrapped, dbrepl.CertificateHint(s.role, err))
	case strings.Contains(err.Error(), "server refused TLS connection"): // pgconn has no value for it
		return hint.With(wrapped, fmt.Sprintf("give the %s database server a certificate: without TLS nothing is sent to it", s.role))
	case !isServerError(err):
		return hint.With(wrapped, fmt.Sprintf("check that the %s database server runs and listens at this address", s.role))
	}
	return wrapped
}
