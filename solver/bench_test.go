//go:build linux

package solver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/solver/layers"
	"github.com/clayer/clayer/solver/report"
)

// manyLayers writes n files of m instructions each, and returns their paths.
func manyLayers(b *testing.B, base string, n, m int) []string {
	b.Helper()
	var paths []string
	for l := range n {
		var text strings.Builder
		for i := range m {
			switch i % 10 {
			case 0:
				fmt.Fprintf(&text, "ENV VAR_%d=value-%d\n", i%50, i)
			case 1:
				fmt.Fprintf(&text, "WORKDIR /srv/app-%d\n", i)
			default:
				fmt.Fprintf(&text, "RUN uv pip install --system package-%d==1.%d.0 && echo ${VAR_%d}\n", i, l, i%50)
			}
		}
		path := filepath.Join(base, fmt.Sprintf("Containerfile.l%d", l))
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			b.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

func benchOptions(b *testing.B, base string, paths []string) Options {
	b.Helper()
	d, err := dir.Open(filepath.Join(base, "store"), dir.Options{})
	if err != nil {
		b.Fatal(err)
	}
	opt := Options{
		Root: filepath.Join(base, "root"), Cache: filepath.Join(base, "cache"),
		Environ: []string{"PATH=/usr/bin:/bin", "HOME=/root"}, Local: d, Push: true, Report: report.New(nil),
	}
	if opt.Files, err = layers.Load(b.Context(), paths, nil); err != nil {
		b.Fatal(err)
	}
	return opt
}

// benchmarkPlan plans with every step cached, parsing and stores included.
func benchmarkPlan(b *testing.B, layers, each int) {
	base := b.TempDir()
	if err := os.MkdirAll(filepath.Join(base, "root"), 0o755); err != nil {
		b.Fatal(err)
	}
	paths := manyLayers(b, base, layers, each)
	g, keys, err := Hash(context.Background(), benchOptions(b, base, paths))
	if err != nil {
		b.Fatal(err)
	}
	// One blob for all: only how many there are matters to a plan.
	blob := []byte("blob")
	opt := benchOptions(b, base, paths)
	for _, s := range g.Steps() {
		if !s.ChangesRoot() {
			continue
		}
		d := cache.Descriptor{Key: keys.Step[s], Layer: s.Layer.Name, Digest: digest.FromBytes(blob), Size: int64(len(blob)), Entries: 1, Record: keys.Record(s), Text: s.Text(), Created: time.Now()}
		if err := opt.Local.Put(context.Background(), d, storetest.Blob("blob")); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		p, err := Plan(context.Background(), benchOptions(b, base, paths))
		if err != nil {
			b.Fatal(err)
		}
		if t := p.Layers[0].Totals(); t.ToRun > 0 {
			b.Fatalf("not all is cached: %s", t)
		}
	}
}

func BenchmarkPlan1000(b *testing.B)         { benchmarkPlan(b, 1, 1000) }
func BenchmarkPlan10000Over100(b *testing.B) { benchmarkPlan(b, 100, 100) }
func BenchmarkPlan20000Over200(b *testing.B) { benchmarkPlan(b, 200, 100) }

// BenchmarkSolveNothing solves what is solved: parsing, keys and state.
func BenchmarkSolveNothing(b *testing.B) {
	base := b.TempDir()
	var text strings.Builder
	for i := range 30 {
		fmt.Fprintf(&text, "WORKDIR /srv/app-%d\nENV VAR_%d=%d\n", i, i, i)
	}
	path := filepath.Join(base, "Containerfile")
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	solve := func() *Result {
		res, err := Solve(context.Background(), benchOptions(b, base, []string{path}))
		if err != nil {
			b.Fatal(err)
		}
		return res
	}
	solve()
	b.ReportAllocs()
	for b.Loop() {
		if res := solve(); res.Present != 30 {
			b.Fatalf("present: %d", res.Present)
		}
	}
}
