package postgres

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/testenv"
)

// artifactoryGenerations takes a database as Artifactory 6 has it, by the upgrade,
// to one as Artifactory 7 has it with what an administrator adds, and brings both
// back from kept dumps. Everything belongs to the application's own role.
func artifactoryGenerations(t *testing.T, l *lab) {
	owner, report := "artifactory_"+l.name, "report_"+l.name
	for _, p := range []*testenv.PostgresServer{l.active, l.standby} {
		p.Exec(t, "postgres", "CREATE ROLE "+owner+" LOGIN; CREATE ROLE "+report)
	}
	l.active.Exec(t, "postgres", "ALTER DATABASE "+l.name+" OWNER TO "+owner+"; REVOKE CONNECT ON DATABASE "+l.name+" FROM PUBLIC; GRANT CONNECT ON DATABASE "+l.name+" TO "+report)
	as := func(statements string) {
		t.Helper()
		l.onActive(t, "SET ROLE "+owner+"; "+strings.ReplaceAll(statements, "REPORT", report))
	}
	as(artifactory6)
	dirs := make(map[string]string)
	want := make(map[string]string) // what is in each dump
	for _, version := range []string{"6", "7"} {
		if version == "7" {
			as(artifactory7)
			l.onActive(t, "CREATE EXTENSION pg_trgm; CREATE INDEX props_trgm ON node_props USING gin (prop_value gin_trgm_ops)")
		}
		dirs[version] = filepath.Join(t.TempDir(), "dump")
		c, err := l.engine(t).Capture(t.Context(), dbrepl.CaptureOptions{Dump: dirs[version], Verify: true})
		must(t, err)
		must(t, c.Publish(t.Context()))
		l.sameDatabases(t)
		l.wantAlike(t, l.engine(t))
		if a, s := l.state(t, l.active, l.name), l.state(t, l.standby, l.name); a != s {
			t.Errorf("Artifactory %s:\n%s", version, firstDifference(a, s))
		}
		want[version] = l.state(t, l.active, l.name) + definitions(t, l.active, l.name) + everything(t, l.active, l.name)
		wantReferences(t, c)
	}
	e := l.engine(t)
	for _, version := range []string{"6", "7"} {
		c, err := e.Restore(t.Context(), dirs[version])
		must(t, err)
		must(t, c.Publish(t.Context()))
		beside := l.name + "_version_" + version
		t.Cleanup(func() { _, _ = l.standby.Query("postgres", "DROP DATABASE IF EXISTS "+beside) })
		_, err = e.RestoreAs(t.Context(), dirs[version], beside)
		must(t, err)
		for _, name := range []string{l.name, beside} {
			if got := l.state(t, l.standby, name) + definitions(t, l.standby, name) + everything(t, l.standby, name); got != want[version] {
				t.Errorf("Artifactory %s, restored as %s:\n%s", version, name, firstDifference(want[version], got))
			}
		}
	}
	// It serves: the application's role writes, and what guards its rows does.
	_, err := e.Promote(t.Context())
	must(t, err)
	for statement, refused := range map[string]string{
		"INSERT INTO md_files (name) VALUES ('next') RETURNING id":                                                    "",
		"INSERT INTO node_props VALUES (990, 1, 'k', 'v')":                                                            "",
		"INSERT INTO node_props VALUES (991, 4711, 'k', 'v')":                                                         "node_props_nodes_fk",
		"INSERT INTO binaries VALUES (repeat('a', 40), repeat('e', 32), 5, NULL)":                                     "binaries_pk",
		"INSERT INTO nodes SELECT 992, 1, repo, node_path, node_name, 1, 1, 'x', 1, 'x' FROM nodes WHERE node_id = 1": "nodes_repo_path_name_idx",
		"DELETE FROM binaries WHERE sha1 = repeat('a', 40)":                                                           "nodes_binaries_fk",
		"UPDATE nodes SET modified = modified + 1 WHERE node_id = 1; SELECT 1 / (count(*) - 1)::int FROM site_audit":  "division by zero",
		"SET ROLE " + report + "; SELECT * FROM site_sizes":                                                           "",
		"SET ROLE " + report + "; SELECT * FROM access_users":                                                         "permission denied",
	} {
		_, err := l.standby.Query(l.name, "SET ROLE "+owner+"; "+statement)
		if (err == nil) != (refused == "") || err != nil && !strings.Contains(err.Error(), refused) {
			t.Errorf("%s: %v, want %q", statement, err, refused)
		}
	}
	if rows := l.mustQuery(t, l.standby, "SELECT max(id) FROM md_files"); rows[0] != "1001" {
		t.Errorf("the sequence went on to %s", rows)
	}
}

// state is what pg_dump of the definitions and the rows do not show.
func (l *lab) state(t testing.TB, p *testenv.PostgresServer, name string) string {
	t.Helper()
	var all []string
	for _, q := range []string{
		"SELECT sequencename, last_value, start_value, increment_by FROM pg_sequences ORDER BY 1",
		"SELECT relname, relkind, relpersistence, pg_get_userbyid(relowner), (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(relacl) a) FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
		"SELECT conname, convalidated, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY conrelid::regclass::text, 1",
		"SELECT indexrelid::regclass::text, indisvalid, indisready, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace) ORDER BY 1",
		"SELECT pg_get_userbyid(datdba), (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a), pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = current_database()",
		"SELECT extname, extversion FROM pg_extension ORDER BY 1",
		"SELECT loid, pageno, md5(data) FROM pg_largeobject ORDER BY 1, 2",
		"SELECT count(*), md5(string_agg(data, '' ORDER BY sha1)) FROM binary_blobs",
	} {
		rows, err := p.Query(name, q)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		all = append(all, append([]string{q}, rows...)...)
	}
	return strings.Join(all, "\n") + "\n"
}

// wantReferences asks the queries that say which files there have to be.
func wantReferences(t *testing.T, c dbrepl.Captured) {
	t.Helper()
	var paths []string
	for path, err := range c.Strings(t.Context(), `SELECT repo, CASE WHEN node_path = '.' THEN node_name ELSE CONCAT(node_path, '/', node_name) END FROM nodes WHERE sha1_actual = ? ORDER BY repo, node_path, node_name`, strings.Repeat("a", 40)) {
		must(t, err)
		paths = append(paths, path)
	}
	if !slices.Equal(paths, []string{"libs/a.jar", "libs/org/acme/b.jar"}) {
		t.Errorf("paths are %q", paths)
	}
	n := 0
	for ref, err := range c.Refs(t.Context(), `SELECT sha1, bin_length FROM binaries WHERE sha1 NOT LIKE '##%'`) {
		if err != nil || len(ref.Sum) != 40 || ref.Size != 5 {
			t.Fatalf("%v, %v", ref, err)
		}
		n++
	}
	if n != 302 {
		t.Errorf("%d refs", n)
	}
}

// artifactory6 is Artifactory's part of the schema in version 6: content in BYTEA
// columns, no sequences, foreign keys to what a node and a binary hang on.
var artifactory6 = `
CREATE TABLE unique_ids (index_type VARCHAR(32) NOT NULL, current_id BIGINT NOT NULL, CONSTRAINT unique_ids_pk PRIMARY KEY (index_type));
CREATE TABLE binaries (sha1 CHAR(40) NOT NULL, md5 CHAR(32) NOT NULL, bin_length BIGINT NOT NULL, sha256 CHAR(64) NOT NULL, CONSTRAINT binaries_pk PRIMARY KEY (sha1));
CREATE UNIQUE INDEX binaries_md5_idx ON binaries (md5); CREATE INDEX binaries_sha256_idx ON binaries (sha256);
CREATE TABLE binary_blobs (sha1 CHAR(40) NOT NULL, data BYTEA, CONSTRAINT binary_blobs_pk PRIMARY KEY (sha1));
CREATE TABLE nodes (node_id BIGINT NOT NULL, node_type SMALLINT NOT NULL, repo VARCHAR(64) NOT NULL, node_path VARCHAR(1024) NOT NULL, node_name VARCHAR(255) NOT NULL, depth SMALLINT NOT NULL,
	created BIGINT NOT NULL, created_by VARCHAR(64), modified BIGINT NOT NULL, modified_by VARCHAR(64), updated BIGINT, bin_length BIGINT, sha1_actual CHAR(40), sha1_original VARCHAR(1024),
	md5_actual CHAR(32), md5_original VARCHAR(1024), sha256 CHAR(64), repo_path_checksum CHAR(40), CONSTRAINT nodes_pk PRIMARY KEY (node_id), CONSTRAINT nodes_binaries_fk FOREIGN KEY (sha1_actual) REFERENCES binaries (sha1));
CREATE UNIQUE INDEX nodes_repo_path_name_idx ON nodes (repo, node_path, node_name); CREATE UNIQUE INDEX nodes_repo_path_checksum ON nodes (repo_path_checksum);
CREATE TABLE node_props (prop_id BIGINT NOT NULL, node_id BIGINT NOT NULL, prop_key VARCHAR(255), prop_value VARCHAR(4000), CONSTRAINT node_props_pk PRIMARY KEY (prop_id), CONSTRAINT node_props_nodes_fk FOREIGN KEY (node_id) REFERENCES nodes (node_id));
CREATE TABLE node_meta_infos (node_id BIGINT NOT NULL, props_modified BIGINT, props_modified_by VARCHAR(64), CONSTRAINT node_meta_infos_pk PRIMARY KEY (node_id), CONSTRAINT node_meta_infos_nodes_fk FOREIGN KEY (node_id) REFERENCES nodes (node_id));
CREATE TABLE stats (node_id BIGINT NOT NULL, download_count BIGINT, last_downloaded BIGINT, last_downloaded_by VARCHAR(64), CONSTRAINT stats_pk PRIMARY KEY (node_id), CONSTRAINT stats_nodes_fk FOREIGN KEY (node_id) REFERENCES nodes (node_id));
CREATE TABLE watches (watch_id BIGINT NOT NULL, node_id BIGINT NOT NULL, username VARCHAR(64) NOT NULL, since BIGINT NOT NULL, CONSTRAINT watches_pk PRIMARY KEY (watch_id), CONSTRAINT watches_nodes_fk FOREIGN KEY (node_id) REFERENCES nodes (node_id));
CREATE TABLE archive_paths (path_id BIGINT NOT NULL, entry_path VARCHAR(1024) NOT NULL, CONSTRAINT archive_paths_pk PRIMARY KEY (path_id));
CREATE TABLE archive_names (name_id BIGINT NOT NULL, entry_name VARCHAR(255) NOT NULL, CONSTRAINT archive_names_pk PRIMARY KEY (name_id));
CREATE UNIQUE INDEX archive_paths_path_idx ON archive_paths (entry_path); CREATE UNIQUE INDEX archive_names_name_idx ON archive_names (entry_name);
CREATE TABLE indexed_archives (archive_sha1 CHAR(40) NOT NULL, indexed_archives_id BIGINT NOT NULL, CONSTRAINT indexed_archives_pk PRIMARY KEY (archive_sha1), CONSTRAINT indexed_archives_id_uq UNIQUE (indexed_archives_id),
	CONSTRAINT indexed_archives_binaries_fk FOREIGN KEY (archive_sha1) REFERENCES binaries (sha1));
CREATE TABLE indexed_archives_entries (indexed_archives_id BIGINT NOT NULL, entry_path_id BIGINT NOT NULL, entry_name_id BIGINT NOT NULL, CONSTRAINT indexed_archives_entries_pk PRIMARY KEY (indexed_archives_id, entry_path_id, entry_name_id),
	CONSTRAINT entries_archives_fk FOREIGN KEY (indexed_archives_id) REFERENCES indexed_archives (indexed_archives_id),
	CONSTRAINT entries_paths_fk FOREIGN KEY (entry_path_id) REFERENCES archive_paths (path_id), CONSTRAINT entries_names_fk FOREIGN KEY (entry_name_id) REFERENCES archive_names (name_id));
CREATE TABLE builds (build_id BIGINT NOT NULL, build_name VARCHAR(255) NOT NULL, build_number VARCHAR(255) NOT NULL, build_date BIGINT NOT NULL, CONSTRAINT builds_pk PRIMARY KEY (build_id));
CREATE TABLE build_modules (module_id BIGINT NOT NULL, build_id BIGINT NOT NULL, module_name_id VARCHAR(1024) NOT NULL, CONSTRAINT build_modules_pk PRIMARY KEY (module_id), CONSTRAINT build_modules_builds_fk FOREIGN KEY (build_id) REFERENCES builds (build_id));
CREATE TABLE build_artifacts (artifact_id BIGINT NOT NULL, module_id BIGINT NOT NULL, artifact_name VARCHAR(1024) NOT NULL, artifact_type VARCHAR(64), sha1 CHAR(40), md5 CHAR(32), CONSTRAINT build_artifacts_pk PRIMARY KEY (artifact_id),
	CONSTRAINT build_artifacts_modules_fk FOREIGN KEY (module_id) REFERENCES build_modules (module_id));
CREATE INDEX build_artifacts_sha1_idx ON build_artifacts (sha1); CREATE INDEX build_artifacts_md5_idx ON build_artifacts (md5);
CREATE TABLE blob_infos (checksum CHAR(64) NOT NULL, blob_info BYTEA, CONSTRAINT blob_infos_pk PRIMARY KEY (checksum));
CREATE TABLE artifact_bundles (id BIGINT NOT NULL, name VARCHAR(255) NOT NULL, version VARCHAR(32) NOT NULL, status VARCHAR(64) NOT NULL, date_created BIGINT NOT NULL, signature VARCHAR(1024), type VARCHAR(32), storing_repo VARCHAR(64), CONSTRAINT artifact_bundles_pk PRIMARY KEY (id));
CREATE UNIQUE INDEX bundle_name_version_idx ON artifact_bundles (name, version);
CREATE TABLE bundle_files (id BIGINT NOT NULL, node_id BIGINT NOT NULL, bundle_id BIGINT NOT NULL, repo_path VARCHAR(1090) NOT NULL, original_component_details VARCHAR(1000), CONSTRAINT bundle_files_pk PRIMARY KEY (id),
	CONSTRAINT bundle_files_nodes_fk FOREIGN KEY (node_id) REFERENCES nodes (node_id), CONSTRAINT bundle_files_bundles_fk FOREIGN KEY (bundle_id) REFERENCES artifact_bundles (id));
CREATE TABLE bundle_blobs (id BIGINT NOT NULL, data BYTEA NOT NULL, bundle_id BIGINT NOT NULL, CONSTRAINT bundle_blobs_pk PRIMARY KEY (id), CONSTRAINT bundle_blobs_bundles_fk FOREIGN KEY (bundle_id) REFERENCES artifact_bundles (id));
CREATE TABLE configs (config_name VARCHAR(255) NOT NULL, last_modified BIGINT NOT NULL, data BYTEA NOT NULL, CONSTRAINT configs_pk PRIMARY KEY (config_name));
CREATE TABLE db_properties (installation_date BIGINT NOT NULL, artifactory_version VARCHAR(30) NOT NULL, artifactory_revision INT, artifactory_release BIGINT, CONSTRAINT db_properties_pk PRIMARY KEY (installation_date));
CREATE TABLE artifactory_servers (server_id VARCHAR(128) NOT NULL, start_time BIGINT NOT NULL, context_url VARCHAR(255), membership_port INT, server_state VARCHAR(12) NOT NULL, server_role VARCHAR(12) NOT NULL, last_heartbeat BIGINT NOT NULL,
	artifactory_version VARCHAR(30) NOT NULL, artifactory_running_mode VARCHAR(12) NOT NULL, license_hash VARCHAR(41) NOT NULL, CONSTRAINT artifactory_servers_pk PRIMARY KEY (server_id));
CREATE TABLE master_key_status (is_unique_key SMALLINT NOT NULL, status VARCHAR(16) NOT NULL, set_by_node_id VARCHAR(64) NOT NULL, kid CHAR(64) NOT NULL, expires BIGINT NOT NULL, CONSTRAINT master_key_status_pk PRIMARY KEY (kid), CONSTRAINT master_key_one UNIQUE (is_unique_key));
CREATE TABLE trusted_keys (kid VARCHAR(6) NOT NULL, trusted_key VARCHAR(4000) NOT NULL, fingerprint VARCHAR(255) NOT NULL, alias VARCHAR(255) NOT NULL UNIQUE, issued BIGINT, issued_by VARCHAR(255), expiry BIGINT, CONSTRAINT trusted_keys_pk PRIMARY KEY (kid));
CREATE TABLE tasks (task_type VARCHAR(32) NOT NULL, task_context VARCHAR(2048) NOT NULL, created BIGINT);
CREATE TABLE distributed_locks (category VARCHAR(64) NOT NULL, lock_key VARCHAR(255) NOT NULL, owner VARCHAR(64) NOT NULL, owner_thread BIGINT NOT NULL, owner_thread_name VARCHAR(64) NOT NULL, acquire_time BIGINT NOT NULL, CONSTRAINT locks_pk PRIMARY KEY (category, lock_key));
CREATE TABLE "UI_SESSION" (session_id CHAR(36), creation_time BIGINT NOT NULL, CONSTRAINT ui_session_pk PRIMARY KEY (session_id));
CREATE TABLE "UI_SESSION_ATTRIBUTES" (session_id CHAR(36), attribute_name VARCHAR(200), attribute_bytes BYTEA, CONSTRAINT ui_session_attributes_pk PRIMARY KEY (session_id, attribute_name),
	CONSTRAINT ui_session_attributes_fk FOREIGN KEY (session_id) REFERENCES "UI_SESSION" (session_id) ON DELETE CASCADE);
` + indexesOf("nodes", "node_name", "node_path", "sha1_actual", "md5_actual", "sha256", "created", "modified") +
	indexesOf("node_props", "node_id", "prop_key", "prop_value") + indexesOf("indexed_archives_entries", "entry_path_id", "entry_name_id") + `
INSERT INTO unique_ids VALUES ('general', 5001);
INSERT INTO binaries VALUES (repeat('a', 40), repeat('1', 32), 5, repeat('2', 64)), ('##' || repeat('x', 38), repeat('3', 32), 5, repeat('4', 64)), (repeat('b', 40), repeat('5', 32), 5, repeat('6', 64));
INSERT INTO binaries SELECT substr(encode(sha256(g::text::bytea), 'hex'), 1, 40), md5(g::text), 5, encode(sha256(g::text::bytea), 'hex') FROM generate_series(1, 300) g;
INSERT INTO binary_blobs VALUES ('##' || repeat('x', 38), '\x0001'), (repeat('a', 40), decode(repeat('00ff275c0a0d', 50000), 'hex')), (repeat('b', 40), NULL), (repeat('c', 40), '');
INSERT INTO nodes VALUES (1, 1, 'libs', '.', 'a.jar', 1, 1, 'x', 1, 'x', 1, 5, repeat('a', 40), 'NO_ORIG', repeat('1', 32), NULL, NULL, repeat('7', 40)),
	(2, 1, 'libs', 'org/acme', 'b.jar', 3, 1, 'x', 1, 'x', 1, 5, repeat('a', 40), NULL, repeat('1', 32), NULL, NULL, repeat('8', 40)), (3, 0, 'libs', 'org', 'acme', 2, 1, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, repeat('9', 40));
INSERT INTO nodes SELECT 100 + g, 1, CASE g % 3 WHEN 0 THEN 'auto-trashcan' ELSE 'libs' END, 'org/näme ' || g, E'tab\there \\ ' || g || '.jar', 3, g, 'admin', g, 'admin', g, 5, substr(encode(sha256(g::text::bytea), 'hex'), 1, 40), '', md5(g::text), NULL, NULL, substr(md5(g::text) || md5('x' || g), 1, 40) FROM generate_series(1, 300) g;
INSERT INTO node_props SELECT g, 100 + g, 'docker.label.' || g, CASE g % 4 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN repeat('🚢', 2000) ELSE E'a\nb\tc\\N' END FROM generate_series(1, 300) g;
INSERT INTO node_meta_infos SELECT node_id, modified, 'admin' FROM nodes; INSERT INTO stats SELECT node_id, 9223372036854775807, modified, NULL FROM nodes WHERE node_type = 1;
INSERT INTO archive_paths VALUES (1, 'META-INF'); INSERT INTO archive_names VALUES (1, 'MANIFEST.MF'); INSERT INTO indexed_archives VALUES (repeat('a', 40), 1); INSERT INTO indexed_archives_entries VALUES (1, 1, 1);
INSERT INTO builds VALUES (1, 'b', '1', 1); INSERT INTO build_modules VALUES (1, 1, 'm'); INSERT INTO build_artifacts VALUES (1, 1, 'a', 'jar', repeat('f', 40), NULL);
INSERT INTO blob_infos VALUES (repeat('d', 64), '{"a": 1}'); INSERT INTO artifact_bundles VALUES (1, 'r', '1.0', 'COMPLETE', 1, NULL, 'TARGET', NULL); INSERT INTO bundle_files VALUES (1, 1, 1, 'libs/a.jar', NULL); INSERT INTO bundle_blobs VALUES (1, '\x5c2e', 1);
INSERT INTO configs VALUES ('artifactory.config.xml', 1, convert_to('<config>ü\' || chr(10) || '</config>', 'UTF8')), ('empty', 1, ''); INSERT INTO db_properties VALUES (1, '6.23.42', 62342900, 1);
INSERT INTO artifactory_servers VALUES ('node-1', 1, NULL, 0, 'RUNNING', 'STANDALONE', 1, '6.23.42', 'PRO', 'x'); INSERT INTO master_key_status VALUES (1, 'on', 'node-1', repeat('k', 64), 0); INSERT INTO trusted_keys VALUES ('abc123', 'key', 'fp', 'alias');
INSERT INTO distributed_locks VALUES ('c', 'k', 'o', 1, 'main', 1); INSERT INTO "UI_SESSION" VALUES (repeat('s', 36), 1); INSERT INTO "UI_SESSION_ATTRIBUTES" VALUES (repeat('s', 36), 'a', '\xaced0005');
`

// artifactory7 is what the upgrade makes of it, the other services' tables beside
// it, and what a site may add: a view, a report's account, a trigger, large objects.
const artifactory7 = `
ALTER TABLE distributed_locks SET UNLOGGED; DROP INDEX nodes_repo_path_checksum; CREATE INDEX nodes_name_path_idx ON nodes (node_name, node_path, repo); CREATE INDEX nodes_repo_created_idx ON nodes (repo, created);
ALTER TABLE binaries ALTER sha256 DROP NOT NULL; UPDATE binaries SET sha256 = NULL WHERE md5 < '2'; ALTER TABLE artifactory_servers ALTER server_role TYPE VARCHAR(255), ALTER artifactory_version TYPE VARCHAR(128);
UPDATE db_properties SET artifactory_version = '7.161.20'; DROP TABLE watches;
CREATE TABLE nodes_cleaned (node_id BIGINT PRIMARY KEY); CREATE TABLE storage_multipart_uploads (upload_id VARCHAR(255) PRIMARY KEY, created_date BIGINT, temp_path VARCHAR(1024), status VARCHAR(32), modified_date BIGINT, data TEXT);
CREATE TABLE binaries_tasks (sha1 CHAR(40) NOT NULL, task_type VARCHAR(32) NOT NULL, retries INT NOT NULL DEFAULT 0, PRIMARY KEY (sha1, task_type)); INSERT INTO binaries_tasks VALUES (repeat('e', 40), 'PULL', 10);
CREATE TABLE schema_change_log (id INT GENERATED BY DEFAULT AS IDENTITY (START 100 INCREMENT 10) PRIMARY KEY, name TEXT NOT NULL, at TIMESTAMPTZ DEFAULT now()); INSERT INTO schema_change_log (name) VALUES ('v82'), ('v83');
CREATE TABLE node_events_errors (event_id BIGINT PRIMARY KEY, error_count SMALLINT NOT NULL, first_error_time BIGINT); CREATE TABLE node_events_tmp (event_id BIGSERIAL PRIMARY KEY, path TEXT);
CREATE TABLE access_users (user_id BIGINT PRIMARY KEY, username VARCHAR(255) NOT NULL UNIQUE, custom_data TEXT, locked SMALLINT DEFAULT 0); INSERT INTO access_users VALUES (1, 'admin', '{"é": "\\"}');
CREATE TABLE access_tokens (token_id CHAR(36) PRIMARY KEY, subject VARCHAR(1024) NOT NULL, issued_at BIGINT, owner BIGINT REFERENCES access_users ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED); INSERT INTO access_tokens VALUES (repeat('t', 36), 'jfac@x/users/admin', 1, 1);
CREATE TABLE access_master_key_status (kid CHAR(64) PRIMARY KEY, is_unique_key SMALLINT UNIQUE); INSERT INTO access_master_key_status VALUES (repeat('k', 64), 1);
CREATE TABLE md_files (id BIGSERIAL PRIMARY KEY, name VARCHAR(255), sha1 CHAR(40), data JSONB, found TSVECTOR GENERATED ALWAYS AS (to_tsvector('simple', coalesce(name, ''))) STORED);
CREATE INDEX md_files_found ON md_files USING gin (found); CREATE INDEX md_files_data ON md_files USING gin (data jsonb_path_ops); INSERT INTO md_files (name, data) SELECT 'file ' || g, jsonb_build_object('n', g) FROM generate_series(1, 1000) g;
CREATE TABLE qrtz_locks (sched_name VARCHAR(120) NOT NULL, lock_name VARCHAR(40) NOT NULL, PRIMARY KEY (sched_name, lock_name)); CREATE TABLE qrtz_job_details (sched_name VARCHAR(120), job_name VARCHAR(200), is_durable BOOL NOT NULL, job_data BYTEA, PRIMARY KEY (sched_name, job_name));
INSERT INTO qrtz_job_details VALUES ('s', 'j', true, '\x00');
CREATE SEQUENCE site_ticket START 7 INCREMENT 3 CACHE 5; SELECT nextval('site_ticket');
CREATE TABLE site_audit (id BIGINT DEFAULT nextval('site_ticket'), node BIGINT, at TIMESTAMPTZ DEFAULT now()); ALTER SEQUENCE site_ticket OWNED BY site_audit.id;
CREATE FUNCTION site_audited() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $f$ BEGIN INSERT INTO site_audit (node) VALUES (NEW.node_id); RETURN NEW; END $f$;
CREATE TRIGGER site_audited AFTER UPDATE ON nodes FOR EACH ROW WHEN (OLD.modified IS DISTINCT FROM NEW.modified) EXECUTE FUNCTION site_audited();
CREATE VIEW site_sizes AS SELECT repo, sum(bin_length) AS bytes FROM nodes GROUP BY repo; CREATE MATERIALIZED VIEW site_top AS SELECT node_id, download_count FROM stats ORDER BY 2 LIMIT 10; CREATE UNIQUE INDEX ON site_top (node_id);
GRANT SELECT ON nodes, binaries, site_sizes TO REPORT; GRANT SELECT (username) ON access_users TO REPORT; COMMENT ON VIEW site_sizes IS 'for REPORT';
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO REPORT; SELECT lo_from_bytea(4242, decode(repeat('00ff', 5000), 'hex')); GRANT SELECT ON LARGE OBJECT 4242 TO REPORT`

// indexesOf indexes columns, one by one.
func indexesOf(table string, columns ...string) string {
	var all strings.Builder
	for _, c := range columns {
		fmt.Fprintf(&all, "CREATE INDEX %s_%s_idx ON %[1]s (%[2]s);\n", table, c)
	}
	return all.String()
}
