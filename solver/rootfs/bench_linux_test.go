package rootfs

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/unpack"
)

// manyFiles is a tree of files in directories of fifty.
func manyFiles(n, size int) []*snapshot.Entry {
	content := strings.Repeat("x", size)
	var es []*snapshot.Entry
	for i := range n {
		if i%50 == 0 {
			es = append(es, dirEntry(fmt.Sprintf("d%d", i/50)))
		}
		es = append(es, file(fmt.Sprintf("d%d/f%d", i/50, i), content))
	}
	return es
}

// BenchmarkApply measures what the journal and the undo record cost: each round
// applies the same tree without (Unpack) and with, one after the other, and the
// ratio is what counts. CLAYER_BENCH_DIR is where; the default is a temporary
// directory.
func BenchmarkApply(b *testing.B) {
	for _, bb := range []struct {
		name    string
		n, size int
	}{{"25000x10kB", 25_000, 10_000}, {"60000x100B", 60_000, 100}} {
		b.Run(bb.name, func(b *testing.B) {
			es := manyFiles(bb.n, bb.size)
			var without, with, cpuWithout, cpuWith float64
			for b.Loop() {
				s, cpu := applyOnce(b, es, false)
				without, cpuWithout = without+s, cpuWithout+cpu
				s, cpu = applyOnce(b, es, true)
				with, cpuWith = with+s, cpuWith+cpu
			}
			b.ReportMetric(without/float64(b.N), "s/without")
			b.ReportMetric(with/float64(b.N), "s/with")
			b.ReportMetric(with/without, "ratio")
			b.ReportMetric(cpuWith/cpuWithout, "cpu-ratio") // what a busy machine doesn't change
		})
	}
}

// applyOnce returns the seconds that an apply into a new directory takes, by the clock
// and of the processors.
func applyOnce(b *testing.B, es []*snapshot.Entry, record bool) (elapsed, cpu float64) {
	b.Helper()
	dir, err := os.MkdirTemp(os.Getenv("CLAYER_BENCH_DIR"), "bench-")
	if err != nil {
		b.Fatal(err)
	}
	defer removeAllModes(dir)
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		b.Fatal(err)
	}
	runtime.GC() // the garbage of the one before is not of this one
	before, cpuBefore := b.Elapsed(), cpuSeconds(b)
	if record {
		r, err := Open(root, Options{})
		if err != nil {
			b.Fatal(err)
		}
		l, err := r.Lock(b.Context(), false, nil)
		if err != nil {
			b.Fatal(err)
		}
		if res, err := l.Apply(b.Context(), step("1"), stream(es...)); err != nil || len(res.Problems) > 0 {
			b.Fatal(err, res.Problems)
		}
		commit(b, l)
		if err := l.Unlock(); err != nil {
			b.Fatal(err)
		}
	} else {
		if res, err := unpack.Unpack(b.Context(), root, stream(es...), unpack.Options{}); err != nil || len(res.Problems) > 0 {
			b.Fatal(err, res.Problems)
		}
	}
	return (b.Elapsed() - before).Seconds(), cpuSeconds(b) - cpuBefore
}

// cpuSeconds returns the processor time of this process.
func cpuSeconds(b *testing.B) float64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
