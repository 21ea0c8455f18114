package postgres

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/dump"
	"github.com/drsync/drsync/internal/hint"
)

// engineName is whose dumps these are.
const engineName = "postgres"

// definition is what a kept dump says beside its chunks, which are the files
// that pg_dump wrote.
type definition struct {
	Format     int              `json:"format"`
	Generation generation       `json:"generation"`
	Properties properties       `json:"properties"`
	Number     int              `json:"version"` // of the active's server: 150018
	Programs   int              `json:"programs"`
	Files      []string         `json:"files"` // the names that the chunks had, in their order
	Rows       map[string]int64 `json:"rows"`  // of each table, and how many large objects
}

// keep moves the files of the dump in the scratch directory into a kept dump.
func (e *Engine) keep(ctx context.Context, p *pair, dir string, g *generation, t *taken) (err error) {
	w, err := dump.Create(dir)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("keep a dump: %w", err), w.Discard())
		}
	}()
	tables, err := tablesOfFiles(ctx, p.programs, e.dumpDir(), t.tables)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(e.dumpDir())
	if err != nil {
		return err
	}
	d := definition{Format: tokenFormat, Generation: *g, Properties: t.properties, Number: p.active.Number, Programs: p.programs.major, Rows: make(map[string]int64)}
	for _, entry := range entries {
		if err := interrupted(ctx); err != nil {
			return err
		}
		if !entry.Type().IsRegular() {
			return fmt.Errorf("pg_dump left %s, which is no file", entry.Name())
		}
		number, _, _ := strings.Cut(entry.Name(), ".")
		label, rows := "", int64(0)
		if name, is := tables[number]; is {
			label, rows = name, t.contents[name].Rows
		}
		if err := w.Adopt(label, filepath.Join(e.dumpDir(), entry.Name()), rows); err != nil {
			return err
		}
		d.Files = append(d.Files, entry.Name())
	}
	for name, n := range t.contents {
		d.Rows[name] = n.Rows
	}
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return w.Seal(dump.Manifest{Engine: engineName, Name: e.opt.Name, Point: g.Point, Definition: text})
}

// tableData is a line of pg_restore's list: which entry holds the rows of the
// table with which number.
var tableData = regexp.MustCompile(`(?m)^([0-9]+); [0-9]+ ([0-9]+) TABLE DATA `)

// tablesOfFiles says which table each data file is of, by the file's number.
func tablesOfFiles(ctx context.Context, p programs, dir string, tables []table) (map[string]string, error) {
	list, err := run(ctx, append(plainEnvironment(), "LC_ALL=C"), p.restore, "--list", dir)
	if err != nil {
		return nil, err
	}
	byOID := make(map[string]string, len(tables))
	for _, t := range tables {
		byOID[strconv.FormatUint(uint64(t.OID), 10)] = t.String()
	}
	found := make(map[string]string)
	for _, m := range tableData.FindAllSubmatch(list, -1) {
		if name, ok := byOID[string(m[2])]; ok {
			found[string(m[1])] = name
		}
	}
	return found, nil
}

// fileName is what pg_dump calls the files of a dump in a directory.
var fileName = regexp.MustCompile(`^[A-Za-z0-9_.]{1,100}$`)

// readKept returns what a dump of this engine says of itself.
func readKept(dir string) (d definition, m dump.Manifest, err error) {
	m, err = dump.Read(dir)
	if err != nil {
		return d, m, err
	}
	fail := func(why string) (definition, dump.Manifest, error) {
		return d, m, fmt.Errorf("read dump %s: %s", dir, why)
	}
	if m.Engine != engineName {
		return fail("it is not one of a PostgreSQL database")
	}
	if err := json.Unmarshal(m.Definition, &d); err != nil {
		return fail(err.Error())
	}
	if err := d.Properties.validate(); err != nil {
		return fail(err.Error())
	}
	if d.Format != tokenFormat || len(d.Files) != len(m.Chunks) {
		return fail("its definition is not understood")
	}
	for i, name := range d.Files {
		if !fileName.MatchString(name) || name == "." || name == ".." || slices.Contains(d.Files[:i], name) {
			return fail(fmt.Sprintf("it has a file %q", name))
		}
	}
	return d, m, nil
}

// unpack puts the files of a kept dump into the scratch directory, as links,
// after each was compared with its sum.
func (e *Engine) unpack(ctx context.Context, dir string, d definition, m dump.Manifest) error {
	if err := e.makeScratch(); err != nil {
		return err
	}
	if err := os.Mkdir(e.dumpDir(), 0o700); err != nil {
		return err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for i, c := range m.Chunks {
		if err := readThrough(ctx, dir, c); err != nil {
			return err
		}
		if err := os.Symlink(filepath.Join(dir, c.File), filepath.Join(e.dumpDir(), d.Files[i])); err != nil {
			return err
		}
	}
	return nil
}

func readThrough(ctx context.Context, dir string, c dump.Chunk) error {
	r, err := dump.Open(dir, c)
	if err != nil {
		return err
	}
	defer r.Close()
	buffer := make([]byte, 256<<10)
	for {
		if err := interrupted(ctx); err != nil {
			return err
		}
		if _, err := r.Read(buffer); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Restore implements dbrepl.Restorer.
func (e *Engine) Restore(ctx context.Context, dir string) (dbrepl.Captured, error) {
	g, err := e.restore(ctx, dir)
	if err != nil {
		return nil, e.failed("restore", err)
	}
	return &captured{e: e, g: g}, nil
}

func (e *Engine) restore(ctx context.Context, dir string) (*generation, error) {
	d, m, err := readKept(dir)
	if err != nil {
		return nil, err
	}
	if d.Generation.Name != e.opt.Name {
		return nil, fmt.Errorf("the dump is of the database %q", d.Generation.Name)
	}
	if err := e.claim(ctx); err != nil {
		return nil, err
	}
	if err := e.dropStaging(ctx); err != nil {
		return nil, err
	}
	g := d.Generation
	g.ID = rand.Text()
	if _, err = e.loadKept(ctx, dir, d, m, e.stagingName(), true); err == nil {
		err = e.finish(ctx, &g)
	}
	if err != nil {
		return nil, e.undo(ctx, err)
	}
	return &g, nil
}

// RestoreAs implements dbrepl.Restorer.
func (e *Engine) RestoreAs(ctx context.Context, dir, name string) (dbrepl.Counts, error) {
	counts, err := e.restoreAs(ctx, dir, name)
	if err != nil {
		return dbrepl.Counts{}, fmt.Errorf("restore into database %s: %w", name, err)
	}
	return counts, nil
}

func (e *Engine) restoreAs(ctx context.Context, dir, name string) (counts dbrepl.Counts, err error) {
	if err := errors.Join(interrupted(ctx), validName(name)); err != nil {
		return counts, err
	}
	d, m, err := readKept(dir)
	if err != nil {
		return counts, err
	}
	if err := e.claim(ctx); err != nil {
		return counts, err
	}
	if err := e.prepareDraft(ctx, name); err != nil {
		return counts, err
	}
	n, err := e.loadKept(ctx, dir, d, m, e.draftName(), false)
	if err = errors.Join(err, e.clearScratch()); err == nil {
		err = e.nameDraft(ctx, name)
	}
	if err != nil {
		// Even where ctx is over. What cannot be dropped now the next capture drops.
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.opt.Connect+e.opt.Lock)
		defer cancel()
		if cleanup := e.dropDraft(after); cleanup != nil {
			e.warn("the database %s is left, and is not whole: %v", e.draftName(), cleanup)
		}
		return counts, err
	}
	return dbrepl.Counts{Tables: n.tables(), Rows: n.rows(), Bytes: m.Stored()}, nil
}

// prepareDraft refuses a name that is in use, and removes what a restore that
// was killed has left.
func (e *Engine) prepareDraft(ctx context.Context, name string) error {
	c, err := e.standby.connect(ctx, e.opt.Maintenance)
	if err != nil {
		return err
	}
	defer end(c)
	oid, err := databaseID(ctx, c, name)
	if err != nil {
		return e.standby.explain(ctx, err)
	}
	if oid != 0 {
		return errExists()
	}
	return e.standby.explain(ctx, e.dropDatabase(ctx, c, e.draftName(), true))
}

func errExists() error { return hint.New("it exists", "name a database that does not exist") }

// nameDraft gives a database that was restored its name: until then nobody can
// take it for whole.
func (e *Engine) nameDraft(ctx context.Context, name string) error {
	c, err := e.standby.connect(ctx, e.opt.Maintenance)
	if err != nil {
		return err
	}
	defer end(c)
	_, err = c.Exec(ctx, rename(e.draftName(), name))
	if hasCode(err, codeDatabaseExists) {
		return errExists()
	}
	return e.standby.explain(ctx, err)
}

func (e *Engine) dropDraft(ctx context.Context) error {
	c, err := e.standby.connect(ctx, e.opt.Maintenance)
	if err != nil {
		return err
	}
	defer end(c)
	return e.standby.explain(ctx, e.dropDatabase(ctx, c, e.draftName(), true))
}

// loadKept loads a kept dump into a new database and counts it.
func (e *Engine) loadKept(ctx context.Context, dir string, d definition, m dump.Manifest, name string, fenced bool) (contents, error) {
	p, err := e.canRestore(ctx, d)
	if err != nil {
		return nil, err
	}
	if err := e.unpack(ctx, dir, d, m); err != nil {
		return nil, err
	}
	if err := e.load(ctx, p, d.Properties, name, fenced); err != nil {
		return nil, err
	}
	found, err := e.look(ctx, name, false, true)
	if err != nil {
		return nil, err
	}
	want := make(contents, len(d.Rows))
	for name, n := range d.Rows {
		want[name] = content{Rows: n}
	}
	if all := want.differences(found); all != nil {
		return nil, fmt.Errorf("what was restored is not what was kept: %s", some(all, ""))
	}
	return found, nil
}
