package postgres

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/drsync/drsync/dbrepl"
)

// part is one thing that a database consists of, as the server words it.
type part struct {
	Kind string // table, column, function, …
	Name string // with its schema
	Of   string // what it belongs to, "" is nothing: where that is missing, so is this
	Text string
}

func (d part) String() string { return d.Kind + " " + d.Name }

// What needs a look of its own when it is compared.
const (
	kindTable = "table"           // one that is missing is among the contents as well
	kindOrder = "column order of" // says nothing that a missing column does not
	kindValue = "value of sequence"
)

// The parts that the queries of definitions share: whose schema is the
// database's own, what no extension has made, and rights as a text that does
// not depend on the order in which they were given, nor on who gave them.
const (
	ownSchema = ` n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e') `
	relations = ` (SELECT c.*, format('%I.%I', n.nspname, c.relname) AS known FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND c.relpersistence <> 't' AND` + ownSchema + `
			AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')) `
	rights = ` coalesce(' (' || (SELECT string_agg(DISTINCT concat(CASE x.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(x.grantee)::text END, ' ', x.privilege_type, CASE WHEN x.is_grantable THEN '+' END), ', ') FROM aclexplode(%s) x) || ')', '') `
)

func rightsOf(list string) string { return fmt.Sprintf(rights, list) }

// definitionQueries give kind, name, owner and text of each definition. An index
// that is not valid is not dumped, and what a partition has from its parent has
// a name that the server chooses.
var definitionQueries = []string{
	`SELECT 'schema', format('%I', n.nspname), '', 'owner ' || pg_get_userbyid(n.nspowner) || ` + rightsOf("coalesce(n.nspacl, acldefault('n', n.nspowner))") + ` FROM pg_namespace n WHERE ` + ownSchema,
	`SELECT CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence' ELSE 'type' END, c.known, '',
		concat_ws(' ', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END, pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid),
			(SELECT 'of ' || string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = c.oid),
			(SELECT concat_ws(' ', format_type(s.seqtypid, NULL), 'start', s.seqstart, 'by', s.seqincrement, 'from', s.seqmin, 'to', s.seqmax, 'cache', s.seqcache, CASE WHEN s.seqcycle THEN 'cycle' END) FROM pg_sequence s WHERE s.seqrelid = c.oid),
			(SELECT 'owned by ' || string_agg(format('%s.%s', d.refobjid::regclass, a.attname), ', ') FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')),
			CASE c.relpersistence WHEN 'u' THEN 'unlogged' END, CASE WHEN c.relkind = 'm' AND NOT c.relispopulated THEN 'with no data' END,
			CASE WHEN c.relrowsecurity THEN 'row security' END, CASE WHEN c.relforcerowsecurity THEN 'forced' END, CASE WHEN c.relreplident <> 'd' THEN 'replica identity ' || c.relreplident::text END,
			'options ' || (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(c.reloptions) o), 'owner ' || pg_get_userbyid(c.relowner)) || ` +
		rightsOf("coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))") + ` FROM ` + relations + ` c`,
	`SELECT 'column order of', c.known, c.known, string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) FROM ` + relations + ` c JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind <> 'S' GROUP BY c.known`,
	`SELECT 'column', format('%s.%I', c.known, a.attname), c.known, concat_ws(' ', format_type(a.atttypid, a.atttypmod),
			CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation THEN 'collate ' || a.attcollation::regcollation::text END, CASE WHEN a.attnotnull THEN 'not null' END,
			CASE WHEN a.attidentity <> '' THEN 'identity ' || a.attidentity::text END, CASE WHEN a.attgenerated <> '' THEN 'generated ' || a.attgenerated::text END, 'default ' || pg_get_expr(e.adbin, e.adrelid),
			CASE WHEN a.attstorage <> t.typstorage THEN 'storage ' || a.attstorage::text END, 'options ' || array_to_string(a.attoptions, ', ')) || ` + rightsOf("a.attacl") + `
		FROM ` + relations + ` c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
		WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind <> 'S'`,
	`SELECT 'constraint', format('%s.%I', c.known, o.conname), c.known, pg_get_constraintdef(o.oid) FROM ` + relations + ` c JOIN pg_constraint o ON o.conrelid = c.oid
		WHERE o.contype IN ('c', 'f', 'p', 'u', 'x') AND o.conparentid = 0`,
	`SELECT 'index', format('%s.%I', c.known, i.relname), c.known, concat_ws(' ', pg_get_indexdef(x.indexrelid), CASE WHEN x.indisclustered THEN 'clustered' END, CASE WHEN x.indisreplident THEN 'replica identity' END)
		FROM ` + relations + ` c JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid
		WHERE (x.indisvalid OR i.relkind = 'I') AND NOT i.relispartition AND NOT EXISTS (SELECT FROM pg_constraint o WHERE o.conindid = x.indexrelid AND o.contype IN ('p', 'u', 'x'))`,
	`SELECT 'trigger', format('%s.%I', c.known, g.tgname), c.known, pg_get_triggerdef(g.oid) || ' ' || g.tgenabled::text FROM ` + relations + ` c JOIN pg_trigger g ON g.tgrelid = c.oid WHERE NOT g.tgisinternal`,
	`SELECT 'rule', format('%s.%I', c.known, w.rulename), c.known, pg_get_ruledef(w.oid) || ' ' || w.ev_enabled::text FROM ` + relations + ` c JOIN pg_rewrite w ON w.ev_class = c.oid WHERE w.rulename <> '_RETURN'`,
	`SELECT 'policy', format('%s.%I', c.known, p.polname), c.known, concat_ws(' ', p.polcmd, CASE WHEN p.polpermissive THEN 'permissive' END,
			'to ' || (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE pg_get_userbyid(r)::text END, ', ' ORDER BY 1) FROM unnest(p.polroles) r),
			'using ' || pg_get_expr(p.polqual, p.polrelid), 'check ' || pg_get_expr(p.polwithcheck, p.polrelid)) FROM ` + relations + ` c JOIN pg_policy p ON p.polrelid = c.oid`,
	`SELECT 'function', p.oid::regprocedure::text, '', concat_ws(' ', CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) ELSE
			(SELECT concat_ws(' ', 'aggregate', a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggtranstype::regtype, a.agginitval) FROM pg_aggregate a WHERE a.aggfnoid = p.oid) END, 'owner ' || pg_get_userbyid(p.proowner)) || ` +
		rightsOf("coalesce(p.proacl, acldefault('f', p.proowner))") + `
		FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE ` + ownSchema + ` AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype IN ('e', 'i'))`,
	`SELECT 'type', t.oid::regtype::text, '', concat_ws(' ', t.typtype, CASE WHEN t.typbasetype <> 0 THEN format_type(t.typbasetype, t.typtypmod) END, CASE WHEN t.typnotnull THEN 'not null' END, 'default ' || t.typdefault,
			(SELECT string_agg(quote_literal(l.enumlabel), ', ' ORDER BY l.enumsortorder) FROM pg_enum l WHERE l.enumtypid = t.oid),
			(SELECT string_agg(concat_ws(' ', o.conname, pg_get_constraintdef(o.oid)), ', ' ORDER BY o.conname) FROM pg_constraint o WHERE o.contypid = t.oid AND o.contype = 'c'),
			(SELECT r.rngsubtype::regtype::text FROM pg_range r WHERE r.rngtypid = t.oid), 'owner ' || pg_get_userbyid(t.typowner))
		FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE ` + ownSchema + ` AND t.typtype IN ('d', 'e', 'r') AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')`,
	`SELECT 'extension', format('%I', x.extname), '', concat_ws(' ', x.extversion, 'in', n.nspname) FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace`,
	`SELECT 'event trigger', format('%I', v.evtname), '', concat_ws(' ', v.evtevent, v.evtfoid::regproc, v.evtenabled, array_to_string(v.evttags, ', ')) FROM pg_event_trigger v
		WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_event_trigger'::regclass AND d.objid = v.oid AND d.deptype = 'e')`,
	`SELECT 'statistics', format('%I.%I', n.nspname, s.stxname), '', pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE ` + ownSchema,
	// "descending" and what was given last, which is nothing in one that was not used.
	`SELECT 'value of sequence', c.known, c.known, concat(CASE WHEN s.seqincrement < 0 THEN '-' ELSE '+' END, ' ', CASE c.relkind WHEN 'S' THEN pg_sequence_last_value(c.oid) END) FROM ` + relations + ` c JOIN pg_sequence s ON s.seqrelid = c.oid
		WHERE CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT, USAGE') END AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery())`,
}

// readDefinitions lists what the session's database consists of.
func readDefinitions(ctx context.Context, c querier) ([]part, error) {
	var all []part
	for _, q := range append(slices.Clone(definitionQueries), besideQueries...) {
		rows, err := c.Query(ctx, "SELECT a::text, b::text, c::text, coalesce(d, '')::text FROM ("+q+") AS q (a, b, c, d)")
		if err == nil {
			all, err = pgx.AppendRows(all, rows, pgx.RowToStructByPos[part])
		}
		if err != nil {
			return nil, fmt.Errorf("read the definitions: %w", err)
		}
	}
	slices.SortFunc(all, func(a, b part) int {
		return strings.Compare(a.String()+"\x00"+a.Text, b.String()+"\x00"+b.Text)
	})
	return all, nil
}

// definitionDifferences finds what is not defined alike on both sides. A table
// that only one has is left to the comparison of the contents.
func definitionDifferences(there, here []part) (all []dbrepl.Difference) {
	add := func(d part, text string) {
		all = append(all, dbrepl.Difference{Table: d.String(), Text: text})
	}
	standby := byName(here)
	active := byName(there)
	lacks := func(side map[string]part, d part) bool {
		return d.Kind == kindTable || d.Kind == kindValue || d.Kind == kindOrder || d.Of != "" && !hasRelation(side, d.Of)
	}
	for _, a := range there {
		s, both := standby[a.String()]
		switch {
		case !both && lacks(standby, a):
		case !both:
			add(a, "only the active has it")
		case a.Kind == kindValue:
			if behind(s.Text, a.Text) {
				add(a, "behind the active: "+said(s.Text[1:])+", on the active"+a.Text[1:])
			}
		case a.Kind == kindOrder && !sameNames(a.Text, s.Text): // the columns are named
		case a.Text != s.Text:
			add(a, "defined differently: "+said(s.Text)+", on the active "+said(a.Text))
		}
	}
	for _, s := range here {
		if s.String() == "schema public" { // every new database has it; what is in it is named
			continue
		}
		if _, both := active[s.String()]; !both && !lacks(active, s) {
			add(s, "only the standby has it")
		}
	}
	return all
}

func byName(all []part) map[string]part {
	m := make(map[string]part, len(all))
	for _, d := range all {
		m[d.String()] = d
	}
	return m
}

var relationKinds = []string{kindTable, "partitioned table", "view", "materialized view", "foreign table", "sequence", "type"}

func hasRelation(side map[string]part, name string) bool {
	return slices.ContainsFunc(relationKinds, func(kind string) bool {
		_, is := side[kind+" "+name]
		return is
	})
}

func sameNames(a, b string) bool {
	as, bs := strings.Split(a, ", "), strings.Split(b, ", ")
	slices.Sort(as)
	slices.Sort(bs)
	return slices.Equal(as, bs)
}

// behind says whether the standby's sequence could give a number that the
// active's has given. A sequence takes part in no transaction, and a replica's
// is ahead by what the active's server has logged at once, so more cannot be said.
func behind(standby, active string) bool {
	up := strings.HasPrefix(active, "+")
	s, used := new(big.Int).SetString(strings.TrimSpace(standby[1:]), 10)
	a, given := new(big.Int).SetString(strings.TrimSpace(active[1:]), 10)
	switch {
	case !given:
		return false
	case !used:
		return true
	case up:
		return s.Cmp(a) < 0
	}
	return s.Cmp(a) > 0
}

// mostSaid bounds how much of a definition a difference shows.
const mostSaid = 300

// said writes a definition on one line.
func said(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if text == "" {
		return "nothing"
	}
	if r := []rune(text); len(r) > mostSaid {
		return string(r[:mostSaid]) + "…"
	}
	return text
}
