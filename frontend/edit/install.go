package edit

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// An Install is what one command line of a package manager installs.
type Install struct {
	Manager  string     `json:"manager"`           // "uv pip", "apt": Installs of one fold into one RUN
	Command  []string   `json:"command"`           // what it begins with: uv pip install --system
	Options  [][]string `json:"options,omitempty"` // those that matter to what is installed, each with its value
	Packages []string   `json:"packages,omitempty"`
	Copies   []Copy     `json:"copies,omitempty"` // files of this machine that it reads
	AsTyped  bool       `json:"asTyped,omitempty"`
}

// Names returns what it installs without versions, as its manager compares names.
func (in *Install) Names() []string {
	m := managerNamed(in.Manager)
	names := make([]string, len(in.Packages))
	for i, p := range in.Packages {
		names[i] = m.nameOf(p)
	}
	return names
}

// A Copy is a file beside the Containerfile that an Install reads, and where a
// COPY copies it.
type Copy struct {
	Source string `json:"source"` // relative to the Containerfile's directory
	Dest   string `json:"dest"`
}

// A Verdict says what becomes of a command line.
type Verdict uint8

// The verdicts.
const (
	Nothing  Verdict = iota // it installs nothing into the environment
	Venv                    // it installs into a virtual environment
	Captured                // Install is to be written
	Noted                   // it installs what no other session has; Note says why
)

// A Reading is what a command line means.
type Reading struct {
	Verdict Verdict
	Manager string
	Install *Install
	Note    string // of Noted: the command line, and why it is not repeated
	Venv    string // of Venv: which
}

// A Place is where a command line is run. The zero Place is that of a RUN.
type Place struct {
	Dir     string                   // the working directory
	Context string                   // the directory of the Containerfile
	Program string                   // the program that is run, absolute
	Getenv  func(name string) string // nil: there are no variables
}

func (at Place) getenv(name string) string {
	if at.Getenv == nil {
		return ""
	}
	return at.Getenv(name)
}

// abs makes a path of a command line absolute.
func (at Place) abs(path string) string {
	if filepath.IsAbs(path) || at.Dir == "" {
		return filepath.Clean(path)
	}
	return filepath.Join(at.Dir, path)
}

// A manager is what is known of a package manager's command lines.
type manager struct {
	name     string
	programs []string
	verbs    [][]string // the words that begin an install: each one of these, in turn
	removes  []string   // words of what removes again, which nothing is written for
	options  func() known

	// command returns what is written first, normalised.
	command func(program string, verbs []string) []string
	drop    []string // options that command says already
	beside  []string // options about packages that are not named: without one, any is enough
	require string   // an option without which it installs elsewhere: -g of npm
	single  bool     // a command line takes packages that belong together only
	prepare string   // a command before the first: apt-get update

	local  func(word string) bool         // it names a file or directory of this machine
	base   func(word string) string       // a package's name, without its version; nil: the word
	venv   func(at Place, a []arg) string // the virtual environment that it goes to
	refuse func(a []arg, words []string) string
}

// managers are all that are known, the more specific first.
var managers = []*manager{uvPip, uvTool, pip, apt, npm, cargo, goInstall, gem, conda, apk, dnf}

func managerNamed(name string) *manager {
	for _, m := range managers {
		if m.name == name {
			return m
		}
	}
	return nil
}

// ShimMark is the second line of every shim that clayer makes: files without
// it belong to others.
const ShimMark = "# A shim of clayer's; \"clayer shim uninstall\" removes it."

// Programs returns the names of the programs whose installs are known, sorted,
// each once.
func Programs() []string {
	var list []string
	for _, m := range managers {
		list = append(list, m.programs...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Verbs returns the words of which every install by program has one, and those of
// what removes again, sorted, each once: a shim leaves no other command line to clayer.
func Verbs(program string) []string {
	if isPython(program) {
		return []string{"-mpip", "pip"}
	}
	var list []string
	for _, m := range managers {
		if slices.Contains(m.programs, program) {
			list = slices.Concat(list, m.verbs[len(m.verbs)-1], m.removes)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Read returns what a command line installs. argv begins with the program's name.
func Read(argv []string, at Place) Reading {
	if len(argv) < 2 {
		return Reading{}
	}
	program := []string{filepath.Base(argv[0])}
	args := argv[1:]
	if isPython(program[0]) {
		i := pythonModule(args)
		if i < 0 {
			return Reading{}
		}
		program, args = []string{program[0], "-m", "pip"}, args[i:]
	}
	for _, m := range managers {
		if slices.Contains(m.programs, program[0]) {
			if r := m.read(program, args, argv, at); r.Verdict != Nothing {
				return r
			}
		}
	}
	return Reading{}
}

func (m *manager) read(program, args, argv []string, at Place) Reading {
	scanned := m.options().scan(args)
	var verbs, words []string
	var opts []arg
	for _, a := range scanned {
		if a.name != "" {
			opts = append(opts, a)
		} else if n := len(verbs); n < len(m.verbs) {
			if !slices.Contains(m.verbs[n], a.value) {
				return Reading{}
			}
			verbs = append(verbs, a.value)
		} else {
			words = append(words, a.value)
		}
	}
	has := func(e effect) bool {
		return slices.ContainsFunc(opts, func(a arg) bool { return a.effect == e })
	}
	if len(verbs) < len(m.verbs) || has(never) {
		return Reading{}
	}
	if m.require != "" && !slices.ContainsFunc(opts, func(a arg) bool { return a.name == m.require }) {
		return Reading{}
	}
	if len(words) == 0 && !has(reads) && !has(directory) {
		return Reading{} // nothing is named: pip prints its usage
	}
	if m.venv != nil {
		if v := m.venv(at, opts); v != "" {
			return Reading{Verdict: Venv, Manager: m.name, Venv: v}
		}
	}
	noted := func(why string) Reading {
		return Reading{Verdict: Noted, Manager: m.name, Note: note(argv, why)}
	}
	if slices.ContainsFunc(argv, holdsCredential) || slices.ContainsFunc(argv[:len(argv)-1], expectsCredential) {
		return noted("it holds a credential")
	}
	if _, ok := Quote(argv); !ok {
		return noted("it holds what no line can")
	}
	in := &Install{Manager: m.name, Command: m.command(strings.Join(program, " "), verbs)}
	if slices.ContainsFunc(opts, func(a arg) bool { return a.effect == 0 }) {
		return m.asTyped(in, args, words, verbs, noted)
	}
	if m.refuse != nil {
		if why := m.refuse(opts, words); why != "" {
			return noted(why)
		}
	}
	for _, a := range opts {
		if why := m.option(in, a, at); why != "" {
			return noted(why)
		}
	}
	for _, w := range words {
		if m.local == nil || !m.local(w) {
			if !slices.Contains(in.Packages, w) {
				in.Packages = append(in.Packages, w)
			}
			continue
		}
		dest, why := in.copy(w, at)
		if why != "" {
			return noted(why)
		}
		in.Packages = append(in.Packages, dest)
	}
	return Reading{Verdict: Captured, Manager: m.name, Install: in}
}

// asTyped keeps the arguments in their order: after an option that is not known
// any word may be its value.
func (m *manager) asTyped(in *Install, args, words, verbs []string, noted func(string) Reading) Reading {
	if m.local != nil && slices.ContainsFunc(words, m.local) {
		return noted("it names a file of this machine")
	}
	in.AsTyped = true
	skip := slices.Clone(verbs)
	for _, s := range args {
		switch o, ok := m.options()[s]; {
		case len(skip) > 0 && s == skip[0]:
			skip = skip[1:]
		case ok && o.effect == talk, slices.Contains(in.Command, s):
		default:
			in.Packages = append(in.Packages, s)
		}
	}
	return Reading{Verdict: Captured, Manager: m.name, Install: in}
}

// option adds an option to what is written, and returns why it can't be.
func (m *manager) option(in *Install, a arg, at Place) (why string) {
	switch a.effect {
	case talk, talkValue:
		return ""
	case retainPath:
		if a.hasValue && !isURL(a.value) {
			a.value = at.abs(a.value)
		}
	case reads:
		if !isURL(a.value) {
			dest, why := in.copy(a.value, at)
			if why != "" {
				return why
			}
			a.value = dest
		}
	case directory:
		if !isURL(a.value) {
			return a.name + " installs a directory of this machine"
		}
	}
	if slices.Contains(m.drop, a.name) || a.name == m.require {
		return ""
	}
	if w := a.words(); !slices.ContainsFunc(in.Options, func(o []string) bool { return slices.Equal(o, w) }) {
		in.Options = append(in.Options, w)
	}
	return ""
}

var anyURL = lazyregexp.New(`^([a-z]+\+)?[a-z]+://|^git@|^git\+`)

func isURL(s string) bool { return anyURL().MatchString(s) && !strings.HasPrefix(s, "file:") }

// userInfo is what stands before the host of a URL. git@ alone names no user.
var userInfo = lazyregexp.New(`://([^/@\s]+)@`)

// secretOption is an argument that gives a credential its value.
var secretOption = lazyregexp.New(`(?i)^(-{1,2}[^=]*(?:token|password|secret|_auth)[^=]*)=.+`)

// secretQuery is a credential in the query of a URL, such as one that is signed.
var secretQuery = lazyregexp.New(`(?i)([?&][^=&#]*(?:token|password|secret|signature|_auth|api_?key)[^=&#]*)=[^&#]+`)

func holdsCredential(s string) bool {
	m := userInfo().FindStringSubmatch(s)
	return m != nil && m[1] != "git" || secretOption().MatchString(s) || secretQuery().MatchString(s)
}

// secretNext is an option whose value, the next argument, is a credential.
var secretNext = lazyregexp.New(`(?i)^--?[^=]*(?:token|password|secret|_auth)[^=]*$`)

func expectsCredential(s string) bool { return secretNext().MatchString(s) }

// note is a comment about a command line that is not repeated.
func note(argv []string, why string) string {
	words := slices.Clone(argv)
	words[0] = filepath.Base(words[0])
	for i, w := range words {
		w = userInfo().ReplaceAllString(w, "://***@")
		w = secretOption().ReplaceAllString(w, "$1=***")
		w = secretQuery().ReplaceAllString(w, "$1=***")
		if i > 0 && expectsCredential(argv[i-1]) {
			w = "***"
		}
		w = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return '?'
			}
			return r
		}, w)
		words[i] = w
	}
	text, ok := Quote(words)
	if !ok {
		text = words[0]
	}
	return "# not captured: " + text + ": " + why
}

// baseBefore returns a function that cuts a package's version off, which begins
// with one of chars.
func baseBefore(chars string) func(string) string {
	return func(w string) string {
		if i := strings.IndexAny(w, chars); i > 0 {
			w = w[:i]
		}
		return strings.TrimSpace(w)
	}
}
