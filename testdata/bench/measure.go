package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A bench is one run of this program.
type bench struct {
	out     io.Writer
	clayer  string
	vs      string // another clayer; "" for none
	base    string
	runs    int
	scale   int    // divides the trees; 0 for none
	dir     string // of all that is written
	mounted string // see ext4
	results string
	machine machine
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// A contender is one way to do a thing.
type contender struct {
	name    string
	prepare func() error // nil: nothing
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

// times runs a short command so often that its time can be measured.
func times(n int, argv ...string) (all usage, err error) {
	for range n {
		u, err := command(argv...)
		if err != nil {
			return all, err
		}
		all.wall, all.cpu, all.rss = all.wall+u.wall, all.cpu+u.cpu, max(all.rss, u.rss)
	}
	return usage{all.wall / time.Duration(n), all.cpu / time.Duration(n), all.rss}, nil
}

// ownProcess runs a contender that is this program's, in a process of its own, whose
// memory can be told. It tells itself how long it took: its start does not count.
func ownProcess(what, from, to string) (usage, error) {
	c := exec.Command("/proc/self/exe", "contend", what, from, to)
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

// other is what the name of the other clayer's contender ends with.
const other = " (vs)"

// as is what the files of a clayer are called by.
func (b *bench) as(binary string) string {
	if binary == b.clayer {
		return "clayer"
	}
	return "vs"
}

// both returns the contender of clayer, and that of the other clayer if there is one.
func (b *bench) both(name string, make func(binary string) *contender) []*contender {
	list := []*contender{make(b.clayer)}
	list[0].name = name
	if b.vs != "" {
		c := make(b.vs)
		c.name = name + other
		list = append(list, c)
	}
	return list
}

// alternate runs all contenders in turn, so that a mood of the machine is everybody's, and
// reports a table with the ratios to the contenders named. A ratio is the median of those of
// the runs that were beside each other.
func (b *bench) alternate(title, note string, list []*contender, to ...string) error {
	for i := range b.runs + 1 {
		for _, c := range list {
			if c.prepare != nil {
				if err := c.prepare(); err != nil {
					return err
				}
			}
			u, err := c.run()
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if i > 0 || b.runs == 1 { // the first is the warm-up
				c.of = append(c.of, u)
			}
		}
	}
	t := table{Title: title, Note: note, Runs: b.runs, Machine: b.machine}
	for _, c := range list {
		r := row{
			Name: c.name, Wall: median(c.of, func(u usage) float64 { return u.wall.Seconds() }),
			CPU: median(c.of, func(u usage) float64 { return u.cpu.Seconds() }),
			MB:  int64(median(c.of, func(u usage) float64 { return float64(u.rss >> 20) })),
		}
		for _, name := range to {
			o := list[slices.IndexFunc(list, func(c *contender) bool { return c.name == name })]
			r.Times = append(r.Times, ratio{name, paired(o.of, c.of, func(u usage) time.Duration { return u.wall }), paired(o.of, c.of, func(u usage) time.Duration { return u.cpu })})
		}
		if b.vs != "" {
			r.Times = append(r.Times, ratio{To: "the other clayer"})
			if i := slices.IndexFunc(list, func(o *contender) bool { return o.name == c.name+other }); i >= 0 {
				x := &r.Times[len(r.Times)-1]
				x.Wall = paired(list[i].of, c.of, func(u usage) time.Duration { return u.wall })
				x.CPU = paired(list[i].of, c.of, func(u usage) time.Duration { return u.cpu })
			}
		}
		t.Rows = append(t.Rows, r)
	}
	return b.report(t)
}

// median returns the median of a figure.
func median[T any](list []T, f func(T) float64) float64 {
	var all []float64
	for _, x := range list {
		all = append(all, f(x))
	}
	slices.SortFunc(all, cmp.Compare[float64])
	return all[len(all)/2]
}

// paired returns the median of the ratios of runs that were beside each other: how many times
// as long a takes as b.
func paired(a, b []usage, f func(usage) time.Duration) float64 {
	var all []float64
	for i := range min(len(a), len(b)) {
		if f(b[i]) > 0 {
			all = append(all, float64(f(a[i]))/float64(f(b[i])))
		}
	}
	if len(all) == 0 {
		return 0
	}
	return median(all, func(x float64) float64 { return x })
}
