package mysql

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
)

// follow fixes a point of the active and receives up to it. It returns a
// lostError when the active cannot serve what the standby lacks.
func (r *Replica) follow(ctx context.Context, l *link, active identity, s standing, verify bool) (_ *followed, err error) {
	if err := l.run(ctx, "SET GLOBAL read_only=1"); err != nil {
		return nil, err
	}
	snap, err := r.e.openSnapshot(ctx, active, nil, viewSessions)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			snap.close()
		}
	}()
	gtid := gtidOf(snap.point.Position)
	want, err := l.parse(gtid)
	switch {
	case err != nil:
		return nil, err
	case gtid == "":
		return nil, errNoGTID(snap.point.Position)
	case !want.covers(s.at):
		return nil, &lostError{fmt.Sprintf("the standby stands at GTID %s, of which the active, at %s, knows nothing", s.applied, gtid)}
	}
	g, err := r.describe(ctx, active, snap)
	if err != nil {
		return nil, err
	}
	if !want.equal(s.at) {
		if g.Counts.Bytes, err = l.receive(ctx, gtid, want, l.lookout(s.at, want)); err != nil {
			return nil, err
		}
	}
	c := &followed{r: r, g: g, from: s.applied, snap: newSnapshotView(r.e, snap)}
	if verify {
		if c.there, err = r.definitions(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// describe returns what the marker is to say of the snapshot. Events that run
// on the active are named, since here none runs until promotion.
func (r *Replica) describe(ctx context.Context, active identity, snap *snapshot) (*generation, error) {
	c, err := r.e.active.session(ctx, r.e.opt.Name)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	fail := func(err error) (*generation, error) { return nil, r.e.active.explain(ctx, err) }
	defaults, err := one(ctx, c, "SELECT @@character_set_database cs, @@collation_database co")
	if err != nil {
		return fail(err)
	}
	events, err := readEvents(ctx, c, r.e.opt.Name)
	if err != nil {
		return fail(err)
	}
	tables, err := relations(ctx, c, r.e.opt.Name)
	if err != nil {
		return fail(err)
	}
	tables = slices.DeleteFunc(tables, func(t string) bool { return t == markerTable })
	g := &generation{
		Format: tokenFormat, Engine: tokenEngine, Name: r.e.opt.Name, ID: rand.Text(),
		Point: snap.point, Charset: defaults.get("cs"), Collation: defaults.get("co"), Tables: tables, Replicated: true,
	}
	if g.Sequences, err = sequencesNow(ctx, c, active, r.e.opt.Name); err != nil {
		return fail(err)
	}
	g.Counts.Tables = len(tables)
	if g.Counts.Locked = snap.locked; snap.locked > 0 {
		g.Counts.Against = lockedAgainst
	}
	for _, o := range events {
		if o.Enabled {
			g.Events = append(g.Events, o.Name)
		}
	}
	return g, nil
}

// receive brings everything up to a position into the relay logs, durably, and
// returns how many bytes these have. What look, if not nil, sees in them may be a
// lostError.
func (l *link) receive(ctx context.Context, gtid string, want position, look *lookout) (int64, error) {
	s, err := l.channel(ctx)
	if err != nil {
		return 0, err
	}
	if !l.continuous || !l.receives(s) {
		if err := l.forget(ctx, l.run); err != nil {
			return 0, err
		}
		if err := l.configure(ctx); err != nil {
			return 0, err
		}
		if err := l.run(ctx, l.say.receive(gtid, l.continuous)); err != nil {
			return 0, fmt.Errorf("receive from the active: %w", err)
		}
	}
	size, err := l.await(ctx, want)
	if err == nil && !l.continuous {
		err = l.run(ctx, l.say.stop())
	}
	if err == nil {
		err = l.run(ctx, l.say.flush())
	}
	if err == nil {
		err = l.holds(ctx, want, look)
	}
	if err != nil && !l.continuous {
		// Nobody shall go on to receive what nobody waits for.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTime)
		defer cancel()
		_ = l.run(ctx, l.say.stop())
	}
	return size, err
}

// holds makes sure that the relay logs hold what the server says that it has
// received, and that all of it can be applied.
func (l *link) holds(ctx context.Context, want position, look *lookout) error {
	if !l.say.mariaDB { // where the server tells what they hold
		if look == nil {
			return nil
		}
		whole, err := l.eachRelayed(ctx, func(_ place, kind string, info []byte) { look.event(kind, info) }, func(bool) {})
		look.cut = !whole
		return look.judge(err)
	}
	_, at, err := l.applied(ctx)
	if err != nil {
		return err
	}
	found, err := l.relayed(ctx, at, want, look)
	if err == nil && !found.reached {
		err = errors.New("the standby's relay logs do not hold all that was received")
	}
	return look.judge(err)
}

// receives says whether the channel already receives what is wanted.
func (l *link) receives(s *channelStatus) bool {
	return s != nil && s.receiving == "Yes" && s.byGTID && s.host == l.source.host && s.port == l.source.port && s.user == l.source.user &&
		(!l.say.mariaDB || s.delay == strconv.Itoa(farAway))
}

// configure makes the channel anew. The server's errors could repeat the
// statement, which holds the password.
func (l *link) configure(ctx context.Context) error {
	if err := l.run(ctx, l.say.configure(l.source)); err != nil {
		return fmt.Errorf("configure replication: %w", l.withoutPassword(err))
	}
	return l.run(ctx, l.say.only(l.e.opt.Name))
}

func (l *link) withoutPassword(err error) error {
	clean := err.Error()
	for _, form := range []string{text(l.source.password), l.source.password} {
		if l.source.password != "" {
			clean = strings.ReplaceAll(clean, form, "***")
		}
	}
	if clean == err.Error() {
		return err
	}
	return errors.New(clean)
}

// Errors of a receiving thread for which asking again is of no use.
var receiveErrors = map[string]bool{"1045": true, "1130": true, "1227": true, "1142": true, "1593": true, "1698": true, "2026": true, "3159": true}

// await waits until everything up to a position was received.
func (l *link) await(ctx context.Context, want position) (size int64, err error) {
	look := time.Millisecond // and then at longer intervals, but 20 ms
	last, moved := "", time.Now()
	for {
		s, err := l.channel(ctx)
		if err != nil {
			return 0, err
		}
		if s == nil {
			return 0, errors.New("somebody removed drsync's replication channel")
		}
		size, _ = strconv.ParseInt(s.bytes, 10, 64) // for the eye only
		l.e.opt.Event.Emit(event.Event{Kind: event.Progress, Step: "capture", Name: l.e.opt.Name, Bytes: size})
		done, err := l.has(ctx, s, want)
		if err != nil || done {
			return size, err
		}
		if err := l.receiveError(s); err != nil {
			return 0, err
		}
		if now := s.received + " " + s.place + " " + s.bytes; now != last {
			last, moved = now, time.Now()
		}
		if time.Since(moved) > max(l.e.opt.Quiet, l.e.opt.Connect) {
			problem := fmt.Sprintf("nothing arrived for %v", max(l.e.opt.Quiet, l.e.opt.Connect))
			if s.receiveError != "" {
				problem = s.problem()
			}
			return 0, l.unreachable(problem)
		}
		select {
		case <-time.After(look):
			look = min(look*3/2, 20*time.Millisecond)
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (l *link) unreachable(problem string) error {
	return hint.With(fmt.Errorf("the standby's server receives nothing from the active's at %s: %s", l.source.address(), problem),
		"check that the standby's server reaches this address, user and password of database.replication, that the account has REPLICATION SLAVE there, and with tls that ca signed the certificate that the active has for this address")
}

func (s source) address() string { return s.host + ":" + s.port }

// problem words an error of the receiving thread. Its number says what the text of
// a server may leave out: 1045 is a wrong password, 2026 one of TLS.
func (s *channelStatus) problem() string {
	return fmt.Sprintf("%s (error %s)", s.receiveError, s.receiveNumber)
}

// has says whether everything up to want was received or applied.
func (l *link) has(ctx context.Context, s *channelStatus, want position) (bool, error) {
	got, err := l.parse(s.received)
	if err != nil {
		return false, err
	}
	if l.say.mariaDB {
		// The receiver's position begins where the applied one ends.
		return got.covers(want), nil
	}
	text, _, err := l.applied(ctx)
	if err != nil {
		return false, err
	}
	both, err := l.parse(text + "," + s.received)
	return err == nil && both.covers(want), err
}

// receiveError turns what stopped the receiver for good into an error.
func (l *link) receiveError(s *channelStatus) error {
	switch {
	case s.receiveNumber == "1236" || s.receiveNumber == "13114":
		return &lostError{"the active cannot serve what comes next: " + s.receiveError}
	case receiveErrors[s.receiveNumber], s.receiving == "No" && s.receiveError != "":
		return l.unreachable(s.problem())
	}
	return nil
}
