package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// secondConfiguration is p's with a home and a state directory of its own.
func (p *pair) secondConfiguration(t *testing.T) (config string) {
	t.Helper()
	for _, dir := range []string{"standby2", "state2"} {
		if err := os.MkdirAll(p.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	config = p.path("second.yaml")
	p.write(config, strings.NewReplacer(p.path("standby")+",", p.path("standby2")+",", p.path("state")+"}", p.path("state2")+"}").Replace(string(text)), 0o600)
	return config
}

// TestTwoConfigurationsOverOneDatabase runs the second while the first is at work.
func TestTwoConfigurationsOverOneDatabase(t *testing.T) {
	for name, servers := range map[string]func(t *testing.T) (*pair, *testenv.PostgresServer, *testenv.PostgresServer){"dump": postgresPair, "replication": newReplicated} {
		t.Run(name, func(t *testing.T) {
			p, active, _ := servers(t)
			if name == "replication" {
				p.generation(active, 1)
			}
			second := p.secondConfiguration(t)
			_, errs, status := p.during("capture", func() {
				c := p.command(t.Context(), "now", "--config", second)
				said, err := c.StderrPipe()
				if err != nil {
					t.Error(err)
					return
				}
				if err := c.Start(); err != nil {
					t.Error(err)
					return
				}
				text, err := io.ReadAll(said)
				_ = c.Wait() // how it ended is judged by its status
				if err != nil || c.ProcessState.ExitCode() != exitLocked {
					t.Errorf("exit %d, %v", c.ProcessState.ExitCode(), err)
				}
				for _, want := range []string{"another drsync is at work on the standby's database", "process ", "hint: another configuration"} {
					if !strings.Contains(string(text), want) {
						t.Errorf("the second does not say %q:\n%s", want, text)
					}
				}
			}, "now")
			if status != exitDone {
				t.Errorf("the first: exit %d\n%s", status, errs)
			}
			p.must(exitDone, "now")
		})
	}
}
