package mysql

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/drsync/drsync/dbrepl/dump"
	"github.com/drsync/drsync/internal/hint"
)

// engineName is whose dumps these are.
const engineName = "mysql"

// definition is what a dump says about its schema: all that it takes to make it
// again without the server that it came from. It is stored as JSON; fields are
// only ever added.
type definition struct {
	Format    int         `json:"format"`
	MariaDB   bool        `json:"mariadb,omitempty"`
	Version   string      `json:"version"` // of the server, as it words it
	LowerCase string      `json:"lower_case_table_names"`
	Charset   string      `json:"charset"`
	Collation string      `json:"collation"`
	Tables    []keptTable `json:"tables"`            // sequences first
	Objects   []object    `json:"objects,omitempty"` // in the order in which they can be created; events are disabled
	Events    []string    `json:"events,omitempty"`  // that were enabled on the active
}

const definitionFormat = 1

// keptTable is a table or, if it has a state, a sequence.
type keptTable struct {
	Name    string       `json:"name"`
	SQL     string       `json:"sql"`               // creates it, with its partitions, keys and foreign keys
	Columns []keptColumn `json:"columns,omitempty"` // that a line of a chunk consists of
	State   []int64      `json:"state,omitempty"`   // the columns of a sequence's row
}

// keptColumn says how a column's values stand in a line: column.transport decides that.
type keptColumn struct {
	Name          string `json:"name"`
	Kind          string `json:"kind"`
	Charset       string `json:"charset,omitempty"`
	AutoIncrement bool   `json:"auto_increment,omitempty"`
	DefaultTo     string `json:"default,omitempty"` // an expression that draws from a sequence
}

// keeper writes the dump of one attempt to capture. A nil keeper keeps none.
type keeper struct {
	w      *dump.Writer
	states map[string][]int64
}

// newKeeper makes the dump's directory. "" is no dump.
func newKeeper(dir string) (*keeper, error) {
	if dir == "" {
		return nil, nil
	}
	w, err := dump.Create(dir)
	if err != nil {
		return nil, err
	}
	return &keeper{w: w, states: make(map[string][]int64)}, nil
}

func (k *keeper) discard() error {
	if k == nil {
		return nil
	}
	return k.w.Discard()
}

func (k *keeper) sequence(name string, state []int64) {
	if k != nil {
		k.states[name] = state
	}
}

// keptPart is the chunk that the rows of one part go to. It is begun with the
// first of them. A nil keptPart takes none.
type keptPart struct {
	w     *dump.Writer
	table string
	chunk *dump.ChunkWriter
}

func (k *keeper) part(table string) *keptPart {
	if k == nil {
		return nil
	}
	return &keptPart{w: k.w, table: table}
}

func (p *keptPart) write(lines []byte) (err error) {
	if p == nil || len(lines) == 0 {
		return nil
	}
	if p.chunk == nil {
		if p.chunk, err = p.w.Chunk(p.table); err != nil {
			return err
		}
	}
	_, err = p.chunk.Write(lines)
	return err
}

func (p *keptPart) close(rows int64) error {
	if p == nil || p.chunk == nil {
		return nil
	}
	return p.chunk.Close(rows)
}

// abort gives up what is not closed.
func (p *keptPart) abort() {
	if p != nil && p.chunk != nil {
		p.chunk.Abort()
	}
}

// seal completes the dump.
func (k *keeper) seal(server identity, g *generation, tables []table) error {
	if k == nil {
		return nil
	}
	d := definition{
		Format: definitionFormat, MariaDB: server.MariaDB, Version: server.Version, LowerCase: server.LowerCase,
		Charset: g.Charset, Collation: g.Collation, Objects: g.Objects, Events: g.Events,
	}
	for _, t := range tables {
		kept := keptTable{Name: t.name, SQL: t.ddl, State: k.states[t.name]}
		for _, c := range t.columns {
			kept.Columns = append(kept.Columns, keptColumn{c.name, c.kind, c.charset, c.autoIncrement, c.defaultTo})
		}
		d.Tables = append(d.Tables, kept)
	}
	if err := d.valid(); err != nil {
		return fmt.Errorf("keep a dump: %w", err)
	}
	body, err := json.Marshal(d)
	if err == nil {
		err = k.w.Seal(dump.Manifest{Engine: engineName, Name: g.Name, Point: g.Point, Definition: body})
	}
	if err != nil {
		return fmt.Errorf("keep a dump: %w", err)
	}
	return nil
}

// valid says whether d can be written and used. JSON holds no text but UTF-8.
func (d definition) valid() error {
	if d.Format != definitionFormat {
		return fmt.Errorf("its definition has format %d; this drsync knows %d", d.Format, definitionFormat)
	}
	if d.Charset == "" || d.Collation == "" || d.Version == "" {
		return errors.New("its definition is incomplete")
	}
	seen := make(map[string]bool, len(d.Tables))
	for _, t := range d.Tables {
		if t.Name == "" || t.Name == markerTable || t.SQL == "" || seen[t.Name] || len(t.State) == 0 && len(t.Columns) == 0 {
			return fmt.Errorf("its table %q is not understood", t.Name)
		}
		if !utf8.ValidString(t.SQL) {
			return hint.With(fmt.Errorf("the definition of table %s is not in UTF-8", t.Name),
				"on the active, write its binary default as an expression, such as ALTER TABLE … ALTER … SET DEFAULT (X'00FF'), which changes no row; or keep no dumps")
		}
		seen[t.Name] = true
	}
	for _, o := range d.Objects {
		if !slices.Contains(kinds, o.Kind) || o.Name == "" || o.SQL == "" {
			return fmt.Errorf("its %s is not understood", o)
		}
		if !utf8.ValidString(o.SQL) {
			return fmt.Errorf("the definition of %s is not in UTF-8", o)
		}
	}
	return nil
}

// schema returns the schema that d defines.
func (d definition) schema() schema {
	s := schema{charset: d.Charset, collation: d.Collation, objects: d.Objects}
	for _, k := range d.Tables {
		t := table{name: k.Name, ddl: k.SQL, sequence: len(k.State) > 0}
		for _, c := range k.Columns {
			t.columns = append(t.columns, column{name: c.Name, kind: c.Kind, charset: c.Charset, autoIncrement: c.AutoIncrement, defaultTo: c.DefaultTo})
		}
		s.tables = append(s.tables, t)
	}
	return s
}

// server returns what is known about the server that the schema was captured from.
func (d definition) server() (identity, error) {
	number, err := parseVersion(d.Version)
	return identity{MariaDB: d.MariaDB, Version: d.Version, Number: number, LowerCase: d.LowerCase}, err
}
