package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"strings"
	"sync"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
)

// redefine writes another definition of an index or table into the active's schema, as an
// application could: what is stored stays as it was.
func (l *lab) redefine(name, sql string) {
	l.t.Helper()
	l.exec("PRAGMA writable_schema = 1")
	l.exec("UPDATE sqlite_schema SET sql = ? WHERE name = ?", sql, name)
	l.exec("PRAGMA writable_schema = RESET")
}

// An index that does not have what its table has is found where a run or a command is to
// verify: quick_check does not see it.
func TestVerifyFindsWrongIndex(t *testing.T) {
	l := newLab(t, "wal", 300)
	l.exec("CREATE INDEX by_sum ON nodes (sha1_actual)")
	e := l.engine()
	l.publish(e)
	l.redefine("by_sum", "CREATE INDEX by_sum ON nodes (node_name)")
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true}); err == nil || errors.Is(err, dbrepl.ErrDiffers) ||
		!strings.Contains(err.Error(), "the active's database: damaged: ") || !strings.Contains(err.Error(), "by_sum") || !strings.Contains(hint.Of(err), "REINDEX") {
		t.Fatal(err)
	}
	wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
	wantVisible(t, e, 300)

	c := l.compare(e)
	if c.Different != 2 || !strings.HasPrefix(told(c), "the active's database is damaged: ") || !strings.Contains(told(c), "index by_sum: defined differently") {
		t.Fatalf("told\n%s", told(c))
	}
	l.publish(e) // which does not look
	for _, e.rowsAlways = range []bool{false, true} {
		if c := l.compare(e); c.Different == 0 || !strings.HasPrefix(told(c), "the active's database is damaged: ") {
			t.Fatalf("told\n%s", told(c))
		}
	}
	l.exec("REINDEX")
	c = l.compare(e)
	if c.Different != 1 || !strings.HasPrefix(told(c), "the standby's database is damaged: ") {
		t.Fatalf("told\n%s", told(c))
	}
	got, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if err := got.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wantTold(e)
}

// What only the application can compute is not checked, and the run says so.
func TestVerifyWithoutTheApplicationsFunctions(t *testing.T) {
	l := newLab(t, "wal", 30)
	l.exec("CREATE INDEX by_sum ON nodes (sha1_actual)")
	l.redefine("by_sum", "CREATE INDEX by_sum ON nodes (theirs(sha1_actual))")
	e := l.rowsEngine()
	var warned string
	e.o.Event = func(v event.Event) {
		if v.Kind == event.Warning {
			warned += v.Text + "\n"
		}
	}
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(warned, "cannot be checked") || !strings.Contains(warned, "theirs") {
		t.Fatalf("warned %q", warned)
	}
	l.wantTold(e)
	l.onStandby("DELETE FROM binaries WHERE bin_length = 3")
	l.wantTold(e, "binaries from 4 to before 5: 0 rows, on the active 1")
}

// flipped changes a byte of the streams of some kinds.
type flipped struct {
	io.ReadCloser
	at int64
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if f.at >= 0 && f.at < int64(n) {
		p[f.at] ^= 1
	}
	f.at -= int64(n)
	return n, err
}

// A capture that is to be verified says that what came is not what the active has.
func TestVerifyTransfer(t *testing.T) {
	l := newLab(t, "wal", 300)
	o := l.options()
	kinds := ""
	o.Snapshot = func(ctx context.Context, arg string) (io.ReadCloser, error) {
		r, err := Local(l.handler)(ctx, arg)
		kind, _, found := strings.Cut(arg, ":")
		if !found {
			kind = "whole"
		}
		if err != nil || !strings.Contains(kinds, kind) {
			return r, err
		}
		return &flipped{r, 2000}, nil
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	e.least = 0
	l.publish(e)
	l.add(300, 400)
	kinds = "whole ranges"
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true}); !errors.Is(err, dbrepl.ErrDiffers) {
		t.Fatalf("changed on the way: %v", err)
	}
	wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
	kinds = "ranges" // which is mended by fetching the whole
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantVisible(t, e, 400)
}

// While an application moves money to and fro, nothing differs inside the snapshot, every
// sum is exact, and a comparison afterwards names only what was moved since.
func TestVerifyWhileOthersWrite(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t, mode, 10)
			l.exec("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INT)")
			l.exec("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i < 5000) INSERT INTO accounts SELECT i, 1000 FROM c")
			l.exec("CREATE INDEX by_balance ON accounts (balance)")
			e := l.rowsEngine()
			writer := openApp(t, l.active, mode)
			ctx, stop := context.WithCancel(t.Context())
			var writing sync.WaitGroup
			defer writing.Wait()
			defer stop()
			moved := make(chan struct{}, 1)
			writing.Go(func() {
				for ctx.Err() == nil {
					from, to, amount := 1+rand.Intn(2500), 1+rand.Intn(2500), rand.Intn(100)
					_, err := writer.ExecContext(ctx, fmt.Sprintf("BEGIN IMMEDIATE; UPDATE accounts SET balance = balance - %d WHERE id = %d; UPDATE accounts SET balance = balance + %[1]d WHERE id = %[3]d; COMMIT", amount, from, to))
					if err != nil {
						writer.Exec("ROLLBACK")
					}
					select {
					case moved <- struct{}{}:
					default:
					}
				}
			})
			for range 4 {
				<-moved
				c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
				if err != nil {
					t.Fatal(err)
				}
				if err := c.Publish(t.Context()); err != nil {
					t.Fatal(err)
				}
				for sum, err := range c.Strings(t.Context(), "SELECT sum(balance) FROM accounts WHERE ? = ''", "") {
					if err != nil || sum != "5000000" {
						t.Fatalf("the sum is %s, %v", sum, err)
					}
				}
				c.Close()
				<-moved
				got := l.compare(e)
				for _, d := range got.Differences {
					if d.Table != "accounts" || d.Active != d.Standby || d.To == "" || len(d.To) > 4 || d.To > "2501" && len(d.To) == 4 {
						t.Fatalf("nobody wrote there: %s", d)
					}
				}
			}
		})
	}
}
