package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/drsync/drsync/dbrepl"
)

// sequenceState is where a sequence of MariaDB is. A sequence takes part in no
// transaction: a snapshot shows it as it is now, and whoever took a number from it and
// has committed may be older than the event that tells a replica so, since numbers are
// taken many at once and that event is written at the end of a statement.
type sequenceState struct {
	Next   string `json:"next"`             // the first number that is not reserved yet
	Rounds string `json:"rounds,omitempty"` // how often it began anew, of one that does
	Down   bool   `json:"down,omitempty"`   // it counts down
}

// sequences are the states of sequences by their names.
type sequences map[string]sequenceState

// readStates reads where the sequences among the tables of the session's own schema are.
func readStates(ctx context.Context, c *sql.Conn, tables []table) (sequences, error) {
	all := make(sequences)
	for _, t := range tables {
		if !t.sequence {
			continue
		}
		r, err := one(ctx, c, "SELECT next_not_cached_value n, `increment` i, cycle_count r FROM "+quote(t.name))
		if hasNumber(err, errNoSuchTable) {
			err = fmt.Errorf("%w: sequence %s is gone", errChanged, t.name)
		}
		if err != nil {
			return nil, fmt.Errorf("state of sequence %s: %w", t.name, err)
		}
		all[t.name] = sequenceState{Next: r.get("n"), Rounds: r.get("r"), Down: strings.HasPrefix(r.get("i"), "-")}
	}
	return all, nil
}

// reached notes the state that a sequence was set to: the values of its only row.
func (k *copier) reached(name string, values []int64) {
	if k.states == nil {
		k.states = make(sequences)
	}
	k.states[name] = sequenceState{Next: strconv.FormatInt(values[0], 10), Rounds: strconv.FormatInt(values[7], 10), Down: values[4] < 0}
}

// sequencesNow reads where the sequences of the session's own schema are.
func sequencesNow(ctx context.Context, c *sql.Conn, id identity, schemaName string) (sequences, error) {
	if !id.MariaDB {
		return nil, nil
	}
	names, err := records(ctx, c, "SELECT TABLE_NAME n FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_TYPE = 'SEQUENCE'", schemaName)
	if err != nil {
		return nil, err
	}
	all := make(sequences)
	for _, name := range valuesOf(names, "n") {
		some, err := readStates(ctx, c, []table{{name: name, sequence: true}})
		if errors.Is(err, errChanged) {
			continue // dropped just now
		}
		if err != nil {
			return nil, err
		}
		all[name] = some[name]
	}
	return all, nil
}

// advance brings the sequences of the visible schema to where the active's were after
// the captured point. What is replicated up to that can leave one behind its rows.
func (a *application) advance(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(a.g.Sequences)) {
		want := a.g.Sequences[name]
		full := quote(a.e.opt.Name) + "." + quote(name)
		r, err := one(ctx, a.conn, "SELECT next_not_cached_value, minimum_value, maximum_value, start_value, `increment`, cache_size, cycle_option, cycle_count FROM "+full)
		if hasNumber(err, errNoSuchTable, errUnknownColumn) {
			continue // made after the point, or no sequence at it
		}
		if err != nil {
			return fmt.Errorf("state of sequence %s: %w", name, a.e.standby.explain(ctx, err))
		}
		now := sequenceState{Next: r.get("next_not_cached_value"), Rounds: r.get("cycle_count"), Down: strings.HasPrefix(r.get("increment"), "-")}
		if now.Down != want.Down || !now.isBehind(want) {
			continue
		}
		values := []string{want.Next, r.get("minimum_value"), r.get("maximum_value"), r.get("start_value"), r.get("increment"), r.get("cache_size"), r.get("cycle_option"), want.Rounds}
		if err := a.runStep(ctx, "INSERT INTO "+full+" VALUES ("+strings.Join(values, ",")+")"); err != nil {
			return fmt.Errorf("set sequence %s: %w", name, err)
		}
	}
	return nil
}

// isBehind says whether a sequence at s can give a number that one at other has given.
func (s sequenceState) isBehind(other sequenceState) bool {
	if c := compareNumbers(s.Rounds, other.Rounds); c != 0 {
		return c < 0
	}
	c := compareNumbers(s.Next, other.Next)
	return c < 0 && !other.Down || c > 0 && other.Down
}

// compareNumbers compares numbers that may be beyond 64 bits: a sequence that counted
// to its end is one further.
func compareNumbers(a, b string) int {
	x, _ := new(big.Int).SetString(a, 10)
	y, _ := new(big.Int).SetString(b, 10)
	if x == nil || y == nil { // which no server tells
		return 0
	}
	return x.Cmp(y)
}

func isNumber(text string) bool {
	_, ok := new(big.Int).SetString(text, 10)
	return ok
}

// behind finds the sequences of s that are behind those of the same name.
func (s sequences) behind(active sequences) (all []found) {
	for _, name := range slices.Sorted(maps.Keys(active)) {
		there := active[name]
		here, both := s[name]
		if !both || !here.isBehind(there) {
			continue
		}
		round := func(s sequenceState) string {
			if here.Rounds == there.Rounds {
				return s.Next
			}
			return s.Next + " in round " + s.Rounds
		}
		all = append(all, found{dbrepl.Difference{Table: name,
			Text: fmt.Sprintf("the sequence is behind the active's: next is %s, on the active %s", round(here), round(there))}, -1})
	}
	return all
}
