package testenv

import "testing"

func TestMySQLServersDiffer(t *testing.T) {
	var uuids [2]string
	for i := range uuids {
		m := MySQL(t)
		m.Exec(t, "", "CREATE DATABASE a; CREATE TABLE a.t (x INT) ENGINE=InnoDB; INSERT INTO a.t VALUES (1)")
		m.Kill()
		m.Start()
		var n int
		if err := m.DB(t, "a").QueryRow("SELECT @@server_uuid, COUNT(*) FROM t").Scan(&uuids[i], &n); err != nil || n != 1 {
			t.Errorf("%d rows, %v", n, err)
		}
	}
	if uuids[0] == uuids[1] {
		t.Error("two servers have the same identity")
	}
}
