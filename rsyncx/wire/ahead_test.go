package wire

import (
	"fmt"
	"testing"
)

// What has arrived of the questions is told ahead, over the ends of frames.
func TestQuestionsAreToldAhead(t *testing.T) {
	const all = 100
	box := newInbox()
	var batch []byte
	for i := range all {
		q := question{path: fmt.Sprint("f", i)}
		if i == 40 {
			q.kind = kindPart
		}
		batch = q.append(batch, false)
		if i%5 == 4 { // far fewer in a frame than are looked ahead
			if err := box.put(frame{frameNames, batch}, nil); err != nil {
				t.Fatal(err)
			}
			batch = nil
		}
	}
	if err := box.put(frame{frameNamesEnd, nil}, nil); err != nil {
		t.Fatal(err)
	}
	asked := questions{box: box}
	n := 0
	for q := range asked.all(t.Context(), false) {
		want := ""
		if at := n + soonAfter; at < all && at != 40 {
			want = fmt.Sprint("f", at)
		}
		if q.path != fmt.Sprint("f", n) || q.soon != want {
			t.Fatalf("question %d is for %s, and soon for %q; want f%d and %q", n, q.path, q.soon, n, want)
		}
		n++
	}
	if n != all || asked.err != nil {
		t.Fatalf("%d questions, %v", n, asked.err)
	}
}
