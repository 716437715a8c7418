package frontend

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// fault is an error about an instruction, as yet without its position.
type fault struct{ message, detail, hint string }

func (f *fault) Error() string { return f.message }

func faultf(format string, args ...any) *fault { return &fault{message: fmt.Sprintf(format, args...)} }

func (f *fault) withHint(format string, args ...any) *fault {
	f.hint = fmt.Sprintf(format, args...)
	return f
}

// report adds what is wrong with an instruction.
func (f *File) report(ps *Problems, m *Meta, err error) {
	p := &Problem{Pos: m.Pos, Word: m.Word, Message: err.Error(), Line: f.excerpt(m.Pos.Line)}
	var ft *fault
	if errors.As(err, &ft) {
		p.Detail, p.Hint = ft.detail, ft.hint
	}
	*ps = append(*ps, p)
}

func (p *fileParser) syntax(err error, start, end int) {
	m := &Meta{Pos: Pos{p.file.Path, start, end}}
	if start <= len(p.file.Lines) {
		word, _, _ := split(p.joined(start))
		m.Word = strings.ToUpper(word)
	}
	message := err.Error()
	if before, _, ok := strings.Cut(message, "\n"); ok {
		message = before
	}
	if len(m.Word) > 20 || strings.Trim(m.Word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		m.Word = ""
	}
	p.file.report(&p.problems, m, errors.New(message))
}

// instruction adds the instruction of a node, or what is wrong with it.
func (p *fileParser) instruction(n *parser.Node) {
	line := p.joined(n.StartLine)
	word, flags, rest := split(line)
	word = strings.ToUpper(word)
	_, all, _ := cutBlank(line)
	m := Meta{
		Pos:       Pos{p.file.Path, n.StartLine, n.EndLine},
		Word:      word,
		Text:      people(word, all),
		CacheBust: p.cacheBust(p.lastEnd+1, lineEnd(n)),
	}
	p.lastEnd = n.EndLine
	in, err := p.build(n, m, flags, rest)
	if err != nil {
		p.file.report(&p.problems, &m, err)
		return
	}
	p.file.Instructions = append(p.file.Instructions, in)
}

func (p *fileParser) build(n *parser.Node, m Meta, flags []string, rest string) (Instruction, error) {
	if slices.Contains(ignored, m.Word) {
		return &Ignored{m}, nil
	}
	switch m.Word {
	case "ENV":
		return parseEnv(n, m, flags)
	case "ARG":
		return parseArg(n, m, flags)
	case "RUN":
		return p.parseRun(n, m, flags, rest)
	case "FETCH":
		return parseFetch(m, flags, rest)
	case "ADD":
		if src := firstToken(rest); isRemote(src) {
			return parseFetch(m, flags, rest)
		}
		return parseCopy(n, m, flags, rest)
	case "COPY":
		return parseCopy(n, m, flags, rest)
	case "WORKDIR":
		args, err := arguments(m.Word, flags, rest, []string{"path"})
		if err != nil {
			return nil, err
		}
		return &Workdir{m, args[0]}, nil
	case "SNAPSHOT":
		return parseSnapshot(m, flags, rest)
	case "SHELL":
		argv, ok := jsonList(rest)
		if !ok || len(argv) == 0 {
			return nil, faultf("wants a JSON list").withHint(`SHELL ["/bin/bash", "-c"]`)
		}
		return &Shell{m, argv}, nil
	case "FROM":
		args := tokens(rest)
		switch {
		case len(args) == 1:
			return &From{m, unquote(args[0]), ""}, nil
		case len(args) == 3 && strings.EqualFold(args[1], "as"):
			return &From{m, unquote(args[0]), args[2]}, nil
		}
		return nil, faultf("wants one name").withHint("FROM layer")
	}
	f := faultf("unknown instruction %q", m.Word)
	m.Word = ""
	if near := nearest(strings.ToUpper(firstWord(m.Text)), words); near != "" {
		f.hint = "did you mean " + near + "?"
	}
	return nil, f
}

func firstWord(s string) string { w, _, _ := cutBlank(s); return w }

func firstToken(rest string) string {
	if list, ok := jsonList(rest); ok && len(list) > 0 {
		return list[0]
	}
	return unquote(rest[:tokenLen(rest)])
}

// jsonList reads the JSON form of arguments.
func jsonList(rest string) ([]string, bool) {
	if !strings.HasPrefix(rest, "[") {
		return nil, false
	}
	var list []string
	if json.Unmarshal([]byte(rest), &list) != nil {
		return nil, false
	}
	return list, true
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// arguments returns the arguments of an instruction that takes no flags and
// exactly the named ones. Quotes stay, for the expansion to take.
func arguments(word string, flags []string, rest string, names []string) ([]string, error) {
	if len(flags) > 0 {
		return nil, faultf("takes no flag %s", flagName(flags[0]))
	}
	args := tokens(rest)
	if list, ok := jsonList(rest); ok {
		args = list
	}
	return args, wantArguments(word, args, names)
}

func wantArguments(word string, args, names []string) error {
	usage := word + " " + strings.Join(names, " ")
	if len(args) < len(names) {
		return faultf("%s is missing", names[len(args)]).withHint("%s", usage)
	}
	if len(args) > len(names) {
		return faultf("%d arguments, want %d", len(args), len(names)).withHint("%s", usage)
	}
	return nil
}

func flagName(flag string) string { name, _, _ := strings.Cut(flag, "="); return name }

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

func parseEnv(n *parser.Node, m Meta, flags []string) (Instruction, error) {
	if len(flags) > 0 {
		return nil, faultf("takes no flag %s", flagName(flags[0]))
	}
	env := &Env{Meta: m}
	for w := n.Next; w != nil; w = w.Next {
		name := w.Value
		if w.Next == nil {
			return nil, faultf("%s has no value", name).withHint("ENV NAME=value")
		}
		w = w.Next
		if !variableName.MatchString(name) {
			return nil, faultf("%q is no variable's name", name)
		}
		env.Vars = append(env.Vars, Var{name, w.Value})
		if w.Next != nil && (w.Next.Value == "" || w.Next.Value == "=") {
			w = w.Next // the separator that BuildKit's parser keeps
		}
	}
	if len(env.Vars) == 0 {
		return nil, faultf("NAME=value is missing").withHint("ENV NAME=value")
	}
	return env, nil
}

func parseArg(n *parser.Node, m Meta, flags []string) (Instruction, error) {
	if len(flags) > 0 {
		return nil, faultf("takes no flag %s", flagName(flags[0]))
	}
	arg := &Arg{Meta: m}
	for w := n.Next; w != nil; w = w.Next {
		name, value, ok := strings.Cut(w.Value, "=")
		if !variableName.MatchString(name) {
			return nil, faultf("%q is no variable's name", name)
		}
		d := ArgDecl{Name: name}
		if ok {
			d.Default = &value
		}
		arg.Args = append(arg.Args, d)
	}
	if len(arg.Args) == 0 {
		return nil, faultf("name is missing").withHint("ARG name[=default]")
	}
	return arg, nil
}

func parseSnapshot(m Meta, flags []string, rest string) (Instruction, error) {
	s := &Snapshot{Meta: m}
	for _, f := range flags {
		switch f {
		case "--all":
			s.Capture = CaptureAll
		case "--changed":
			s.Capture = CaptureChanged
		default:
			return nil, unknownFlag(f, []string{"--all", "--changed"})
		}
	}
	if len(flags) > 1 {
		return nil, faultf("takes one of --all and --changed")
	}
	args, err := arguments(m.Word, nil, rest, []string{"path"})
	if err != nil {
		return nil, err
	}
	s.Path = args[0]
	return s, nil
}

func unknownFlag(flag string, known []string) error {
	f := faultf("unknown flag %s", flagName(flag))
	if near := nearest(flagName(flag), known); near != "" {
		f.hint = "did you mean " + near + "?"
	}
	return f
}

// rawFetch and rawCopy keep flag values as written until they are expanded.
func parseFetch(m Meta, flags []string, rest string) (Instruction, error) {
	f := &Fetch{Meta: m, Extract: ExtractAuto}
	known := []string{"--checksum", "--strip", "--extract", "--chmod", "--chown"}
	for _, flag := range flags {
		name, value, ok := strings.Cut(flag, "=")
		if !slices.Contains(known, name) && !(m.Word == "ADD" && (name == "--link" || name == "--keep-git-dir")) {
			return nil, unknownFlag(flag, known)
		}
		if !ok || value == "" {
			return nil, faultf("%s wants a value: %s=...", name, name)
		}
		f.raw = append(f.raw, rawFlag{name, value})
	}
	args := tokens(rest)
	if list, ok := jsonList(rest); ok {
		args = list
	}
	if err := wantArguments(m.Word, args, []string{"source", "dest"}); err != nil {
		return nil, err
	}
	f.Source, f.Dest = args[0], args[1]
	return f, nil
}

type rawFlag struct{ name, value string }

func parseCopy(n *parser.Node, m Meta, flags []string, rest string) (Instruction, error) {
	c := &Copy{Meta: m}
	for _, flag := range flags {
		name, value, ok := strings.Cut(flag, "=")
		switch name {
		case "--link":
			continue
		case "--from":
			return nil, faultf("--from copies from another stage or image, and there are none here").withHint("FROM layer builds on another layer")
		case "--chown", "--chmod":
			if !ok || value == "" {
				return nil, faultf("%s wants a value: %s=...", name, name)
			}
			c.raw = append(c.raw, rawFlag{name, value})
		case "--parents", "--exclude", "--keep-git-dir", "--checksum", "--unpack":
			return nil, faultf("%s is not known here", name)
		default:
			return nil, unknownFlag(flag, []string{"--chown", "--chmod", "--link"})
		}
	}
	args := tokens(rest)
	if list, ok := jsonList(rest); ok {
		args = list
	}
	if len(args) == 0 {
		return nil, faultf("source is missing").withHint("%s source... dest", m.Word)
	}
	if len(args) == 1 {
		return nil, faultf("dest is missing").withHint("%s source... dest", m.Word)
	}
	c.Dest = args[len(args)-1]
	for _, a := range args[:len(args)-1] {
		if i := slices.IndexFunc(n.Heredocs, func(h parser.Heredoc) bool {
			doc := parser.MustParseHeredoc(a)
			return doc != nil && doc.Name == h.Name
		}); i >= 0 {
			h := n.Heredocs[i]
			content := h.Content
			if h.Chomp {
				content = parser.ChompHeredocContent(content)
			}
			c.Inline = append(c.Inline, Inline{h.Name, content})
			c.expandInline = append(c.expandInline, h.Expand)
			continue
		}
		c.Sources = append(c.Sources, a)
	}
	return c, nil
}

var aloneHeredoc = regexp.MustCompile(`^\d*<<-?\s*[^<\s]+$`)

func (p *fileParser) parseRun(n *parser.Node, m Meta, flags []string, rest string) (Instruction, error) {
	r := &Run{Meta: m}
	for _, flag := range flags {
		name, value, _ := strings.Cut(flag, "=")
		if name != "--mount" {
			if slices.Contains([]string{"--network", "--security", "--device"}, name) {
				return nil, faultf("%s is not known here: a RUN has the session's network and privileges", name)
			}
			return nil, unknownFlag(flag, []string{"--mount"})
		}
		r.rawMounts = append(r.rawMounts, value)
	}
	if rest == "" {
		return nil, faultf("command is missing").withHint("RUN command")
	}
	if n.Attributes["json"] {
		argv, ok := jsonList(rest)
		if !ok || len(argv) == 0 {
			return nil, faultf("an empty list is no command")
		}
		r.Exec = argv
		return r, nil
	}
	if len(n.Heredocs) == 1 && aloneHeredoc.MatchString(rest) {
		text := n.Heredocs[0].Content
		if n.Heredocs[0].Chomp {
			text = parser.ChompHeredocContent(text)
		}
		if strings.HasPrefix(text, "#!") {
			r.Script = text
		} else {
			r.Command = text
		}
		if strings.TrimSpace(text) == "" {
			return nil, faultf("the heredoc is empty")
		}
		return r, nil
	}
	r.Command = rest
	for _, h := range n.Heredocs {
		r.Command += "\n" + h.Content + h.Name
	}
	if len(n.Heredocs) > 0 {
		r.Command += "\n"
	}
	return r, nil
}

func parseMount(value string, dir string) (Mount, error) {
	m := Mount{Type: "bind"}
	type option struct{ key, value string }
	var opts []option
	for part := range strings.SplitSeq(value, ",") {
		k, v, ok := strings.Cut(part, "=")
		k = strings.ToLower(strings.TrimSpace(k))
		if !ok {
			v = "true"
		}
		if k == "type" {
			m.Type = MountType(strings.ToLower(v))
			continue
		}
		opts = append(opts, option{k, v})
	}
	known := map[MountType][]string{
		MountCache:  {"target", "dst", "destination", "id", "sharing", "mode", "uid", "gid", "ro", "readonly", "rw", "readwrite"},
		MountSecret: {"target", "dst", "destination", "id", "required", "env", "mode", "uid", "gid"},
		MountTmpfs:  {"target", "dst", "destination", "size"},
	}[m.Type]
	if known == nil {
		return m, faultf("unknown mount type %q", m.Type).withHint("cache, secret and tmpfs are known here")
	}
	m.Mode = map[MountType]uint32{MountCache: 0o755, MountSecret: 0o400, MountTmpfs: 0o1777}[m.Type]
	for _, o := range opts {
		if !slices.Contains(known, o.key) {
			return m, faultf("--mount=type=%s has no option %q", m.Type, o.key)
		}
		var err error
		switch o.key {
		case "target", "dst", "destination":
			m.Target = o.value
		case "id":
			m.ID = o.value
		case "env":
			m.EnvName = o.value
			if !variableName.MatchString(o.value) {
				return m, faultf("--mount: env=%s is no variable's name", o.value)
			}
		case "sharing":
			m.Sharing = o.value
			if !slices.Contains([]string{"shared", "private", "locked"}, o.value) {
				return m, faultf("--mount: sharing=%s: want shared, private or locked", o.value)
			}
		case "ro", "readonly":
			m.ReadOnly, err = strconv.ParseBool(o.value)
		case "rw", "readwrite":
			var rw bool
			rw, err = strconv.ParseBool(o.value)
			m.ReadOnly = !rw
		case "required":
			m.Required, err = strconv.ParseBool(o.value)
		case "mode":
			var mode uint64
			mode, err = strconv.ParseUint(o.value, 8, 12)
			m.Mode = uint32(mode)
		case "uid":
			m.UID, err = parseID(o.value)
		case "gid":
			m.GID, err = parseID(o.value)
		case "size":
			m.Size, err = parseBytes(o.value)
		}
		if err != nil {
			return m, faultf("--mount: %s=%s is no valid value", o.key, o.value)
		}
	}
	if m.Target != "" {
		m.Target = absolute(dir, m.Target)
	}
	switch m.Type {
	case MountSecret:
		if m.ID == "" && m.Target != "" {
			m.ID = path.Base(m.Target)
		}
		if m.ID == "" {
			return m, faultf("--mount=type=secret: id is missing")
		}
		if m.Target == "" && m.EnvName == "" {
			m.Target = "/run/secrets/" + path.Base(m.ID)
		}
	default:
		if m.Target == "" {
			return m, faultf("--mount=type=%s: target is missing", m.Type)
		}
		if m.Target == "/" {
			return m, faultf("--mount: target / would hide the root")
		}
		if m.Type == MountCache {
			if m.ID == "" {
				m.ID = m.Target
			}
			if m.Sharing == "" {
				m.Sharing = "shared"
			}
		}
	}
	return m, nil
}

func parseID(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err
}

// parseBytes reads a size as Docker writes them: 64m, 1.5g, units of 1024.
func parseBytes(s string) (int64, error) {
	low := strings.TrimSuffix(strings.ToLower(s), "b")
	low = strings.TrimSuffix(low, "i")
	factor := 1.0
	for i, unit := range []string{"k", "m", "g", "t"} {
		if num, ok := strings.CutSuffix(low, unit); ok {
			low, factor = num, float64(int64(1)<<(10*(i+1)))
			break
		}
	}
	f, err := strconv.ParseFloat(low, 64)
	if err != nil || f <= 0 || f*factor >= 1<<62 {
		return 0, fmt.Errorf("%q is no size", s)
	}
	return int64(f * factor), nil
}

func absolute(dir, p string) string {
	if dir == "" {
		dir = "/"
	}
	if !path.IsAbs(p) {
		p = path.Join(dir, p)
	}
	return path.Clean(p)
}
