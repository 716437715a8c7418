package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// builders make the trees, each in a new directory, the same every time.
// scale divides the number of files.
var builders = map[string]func(dir string, scale int) error{
	"S": small, "M": packages, "L": large, "N": npm, "F": flat,
}

// words is text that compresses about as program text does: three to one.
type words struct {
	r    *rand.Rand
	list []string
}

func newWords(seed uint64) *words {
	w := &words{r: rand.New(rand.NewPCG(seed, 1))}
	for range 4096 {
		b := make([]byte, 2+w.r.IntN(9))
		for i := range b {
			b[i] = byte('a' + w.r.IntN(26))
		}
		w.list = append(w.list, string(b))
	}
	return w
}

func (w *words) text(n int) []byte {
	var b bytes.Buffer
	for b.Len() < n {
		// Squared, so that some words are frequent, as in any language.
		x := w.r.Float64()
		b.WriteString(w.list[int(x*x*x*float64(len(w.list)))])
		b.WriteByte(" \n(.;"[min(4, w.r.IntN(12))])
	}
	return b.Bytes()[:n]
}

func (w *words) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.r.Uint32())
	}
	return b
}

func write(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

// small: 2,000 files, 30 MB.
func small(dir string, scale int) error {
	w := newWords(1)
	for i := range 2000 / scale {
		if err := write(filepath.Join(dir, fmt.Sprintf("d%02d/f%04d", i%40, i)), w.text(500+w.r.IntN(29000))); err != nil {
			return err
		}
	}
	return nil
}

// large: 3,000 files, 1.6 GB, some of 64 MB; a tenth of it can't be compressed.
func large(dir string, scale int) error {
	w := newWords(2)
	block := w.text(8 << 20)
	content := func(n int) []byte {
		if w.r.IntN(10) == 0 {
			return w.noise(n)
		}
		b := make([]byte, 0, n)
		for len(b) < n {
			at := w.r.IntN(len(block) - 64<<10)
			b = append(b, block[at:at+min(n-len(b), 1024+w.r.IntN(63<<10))]...)
		}
		return b
	}
	for i := range 3000 / scale {
		n := 10_000 + w.r.IntN(500_000)
		if i%250 == 0 && scale == 1 {
			n = 64 << 20
		}
		if err := write(filepath.Join(dir, fmt.Sprintf("lib%02d/f%04d.so", i%60, i)), content(n)); err != nil {
			return err
		}
	}
	return nil
}

// npm: 60,000 tiny files, as node_modules has them.
func npm(dir string, scale int) error {
	w := newWords(3)
	for i := range 2000 / scale {
		pkg := filepath.Join(dir, "node_modules", fmt.Sprintf("%s-%d", w.list[i], i))
		for j := range 30 {
			name := []string{"package.json", "README.md", "LICENSE"}
			p := fmt.Sprintf("lib/%s/%s%d.js", w.list[j%3], w.list[j], j)
			if j < len(name) {
				p = name[j]
			}
			if err := write(filepath.Join(pkg, p), w.text(80+w.r.IntN(3000))); err != nil {
				return err
			}
		}
	}
	return nil
}

// flat: 30,000 files of 1.5 kB, as a context or a site of documents has them.
func flat(dir string, scale int) error {
	w := newWords(4)
	for i := range 30_000 / scale {
		if err := write(filepath.Join(dir, fmt.Sprintf("d%03d/e%d/f%05d.txt", i/300, i/30%10, i)), w.text(1500)); err != nil {
			return err
		}
	}
	return nil
}

// errUnreachable says that a tree can't be built, as its registry does not answer.
var errUnreachable = errors.New("the Debian archive does not answer")

// debian are the packages of M: numpy, scipy, pandas, matplotlib and
// scikit-learn, and the Python packages and libraries that they need.
var debian = strings.Fields(`python3-numpy python3-scipy python3-pandas python3-pandas-lib python3-matplotlib python3-sklearn
	python3-sklearn-lib python3-joblib python3-threadpoolctl python3-dateutil python3-tz python3-cycler python3-kiwisolver
	python3-pil python3-pyparsing python3-fonttools python3-contourpy python3-pythran python3-decorator python3-brotli
	python3-lz4 python3-numba python3-llvmlite python3-tables python3-tables-lib python3-numexpr python3-sympy
	python3-mpmath python3-ply python3-gast python3-beniget libopenblas0-pthread libgfortran5 libpython3-stdlib python-matplotlib-data
	fonts-lyx libllvm14 libpython3.11-stdlib libboost1.74-dev python3-setuptools python3-pip python3-babel`)

// packages unpacks Debian packages; of those that this release has.
func packages(dir string, _ int) error {
	debs, err := os.MkdirTemp("", "clayer-bench-debs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(debs)
	// apt's sandbox user must be able to write there.
	if err := os.Chmod(debs, 0o777); err != nil {
		return err
	}
	known, err := exec.Command("apt-cache", "pkgnames").Output()
	if err != nil {
		return fmt.Errorf("%w: apt-cache pkgnames: %w", errUnreachable, err)
	}
	names := strings.Fields(string(known))
	slices.Sort(names)
	args := []string{"download", "-qq"}
	for _, p := range debian {
		if _, ok := slices.BinarySearch(names, p); ok {
			args = append(args, p)
		}
	}
	c := exec.Command("apt-get", args...)
	c.Dir = debs
	if out, err := c.CombinedOutput(); err != nil || len(args) == 2 {
		return fmt.Errorf("%w: apt-get download: %s", errUnreachable, bytes.TrimSpace(out))
	}
	list, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, d := range list {
		if out, err := exec.Command("dpkg-deb", "-x", d, dir).CombinedOutput(); err != nil {
			return fmt.Errorf("dpkg-deb -x %s: %w: %s", filepath.Base(d), err, bytes.TrimSpace(out))
		}
	}
	return nil
}
