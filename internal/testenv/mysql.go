package testenv

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// mysqlHome is where tools/test-mysql puts MySQL, below the user's cache directory.
const mysqlHome = "drsync-test/mysql-5.7.29"

// MySQL starts a MySQL server for the test as MariaDB does: with GTIDs, which
// opts may switch off. DRSYNC_TEST_MYSQLD names the server program of another
// version to test with; without, there is one for amd64 only.
func MySQL(t testing.TB, opts ...string) *MySQLServer {
	t.Helper()
	program, err := mysqld()
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOARCH != "amd64" && os.Getenv("DRSYNC_TEST_MYSQLD") == "" {
		t.Skip("there is no MySQL server to test with on " + runtime.GOARCH)
	}
	Require(t, program)
	where := mysqlPaths(program)
	version, err := mysqldCommand(program, "--no-defaults", "--version").Output()
	if err != nil {
		t.Fatalf("%s --version: %v", program, err)
	}
	key := sha256.Sum256(version)
	template := filepath.Join(os.TempDir(), fmt.Sprintf("drsync-test-mysql-%d-%x", os.Geteuid(), key[:6]))
	if err := dataTemplate(template, func(datadir string) error { return initialiseMySQL(program, datadir, where) }); err != nil {
		t.Fatal(err)
	}
	return startMySQL(t, program, template, append(append(where,
		"--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--log-slave-updates=1", "--explicit-defaults-for-timestamp=1"), opts...))
}

func mysqld() (string, error) {
	if program := os.Getenv("DRSYNC_TEST_MYSQLD"); program != "" {
		return program, nil
	}
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, mysqlHome, "server/mysqld"), err
}

// mysqldCommand runs a server of either product. Beside MySQL's program there may
// be libraries that this machine has under another name.
func mysqldCommand(program string, args ...string) *exec.Cmd {
	c := exec.Command(program, args...)
	if lib := filepath.Join(filepath.Dir(program), "lib"); filepath.IsAbs(program) {
		c.Env = append(os.Environ(), "LD_LIBRARY_PATH="+lib)
	}
	return c
}

// mysqlPaths tells a server that was not installed where its messages are.
func mysqlPaths(program string) []string {
	base := filepath.Dir(program)
	messages := filepath.Join(base, "share/mysql")
	if _, err := os.Stat(messages); err != nil {
		return nil
	}
	return []string{"--basedir=" + base, "--lc-messages-dir=" + messages}
}

func initialiseMySQL(program, datadir string, where []string) error {
	// Names of hosts are not looked up, so root@localhost is for the socket only.
	first := datadir + ".sql"
	if err := os.WriteFile(first, []byte("CREATE USER root@'127.0.0.1';\nGRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"), 0o600); err != nil {
		return err
	}
	args := append([]string{"--no-defaults", "--initialize-insecure", "--init-file=" + first, "--datadir=" + datadir, mysqlLogSize,
		"--innodb-flush-method=nosync", "--explicit-defaults-for-timestamp=1"}, where...)
	if os.Geteuid() == 0 {
		args = append(args, "--user=root")
	}
	if out, err := mysqldCommand(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s --initialize-insecure: %w\n%s", program, err, out)
	}
	// Each server makes itself an identity of its own.
	if err := os.Remove(filepath.Join(datadir, "auto.cnf")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
