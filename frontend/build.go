package frontend

import (
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/clayer/clayer/frontend/internal/fault"
	"github.com/clayer/clayer/frontend/internal/lexical"
	"github.com/clayer/clayer/frontend/metadata"
	"github.com/clayer/clayer/frontend/reference"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// ignored are the Dockerfile's words that have no effect here.
var ignored = []string{
	"CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "STOPSIGNAL", "VOLUME",
}

// known are all words that an instruction may begin with.
var known = slices.Concat(ignored, []string{
	"ADD", "ARG", "COPY", "ENV", "FETCH", "FROM", "RUN", "SHELL", "SNAPSHOT", "USER", "WORKDIR",
})

// build makes the typed instruction; what depends on variables is looked at
// only when they are expanded.
func build(m Meta, s *source) (Instruction, error) {
	if slices.Contains(ignored, m.Word) {
		return buildIgnored(m, s)
	}
	switch m.Word {
	case "ENV":
		return buildEnv(m, s)
	case "ARG":
		return buildArg(m, s)
	case "RUN":
		return buildRun(m, s)
	case "FETCH":
		return buildFetch(m, s)
	case "ADD", "COPY":
		return buildCopy(m, s)
	case "WORKDIR":
		if err := s.noFlags(); err != nil {
			return nil, err
		}
		// As in Docker, all of the line is the path, blanks included.
		if s.args() == "" {
			return nil, fault.Errorf("path is missing").WithHint("WORKDIR path")
		}
		return &Workdir{Meta: m, Path: s.args()}, nil
	case "USER":
		if err := s.noFlags(); err != nil {
			return nil, err
		}
		if s.args() == "" {
			return nil, fault.Errorf("name is missing").WithHint("USER name[:group]")
		}
		return &User{m, s.args()}, nil
	case "SNAPSHOT":
		return buildSnapshot(m, s)
	case "SHELL":
		if err := s.noFlags(); err != nil {
			return nil, err
		}
		argv, ok := lexical.JSONStrings(s.args())
		if !ok || !isCommand(argv) {
			return nil, fault.Errorf("requires a JSON list").WithHint(`SHELL ["/bin/bash", "-c"]`)
		}
		return &Shell{m, argv}, nil
	case "FROM":
		return buildFrom(m, s)
	}
	f := fault.Errorf("unknown instruction")
	f.Hint = lexical.DidYouMean(m.Word, known, "")
	return nil, f
}

// buildIgnored keeps what an image gets. BuildKit refuses what can't be right, and so it is
// refused here.
func buildIgnored(m Meta, s *source) (*Ignored, error) {
	in := &Ignored{Meta: m, JSON: s.node.Attributes["json"]}
	for n := s.node.Next; n != nil; n = n.Next {
		value := n.Value
		if len(n.Children) > 0 { // of ONBUILD
			value = n.Children[0].Value
		}
		in.Args = append(in.Args, value)
	}
	read := metadata.Instruction{Word: m.Word, Args: in.Args, Flags: s.node.Flags, JSON: in.JSON}
	if err := read.Check(); err != nil {
		return nil, fault.Errorf("%v", err)
	}
	switch m.Word {
	case "HEALTHCHECK":
		in.Health, _ = read.Health()
	case "ONBUILD":
		in.Args = []string{strings.TrimSuffix(withHeredocs(metadata.Trigger(s.node.Original), s.node.Heredocs), "\n")}
	}
	return in, nil
}

// isCommand reports whether a list can be executed.
func isCommand(argv []string) bool {
	return len(argv) > 0 && argv[0] != "" && !slices.ContainsFunc(argv, func(s string) bool { return strings.Contains(s, reference.Mark) })
}

func unknownFlag(f lexical.Flag, flags ...string) error {
	ft := fault.Errorf("unknown flag --%s", f.Name)
	ft.Hint = lexical.DidYouMean(f.Name, flags, "--")
	return ft
}

func buildEnv(m Meta, s *source) (Instruction, error) {
	if err := s.noFlags(); err != nil {
		return nil, err
	}
	if s.args() == "" {
		return nil, fault.Errorf("variable is missing").WithHint("ENV NAME=value")
	}
	env := &Env{Meta: m}
	// BuildKit's parser yields triples: name, value, separator.
	for n := s.node.Next; n != nil; n = n.Next {
		name := n.Value
		if n = n.Next; n == nil {
			return nil, fault.Errorf("%s has no value", name).WithHint("ENV %s=value", name)
		}
		if err := lexical.CheckName(name); err != nil {
			return nil, err
		}
		env.Vars = append(env.Vars, Var{name, n.Value})
		if n = n.Next; n == nil {
			break
		}
	}
	return env, nil
}

func buildArg(m Meta, s *source) (Instruction, error) {
	if err := s.noFlags(); err != nil {
		return nil, err
	}
	words, err := s.words()
	// BuildKit takes the words of a comment for names of ARGs: those that can be are.
	comment := len(words)
	if words == nil {
		words, _ = lexical.SplitWords(s.joined.Text, s.rest, s.escape)
	}
	if i := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "#") }); i > 0 {
		comment, err = i, nil
	}
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return nil, fault.Errorf("name is missing").WithHint("ARG name[=default]")
	}
	arg := &Arg{Meta: m}
	for i, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if err := lexical.CheckName(name); err != nil && i >= comment {
			continue
		} else if err != nil {
			return nil, err
		}
		d := ArgDecl{Name: name}
		if ok {
			d.Default = &value
		}
		arg.Args = append(arg.Args, d)
	}
	return arg, nil
}

func buildSnapshot(m Meta, s *source) (Instruction, error) {
	snap := &Snapshot{Meta: m}
	for _, f := range s.flags {
		switch {
		case f.Name == "all" && !f.HasValue:
			snap.Capture = CaptureAll
		case f.Name == "changed" && !f.HasValue:
			snap.Capture = CaptureChanged
		case f.Name == "all" || f.Name == "changed":
			return nil, fault.Errorf("--%s takes no value", f.Name)
		default:
			return nil, unknownFlag(f, "all", "changed")
		}
	}
	if len(s.flags) > 1 {
		return nil, fault.Errorf("takes one of --all and --changed")
	}
	args, err := s.exactly(m.Word, "path")
	if err != nil {
		return nil, err
	}
	snap.Path = args[0]
	return snap, nil
}

var stageName = lazyregexp.New(`^[A-Za-z][A-Za-z0-9_.-]*$`)

func buildFrom(m Meta, s *source) (Instruction, error) {
	from := &From{Meta: m}
	for _, f := range s.flags {
		switch {
		case f.Name != "platform":
			return nil, unknownFlag(f, "platform")
		case !f.HasValue:
			return nil, fault.Errorf("--platform requires a value").WithHint("--platform=$BUILDPLATFORM")
		}
		from.Platform = f.Value
	}
	words := strings.Fields(s.args()) // a quote is part of a word, as in Docker
	switch {
	case len(words) == 1:
	case len(words) == 3 && strings.EqualFold(words[1], "as"):
		if from.Alias = words[2]; !stageName().MatchString(from.Alias) {
			return nil, fault.Errorf("a stage can't have the name %q", from.Alias).WithHint("it begins with a letter, and has letters, digits, -, _ and . only")
		}
	default:
		return nil, fault.Errorf("requires one name").WithHint("FROM layer")
	}
	if _, open := lexical.SplitWords(words[0], 0, s.escape); open != 0 {
		return nil, fault.Errorf("a quote %c is not closed", open)
	}
	if from.Image = words[0]; !strings.Contains(from.Image, "$") { // which is expanded, by the stage
		from.Image = lexical.Unquote(from.Image, s.escape)
	}
	return from, nil
}

// aloneHeredoc is a RUN that is nothing but a heredoc.
var aloneHeredoc = lazyregexp.New(`^\d*<<-?\s*[^<\s]+$`)

func buildRun(m Meta, s *source) (Instruction, error) {
	r := &Run{Meta: m}
	for _, f := range s.flags {
		switch f.Name {
		case "mount":
			if f.Value == "" {
				return nil, fault.Errorf("--mount requires a value").WithHint("--mount=type=cache,target=/path")
			}
			r.Flags = append(r.Flags, f.Value)
		case "network":
			switch f.Value {
			case "none":
				r.Network = f.Value
			case "default", "host": // the network of the machine
				r.Network = ""
			default:
				return nil, fault.Errorf("--network=%s: no such network", f.Value).WithHint("none, default and host are known")
			}
		case "security":
			switch f.Value {
			case "sandbox": // as it is without the flag
			case "insecure":
				return nil, fault.Errorf("--security=insecure is not supported").WithHint("a RUN has the privileges that clayer is run with, and no more; without the flag it runs with these")
			default:
				return nil, fault.Errorf("--security=%s: no such mode", f.Value).WithHint("sandbox is known")
			}
		case "device":
			return nil, fault.Errorf("--device is not supported").WithHint("a RUN has the devices of the machine that are in /dev")
		default:
			return nil, unknownFlag(f, "mount", "network", "security")
		}
	}
	command := strings.TrimSpace(lexical.Fold(s.joined.Text[s.rest:], s.joined.Seams(s.rest)))
	if command == "" {
		return nil, fault.Errorf("command is missing").WithHint("RUN command")
	}
	docs := s.node.Heredocs
	if len(docs) == 0 {
		if argv, ok := lexical.JSONStrings(command); ok {
			if !isCommand(argv) {
				return nil, fault.Errorf("the list is no command").WithHint(`RUN ["program", "argument"]`)
			}
			r.Exec = argv
			return r, nil
		}
	}
	if len(docs) != 1 || !aloneHeredoc().MatchString(command) {
		r.Command = withHeredocs(command, docs)
		return r, nil
	}
	text := docs[0].Content
	if docs[0].Chomp {
		text = parser.ChompHeredocContent(text)
	}
	switch {
	case strings.TrimSpace(text) == "":
		return nil, fault.Errorf("the heredoc is empty")
	case strings.HasPrefix(text, "#!"):
		r.Script = text
	default:
		r.Command = text
	}
	return r, nil
}

// withHeredocs puts the heredocs after a command, where the shell reads them.
func withHeredocs(command string, docs []parser.Heredoc) string {
	if len(docs) == 0 {
		return command
	}
	var b strings.Builder
	b.WriteString(command)
	b.WriteByte('\n')
	for _, h := range docs {
		b.WriteString(h.Content)
		b.WriteString(h.Name)
		b.WriteByte('\n')
	}
	return b.String()
}
