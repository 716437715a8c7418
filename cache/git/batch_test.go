package git

import (
	"fmt"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache"
)

// What fetches take of what is wanted: small snapshots together, each large one apart.
func TestBatches(t *testing.T) {
	const mb = 1_000_000
	for _, tt := range []struct {
		sizes []int64
		whole bool // the server gives no objects by their ids
		want  string
	}{
		{sizes: []int64{1, 2, 3}, want: "1 2 3"},
		{sizes: []int64{5, 6, 7}, want: "5; 6; 7"},
		{sizes: []int64{1, 5, 2, 6, 1}, want: "1 5 2 1; 6"},
		{sizes: []int64{100, 1}, want: "100; 1"},
		{sizes: []int64{2, 100, 2}, want: "2 2; 100"},
		{sizes: []int64{5, 6, 7}, whole: true, want: "5 6 7"},
	} {
		s := &Store{whole: tt.whole, active: 1}
		for _, n := range tt.sizes {
			d := cache.Descriptor{Size: n * mb}
			p := piece{Size: n * mb}
			s.wanted = append(s.wanted, &want{st: &stored{Descriptor: d, Pieces: []piece{p}}, pieces: []placed{{piece: p}}})
		}
		var got []string
		for {
			batch := s.nextWanted()
			if len(batch) == 0 {
				break
			}
			var sizes []string
			for _, w := range batch {
				sizes = append(sizes, fmt.Sprint(w.st.Size/mb))
			}
			got = append(got, strings.Join(sizes, " "))
		}
		if all := strings.Join(got, "; "); all != tt.want || s.active != 0 {
			t.Errorf("%v: %s, %d active, want %s", tt.sizes, all, s.active, tt.want)
		}
	}
}
