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
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/internal/elftest"
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
	if opt.Files, err = layers.Load(b.Context(), paths, layers.Options{}); err != nil {
		b.Fatal(err)
	}
	return opt
}

// benchmarkPlan plans with every step cached, parsing and stores included.
func benchmarkPlan(b *testing.B, layers, each int, needs ...cache.Need) {
	base := b.TempDir()
	root := filepath.Join(base, "root")
	for _, dir := range []string{"etc", "usr/lib", "usr/lib/python3/dist-packages/idna-3.3.egg-info"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	for name, data := range map[string][]byte{"etc/profile": []byte("blob"), "etc/passwd": nil, "usr/lib/libpq.so.5": elftest.File{}.Bytes()} {
		if err := os.WriteFile(filepath.Join(root, name), data, 0o644); err != nil {
			b.Fatal(err)
		}
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
		d := cache.Descriptor{Key: keys.Step[s], Layer: s.Layer.Name, Digest: digest.FromBytes(blob), Size: int64(len(blob)), Entries: 1, Record: keys.Record(s), Text: s.Text(), Created: time.Now(), Needs: needs}
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

// BenchmarkPlan10000WithNeeds plans a chain whose snapshots all need something.
func BenchmarkPlan10000WithNeeds(b *testing.B) {
	benchmarkPlan(b, 1, 10000,
		cache.Need{Kind: snapshot.NeedContent, Path: "etc/profile", Digest: digest.FromString("blob")},
		cache.Need{Kind: snapshot.NeedContent, Path: "etc/passwd", Digest: digest.FromString(""), Set: []string{"bob(1000)>1a2b3c4d5e6f"}},
		cache.Need{Kind: snapshot.NeedPlace, Path: "opt/app", Type: snapshot.PlaceDir},
		cache.Need{Kind: snapshot.NeedLibrary, Soname: "libpq.so.5", Class: 64, Machine: 62},
		cache.Need{Kind: snapshot.NeedPackage, Manager: snapshot.ManagerPython, Name: "idna", Version: ">=3", Search: []string{"/usr/lib/python3/dist-packages"}},
	)
}

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
