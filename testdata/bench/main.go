// Command bench measures clayer beside what people use, in turns, in one run, and prints medians
// and the medians of paired ratios. Call it by testdata/bench/run.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) == 5 && os.Args[1] == "contend" { // this process is one of the contenders
		if err := contend(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	b := &bench{out: os.Stdout}
	trees := flag.String("trees", "S,M,L,N,F", "which trees")
	flag.StringVar(&b.clayer, "clayer", "", "the binary")
	flag.StringVar(&b.vs, "vs", "", "another binary of clayer, measured in turns with it")
	flag.StringVar(&b.base, "dir", "/dev/shm", "where all is written")
	flag.IntVar(&b.runs, "runs", 5, "runs of each, after a warm-up")
	what := flag.String("what", "start,context,steps,packing,restoring,ext4,bump,composing,network", "what is measured")
	flag.StringVar(&b.results, "results", "", "the file that has all results; what is measured replaces what it has of that")
	docs := flag.String("docs", "", "write the results into this page, and measure nothing")
	quick := flag.Bool("quick", false, "small trees and one run: whether the bench works")
	keep := flag.Bool("keep", false, "leave the trees, and take those that are there")
	flag.Parse()
	if *docs != "" {
		if err := writeDocs(*docs, b.results); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if *quick {
		b.scale, b.runs, b.results = 100, 1, ""
	}
	// What is found there answers at once: no version manager's shims.
	os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if err := b.run(strings.Split(*trees, ","), strings.Split(*what, ","), *keep); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures what is asked for.
func (b *bench) run(trees, what []string, keep bool) (err error) {
	b.dir = filepath.Join(b.base, "clayer-bench")
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, b.unmount())
		if !keep {
			err = errors.Join(err, os.RemoveAll(b.dir))
		}
	}()
	// Nothing of the user's is read or written.
	for name, dir := range map[string]string{"HOME": "home", "XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config"} {
		os.Setenv(name, b.path(dir))
	}
	if b.machine, err = describe(b.dir); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "%s\n\n", b.machine)
	of := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(what, name) })
	}
	for _, part := range []struct {
		name string
		run  func() error
	}{{"start", b.start}, {"context", b.context}, {"steps", b.steps}, {"bump", b.bump}} {
		if of(part.name) {
			if err := part.run(); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
		}
	}
	if !of("packing", "restoring", "ext4", "composing", "network") {
		return nil
	}
	built, err := b.build(trees)
	if err != nil {
		return err
	}
	for _, name := range built {
		if err := b.tree(name, of); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if of("composing") {
		if err := b.composing(built, 100); err != nil {
			return err
		}
	}
	for _, rate := range []int64{10, 100, 1000} {
		if !of("network") {
			break
		}
		for _, name := range built[:min(1, len(built))] { // the cold path of one tree
			if err := b.cold(name, rate); err != nil {
				return err
			}
		}
	}
	return nil
}

// build makes the trees that can be had here.
func (b *bench) build(trees []string) (built []string, err error) {
	for _, name := range trees {
		build, ok := builders[name]
		if !ok {
			return nil, fmt.Errorf("no tree %q", name)
		}
		tree := b.path(name)
		if _, err := os.Stat(tree); err == nil {
			built = append(built, name)
			continue
		}
		err := os.MkdirAll(tree, 0o755)
		if err == nil {
			err = build(tree, max(1, b.scale))
		}
		if errors.Is(err, errUnreachable) {
			fmt.Fprintf(b.out, "%s: skipped: %v\n\n", name, err)
			if err := os.RemoveAll(tree); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		built = append(built, name)
	}
	return built, nil
}
