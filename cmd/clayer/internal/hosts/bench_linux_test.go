package hosts

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/hosttest"
)

// BenchmarkRestore restores 12 steps of 5 MB, which do not compress, over 20 MB/s with round
// trips of 20 ms: from each store where the rules let it through, in turns with GitHub
// Releases on the open internet. The metric is the ratio of the medians.
//
//	go test ./cmd/clayer/internal/hosts -run '^$' -bench Restore -benchtime 5x
func BenchmarkRestore(b *testing.B) {
	clitest.Build(b, filepath.Dir(program))
	n := hosttest.New(b)
	project := newProject(b, slices.Repeat([]int{5_000_000}, 12)...)
	pushEverywhere(b, n, project)
	link := hosttest.Link{Rate: 20_000_000, Latency: 20 * time.Millisecond}
	took := func(b *testing.B, host string, s *store) time.Duration {
		b.Helper()
		m := newMachine(b, n.Host(b, profile(host), link), project)
		began := time.Now()
		_, stderr, code := m.clayer(s.env, "solve", "--dest", "out", "-f", "Containerfile", s.flag)
		d := time.Since(began)
		if code != 0 || !strings.Contains(stderr, "12 restored") {
			b.Fatalf("%s: exit code %d\n%s", s.name, code, stderr)
		}
		return d
	}
	releases := &stores[0]
	for i := range stores {
		s := &stores[i]
		b.Run(strings.ReplaceAll(s.name, " ", "_"), func(b *testing.B) {
			var these, those []time.Duration
			for b.Loop() {
				these = append(these, took(b, s.hosts[0], s))
				b.StopTimer()
				those = append(those, took(b, "open", releases))
				b.StartTimer()
			}
			b.ReportMetric(median(these).Seconds()/median(those).Seconds(), "ratio")
			b.ReportMetric(median(these).Seconds(), "s/restore")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}
