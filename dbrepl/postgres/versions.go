package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// versions are the version of each definition of a database that no lock on
// its tables protects. pg_dump reads part of them as of its snapshot and has the
// server word the rest as of now, so what was altered in between would come out
// as a mixture, or not at all.
type versions map[string]string

// versionsQuery names each such definition, and gives its version: the
// transaction that wrote it. Refreshing a materialized view writes its entry of
// pg_class and changes nothing that is dumped, so of relations only the name,
// owner and rights count there.
const versionsQuery = `WITH space AS (SELECT oid, nspname, xmin FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
	relation AS (SELECT c.* FROM pg_class c JOIN space ON space.oid = c.relnamespace WHERE relkind IN ('v', 'm', 'S', 'f', 'p', 'c') AND relpersistence <> 't')
SELECT format('schema %s', nspname), xmin::text FROM space WHERE oid >= 16384
UNION ALL SELECT format('%s', oid::regclass), concat_ws(' ', relname, relnamespace, relowner, relacl, reloptions) FROM relation
UNION ALL SELECT format('sequence %s', seqrelid::regclass), q.xmin::text FROM pg_sequence q JOIN relation ON relation.oid = seqrelid
UNION ALL SELECT format('column %s of %s', attnum, attrelid::regclass), a.xmin::text FROM pg_attribute a JOIN relation ON relation.oid = attrelid WHERE attnum > 0 AND relkind <> 'S'
UNION ALL SELECT format('rule %s of %s', r.oid, ev_class::regclass), r.xmin::text FROM pg_rewrite r JOIN relation ON relation.oid = ev_class
UNION ALL SELECT format('%s', p.oid::regprocedure), p.xmin::text FROM pg_proc p JOIN space ON space.oid = pronamespace WHERE p.oid >= 16384
UNION ALL SELECT format('type %s', t.oid::regtype), t.xmin::text FROM pg_type t JOIN space ON space.oid = typnamespace WHERE typtype IN ('d', 'e', 'r')`

func readVersions(ctx context.Context, c querier) (versions, error) {
	rows, err := c.Query(ctx, versionsQuery)
	if err != nil {
		return nil, fmt.Errorf("read the definitions: %w", err)
	}
	defer rows.Close()
	all := make(versions)
	for rows.Next() {
		var name, version string
		if err := rows.Scan(&name, &version); err != nil {
			return nil, err
		}
		all[name] = version
	}
	return all, rows.Err()
}

// changedSince returns err, which says how the dump went, or that it was of
// definitions that somebody altered since before.
func (e *Engine) changedSince(ctx context.Context, before versions, err error) error {
	var program *programError
	if err != nil && !errors.As(err, &program) && !isServerError(err) {
		return err
	}
	c, cerr := e.active.connect(ctx, e.opt.Name)
	if cerr != nil {
		if err == nil {
			err = cerr
		}
		return err
	}
	defer end(c)
	now, cerr := readVersions(ctx, c)
	if cerr != nil {
		if err == nil {
			err = e.active.explain(ctx, cerr)
		}
		return err
	}
	var changed []string
	for name, version := range before {
		if now[name] != version {
			changed = append(changed, name)
		}
	}
	if changed != nil {
		slices.Sort(changed)
		return fmt.Errorf("%w: %s", errChanged, some(changed, ""))
	}
	return err
}
