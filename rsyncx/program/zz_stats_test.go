package program_test

import (
	"fmt"
	"testing"
)

func TestZStats(t *testing.T) {
	base := bench(t)
	exits := map[string]int{}
	nodes, lines := 0, 0
	for i := range 400 {
		c := newCase(uint64(i))
		o, err := play(t.Context(), base, c, runCommand("rsync"))
		if err != nil {
			t.Fatal(i, err)
		}
		last := o[0]
		k := fmt.Sprint(last.exit)
		if last.exit != 0 {
			k += " " + firstLines(last.stderr)
		}
		if len(k) > 200 {
			k = k[:200]
		}
		exits[k]++
		nodes += len(c.nodes)
		lines += len(said(last.stdout))
	}
	for k, n := range exits {
		fmt.Println(n, k)
	}
	fmt.Println(nodes/400, lines/400)
}
