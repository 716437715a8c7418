package edit

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend"
)

// A Record is the RUN that was captured last: what is installed next by the same
// manager folds into it as long as it is the last instruction of the file.
type Record struct {
	Installs []*Install `json:"installs"`
	Text     string     `json:"text"` // as it stands in the file, with \n for line ends
}

// ErrUnwritable says that a Containerfile is such that nothing can be added
// without changing what is there.
var ErrUnwritable = errors.New("nothing can be added to it")

// Capture adds a RUN that repeats in to the text of a Containerfile, unless one
// of its RUNs does so already. last is the RUN that was captured before in this
// session, nil for none; the one that it returns is to be given the next time.
func Capture(src []byte, in *Install, last *Record) (out []byte, next *Record, err error) {
	f, err := parse(src)
	if err != nil {
		return nil, nil, err
	}
	if f.repeats(in, sameOptions) {
		return src, last, nil
	}
	if last != nil && f.endsWith(last) {
		if merged, ok := fold(last.Installs, in); ok {
			text, err := f.run(merged)
			if err != nil {
				return nil, nil, err
			}
			out := f.replaceLast(text)
			return out, &Record{merged, text}, f.check(out, 0)
		}
	}
	text, err := f.run([]*Install{in})
	if err != nil {
		return nil, nil, err
	}
	var lines []string
	for _, c := range in.Copies {
		line, ok := c.line()
		if !ok {
			return nil, nil, fmt.Errorf("%w: no COPY can name %q", ErrUnwritable, c.Source)
		}
		if !slices.ContainsFunc(f.Instructions, func(i frontend.Instruction) bool { return i.Base().Text == line }) {
			lines = append(lines, line)
		}
	}
	lines = append(lines, text)
	if at, user := f.end(); !isRoot(user) { // the session installs as root
		lines = slices.Insert(lines, len(lines)-1, "USER root")
		if at == len(f.Instructions) {
			lines = append(lines, "USER "+user)
		}
	}
	out = f.insert(strings.Join(lines, "\n"))
	return out, &Record{[]*Install{in}, text}, f.check(out, len(lines))
}

// Comment adds a comment under the last instruction, unless the file has it.
func Comment(src []byte, text string) ([]byte, error) {
	f, err := parse(src)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(f.lines, func(l string) bool { return strings.TrimSpace(l) == text }) {
		return src, nil
	}
	out := f.insert(text)
	return out, f.check(out, 0)
}

// Installs reports whether the RUNs of the Containerfile install the packages of
// in to the same place, whatever else their options say: what is found on a
// machine does not show that it was installed with --break-system-packages.
func Installs(src []byte, in *Install) bool {
	f, err := parse(src)
	return err == nil && f.repeats(in, samePlace)
}

// file is a Containerfile with its text by lines.
type file struct {
	*frontend.File
	lines  []string // without line ends; the mark of byte order is in none
	bom    string
	eol    string   // of the first line, "\n" for none
	ends   []string // the line end of each line
	escape string   // what continues a line
	empty  bool     // there is no instruction
}

func parse(src []byte) (*file, error) {
	f := &file{eol: "\n", escape: `\`}
	if rest, ok := bytes.CutPrefix(src, []byte("\ufeff")); ok {
		f.bom, src = "\ufeff", rest
	}
	for line := range strings.Lines(string(src)) {
		text := strings.TrimSuffix(line, "\n")
		end := line[len(text):]
		if end != "" && strings.HasSuffix(text, "\r") {
			text, end = text[:len(text)-1], "\r\n"
		}
		f.lines, f.ends = append(f.lines, text), append(f.ends, end)
	}
	if len(f.ends) > 0 && f.ends[0] != "" {
		f.eol = f.ends[0]
	}
	// A solve reports what is wrong with a file; that the rest stays as
	// it is gets checked.
	var err error
	f.File, err = frontend.Parse("Containerfile", src)
	for _, in := range f.Instructions {
		if end := in.Base().Pos.End; end > len(f.lines) {
			return nil, fmt.Errorf("%w: its last line goes on", ErrUnwritable)
		}
	}
	if len(f.Instructions) == 0 {
		f.empty = true
		for _, l := range f.lines {
			if t := strings.TrimSpace(l); t != "" && !strings.HasPrefix(t, "#") {
				return nil, fmt.Errorf("%w: %w", ErrUnwritable, err)
			}
		}
	}
	for _, l := range f.lines {
		t := strings.TrimSpace(strings.ToLower(l))
		if !strings.HasPrefix(t, "#") {
			break
		}
		if name, value, ok := strings.Cut(strings.TrimPrefix(t, "#"), "="); ok && strings.TrimSpace(name) == "escape" {
			f.escape = strings.TrimSpace(value)
			break
		}
	}
	return f, nil
}

// repeats reports whether the RUNs of the file install all that in does: the
// same manager with the same options, in whatever order, and its packages in one
// or several of them. A file that it copies is one of the packages. same compares
// the options of a RUN with those of in.
func (f *file) repeats(in *Install, same func(run, in [][]string) bool) bool {
	last := make(map[string][]string) // how the last command that names a package does, which may be in two ways
	m := managerNamed(in.Manager)
	isBeside := func(o []string) bool { return slices.Contains(m.beside, o[0]) }
	anyBeside := !slices.ContainsFunc(in.Options, isBeside)
	for _, instr := range f.Instructions {
		run, ok := instr.(*frontend.Run)
		if !ok {
			continue
		}
		for _, argv := range argvs(run) {
			r := Read(argv, Place{})
			if r.Verdict != Captured || r.Manager != in.Manager || r.Install.AsTyped != in.AsTyped {
				continue
			}
			if in.AsTyped {
				if slices.Equal(r.Install.Packages, in.Packages) {
					return true
				}
				continue
			}
			if anyBeside {
				r.Install.Options = slices.DeleteFunc(r.Install.Options, isBeside)
			}
			if !same(r.Install.Options, in.Options) {
				continue
			}
			if len(in.Packages) == 0 {
				return true
			}
			for _, p := range r.Install.Packages {
				delete(last, m.nameOf(p))
			}
			for _, p := range r.Install.Packages {
				last[m.nameOf(p)] = append(last[m.nameOf(p)], p)
			}
		}
	}
	if in.AsTyped || len(in.Packages) == 0 {
		return false
	}
	for _, p := range in.Packages {
		// One that is named without a version is there already in whichever one.
		named := last[m.nameOf(p)]
		if len(named) == 0 || !slices.Contains(named, p) && p != bare(m, p) {
			return false
		}
	}
	return true
}

func (m *manager) nameOf(p string) string {
	if m.base == nil {
		return p
	}
	return m.base(p)
}

// bare returns p if it names a package alone, as its manager compares names, or
// something else.
func bare(m *manager, p string) string {
	if m.base == nil || strings.ContainsAny(p, "=<>!~@[:/ ") && !strings.HasPrefix(p, "@") {
		return ""
	}
	if strings.HasPrefix(p, "@") && strings.Count(p, "@") > 1 {
		return ""
	}
	return p
}

func sameOptions(a, b [][]string) bool {
	key := func(opts [][]string) []string {
		var list []string
		for _, o := range opts {
			list = append(list, strings.Join(o, "\x00"))
		}
		slices.Sort(list)
		return list
	}
	return slices.Equal(key(a), key(b))
}

// samePlace reports whether a RUN has the options of in, and none beside them that
// lead elsewhere.
func samePlace(run, in [][]string) bool {
	has := func(list [][]string, o []string) bool {
		return slices.ContainsFunc(list, func(x []string) bool { return slices.Equal(x, o) })
	}
	for _, o := range in {
		if !has(run, o) {
			return false
		}
	}
	return !slices.ContainsFunc(run, func(o []string) bool { return leadsElsewhere(o[0]) && !has(in, o) })
}

// argvs returns the command lines of a RUN.
func argvs(run *frontend.Run) [][]string {
	if run.Exec != nil {
		return [][]string{run.Exec}
	}
	return commands(run.Command)
}

// fold adds an install to those of a RUN: to the one that it differs from in its
// packages alone, else as a further command. ok is false if it is of another
// manager, or needs a COPY before it.
func fold(have []*Install, in *Install) (merged []*Install, ok bool) {
	m := managerNamed(in.Manager)
	if len(have) == 0 || have[0].Manager != in.Manager || len(in.Copies) > 0 {
		return nil, false
	}
	merged = slices.Clone(have)
	for i, h := range merged {
		if m.single || h.AsTyped || in.AsTyped || len(h.Copies) > 0 || !slices.Equal(h.Command, in.Command) || !sameOptions(h.Options, in.Options) {
			continue
		}
		sum := *h
		sum.Packages = slices.Clone(h.Packages)
		for _, p := range in.Packages {
			// Two versions of one package can't be asked for at once: the one
			// that was installed last is there.
			at := slices.IndexFunc(sum.Packages, func(q string) bool { return m.nameOf(q) == m.nameOf(p) })
			switch {
			case at < 0:
				sum.Packages = append(sum.Packages, p)
			case p != bare(m, p):
				sum.Packages[at] = p
			}
		}
		merged[i] = &sum
		return merged, true
	}
	return append(merged, in), true
}

// wide is the longest line that is written, in bytes.
const wide = 100

// run writes the RUN that repeats the installs: on one line, or, when long, with
// a package a line, so that a later one is a line of a diff.
func (f *file) run(installs []*Install) (string, error) {
	m := managerNamed(installs[0].Manager)
	var heads, all []string
	var tails [][]string
	for _, in := range installs {
		words := slices.Clone(in.Command)
		for _, o := range in.Options {
			words = append(words, o...)
		}
		if in.AsTyped {
			words = append(words, in.Packages...)
		}
		head, ok := Quote(words)
		var tail []string
		line := head
		if !in.AsTyped {
			for _, p := range in.Packages {
				q, good := Quote([]string{p})
				ok = ok && good
				tail = append(tail, q)
				line += " " + q
			}
		}
		if !ok {
			return "", fmt.Errorf("%w: no line can hold what %s is given", ErrUnwritable, in.Manager)
		}
		heads, tails, all = append(heads, head), append(tails, tail), append(all, line)
	}
	if m.prepare != "" {
		heads = slices.Insert(heads, 0, m.prepare)
		tails = slices.Insert(tails, 0, nil)
		all = slices.Insert(all, 0, m.prepare)
	}
	if line := "RUN " + strings.Join(all, " && "); len(line) <= wide {
		return line, nil
	}
	more := " " + f.escape + "\n"
	var b strings.Builder
	b.WriteString("RUN ")
	for i, head := range heads {
		if i > 0 {
			b.WriteString(more + " && ")
		}
		b.WriteString(head)
		for _, p := range tails[i] {
			b.WriteString(more + "    " + p)
		}
	}
	return b.String(), nil
}

// end returns how many instructions are before the place where one is added, and the USER
// that is in effect there: the end of the file, or before a USER after which nothing uses it.
// That one is of what starts later, and what is added is for root.
func (f *file) end() (n int, user string) {
	n = len(f.Instructions)
	if f.empty {
		return 0, ""
	}
	before := ""
	for i, in := range f.Instructions {
		switch in := in.(type) {
		case *frontend.User:
			if n > i {
				n, before = i, user
			}
			user = in.Name
		case *frontend.From:
			if !in.Stage {
				user = ""
			}
			n = len(f.Instructions)
		case *frontend.Ignored:
		default:
			n = len(f.Instructions)
		}
	}
	if n < len(f.Instructions) && !isRoot(user) {
		return n, before
	}
	return len(f.Instructions), user
}

func isRoot(user string) bool {
	return slices.Contains([]string{"", "root", "0", "root:root", "0:0"}, user)
}

// last returns where the instruction stands that something is added after; ok is false if
// there is none.
func (f *file) last() (pos frontend.Pos, ok bool) {
	n, _ := f.end()
	if n == 0 {
		return pos, false
	}
	return f.Instructions[n-1].Base().Pos, true
}

// endsWith reports whether that instruction is r, unchanged.
func (f *file) endsWith(r *Record) bool {
	n, _ := f.end()
	return n > 0 && f.source(f.Instructions[n-1]) == r.Text
}

// replaceLast returns the text with another one in its place.
func (f *file) replaceLast(text string) []byte {
	pos, _ := f.last()
	return f.join(pos.Line-1, pos.End, text)
}

// insert returns the text with lines under it, or at the end if it has no instruction.
func (f *file) insert(text string) []byte {
	at := len(f.lines)
	if pos, ok := f.last(); ok {
		at = pos.End
	} else if !f.empty {
		at = f.Instructions[0].Base().Pos.Line - 1 // a USER
	}
	return f.join(at, at, text)
}

// join returns the file's text with text in place of the lines from, to.
func (f *file) join(from, to int, text string) []byte {
	var b bytes.Buffer
	b.WriteString(f.bom)
	put := func(from, to int) {
		for i := from; i < to; i++ {
			b.WriteString(f.lines[i])
			b.WriteString(f.ends[i])
		}
	}
	put(0, from)
	if from > 0 && f.ends[from-1] == "" {
		b.WriteString(f.eol)
	}
	b.WriteString(strings.ReplaceAll(text, "\n", f.eol))
	b.WriteString(f.eol)
	put(to, len(f.lines))
	return b.Bytes()
}

// check reports whether the instructions of the file are those of out too, but
// for more new ones at its end, or for 0 the last one before it: BuildKit's parser has the last word,
// as on a heredoc that a quoted << begins.
func (f *file) check(out []byte, more int) error {
	g, err := parse(out)
	if err != nil {
		return err
	}
	n, _ := f.end()
	if len(g.Instructions) != len(f.Instructions)+more {
		return fmt.Errorf("%w: another line would change its meaning", ErrUnwritable)
	}
	for i, a := range f.Instructions {
		b := g.Instructions[i]
		switch {
		case i >= n:
			b = g.Instructions[i+more]
		case more == 0 && i == n-1:
			continue
		}
		if f.source(a) != g.source(b) || !slices.Equal(a.Base().CacheBust, b.Base().CacheBust) {
			return fmt.Errorf("%w: line %d would change its meaning", ErrUnwritable, a.Base().Pos.Line)
		}
	}
	return nil
}

// source returns the lines of an instruction, as they stand in the file.
func (f *file) source(in frontend.Instruction) string {
	pos := in.Base().Pos
	return strings.Join(f.lines[pos.Line-1:pos.End], "\n")
}

// Snapshot adds a SNAPSHOT of path, with a comment above it, unless the file has
// one. What is below a system directory is captured whole all the same.
func Snapshot(src []byte, path, comment string) ([]byte, error) {
	f, err := parse(src)
	if err != nil {
		return nil, err
	}
	for _, in := range f.Instructions {
		if s, ok := in.(*frontend.Snapshot); ok && s.Path == path {
			return src, nil
		}
	}
	word, ok := Quote([]string{path})
	if !ok || strings.Contains(word, "$") {
		return src, nil // no line can name it
	}
	out := f.insert(comment + "\nSNAPSHOT --all " + word)
	return out, f.check(out, 1)
}
