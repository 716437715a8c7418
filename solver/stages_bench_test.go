//go:build linux

package solver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stagesFile writes a file of 40 stages and 400 steps that begin with each other, and copy from
// each other and from the context; last is the text of one more.
func stagesFile(b *testing.B, base, last string) []string {
	b.Helper()
	var text strings.Builder
	fmt.Fprintln(&text, "ARG BASE=debian:12")
	for s := range 40 {
		if s%4 == 0 {
			fmt.Fprintf(&text, "FROM $BASE AS s%d\n", s)
		} else {
			fmt.Fprintf(&text, "FROM s%d AS s%d\n", s-1, s)
		}
		for i := range 10 {
			switch {
			case i == 0 && s > 4:
				fmt.Fprintf(&text, "COPY --from=s%d /opt/s%d /opt/c%d\n", s-s%4-1, s-s%4-1, s)
			case i == 1:
				fmt.Fprintf(&text, "COPY src/%d /opt/s%d/\n", s, s)
			case i == 2:
				fmt.Fprintf(&text, "WORKDIR /opt/s%d\n", s)
			case i == 3:
				fmt.Fprintf(&text, "ENV V%d=%d\n", s, i)
			default:
				fmt.Fprintf(&text, "RUN make -C /opt/s%d target-%d V=$V%d\n", s, i, s)
			}
		}
		if err := os.MkdirAll(filepath.Join(base, "src"), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, "src", fmt.Sprint(s)), []byte("source\n"), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	text.WriteString(last)
	path := filepath.Join(base, "Containerfile")
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	return []string{path}
}

func benchmarkStages(b *testing.B, last string, stages int) {
	base := b.TempDir()
	if err := os.MkdirAll(filepath.Join(base, "root/etc"), 0o755); err != nil {
		b.Fatal(err)
	}
	paths := stagesFile(b, base, last)
	b.ReportAllocs()
	for b.Loop() {
		p, err := Plan(b.Context(), benchOptions(b, base, paths))
		if err != nil {
			b.Fatal(err)
		}
		if len(p.Stages) != stages {
			b.Fatalf("%d stages are planned, want %d", len(p.Stages), stages)
		}
	}
}

func BenchmarkPlan40Stages(b *testing.B) { benchmarkStages(b, "", 9) }

// All of them are copied from.
func BenchmarkPlan40StagesUsed(b *testing.B) {
	var last strings.Builder
	fmt.Fprintln(&last, "FROM debian")
	for s := range 40 {
		fmt.Fprintf(&last, "COPY --from=s%d /opt /opt/all/%d\n", s, s)
	}
	benchmarkStages(b, last.String(), 40)
}

// What is left is the time to parse the file.
func BenchmarkPlan40StagesUnused(b *testing.B) {
	benchmarkStages(b, "FROM debian\nRUN echo last > /opt/last\n", 0)
}
