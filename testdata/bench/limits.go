package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/tree"
)

// limits are what the machine can do, on all cores.
type limits struct {
	write float64 // bytes to the page cache per second
	files float64 // small files created per second
}

func measureLimits(base string) (limits, error) {
	dir := filepath.Join(base, "limits")
	defer os.RemoveAll(dir)
	n := runtime.GOMAXPROCS(0)
	block := bytes.Repeat([]byte("x"), 1<<20)
	each := func(f func(dir string) error) (time.Duration, error) {
		errs := make([]error, n)
		var wg sync.WaitGroup
		start := time.Now()
		for i := range n {
			wg.Go(func() {
				sub := filepath.Join(dir, fmt.Sprint(i))
				if errs[i] = os.MkdirAll(sub, 0o755); errs[i] == nil {
					errs[i] = f(sub)
				}
			})
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return 0, err
			}
		}
		return time.Since(start), nil
	}
	const blocks, small = 256, 10_000
	took, err := each(func(dir string) error {
		f, err := os.Create(filepath.Join(dir, "large"))
		if err != nil {
			return err
		}
		defer f.Close()
		for range blocks {
			if _, err := f.Write(block); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return limits{}, err
	}
	l := limits{write: float64(n*blocks*len(block)) / took.Seconds()}
	took, err = each(func(dir string) error {
		for i := range small {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), block[:100], 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	l.files = float64(n*small) / took.Seconds()
	return l, err
}

// self returns the CPU time of this process so far.
func self() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// pack makes a snapshot of a tree, as a step does: walk, hash, compress, write.
func pack(dir, file string) (u usage, err error) {
	runtime.GC()
	start, cpu := time.Now(), self()
	ctx := context.Background()
	r, err := tree.Read(ctx, dir, tree.Options{})
	if err != nil {
		return u, err
	}
	keep, err := snapshot.Filter{Include: []string{"/"}}.Compile()
	if err != nil {
		return u, err
	}
	w := tree.Whole{Reading: r, Filter: keep, Dir: dir}
	f, err := os.Create(file)
	if err != nil {
		return u, err
	}
	defer f.Close()
	if _, err := snapshot.Pack(ctx, f, w.Changes(), snapshot.PackOptions{}); err != nil {
		return u, err
	}
	return usage{wall: time.Since(start), cpu: self() - cpu}, nil
}

// decode decodes a snapshot on one core and drops what comes.
func decode(file, _ string) (u usage, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return u, err
	}
	d, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return u, err
	}
	defer d.Close()
	start, cpu := time.Now(), self()
	_, err = io.Copy(io.Discard, d)
	return usage{wall: time.Since(start), cpu: self() - cpu}, err
}

// writeAll writes the files of a tree from memory, on all cores: all that
// unpacking can't do without. Reading them beforehand is not measured.
func writeAll(from, to string) (usage, error) {
	type one struct {
		path    string
		content []byte
	}
	var files []one
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case d.Type().IsRegular():
			content, err := os.ReadFile(p)
			files = append(files, one{filepath.Join(to, rel), content})
			return err
		}
		return nil
	})
	if err != nil {
		return usage{}, err
	}
	runtime.GC()
	start, cpu := time.Now(), self()
	n := runtime.GOMAXPROCS(0)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for j := i * len(files) / n; j < (i+1)*len(files)/n && errs[i] == nil; j++ {
				errs[i] = os.WriteFile(files[j].path, files[j].content, 0o644)
			}
		})
	}
	wg.Wait()
	u := usage{wall: time.Since(start), cpu: self() - cpu}
	for _, err := range errs {
		if err != nil {
			return u, err
		}
	}
	return u, nil
}
