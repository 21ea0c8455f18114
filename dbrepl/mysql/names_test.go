package mysql

import (
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
)

// TestTablesExchangedDuringCapture begins anew when tables of one definition
// exchange their names, or their rows, between the reading of the one and of the
// other.
func TestTablesExchangedDuringCapture(t *testing.T) { everywhere(t, testTablesExchanged) }

func testTablesExchanged(t *testing.T, p product) {
	for name, change := range map[string]string{
		"renamed":         "RENAME TABLE big TO tmp, small TO big, tmp TO small",
		"odd names":       "RENAME TABLE `a-é` TO tmp, `b é` TO `a-é`, tmp TO `b é`",
		"small partition": "ALTER TABLE parted EXCHANGE PARTITION p0 WITH TABLE plain",
		"big partition":   "ALTER TABLE piled EXCHANGE PARTITION p0 WITH TABLE flat",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startLab(t, p)
			all := []string{"big", "small", "a-é", "b é", "middle"}
			l.onActive(t, "CREATE TABLE big (id INT PRIMARY KEY, pad CHAR(200)) ENGINE=InnoDB; CREATE TABLE small LIKE big; CREATE TABLE `a-é` LIKE big; CREATE TABLE `b é` LIKE big; CREATE TABLE middle LIKE big")
			if strings.Contains(name, "partition") {
				l.onActive(t, "CREATE TABLE plain LIKE big; CREATE TABLE flat LIKE big; CREATE TABLE parted LIKE big; ALTER TABLE parted PARTITION BY RANGE(id) (PARTITION p0 VALUES LESS THAN MAXVALUE); CREATE TABLE piled LIKE parted")
				all = append(all, "plain", "flat", "parted", "piled")
			}
			for i, n := range all {
				rows := 1
				switch n {
				case "big", "a-é", "plain", "piled":
					rows = 4096
				case "middle":
					rows = 2048
				}
				l.onActive(t, "INSERT INTO "+quote(n)+" VALUES (1, "+text(n)+")")
				for have := 1; have < rows; have *= 2 {
					l.onActive(t, "INSERT INTO "+quote(n)+" SELECT id + (SELECT MAX(id) FROM "+quote(n)+"), pad FROM "+quote(n))
				}
				l.onActive(t, "UPDATE "+quote(n)+" SET id = id + "+string(rune('1'+i))+"000000 ORDER BY id DESC; ANALYZE TABLE "+quote(n))
			}
			heard, adjust := collect()
			e := l.engine(t, adjust)
			e.workers = 1
			done := false
			e.during = func(table string) {
				if table == "middle" && !done {
					done = true
					l.active.Exec(t, l.name, change)
				}
			}
			c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Publish(t.Context()); err != nil {
				t.Fatal(err)
			}
			if warnings := heard.all(); !strings.Contains(warnings, errOtherTable.Error()) {
				t.Errorf("nothing was noticed: %q", warnings)
			}
			for _, n := range all {
				q := "SELECT COUNT(*), COALESCE(SUM(id), 0), MAX(pad) FROM " + quote(n)
				if want, got := l.mustQuery(t, l.active, q)[0], l.mustQuery(t, l.standby, q)[0]; want != got {
					t.Errorf("%s: %s, on the active %s", n, got, want)
				}
			}
		})
	}
}

// TestFileName writes names as the server's files have them.
func TestFileName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"plain_1": "plain_1", "a-b": "a@002db", "a b": "a@0020b", "$x": "@0024x"} {
		if got, known := fileName(name); got != want || !known {
			t.Errorf("%s: %s, %v", name, got, known)
		}
	}
	if _, known := fileName("é"); known {
		t.Error("the server's codes for other scripts are not known")
	}
}
