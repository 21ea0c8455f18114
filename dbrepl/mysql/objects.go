package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/drsync/drsync/internal/hint"
)

// object is what a schema has besides tables: a routine, trigger, view or
// event. Its statement names nothing of its own schema with the schema's name,
// unless the author of its body did.
type object struct {
	Kind       string `json:"kind"` // FUNCTION, PROCEDURE, PACKAGE, PACKAGE BODY, TRIGGER, VIEW, EVENT
	Name       string `json:"name"`
	SQL        string `json:"sql"`             // an event's says DISABLE; "" is one that cannot be read
	Bytes      string `json:"bytes,omitempty"` // base64 of it as its client wrote it, if that is not the same in UTF-8
	Mode       string `json:"sql_mode,omitempty"`
	Client     string `json:"character_set_client,omitempty"`
	Connection string `json:"collation_connection,omitempty"`
	Database   string `json:"database_collation,omitempty"`
	Zone       string `json:"time_zone,omitempty"`
	Definer    string `json:"definer,omitempty"` // user@host
	odd        string // why SQL is "", if that is not for want of a right
	Enabled    bool   `json:"enabled,omitempty"` // of an event
}

func (o object) String() string { return strings.ToLower(o.Kind) + " " + o.Name }

// fingerprint shows all of o.
func (o object) fingerprint() string {
	type all object // without String
	return fmt.Sprintf("%+v", all(o))
}

// kinds in the order in which objects are created: each may use the ones before.
var kinds = []string{"FUNCTION", "PROCEDURE", "PACKAGE", "PACKAGE BODY", "TRIGGER", "VIEW", "EVENT"}

// readObjects reads the objects of a schema, which is the session's default,
// in the order of kinds.
func readObjects(ctx context.Context, c *sql.Conn, schemaName string) ([]object, error) {
	var all []object
	for _, read := range []func(context.Context, *sql.Conn, string) ([]object, error){
		readRoutines, readTriggers, readViews, readEvents,
	} {
		some, err := read(ctx, c, schemaName)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	slices.SortStableFunc(all, func(a, b object) int {
		return slices.Index(kinds, a.Kind) - slices.Index(kinds, b.Kind)
	})
	return all, nil
}

// showCreate returns the row of SHOW CREATE. Something that was just dropped is
// a change of definitions.
func showCreate(ctx context.Context, c *sql.Conn, o object) (record, error) {
	r, err := one(ctx, c, "SHOW CREATE "+o.Kind+" "+quote(o.Name))
	if hasNumber(err, errNoSuchTable, errNoSuchRoutine, errNoSuchEvent, 1360) {
		return nil, fmt.Errorf("%w: %s is gone", errChanged, o)
	}
	if err != nil {
		return nil, fmt.Errorf("definition of %s: %w", o, err)
	}
	return r, nil
}

func (o *object) fill(r record) {
	o.Mode = r.get("sql_mode")
	o.Client = r.get("character_set_client")
	o.Connection = r.get("collation_connection")
	o.Database = r.get("database collation")
}

func readRoutines(ctx context.Context, c *sql.Conn, schemaName string) ([]object, error) {
	all, err := records(ctx, c, `SELECT ROUTINE_NAME name, ROUTINE_TYPE type, DEFINER definer, ROUTINE_COMMENT remark FROM information_schema.ROUTINES
		WHERE ROUTINE_SCHEMA = ? ORDER BY ROUTINE_NAME`, schemaName)
	if err != nil {
		return nil, err
	}
	var objects []object
	for _, r := range all {
		o := object{Kind: strings.ToUpper(r.get("type")), Name: r.get("name"), Definer: r.get("definer")}
		if !slices.Contains(kinds, o.Kind) {
			return nil, fmt.Errorf("%s is of a kind that is not supported", o)
		}
		shown, err := showCreate(ctx, c, o)
		if err != nil {
			return nil, err
		}
		o.fill(shown)
		column := "create " + strings.ToLower(o.Kind)
		o.SQL = ended(shown.get(column)) // without the right to see it that is empty
		if err := o.written(ctx, c, column, shown.get(column), ended, o.Name, o.Definer, r.get("remark")); err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// ended takes what ends a statement off: a server of MySQL keeps the ";" of one
// that came together with others, and would not keep it again.
func ended(statement string) string { return strings.TrimRight(statement, "; \t\r\n") }

// hidden returns an error about definitions that exist and may not or cannot be read.
func hidden(objects []object) error {
	var names, odd []string
	for _, o := range objects {
		switch {
		case o.SQL != "":
		case o.odd != "":
			odd = append(odd, o.String()+" "+o.odd)
		default:
			names = append(names, o.String())
		}
	}
	switch {
	case odd != nil:
		return hint.With(
			fmt.Errorf("definitions on the active cannot be told exactly: %s", someOf(odd)),
			"make them again on the active, with SET NAMES utf8mb4")
	case names == nil:
		return nil
	}
	return hint.With(
		fmt.Errorf("the account on the active may not read the definition of %s", someOf(names)),
		"grant it SELECT ON mysql.proc (MariaDB before 11.3), SHOW CREATE ROUTINE (MariaDB) or SHOW_ROUTINE (MySQL, before 8.0.20: SELECT ON *.*)")
}

func readTriggers(ctx context.Context, c *sql.Conn, schemaName string) ([]object, error) {
	all, err := records(ctx, c, `SELECT TRIGGER_NAME name, EVENT_OBJECT_TABLE tab, DEFINER definer FROM information_schema.TRIGGERS
		WHERE TRIGGER_SCHEMA = ? ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER`, schemaName)
	if err != nil {
		return nil, err
	}
	var objects []object
	for _, r := range all {
		o := object{Kind: "TRIGGER", Name: r.get("name"), Definer: r.get("definer")}
		if slices.ContainsFunc(objects, func(p object) bool { return p.Name == o.Name }) {
			continue // one of several events
		}
		shown, err := showCreate(ctx, c, o)
		if err != nil {
			return nil, err
		}
		o.fill(shown)
		// The body as information_schema has it is not the one that was written:
		// escapes and characters are replaced there.
		const column = "sql original statement"
		t, err := readTrigger(shown.get(column), o.Mode)
		if err != nil {
			o.odd = err.Error()
			objects = append(objects, o)
			continue
		}
		head := fmt.Sprintf("CREATE DEFINER=%s TRIGGER %s %s ON %s FOR EACH ROW ", definer(o.Definer), quote(o.Name), t.on, quote(r.get("tab")))
		o.SQL = head + t.body
		by := func(raw string) string {
			if asUTF8(o.Client) { // and then the words can be read in it
				t, err := readTrigger(raw, o.Mode)
				if err != nil {
					return ""
				}
				return head + t.body
			}
			body, ok := strings.CutPrefix(raw, t.head)
			if !ok {
				return ""
			}
			return head + ended(body)
		}
		if err := o.written(ctx, c, column, shown.get(column), by, head, t.head); err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func readViews(ctx context.Context, c *sql.Conn, schemaName string) ([]object, error) {
	all, err := records(ctx, c, `SELECT TABLE_NAME name, DEFINER definer FROM information_schema.VIEWS
		WHERE TABLE_SCHEMA = ? ORDER BY TABLE_NAME`, schemaName)
	if err != nil {
		return nil, err
	}
	var objects []object
	for _, r := range all {
		o := object{Kind: "VIEW", Name: r.get("name"), Definer: r.get("definer")}
		shown, err := showCreate(ctx, c, o)
		if hasNumber(err, errParse) { // MySQL makes some that it cannot read again
			o.odd = "is one that the server cannot read itself"
			objects = append(objects, o)
			continue
		}
		if err != nil {
			return nil, err
		}
		o.fill(shown)
		o.SQL = shown.get("create view")
		var names []string
		for _, w := range words(o.SQL, "") {
			if o.SQL[w.start] == '`' {
				names = append(names, w.name)
			}
		}
		if err := o.written(ctx, c, "create view", o.SQL, func(raw string) string { return raw }, names...); err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// eventState finds the word that says whether an event is enabled.
var eventState = regexp.MustCompile("(?s)^(CREATE DEFINER=`(?:[^`]|``)*`(?:@`(?:[^`]|``)*`)? EVENT `(?:[^`]|``)*` ON SCHEDULE .*? ON COMPLETION (?:NOT )?PRESERVE )" +
	`(ENABLE|DISABLE ON SLAVE|DISABLE ON REPLICA|DISABLE)\b`)

func readEvents(ctx context.Context, c *sql.Conn, schemaName string) ([]object, error) {
	all, err := records(ctx, c, `SELECT EVENT_NAME name, DEFINER definer, EVENT_COMMENT remark FROM information_schema.EVENTS
		WHERE EVENT_SCHEMA = ? ORDER BY EVENT_NAME`, schemaName)
	if err != nil {
		return nil, err
	}
	var objects []object
	for _, r := range all {
		o := object{Kind: "EVENT", Name: r.get("name"), Definer: r.get("definer")}
		shown, err := showCreate(ctx, c, o)
		if err != nil {
			return nil, err
		}
		o.fill(shown)
		o.Zone = shown.get("time_zone")
		statement := shown.get("create event")
		m := eventState.FindStringSubmatchIndex(statement)
		if m == nil {
			o.odd = "has a definition that drsync does not understand"
			objects = append(objects, o)
			continue
		}
		o.Enabled = statement[m[4]:m[5]] == "ENABLE"
		disabled := func(statement string) string {
			m := eventState.FindStringSubmatchIndex(statement)
			if m == nil {
				return ""
			}
			return ended(statement[:m[4]] + "DISABLE" + statement[m[5]:])
		}
		o.SQL = disabled(statement)
		if err := o.written(ctx, c, "create event", statement, disabled, o.Name, o.Definer, r.get("remark")); err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// create creates an object in the session's default schema, which is name and
// has the given collation.
func (o object) create(do func(string) error, name, collation string) error {
	if o.SQL == "" {
		return fmt.Errorf("create %s: its definition is not known", o)
	}
	statement, err := o.statement()
	if err != nil {
		return fmt.Errorf("create %s: %w", o, err)
	}
	statements := []string{fmt.Sprintf("SET SESSION %s", o.environment())}
	other := o.Database != "" && o.Database != collation && o.Kind != "VIEW"
	if other { // variables in its body have the collation that the schema had
		statements = append(statements, "ALTER DATABASE "+quote(name)+" COLLATE "+o.Database)
	}
	for _, s := range append(statements, statement) {
		if err = do(s); err != nil {
			break
		}
	}
	if other && (err == nil || isServerError(err)) {
		err = errors.Join(err, do("ALTER DATABASE "+quote(name)+" COLLATE "+collation))
	}
	if err == nil || isServerError(err) {
		err = errors.Join(err, do("SET NAMES utf8mb4"), do("SET SESSION sql_mode="+text(sqlMode("standby"))+", time_zone='+00:00'"))
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", o, err)
	}
	return nil
}

// environment is the session that o was made in. Where the text of its statement
// is UTF-8, another character set of its client is only kept if that makes no
// difference.
func (o object) environment() string {
	client := "utf8mb4"
	if o.Client == "utf8mb3" || o.Client == "utf8" || o.Client != "" && isASCII(o.SQL) || o.Bytes != "" {
		client = o.Client
	}
	set := []string{"character_set_client=" + client}
	if o.Connection != "" {
		set = append(set, "collation_connection="+o.Connection)
	}
	if o.Kind != "VIEW" {
		set = append(set, "sql_mode="+text(o.Mode))
	}
	if o.Zone != "" {
		set = append(set, "time_zone="+text(o.Zone))
	}
	return strings.Join(set, ", ")
}

// definer writes user@host, or a role, so that it means the same in every sql_mode.
func definer(user string) string {
	at := strings.LastIndexByte(user, '@')
	if at < 0 { // a role
		return quote(user)
	}
	return quote(user[:at]) + "@" + quote(strings.TrimPrefix(user[at:], "@"))
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// drop drops an object of the session's default schema, if it is there. A package
// is known by that name in one mode only, and takes its body along.
func (o object) drop(do func(string) error) error {
	statement := "DROP " + o.Kind + " IF EXISTS " + quote(o.Name)
	if !strings.HasPrefix(o.Kind, "PACKAGE") {
		return do(statement)
	}
	err := do("SET SESSION sql_mode='ORACLE'")
	if err == nil {
		err = do(statement)
	}
	if err == nil || isServerError(err) {
		err = errors.Join(err, do("SET SESSION sql_mode="+text(sqlMode("standby"))))
	}
	return err
}
