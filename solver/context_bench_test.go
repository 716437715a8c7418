//go:build linux

package solver

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkPlanContext plans a COPY of 30,000 files of 1.5 kB: as they were in an earlier plan,
// with one of them edited, and as nobody has read them.
func BenchmarkPlanContext(b *testing.B) {
	base := b.TempDir()
	edited := filepath.Join(base, "src/d0/e0/f0")
	for i := range 30000 {
		name := filepath.Join(base, fmt.Sprintf("src/d%d/e%d/f%d", i/300, i/30, i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(name, bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 750), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	path := filepath.Join(base, "Containerfile")
	if err := os.WriteFile(path, []byte("COPY src /opt/src\n"), 0o644); err != nil {
		b.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // what is as new as its reading is read again
	for _, what := range []string{"new", "unchanged", "edited"} {
		b.Run(what, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				switch what {
				case "new":
					os.RemoveAll(filepath.Join(base, "cache"))
				case "edited":
					if err := os.WriteFile(edited, fmt.Append(nil, i), 0o644); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				if _, err := Plan(b.Context(), benchOptions(b, base, []string{path})); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
