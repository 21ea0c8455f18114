package testenv

import "testing"

func TestMariaDBSurvivesKillAndStop(t *testing.T) {
	m := MariaDB(t)
	m.Exec(t, "", "CREATE DATABASE a; CREATE TABLE a.t (x INT) ENGINE=InnoDB; INSERT INTO a.t VALUES (1)")
	first := m.PID()
	m.Kill()
	m.Start()
	if m.PID() == first {
		t.Error("the same process after a kill")
	}
	m.Exec(t, "a", "INSERT INTO t VALUES (2)")
	m.Stop()
	m.Start()
	var sum int
	if err := m.DB(t, "a").QueryRow("SELECT SUM(x) FROM t").Scan(&sum); err != nil || sum != 3 {
		t.Errorf("sum is %d, %v", sum, err)
	}
}

func TestMariaDBOptionsWin(t *testing.T) {
	m := MariaDB(t, "--skip-log-bin")
	var name, value string
	if err := m.DB(t, "").QueryRow("SHOW VARIABLES LIKE 'log_bin'").Scan(&name, &value); err != nil || value != "OFF" {
		t.Errorf("log_bin is %q, %v", value, err)
	}
}
