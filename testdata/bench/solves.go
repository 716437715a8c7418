package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// many is how often what takes milliseconds is run for one figure.
func (b *bench) many() int { return max(1, 20/max(1, b.scale)) }

// start measures a solve with nothing to do, the whole process, beside a Go program that prints
// a line.
func (b *bench) start() error {
	hello := b.path("hello")
	if err := write(hello+".go", []byte("package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"hello\") }\n")); err != nil {
		return err
	}
	build := exec.Command("/proc/self/exe")
	build.Path, _ = exec.LookPath("go")
	if build.Path == "" {
		build.Path = "/usr/local/go/bin/go"
	}
	build.Args = []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", hello, hello + ".go"}
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GO111MODULE=off")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	file, root := b.path("start/Containerfile"), b.path("start/root")
	if err := write(file, []byte("WORKDIR /srv/app\nENV A=1\nCOPY Containerfile /srv/app/\n")); err != nil {
		return err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	solve := []string{"solve", "--root=" + root, "-f", file}
	if _, err := command(append([]string{b.clayer}, solve...)...); err != nil {
		return err
	}
	list := b.both("clayer solve, nothing to do", func(binary string) *contender {
		return &contender{run: func() (usage, error) { return times(b.many(), append([]string{binary}, solve...)...) }}
	})
	list = append(list,
		&contender{name: "a Go program that prints a line", run: func() (usage, error) { return times(b.many(), hello) }})
	return b.alternate("The whole process of a solve with nothing to do", "", list, list[0].name)
}

// context measures the plan of a COPY of 30,000 files.
func (b *bench) context() error {
	root := b.path("context/root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	var list []*contender
	for _, what := range []string{"unchanged", "edited", "new"} {
		dir := b.path("context/" + what)
		if err := flat(filepath.Join(dir, "src"), max(1, b.scale)); err != nil {
			return err
		}
		file := filepath.Join(dir, "Containerfile")
		if err := write(file, []byte("COPY src /opt/src\n")); err != nil {
			return err
		}
		list = append(list, b.both("plan: "+what, func(binary string) *contender {
			cache := filepath.Join(dir, "cache-"+b.as(binary))
			return &contender{
				prepare: func() error {
					switch what {
					case "edited":
						return write(filepath.Join(dir, "src/d000/e0/f00000.txt"), fmt.Append(nil, rand.Int64()))
					case "new":
						return os.RemoveAll(cache)
					}
					return nil
				},
				run: func() (usage, error) {
					return command(binary, "plan", "--root="+root, "--cache-dir="+cache, "-f", file)
				},
			}
		})...)
	}
	time.Sleep(50 * time.Millisecond) // what is as new as its reading is read again
	const find = "find -printf of the same"
	list = append(list, &contender{name: find, run: func() (usage, error) {
		return command("find", b.path("context/new/src"), "-type", "f", "-printf", "%p %s %T@ %C@ %i\n")
	}})
	return b.alternate("The plan of a COPY of 30,000 files of 1.5 kB", "What is unchanged was read by an earlier plan; of what is edited, one file is new; new is what nobody has read.", list, find)
}

// steps measures chains of 1 to 1,000 steps.
func (b *bench) steps() error {
	for _, n := range []int{1, 10, 100, 1000} {
		if b.scale > 1 && n > 10 {
			break
		}
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "COPY in /srv/%d/\n", i)
		}
		dir := b.path(fmt.Sprintf("steps-%d", n))
		file := filepath.Join(dir, "Containerfile")
		if err := write(filepath.Join(dir, "in"), []byte("in\n")); err != nil {
			return err
		}
		if err := write(file, []byte(text.String())); err != nil {
			return err
		}
		var list []*contender
		solve := func(binary, cache, root string) (usage, error) {
			return command(binary, "solve", "--root="+filepath.Join(dir, root), "--cache-dir="+filepath.Join(dir, cache), "-f", file)
		}
		for _, what := range []string{"built", "restored", "nothing to do"} {
			list = append(list, b.both(what, func(binary string) *contender {
				name := b.as(binary)
				return &contender{
					prepare: func() error {
						root := filepath.Join(dir, "root-"+name)
						switch what {
						case "built":
							if err := os.RemoveAll(filepath.Join(dir, "cache-"+name)); err != nil {
								return err
							}
							return b.fresh(root)
						case "restored":
							return b.fresh(root)
						}
						return nil
					},
					run: func() (usage, error) { return solve(binary, "cache-"+name, "root-"+name) },
				}
			})...)
		}
		if err := b.alternate(fmt.Sprintf("A chain of steps: %d COPYs of a small file", n), "", list); err != nil {
			return err
		}
	}
	return nil
}

// bump measures what a new version of one package in a tree of many costs: the bytes that the
// local store gets, and the time.
func (b *bench) bump() error {
	w := newWords(5)
	tree := b.path("bump/site-packages")
	n := 400 / max(1, b.scale)
	for p := range n {
		for f := range 20 {
			if err := write(filepath.Join(tree, fmt.Sprintf("pkg%03d/m%02d.py", p, f)), w.text(2000+w.r.IntN(80_000))); err != nil {
				return err
			}
		}
	}
	file := b.path("bump/Containerfile")
	version := 0
	list := b.both("solve after a bump", func(binary string) *contender {
		store, root := b.path("bump/store-"+b.as(binary)), b.path("bump/root-"+b.as(binary))
		return &contender{
			prepare: func() error {
				version++
				for f := range 20 {
					if err := write(filepath.Join(tree, fmt.Sprintf("pkg%03d/m%02d.py", n/2, f)), w.text(2000+w.r.IntN(80_000))); err != nil {
						return err
					}
				}
				return write(file, fmt.Appendf(nil, "RUN mkdir -p /opt && cp -a %s /opt/ && : %d\n", tree, version))
			},
			run: func() (usage, error) {
				if err := b.fresh(root); err != nil {
					return usage{}, err
				}
				return command(binary, "solve", "--sandbox=overlay", "--cache-dir="+store, "--dest="+root, "-f", file)
			},
		}
	})
	err := b.alternate("A new version of one package of many", "A RUN that copies 400 packages, 8,000 files, of which one package is new each time.", list)
	for _, c := range list {
		store := b.path("bump/store-" + b.as(b.clayer))
		if out, e := exec.Command("du", "-sm", store).Output(); err == nil && e == nil {
			fmt.Fprintf(b.out, "  %s: the store has %s MB after %d versions\n\n", c.name, strings.Fields(string(out))[0], version)
		}
		break
	}
	return err
}
