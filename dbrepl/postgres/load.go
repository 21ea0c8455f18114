package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/drsync/drsync/dbrepl/room"
	"github.com/drsync/drsync/internal/hint"
)

// load makes the database name like the one that the dump in the scratch
// directory was taken of, and loads that into it.
func (e *Engine) load(parent context.Context, p programs, like properties, name string, fenced bool) error {
	guarded, stop := e.standby.guard(parent, e.opt.Maintenance)
	defer stop()
	datadir, err := e.create(guarded, like, name)
	if err != nil {
		return adviseRoom(e.standby.explain(guarded, err))
	}
	ctx, free := room.Watch(guarded, datadir, e.freeIn)
	defer free()
	a, err := e.standby.access(ctx, [2]string{"maintenance_work_mem", "256MB"}, [2]string{"synchronous_commit", "off"})
	if err != nil {
		return err
	}
	defer a.close()
	_, err = run(ctx, a.env, p.restore,
		"--format=directory", "--jobs="+strconv.Itoa(e.opt.Jobs), "--exit-on-error", "--no-password",
		"--no-subscriptions", "--no-tablespaces", "--dbname="+conninfo(name), e.dumpDir())
	if err != nil {
		return adviseLoad(fmt.Errorf("load: %w", err))
	}
	c, err := e.standby.connect(ctx, e.opt.Maintenance)
	if err != nil {
		return err
	}
	defer end(c)
	return adviseRoom(e.standby.explain(ctx, like.dress(ctx, c, name, fenced)))
}

// create makes an empty database, and returns where the server keeps it, "" if
// the account may not know.
func (e *Engine) create(ctx context.Context, like properties, name string) (datadir string, err error) {
	c, err := e.standby.connect(ctx, e.opt.Maintenance)
	if err != nil {
		return "", err
	}
	defer end(c)
	statement, err := like.createStatement(name)
	if err != nil {
		return "", err
	}
	if _, err := c.Exec(ctx, statement); err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	err = c.QueryRow(ctx, "SELECT setting FROM pg_settings WHERE name = 'data_directory'").Scan(&datadir)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return datadir, err
}

// adviseRoom adds what can be done when the server says that its disk is full.
func adviseRoom(err error) error {
	if hasCode(err, codeDiskFull) {
		return hint.With(err, room.Advice)
	}
	return err
}

// unqualified matches what a server says of a name that its search_path does not lead to.
var unqualified = regexp.MustCompile(`(relation "[^"]*"|function .*\)|type "[^"]*") does not exist`)

// adviseLoad adds what can be done about an error of pg_restore.
func adviseLoad(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "role ") && strings.Contains(text, "does not exist"):
		return hint.With(err, "create the role on the standby; pg_dumpall --roles-only on the active shows how")
	case strings.Contains(text, "permission denied"), strings.Contains(text, "must be owner"), strings.Contains(text, "must be superuser"),
		strings.Contains(text, "must be member"):
		return hint.With(err, "make drsync's account on the standby a member of the roles that own what the database holds; drsync check names other rights that it lacks")
	case unqualified.MatchString(text):
		return hint.With(err, "while a dump is loaded nothing is found without its schema; if a function that a constraint, an index, a column or a view uses names it so, run on the active: ALTER FUNCTION … SET search_path = public, pg_temp")
	case strings.Contains(text, "violates check constraint"):
		return hint.With(err, "a constraint that looks at other rows may not hold while they are loaded; on the active, make one that a dump adds after the rows: ALTER TABLE … DROP CONSTRAINT …, ADD CONSTRAINT … CHECK (…) NOT VALID")
	case strings.Contains(text, "No space left on device"):
		return hint.With(err, room.Advice)
	}
	return err
}
