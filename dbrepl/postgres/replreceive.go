package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
)

// lostError says that replication cannot go on from where the standby is.
type lostError struct{ reason string }

func (e *lostError) Error() string { return "the replica is lost: " + e.reason }

// walSession is a connection on which the active sends its log.
type walSession struct {
	s    *server
	conn *pgconn.PgConn
}

func (s *server) connectLog(parent context.Context) (*walSession, error) {
	ctx, cancel := context.WithTimeoutCause(parent, s.limit.Connect, errSilent)
	defer cancel()
	config, err := s.config("replication")
	if err != nil {
		return nil, err
	}
	config.RuntimeParams = map[string]string{"application_name": s.name, "replication": "true"}
	for _, v := range s.peerSettings() {
		config.RuntimeParams[v[0]] = v[1]
	}
	c, err := pgconn.ConnectConfig(ctx, &config.Config)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return &walSession{s, c}, nil
}

func (w *walSession) close() {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	_ = w.conn.Close(ctx) // a session that ends in error has ended as well
	select {
	case <-w.conn.CleanupDone():
	case <-ctx.Done():
	}
}

// command runs a command of the replication protocol and returns its first row.
func (w *walSession) command(parent context.Context, text string) ([][]byte, error) {
	ctx, cancel := context.WithTimeoutCause(parent, w.s.limit.Connect, errSilent)
	defer cancel()
	results, err := w.conn.Exec(ctx, text).ReadAll()
	if err != nil {
		return nil, w.s.explain(ctx, err)
	}
	for _, r := range results {
		if len(r.Rows) > 0 {
			return r.Rows[0], nil
		}
	}
	return nil, nil
}

// identify asks whose log it is and how far that is written.
func (w *walSession) identify(ctx context.Context) (system string, timeline uint32, flushed lsn, err error) {
	row, err := w.command(ctx, "IDENTIFY_SYSTEM")
	if err != nil {
		return "", 0, 0, err
	}
	if len(row) < 3 {
		return "", 0, 0, notPostgres(errors.New("the active does not say which server it is"))
	}
	n, err := strconv.ParseUint(string(row[1]), 10, 32)
	if err == nil {
		flushed, err = parseLSN(string(row[2]))
	}
	return string(row[0]), uint32(n), flushed, err
}

// Codes of errors that say that the active cannot send what is asked for.
const (
	codeObjectInUse       = "55006"
	codeNotInState        = "55000" // the slot was given up
	codeUndefinedFile     = "58P01" // the segment was removed
	codeDuplicateObject   = "42710"
	codeConfigurationFull = "53400" // no slot is left
)

// receive brings the active's log up to end into l, durably, and tells the
// active that it need not keep it. It returns how many bytes came.
func (r *Replica) receive(parent context.Context, l *receivedLog, end lsn) (n int64, err error) {
	if end <= l.state.to {
		return 0, nil
	}
	w, err := r.e.active.connectLog(parent)
	if err != nil {
		return 0, r.e.active.connectError(parent, err)
	}
	defer w.close()
	// Whoever sends is to be heard of; a server that is alive says so by itself.
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	quiet := max(r.e.opt.Quiet, r.e.opt.Connect)
	watch := time.AfterFunc(quiet, func() { cancel(r.silent(quiet)) })
	defer watch.Stop()

	out := l.writer()
	defer out.abandon()
	begun := l.state.to
	if err := w.start(ctx, r.opt.Slot, l.state.History.Timeline, begun); err != nil {
		return 0, r.e.active.explain(ctx, err)
	}
	confirmed := time.Now()
	for out.at < end {
		m, err := w.conn.ReceiveMessage(ctx)
		if err != nil {
			return 0, r.e.active.explain(ctx, err)
		}
		asked, moved, err := take(out, m, end)
		if err != nil {
			return 0, err
		}
		if moved {
			watch.Reset(quiet)
		}
		if asked || time.Since(confirmed) > quiet/3 {
			confirmed = time.Now()
			if err := w.confirm(out.at, begun); err != nil {
				return 0, err
			}
			r.e.opt.Event.Emit(event.Event{Kind: event.Progress, Step: "capture", Name: r.e.opt.Name, Bytes: int64(out.at - begun)})
		}
	}
	if err := out.finish(); err != nil {
		return 0, fmt.Errorf("write the active's log: %w", err)
	}
	w.finish(end)
	return int64(end - begun), nil
}

// start asks for the log from a place on.
func (w *walSession) start(ctx context.Context, slot string, timeline uint32, from lsn) error {
	const again = 10 * time.Second // until the session before this one has ended on the active
	begun := time.Now()
	for {
		err := w.tryStart(ctx, slot, timeline, from)
		switch {
		case hasCode(err, codeObjectInUse) && time.Since(begun) < again:
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(10 * look):
			}
			continue
		case hasCode(err, codeObjectInUse):
			return hint.With(err, "each standby needs a replication slot of its own: database.replication.slot")
		}
		return refusal(err)
	}
}

// refusal tells the errors by which an active says that it does not have the
// log any more. They may come before the first of it, or instead.
func refusal(err error) error {
	if hasCode(err, codeUndefinedFile, codeNotInState, codeUndefinedObject) {
		return &lostError{"the active no longer has what the standby lacks: " + err.Error()}
	}
	return err
}

func (w *walSession) tryStart(ctx context.Context, slot string, timeline uint32, from lsn) error {
	w.conn.Frontend().Send(&pgproto3.Query{String: fmt.Sprintf(`START_REPLICATION SLOT "%s" PHYSICAL %v TIMELINE %d`, slot, from, timeline)})
	if err := w.conn.Frontend().Flush(); err != nil {
		return err
	}
	var refused error
	for {
		m, err := w.conn.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			refused = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyBothResponse:
			return nil
		case *pgproto3.ReadyForQuery:
			if refused == nil {
				return &lostError{"the active's timeline has ended there"}
			}
			return refused
		}
	}
}

// take writes what a message brings, up to end. It says whether the active wants
// an answer, and whether anything came.
func take(out *logWriter, m pgproto3.BackendMessage, end lsn) (asked, moved bool, err error) {
	switch m := m.(type) {
	case *pgproto3.ErrorResponse:
		return false, false, refusal(pgconn.ErrorResponseToPgError(m))
	case *pgproto3.CopyDone, *pgproto3.CommandComplete:
		return false, false, &lostError{"the active's timeline ended"}
	case *pgproto3.CopyData:
		const data, header = 'w', 25     // what it is, the place, the log's end, the time
		const alive, aliveSize = 'k', 18 // what it is, the log's end, the time, whether an answer is wanted
		switch {
		case len(m.Data) == aliveSize && m.Data[0] == alive:
			return m.Data[17] == 1, false, nil
		case len(m.Data) < header || m.Data[0] != data:
			return false, false, notPostgres(fmt.Errorf("the active sent a message of %d bytes that is no part of its log", len(m.Data)))
		}
		if at := lsn(binary.BigEndian.Uint64(m.Data[1:])); at != out.at {
			return false, false, notPostgres(fmt.Errorf("the active sent its log at %v where %v comes next", at, out.at))
		}
		part := m.Data[header:]
		part = part[:min(uint64(len(part)), uint64(end-out.at))]
		if err := out.write(part); err != nil {
			return false, false, fmt.Errorf("write the active's log: %w", err)
		}
		return false, true, nil
	}
	return false, false, nil
}

// confirm tells the active what was received and what of that is on the disk.
func (w *walSession) confirm(received, durable lsn) error {
	epoch := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	b := []byte{'r'}
	for _, v := range []uint64{uint64(received), uint64(durable), uint64(durable), uint64(time.Since(epoch).Microseconds())} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	w.conn.Frontend().Send(&pgproto3.CopyData{Data: append(b, 0)})
	return w.conn.Frontend().Flush()
}

// finish confirms all and waits until the active has heard it. If it has not,
// it keeps more of its log than it has to, until the next time.
func (w *walSession) finish(durable lsn) {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if w.confirm(durable, durable) != nil {
		return
	}
	w.conn.Frontend().Send(&pgproto3.CopyDone{})
	if w.conn.Frontend().Flush() != nil {
		return
	}
	for {
		m, err := w.conn.ReceiveMessage(ctx)
		if err != nil {
			return
		}
		if _, ready := m.(*pgproto3.ReadyForQuery); ready {
			return
		}
	}
}

// makeSlot makes the slot by which the active keeps what the standby still
// lacks, or keeps the one that there is.
func (w *walSession) makeSlot(ctx context.Context, slot string) error {
	_, err := w.command(ctx, fmt.Sprintf(`CREATE_REPLICATION_SLOT "%s" PHYSICAL RESERVE_WAL`, slot))
	if hasCode(err, codeDuplicateObject) {
		return nil
	}
	return err
}

func (w *walSession) dropSlot(ctx context.Context, slot string) error {
	_, err := w.command(ctx, fmt.Sprintf(`DROP_REPLICATION_SLOT "%s" WAIT`, slot))
	if hasCode(err, codeUndefinedObject) {
		return nil
	}
	return err
}
