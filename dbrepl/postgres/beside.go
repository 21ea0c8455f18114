package postgres

// notMade is that no extension made the object of a catalogue, nor another object by itself.
func notMade(catalogue, oid string) string {
	return " NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '" + catalogue + "'::regclass AND d.objid = " + oid + " AND d.deptype IN ('e', 'i')) "
}

// besideQueries are further definitions: what stands beside tables and functions.
// A row of a catalogue is taken as it is but for the numbers in it, which differ
// between two servers.
var besideQueries = []string{
	`SELECT 'operator', o.oid::regoperator::text, '', concat_ws(' ', o.oprcode::regprocedure, 'returns', o.oprresult::regtype, 'commutator ' || nullif(o.oprcom, 0)::regoperator, 'negator ' || nullif(o.oprnegate, 0)::regoperator,
			'restrict ' || nullif(o.oprrest::oid, 0)::regprocedure, 'join ' || nullif(o.oprjoin::oid, 0)::regprocedure, CASE WHEN o.oprcanmerge THEN 'merges' END, CASE WHEN o.oprcanhash THEN 'hashes' END, 'owner ' || pg_get_userbyid(o.oprowner))
		FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE` + ownSchema + `AND o.oprcode <> 0 AND` + notMade("pg_operator", "o.oid"),
	`SELECT 'operator family', format('%I.%I using %s', n.nspname, f.opfname, m.amname), '', concat_ws(' ', 'owner ' || pg_get_userbyid(f.opfowner),
			(SELECT string_agg(concat_ws(' ', a.amopstrategy, a.amopopr::regoperator, a.amoppurpose), ', ' ORDER BY a.amopopr::regoperator::text, a.amopstrategy) FROM pg_amop a WHERE a.amopfamily = f.oid),
			(SELECT string_agg(concat_ws(' ', a.amprocnum, a.amproc::regprocedure), ', ' ORDER BY a.amprocnum, a.amproc::regprocedure::text) FROM pg_amproc a WHERE a.amprocfamily = f.oid))
		FROM pg_opfamily f JOIN pg_namespace n ON n.oid = f.opfnamespace JOIN pg_am m ON m.oid = f.opfmethod WHERE` + ownSchema + `AND` + notMade("pg_opfamily", "f.oid"),
	`SELECT 'operator class', format('%I.%I using %s', n.nspname, o.opcname, m.amname), '', concat_ws(' ', o.opcintype::regtype, CASE WHEN o.opcdefault THEN 'default' END, 'owner ' || pg_get_userbyid(o.opcowner))
		FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace JOIN pg_am m ON m.oid = o.opcmethod WHERE` + ownSchema + `AND` + notMade("pg_opclass", "o.oid"),
	`SELECT 'cast', format('from %s to %s', c.castsource::regtype, c.casttarget::regtype), '', concat_ws(' ', nullif(c.castfunc, 0)::regprocedure, c.castcontext, c.castmethod) FROM pg_cast c WHERE c.oid >= 16384 AND` + notMade("pg_cast", "c.oid"),
	`SELECT 'collation', format('%I.%I', n.nspname, c.collname), '', (to_jsonb(c) - 'oid' - 'collnamespace' - 'collowner' - 'collversion')::text || ' owner ' || pg_get_userbyid(c.collowner)
		FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace WHERE` + ownSchema + `AND` + notMade("pg_collation", "c.oid"),
	`SELECT 'text search dictionary', format('%I.%I', n.nspname, t.dictname), '', concat_ws(' ', (SELECT tmplname FROM pg_ts_template WHERE oid = t.dicttemplate), t.dictinitoption, 'owner ' || pg_get_userbyid(t.dictowner))
		FROM pg_ts_dict t JOIN pg_namespace n ON n.oid = t.dictnamespace WHERE` + ownSchema + `AND` + notMade("pg_ts_dict", "t.oid"),
	`SELECT 'text search configuration', format('%I.%I', n.nspname, t.cfgname), '', concat_ws(' ', (SELECT prsname FROM pg_ts_parser WHERE oid = t.cfgparser),
			(SELECT string_agg(concat_ws(' ', m.maptokentype, m.mapdict::regdictionary), ', ' ORDER BY m.maptokentype, m.mapseqno) FROM pg_ts_config_map m WHERE m.mapcfg = t.oid), 'owner ' || pg_get_userbyid(t.cfgowner))
		FROM pg_ts_config t JOIN pg_namespace n ON n.oid = t.cfgnamespace WHERE` + ownSchema + `AND` + notMade("pg_ts_config", "t.oid"),
	// A list like that which PostgreSQL has built in is written as none.
	`SELECT 'default rights', concat('of ', pg_get_userbyid(a.defaclrole), ' in ' || n.nspname, ' on ', CASE a.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' ELSE a.defaclobjtype::text END), '',` +
		rightsOf("a.defaclacl") + ` FROM pg_default_acl a LEFT JOIN pg_namespace n ON n.oid = a.defaclnamespace`,
	`SELECT 'publication', format('%I', p.pubname), '', (to_jsonb(p) - 'oid' - 'pubname' - 'pubowner')::text || ' owner ' || pg_get_userbyid(p.pubowner)
			|| coalesce((SELECT string_agg(format(' %I.%I', t.schemaname, t.tablename) || coalesce(' ' || (to_jsonb(t)->>'attnames'), '') || coalesce(' where ' || (to_jsonb(t)->>'rowfilter'), ''), ',' ORDER BY t.schemaname, t.tablename) FROM pg_publication_tables t WHERE t.pubname = p.pubname), '')
		FROM pg_publication p WHERE` + notMade("pg_publication", "p.oid"),
	`SELECT 'foreign-data wrapper', format('%I', w.fdwname), '', concat_ws(' ', nullif(w.fdwhandler, 0)::regprocedure, nullif(w.fdwvalidator, 0)::regprocedure, array_to_string(w.fdwoptions, ', '), 'owner ' || pg_get_userbyid(w.fdwowner))
		FROM pg_foreign_data_wrapper w WHERE` + notMade("pg_foreign_data_wrapper", "w.oid"),
	`SELECT 'foreign server', format('%I', f.srvname), '', concat_ws(' ', w.fdwname, f.srvtype, f.srvversion, array_to_string(f.srvoptions, ', '), 'owner ' || pg_get_userbyid(f.srvowner)) || ` +
		rightsOf("coalesce(f.srvacl, acldefault('S', f.srvowner))") + ` FROM pg_foreign_server f JOIN pg_foreign_data_wrapper w ON w.oid = f.srvfdw WHERE` + notMade("pg_foreign_server", "f.oid"),
	`SELECT 'user mapping', format('of %I for %I', m.srvname, m.usename), '', '' FROM pg_user_mappings m`,
	// Those of what an extension made, and of what PostgreSQL made, come from there; but the schema public may have another.
	`SELECT 'comment on', concat_ws(' ', i.type, i.identity), coalesce(r.known, ''), c.description FROM pg_description c LEFT JOIN ` + relations + ` r ON c.classoid = 'pg_class'::regclass AND r.oid = c.objoid,
			pg_identify_object(c.classoid, c.objoid, c.objsubid) i
		WHERE (c.objoid >= 16384 OR c.classoid = 'pg_largeobject'::regclass OR c.classoid = 'pg_namespace'::regclass AND c.objoid = to_regnamespace('public') AND c.description <> 'standard public schema')
			AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = c.classoid AND d.objid = c.objoid AND d.deptype = 'e')`,
}
