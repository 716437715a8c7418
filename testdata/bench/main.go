// Command bench measures clayer's snapshots beside what people use, alternately,
// in one run, and prints medians. Call it by testdata/bench/run.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	b := &bench{}
	trees := flag.String("trees", "S,M,L,N", "which trees")
	flag.StringVar(&b.clayer, "clayer", "", "the binary")
	flag.StringVar(&b.base, "dir", "/dev/shm", "where to unpack: on tmpfs, or on a disk")
	flag.IntVar(&b.runs, "runs", 5, "runs of each, after a warm-up")
	flag.StringVar(&b.what, "what", "packing,restoring,composing", "what is measured; for restoring alone, packing is done once")
	keep := flag.Bool("keep", false, "keep the trees, and take those that are there")
	flag.Parse()
	if flag.NArg() == 3 { // this process is one of the contenders
		if err := contend(flag.Arg(0), flag.Arg(1), flag.Arg(2)); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	// What is found there answers at once: no version manager's shims.
	os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if err := b.run(strings.Split(*trees, ","), *keep); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	clayer string
	base   string
	runs   int
	what   string
	dir    string // of all that is written
	tmpfs  bool   // whether dir is on one
}

func (b *bench) run(trees []string, keep bool) error {
	b.dir = filepath.Join(b.base, "clayer-bench")
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	if !keep {
		defer os.RemoveAll(b.dir)
	}
	var fsys unix.Statfs_t
	if err := unix.Statfs(b.dir, &fsys); err != nil {
		return err
	}
	b.tmpfs = fsys.Type == unix.TMPFS_MAGIC
	l, err := measureLimits(b.dir)
	if err != nil {
		return err
	}
	fmt.Printf("%d cores; %s; page cache %.1f GB/s and %.0f files/s with all cores\n\n", runtime.GOMAXPROCS(0), b.base, l.write/1e9, l.files)
	var built []string
	for _, name := range trees {
		build, ok := builders[name]
		if !ok {
			return fmt.Errorf("no tree %q", name)
		}
		tree := filepath.Join(b.dir, name)
		if _, err := os.Stat(tree); err != nil {
			err := os.MkdirAll(tree, 0o755)
			if err == nil {
				err = build(tree)
			}
			if errors.Is(err, errUnreachable) {
				fmt.Printf("%s: skipped: %v\n\n", name, err)
				if err := os.RemoveAll(tree); err != nil {
					return err
				}
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		built = append(built, name)
		if !strings.Contains(b.what, "packing") && !strings.Contains(b.what, "restoring") {
			continue
		}
		if err := b.tree(name, tree); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if b.tmpfs && !keep && !strings.Contains(b.what, "composing") {
			if err := os.RemoveAll(tree); err != nil {
				return err
			}
		}
	}
	if strings.Contains(b.what, "composing") {
		return b.composing(built)
	}
	return nil
}

// A contender is one way to do a thing.
type contender struct {
	name    string
	prepare func() error
	run     func() (usage, error)
	of      []usage
}

// usage is what one run took.
type usage struct {
	wall, cpu time.Duration
	rss       int64 // bytes at most; 0: not known
}

// command runs one and measures it, with the processes that it waits for.
func command(argv ...string) (usage, error) {
	c := exec.Command(argv[0], argv[1:]...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	start := time.Now()
	err := c.Run()
	u := usage{wall: time.Since(start)}
	if err != nil {
		return u, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out.Bytes())
	}
	u.cpu = c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	if r, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.rss = r.Maxrss << 10
	}
	return u, nil
}

// ownProcess runs a contender that is this program's, in a process of its own, whose
// memory can be told. It tells itself how long it took: its start does not count.
func ownProcess(what, from, to string) (usage, error) {
	c := exec.Command("/proc/self/exe", what, from, to)
	c.Stderr = os.Stderr
	out, err := c.Output()
	var wall, cpu int64
	if err == nil {
		_, err = fmt.Sscan(string(out), &wall, &cpu)
	}
	u := usage{wall: time.Duration(wall), cpu: time.Duration(cpu)}
	if r, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.rss = r.Maxrss << 10
	}
	return u, err
}

func contend(what, from, to string) error {
	do, ok := map[string]func(from, to string) (usage, error){"pack": pack, "write": writeAll, "decode": decode}[what]
	if !ok {
		return fmt.Errorf("no contender %q", what)
	}
	u, err := do(from, to)
	fmt.Println(int64(u.wall), int64(u.cpu))
	return err
}

// alternate runs all contenders in turn, so that a mood of the machine is
// everybody's, and prints a table: ratios are to the contenders named.
func (b *bench) alternate(title string, list []*contender, to ...string) error {
	for i := range b.runs + 1 {
		for _, c := range list {
			if err := c.prepare(); err != nil {
				return err
			}
			u, err := c.run()
			if err != nil {
				return err
			}
			if i > 0 { // the first is the warm-up
				c.of = append(c.of, u)
			}
		}
	}
	fmt.Printf("%-30s %8s %8s %8s", title, "s", "CPU s", "MB")
	for _, t := range to {
		fmt.Printf("  %18s", "× of "+t)
	}
	fmt.Println()
	for _, c := range list {
		m := median(c.of)
		fmt.Printf("  %-28s %8.2f %8.2f %8d", c.name, m.wall.Seconds(), m.cpu.Seconds(), m.rss>>20)
		for _, t := range to {
			i := slices.IndexFunc(list, func(c *contender) bool { return c.name == t })
			o := median(list[i].of)
			fmt.Printf("  %8.2f (CPU %4.2f)", o.wall.Seconds()/m.wall.Seconds(), o.cpu.Seconds()/m.cpu.Seconds())
		}
		fmt.Println()
	}
	fmt.Println()
	return nil
}

// median returns the median of each figure.
func median(list []usage) usage {
	at := func(f func(u usage) int64) int64 {
		var all []int64
		for _, u := range list {
			all = append(all, f(u))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return usage{
		wall: time.Duration(at(func(u usage) int64 { return int64(u.wall) })),
		cpu:  time.Duration(at(func(u usage) int64 { return int64(u.cpu) })),
		rss:  at(func(u usage) int64 { return u.rss }),
	}
}

// tree measures one tree: packing, then restoring.
func (b *bench) tree(name, tree string) error {
	files, bytes := 0, int64(0)
	err := filepath.WalkDir(tree, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				files, bytes = files+1, bytes+info.Size()
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	gz, zst, snap := b.path("tree.tar.gz"), b.path("tree.tar.zst"), b.path("tree.snapshot")
	nothing := func() error { return nil }
	fmt.Printf("%s: %d files, %d MB\n", name, files, bytes>>20)
	packers := []*contender{
		{name: "tar -czf", prepare: nothing, run: func() (usage, error) { return command("tar", "-C", tree, "-czf", gz, ".") }},
		{name: "tar -I 'zstd -T0 -3'", prepare: nothing, run: func() (usage, error) {
			return command("tar", "-C", tree, "-I", "zstd -T0 -3", "-cf", zst, ".")
		}},
		{name: "clayer's snapshot", prepare: nothing, run: func() (usage, error) { return ownProcess("pack", tree, snap) }},
	}
	if strings.Contains(b.what, "packing") {
		err = b.alternate("packing", packers, "tar -czf", "tar -I 'zstd -T0 -3'")
	} else {
		for _, p := range packers {
			if _, err = p.run(); err != nil {
				break
			}
		}
	}
	if err != nil {
		return err
	}
	size := func(p string) int64 {
		info, err := os.Stat(p)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	fmt.Printf("  bytes: tar.gz %d, tar.zst %d, snapshot %d\n\n", size(gz), size(zst), size(snap))
	if !strings.Contains(b.what, "restoring") {
		return nil
	}
	return b.restore(tree, gz, zst, snap)
}

func (b *bench) restore(tree, gz, zst, snap string) error {
	file, store, out := b.path("Containerfile"), b.path("store"), b.path("out")
	text := fmt.Sprintf("RUN mkdir -p /opt && cp -a %s /opt/tree\n", tree)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(store); err != nil {
		return err
	}
	solve := []string{b.clayer, "solve", "--sandbox=overlay", "--cache-dir=" + store, "--dest=" + out, "-f", file}
	if _, err := command(solve...); err != nil {
		return err
	}
	fresh := func() error { return b.fresh(out) }
	decoded, err := ownProcess("decode", snap, "-")
	if err != nil {
		return err
	}
	err = b.alternate("restoring", []*contender{
		{name: "tar -xzf", prepare: fresh, run: func() (usage, error) { return command("tar", "-C", out, "-xzf", gz) }},
		{name: "tar --zstd -xf", prepare: fresh, run: func() (usage, error) { return command("tar", "-C", out, "--zstd", "-xf", zst) }},
		{name: "clayer solve", prepare: fresh, run: func() (usage, error) { return command(solve...) }},
		{name: "writing the files, all cores", prepare: fresh, run: func() (usage, error) { return ownProcess("write", tree, out) }},
	}, "tar -xzf", "tar --zstd -xf", "clayer solve")
	if err != nil {
		return err
	}
	if err := fresh(); err != nil {
		return err
	}
	w, err := ownProcess("write", tree, out)
	if err != nil {
		return err
	}
	fmt.Printf("  the limit: (%.2f s of decoding on one core + %.2f CPU s of writing) / cores = %.2f s\n\n",
		decoded.cpu.Seconds(), w.cpu.Seconds(), (decoded.cpu+w.cpu).Seconds()/float64(runtime.GOMAXPROCS(0)))
	return b.fresh(out)
}

// fresh makes a folder empty. On a disk nothing is deleted before the end: ext4 looks
// for a free inode past all those of the last minutes' deletions, which takes longer
// than all the rest; and no contender writes back what the one before it wrote.
func (b *bench) fresh(dir string) error {
	var err error
	if b.tmpfs {
		err = os.RemoveAll(dir)
	} else {
		var aside string
		if aside, err = os.MkdirTemp(b.dir, "spent-"); err == nil {
			if err = os.Rename(dir, filepath.Join(aside, "out")); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
		unix.Sync()
	}
	return errors.Join(err, os.MkdirAll(dir, 0o755))
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }
