package solver_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/layers"
)

// A program whose Containerfiles have RUN also calls sandbox.Main, first of all in main.
func ExampleSolve() {
	base := files("Containerfile", "ENV GREETING=hello\nWORKDIR /srv/app\n")
	defer os.RemoveAll(base)

	ctx := context.Background()
	files, err := layers.Load(ctx, []string{filepath.Join(base, "Containerfile")}, layers.Options{})
	if err != nil {
		log.Fatal(err)
	}
	store, err := dir.Open(filepath.Join(base, "store"), dir.Options{})
	if err != nil {
		log.Fatal(err)
	}
	result, err := solver.Solve(ctx, solver.Options{Files: files, Dest: filepath.Join(base, "out"), Local: store, Push: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result)
	// Output: 1 ran
}

// One value of Options serves several calls.
func ExamplePlan() {
	base := files("Containerfile", "ENV GREETING=hello\nWORKDIR /srv/app\n")
	defer os.RemoveAll(base)

	ctx := context.Background()
	files, err := layers.Load(ctx, []string{filepath.Join(base, "Containerfile")}, layers.Options{})
	if err != nil {
		log.Fatal(err)
	}
	opt := solver.Options{Files: files, Dest: filepath.Join(base, "out")}
	for range 2 {
		plan, err := solver.Plan(ctx, opt)
		if err != nil {
			log.Fatal(err)
		}
		for _, item := range plan.Layers[0].Items {
			fmt.Println(item.Step.Text(), "-", item.State)
		}
		if _, err := solver.Solve(ctx, opt); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// ENV GREETING - variables only
	// WORKDIR /srv/app - to run
	// ENV GREETING - present
	// WORKDIR /srv/app - present
}

// files makes a directory with a file.
func files(name, content string) string {
	base, err := os.MkdirTemp("", "example-")
	if err == nil {
		err = os.WriteFile(filepath.Join(base, name), []byte(content), 0o644)
	}
	if err != nil {
		log.Fatal(err)
	}
	return base
}
