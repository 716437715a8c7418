package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A table is what one comparison gave.
type table struct {
	Title   string
	Note    string `json:",omitempty"`
	Runs    int
	Machine machine
	Rows    []row
}

// A row is one contender: medians, and what it is to others.
type row struct {
	Name      string
	Wall, CPU float64 // seconds; CPU is of all its processes
	MB        int64   `json:",omitempty"` // memory of the largest process
	Times     []ratio `json:",omitempty"`
}

// A ratio says how many times as long another contender takes.
type ratio struct {
	To        string
	Wall, CPU float64
}

// A machine is where and when something was measured.
type machine struct {
	Date   string
	Cores  int
	Model  string
	Kernel string
	Dir    string // the type of its file system
	Load   float64
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores (%s), Linux %s, on %s, load %.1f at the beginning", m.Date, m.Cores, m.Model, m.Kernel, m.Dir, m.Load)
}

func describe(dir string) (machine, error) {
	m := machine{Date: time.Now().UTC().Format(time.DateOnly), Cores: runtime.NumCPU(), Dir: "a disk"}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return m, err
	}
	if st.Type == unix.TMPFS_MAGIC {
		m.Dir = "tmpfs"
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, err
	}
	m.Kernel, _, _ = strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, rest, _ := strings.Cut(string(b), "model name")
		rest, _, _ = strings.Cut(rest, "\n")
		m.Model = strings.Trim(rest, " \t:")
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(b), " ")
		m.Load, _ = strconv.ParseFloat(first, 64)
	}
	return m, nil
}

// report prints a table, and puts it into the file of results.
func (b *bench) report(t table) error {
	fmt.Fprintf(b.out, "%s\n", t.Title)
	if t.Note != "" {
		fmt.Fprintf(b.out, "  %s\n", t.Note)
	}
	for _, r := range t.Rows {
		fmt.Fprintf(b.out, "  %-32s %9.4f s %9.4f CPU s %6d MB", r.Name, r.Wall, r.CPU, r.MB)
		for _, x := range r.Times {
			fmt.Fprintf(b.out, "   %s / it: %.2f (CPU %.2f)", x.To, x.Wall, x.CPU)
		}
		fmt.Fprintln(b.out)
	}
	fmt.Fprintln(b.out)
	if b.results == "" {
		return nil
	}
	all, err := readResults(b.results)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(all, func(o table) bool { return o.Title == t.Title }); i >= 0 {
		all[i] = t
	} else {
		all = append(all, t)
	}
	data, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(b.results, append(data, '\n'), 0o644)
}

func readResults(name string) (all []table, err error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	return all, err
}

// What is between these lines of a page is written by the bench, and by nobody else.
const (
	begins = "<!-- testdata/bench begins: run testdata/bench/run -docs -->\n"
	ends   = "<!-- testdata/bench ends -->\n"
)

// writeDocs writes the results into a page.
func writeDocs(page, results string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	all, err := readResults(results)
	if err != nil {
		return err
	}
	text, err = withResults(text, all)
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, text, 0o644)
}

// withResults returns a page with these results.
func withResults(page []byte, all []table) ([]byte, error) {
	before, rest, ok := bytes.Cut(page, []byte(begins))
	_, after, ends2 := bytes.Cut(rest, []byte(ends))
	if !ok || !ends2 {
		return nil, fmt.Errorf("no line %q", strings.TrimSpace(begins))
	}
	return slices.Concat(before, []byte(begins), markdown(all), []byte(ends), after), nil
}

// markdown lays tables out. Those of one machine and day are together.
func markdown(all []table) []byte {
	var b bytes.Buffer
	last := ""
	for _, t := range all {
		if at := t.Machine.String(); at != last {
			fmt.Fprintf(&b, "\nMeasured %s. Medians of %d runs in turns after a warm-up; a ratio is the median of the ratios of runs beside each other, how many times as long the other one takes, in time (and in processor time).\n", at, t.Runs)
			last = at
		}
		fmt.Fprintf(&b, "\n**%s.** %s\n\n| | s | processor s | MB |", t.Title, t.Note)
		columns := t.Rows[0].Times
		for _, x := range columns {
			fmt.Fprintf(&b, " × of %s |", code(x.To))
		}
		b.WriteString("\n| --- | --- | --- | --- |" + strings.Repeat(" --- |", len(columns)) + "\n")
		for _, r := range t.Rows {
			fmt.Fprintf(&b, "| %s | %s | %s | %d |", code(r.Name), seconds(r.Wall), seconds(r.CPU), r.MB)
			for _, x := range r.Times {
				if x.Wall == 0 {
					b.WriteString(" |")
					continue
				}
				fmt.Fprintf(&b, " %.2f (%.2f) |", x.Wall, x.CPU)
			}
			b.WriteByte('\n')
		}
	}
	b.WriteByte('\n')
	return b.Bytes()
}

func code(name string) string {
	if strings.Contains(name, " -") {
		return "`" + name + "`"
	}
	return name
}

func seconds(s float64) string {
	if s < 0.1 {
		return fmt.Sprintf("%.4f", s)
	}
	return fmt.Sprintf("%.2f", s)
}
