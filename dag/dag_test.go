package dag

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/golden"
)

var testBase = Base{Platform: "linux/amd64 debian 12 python3.11"}

// parse turns "NAME: text" into files of one directory.
func parse(t testing.TB, texts ...string) []*frontend.File {
	t.Helper()
	var files []*frontend.File
	for _, text := range texts {
		name, body, ok := strings.Cut(text, ":\n")
		if !ok {
			name, body = "Containerfile", text
		}
		f, err := frontend.Parse(name, []byte(body))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files = append(files, f)
	}
	return files
}

// build makes a graph and its keys; every source is pinned to a digest of its id.
func build(t testing.TB, opt Options, texts ...string) (*Graph, *Keys) {
	t.Helper()
	g, err := Build(parse(t, texts...), opt)
	if err != nil {
		t.Fatal(err)
	}
	return g, keysOf(t, g, testBase)
}

func keysOf(t testing.TB, g *Graph, base Base) *Keys {
	t.Helper()
	pins := make(Pins)
	for _, src := range g.Sources {
		id, _, _ := strings.Cut(src.ID, " ignored by ") // equal files of two Containerfiles have equal digests
		sum := key.Sum("pin", func(w key.Writer) { w.Field("id", id) }).String()
		if strings.HasPrefix(src.ID, "fetch github:") {
			pins[src.ID] = Pin{Commit: sum[:40]}
			continue
		}
		pins[src.ID] = Pin{Digest: "sha256:" + sum}
	}
	k, err := g.Keys(base, pins)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

const everyInstruction = `ENV A=1 B="two words"
ARG V=3
RUN echo $A
RUN ["echo", "a"]
RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=secret,id=s,env=S echo
FETCH --strip=1 --chmod=0755 https://example.com/x-$V.tar.gz /opt/x
FETCH github:owner/repo@v1//sub /opt/repo
COPY --chown=1:2 a b /dst/
WORKDIR /w
SHELL ["/bin/bash", "-c"]
RUN <<EOF
echo one
EOF
SNAPSHOT /opt/x
SNAPSHOT /tmp/kept
ENV PATH=/opt/x/bin:$PATH
ARG SOURCE_DATE_EPOCH=1
RUN ["true"]
`

// The keys of every instruction are pinned: they name what is in users'
// stores. When they must change, key.Encoding changes too.
func TestKeysGolden(t *testing.T) {
	g, err := Build(parse(t, everyInstruction, "Containerfile.x:\nFROM base\nRUN true\n"), Options{Session: map[string]string{"PATH": "/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	run := g.Layers[1].Steps[0].Instr.(*frontend.Run)
	run.User, run.Network = "me:staff", "none" // as no instruction sets them yet
	k := keysOf(t, g, testBase)
	var b strings.Builder
	for _, s := range g.Steps() {
		fmt.Fprintf(&b, "%s:%d %s %s\n", s.Layer.Name, s.Pos().Line, k.Step[s], s.Text())
		for _, in := range k.Record(s) {
			fmt.Fprintf(&b, "    %s = %q\n", in.Name, in.Value)
		}
	}
	fmt.Fprintf(&b, "composite %s\n", k.Composite(g))
	golden.Check(t, "testdata/keys.golden", b.String())
}

// The owner of a WORKDIR is an input where a USER names one.
func TestKeyOfWorkdir(t *testing.T) {
	for text, want := range map[string]string{"WORKDIR /w\n": "", "USER me:staff\nWORKDIR /w\n": "me:staff", "USER me\nUSER $NO\nWORKDIR /w\n": ""} {
		g, _ := build(t, Options{}, text)
		rec := keysOf(t, g, testBase).Record(g.Layers[0].Steps[0])
		if got := rec.Get("user"); got != want || rec.Get("path") != "/w" {
			t.Errorf("%q: user %q, want %q", text, got, want)
		}
	}
}

func TestWhatChangesAKey(t *testing.T) {
	const text = "ENV A=1\nRUN echo one\nRUN echo two\n"
	tests := []struct {
		name string
		text string
		opt  Options
		base func(*Base)
		want string // lines of steps whose key is another, of the edited file
	}{
		{name: "nothing", text: text},
		{name: "a comment changes no key", text: "# hello\nENV A=1\n# there\nRUN echo one\nRUN echo two\n"},
		{name: "spacing and case change no key", text: "env   A=1\n\n\n   run echo one  \nRun   echo two"},
		{name: "CRLF changes no key", text: strings.ReplaceAll(text, "\n", "\r\n")},
		{name: "a continuation changes no key", text: "ENV A=1\nRUN echo \\\n    one\nRUN echo two\n"},
		{name: "EXPOSE, LABEL and FROM of an image change no key", text: "FROM debian:12\nENV A=1\nEXPOSE 80\nRUN echo one\nLABEL x=y\nRUN echo two\n"},
		{name: "the last RUN", text: "ENV A=1\nRUN echo one\nRUN echo 2\n", want: "3"},
		{name: "a RUN and what follows", text: "ENV A=1\nRUN echo 1\nRUN echo two\n", want: "2 3"},
		{name: "an ENV and what follows", text: "ENV A=2\nRUN echo one\nRUN echo two\n", want: "1 2 3"},
		{name: "cache-bust changes the next step and what follows", text: "ENV A=1\n# cache-bust: 2\nRUN echo one\nRUN echo two\n", want: "3 4"},
		{name: "cache-bust before what is no step", text: "ENV A=1\nRUN echo one\n# cache-bust: 2\nEXPOSE 80\nRUN echo two\n", want: "5"},
		{name: "SNAPSHOT in the middle is a last step", text: "ENV A=1\nRUN echo one\nSNAPSHOT /opt/x\nRUN echo two\n", want: "3"},
		{name: "SNAPSHOT of what is left out by default changes every RUN", text: "ENV A=1\nRUN echo one\nRUN echo two\nSNAPSHOT /tmp/x\n", want: "2 3 4"},
		{name: ".clayerignore changes every RUN", text: text, opt: Options{Ignore: map[string][]string{".": {"opt/logs"}}}, want: "2 3"},
		{name: "an ARG in effect changes the RUNs after it", text: "ENV A=1\nRUN echo one\nARG V=1\nRUN echo two\n", want: "4"},
		{name: "a USER changes the RUNs after it", text: "ENV A=1\nRUN echo one\nUSER app\nRUN echo two\n", want: "4"},
		{name: "a USER of nothing changes nothing", text: "ENV A=1\nUSER app\nUSER $NO\nRUN echo one\nRUN echo two\n"},
		{name: "an ARG without a value changes nothing", text: "ENV A=1\nRUN echo one\nARG V\nRUN echo two\n"},
		{name: "--build-arg changes the RUNs after its ARG", text: "ENV A=1\nRUN echo one\nARG V\nRUN echo two\n",
			opt: Options{BuildArgs: map[string]string{"V": "1"}}, want: "4"},
		{name: "--build-arg SOURCE_DATE_EPOCH changes every RUN", text: text, opt: Options{BuildArgs: map[string]string{EpochVar: "1"}}, want: "2 3"},
		{name: "the session's SOURCE_DATE_EPOCH changes nothing", text: text, opt: Options{Session: map[string]string{EpochVar: "1"}}},
		{name: "the session's variables change nothing", text: text, opt: Options{Session: map[string]string{"A": "x", "HOME": "/y"}}},
		{name: "platform", text: text, base: func(b *Base) { b.Platform = "linux/amd64 debian 12 python3.12" }, want: "1 2 3"},
		{name: "salt", text: text, base: func(b *Base) { b.Salts = []string{"x"} }, want: "1 2 3"},
		{name: "base id", text: text, base: func(b *Base) { b.ID = "x" }, want: "1 2 3"},
		{name: "a commit of --invalidate-on", text: text, base: func(b *Base) { b.Commits = []string{"o/r@1"} }, want: "1 2 3"},
	}
	g0, k0 := build(t, Options{}, text)
	known := make(map[key.Key]bool)
	for _, s := range g0.Steps() {
		known[k0.Step[s]] = true
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g, err := Build(parse(t, tt.text), tt.opt)
			if err != nil {
				t.Fatal(err)
			}
			base := testBase
			if tt.base != nil {
				tt.base(&base)
			}
			k := keysOf(t, g, base)
			var got []string
			why := ""
			for _, s := range g.Steps() {
				if !known[k.Step[s]] {
					got = append(got, fmt.Sprint(s.Pos().Line))
					why += fmt.Sprintf("\nline %d: %v", s.Pos().Line, k.Record(s))
				}
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("steps with another key = %v, want %q%s", got, tt.want, why)
			}
		})
	}
}

func TestValuesOfEnvAndArgAreNotRecorded(t *testing.T) {
	g, k := build(t, Options{BuildArgs: map[string]string{"T": "hunter3"}}, "ARG T\nENV PASSWORD=hunter2\nRUN true\n")
	for _, s := range g.Steps() {
		if text := fmt.Sprint(s.Text(), k.Record(s)); strings.Contains(text, "hunter") {
			t.Errorf("line %d is recorded as %s", s.Pos().Line, text)
		}
	}
}

// A change in base leaves a layer cached that it is only composed before, and
// changes one that is built FROM it.
func TestComposition(t *testing.T) {
	keys := func(baseText string) (mojo, sci, bare key.Key) {
		g, k := build(t, Options{}, baseText,
			"Containerfile.mojo:\nRUN mojo\n", "Containerfile.sci:\nFROM base\nRUN sci\n", "Containerfile.bare:\nFROM scratch\nRUN bare\n")
		return k.Layer[g.Layers[1]], k.Layer[g.Layers[2]], k.Layer[g.Layers[3]]
	}
	m1, s1, b1 := keys("RUN one\n")
	m2, s2, b2 := keys("RUN two\n")
	if m1 != m2 || b1 != b2 {
		t.Error("a change of base changes a layer that is not built FROM it")
	}
	if s1 == s2 {
		t.Error("a change of base leaves a layer that is built FROM it")
	}
}

func TestEdges(t *testing.T) {
	g, _ := build(t, Options{}, "Containerfile.mojo:\nFROM base\nRUN m1\nRUN m2\n", "Containerfile:\nCOPY a /a\nRUN b\n",
		"Containerfile.next:\nCOPY a /a\n", "Containerfile.bare:\nFROM scratch\nRUN s\n")
	var got []string
	name := func(s *Step) string { return fmt.Sprintf("%s:%d", s.Layer.Name, s.Pos().Line) }
	for _, e := range g.Edges() {
		switch {
		case e.Source != nil:
			got = append(got, name(e.From)+" -> "+e.Source.Label())
		case e.OrderOnly:
			got = append(got, name(e.From)+" ..> "+name(e.To))
		default:
			got = append(got, name(e.From)+" -> "+name(e.To))
		}
	}
	want := []string{ // base comes first, since mojo is built FROM it
		"base:1 -> a",
		"base:2 -> base:1",
		"mojo:2 -> base:2",
		"mojo:3 -> mojo:2",
		"next:1 -> a",
		"next:1 ..> mojo:3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("edges (-want +got):\n%s", diff)
	}
	if len(g.Sources) != 2 {
		t.Errorf("%d sources, want 2: beside each of two files may be a list of what it ignores", len(g.Sources))
	}
}

func TestInheritedFromBase(t *testing.T) {
	g, _ := build(t, Options{}, "ENV A=1\nARG V=2\nWORKDIR /w\nSHELL [\"/bin/bash\",\"-c\"]\n", "Containerfile.x:\nFROM base\nRUN true\n")
	run := g.Layers[1].Steps[0].Instr.(*frontend.Run)
	if len(run.Env) != 1 || run.Env[0] != (frontend.Var{Name: "A", Value: "1"}) || len(run.Args) != 0 || run.Dir != "/w" || run.Shell[0] != "/bin/bash" {
		t.Errorf("RUN FROM base has env %v, args %v, dir %s, shell %v", run.Env, run.Args, run.Dir, run.Shell)
	}
}

// Layers that are built on one do not see what each other adds.
func TestLayersFromOneBase(t *testing.T) {
	g, _ := build(t, Options{}, "ENV A=1\nENV B=2\nENV C=3\n", "Containerfile.x:\nFROM base\nENV X=x\nRUN true\n", "Containerfile.y:\nFROM base\nENV Y=y\nRUN true\n")
	for i, want := range []string{"X", "Y"} {
		l := g.Layers[i+1]
		run := l.Steps[len(l.Steps)-1].Instr.(*frontend.Run)
		if len(run.Env) != 4 || run.Env[3].Name != want || l.Scope.Env[3].Name != want {
			t.Errorf("layer %s has %v, and its RUN %v", l.Name, l.Scope.Env, run.Env)
		}
	}
}

// A cache of an image begins empty if its owner is given, and with the files of the image otherwise.
func TestKeyOfACacheThatBeginsEmpty(t *testing.T) {
	key := func(options string) string {
		g, k := build(t, Options{}, "RUN --mount=type=cache,target=/c,from=debian"+options+" true\n")
		return k.Step[g.Layers[0].Steps[0]].String()
	}
	if key("") == key(",uid=0") {
		t.Error("uid=0 makes no difference")
	}
	if key(",source=/etc") != key(",source=/etc,uid=0") {
		t.Error("with a source, uid=0 makes a difference")
	}
}

func TestQueriesOfURLsAreNotRecorded(t *testing.T) {
	g, k := build(t, Options{}, "ADD a.txt https://example.com/x?token=hunter2 b.txt /d/\n")
	for _, s := range g.Steps() {
		if text := fmt.Sprint(s.Text(), k.Record(s)); strings.Contains(text, "a.txt") && strings.Contains(text, "hunter") {
			t.Errorf("recorded as %s", text)
		}
	}
}

func TestCompositionProblems(t *testing.T) {
	tests := []struct {
		name  string
		texts []string
		want  []string
	}{
		{"a cycle", []string{"Containerfile.a:\nFROM b\nRUN a\n", "Containerfile.b:\nFROM c\nRUN b\n", "Containerfile.c:\nFROM a\nRUN c\n"},
			[]string{"Containerfile.c:1: FROM:", "a → b → c → a"}},
		{"a layer FROM itself", []string{"FROM base\nRUN a\n"}, []string{"base → base"}},
		{"two layers of one name", []string{"Containerfile.a:\nRUN a\n", "other/Containerfile.a:\nRUN b\n"},
			[]string{`layer "a" is defined twice`, "give one of them another name"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Build(parse(t, tt.texts...), Options{})
			var ps frontend.Problems
			if !errors.As(err, &ps) {
				t.Fatalf("error = %v, want problems", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error has no %q:\n%v", want, err)
				}
			}
		})
	}
}

// answers says that the first n root-changing steps are present, the next m cached.
func answers(g *Graph, k *Keys, present, cached int) Answers {
	a := Answers{Present: map[*Step]bool{}, Cached: map[key.Key]Found{}, Previous: map[string][]Old{}}
	for _, s := range g.Steps() {
		switch {
		case present > 0:
			a.Present[s] = true
			present--
		case cached > 0 && s.ChangesRoot():
			a.Cached[k.Step[s]] = Found{Store: "dir", Size: 3_100_000}
			cached--
		}
	}
	return a
}

func TestPlanStates(t *testing.T) {
	const text = "RUN one\nRUN two\nENV A=1\nRUN three\n"
	states := func(p *Plan) string {
		var ss []string
		for _, pl := range p.Layers {
			for _, it := range pl.Items {
				ss = append(ss, it.State.String())
			}
		}
		return strings.Join(ss, ", ")
	}
	g, k := build(t, Options{}, text)
	tests := []struct {
		name            string
		present, cached int
		lose            int // this step is in no store
		want            string
	}{
		{"nothing known", 0, 0, -1, "to run, to run, variables only, to run"},
		{"all cached", 0, 3, -1, "cached, cached, variables only, cached"},
		{"one present, two cached", 1, 2, -1, "present, cached, variables only, cached"},
		{"all present", 4, 0, -1, "present, present, present, present"},
		{"what follows a lost step runs", 0, 3, 1, "cached, to run, variables only, to run"},
	}
	for _, tt := range tests {
		a := answers(g, k, tt.present, tt.cached)
		if tt.lose >= 0 {
			delete(a.Cached, k.Step[g.Layers[0].Steps[tt.lose]])
		}
		if got := states(NewPlan(g, k, a)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestPlanBrokenBaseRunsWhatIsBuiltFromIt(t *testing.T) {
	g, k := build(t, Options{}, "RUN b\n", "Containerfile.x:\nFROM base\nRUN x\n", "Containerfile.y:\nRUN y\n")
	a := answers(g, k, 0, 3)
	delete(a.Cached, k.Step[g.Layers[0].Steps[0]])
	p := NewPlan(g, k, a)
	if s := p.Layers[1].Items[0].State; s != ToRun {
		t.Errorf("a step FROM a base that runs is %s", s)
	}
	if s := p.Layers[2].Items[0].State; s != Cached {
		t.Errorf("a step of a layer composed after it is %s", s)
	}
}

// A step that was in no store because it changed nothing is run, and leaves open
// whether what follows is restored.
func TestPlanOfStepsThatNoStoreHas(t *testing.T) {
	const conditional = "in no store; if it changes nothing, what follows is restored"
	tests := []struct {
		name     string
		unstored string // the steps that may be in no store
		missing  string // the steps that no store has
		want     string
		changed  string // the steps that are known to have changed something
	}{
		{"the first one", "1", "1", "1! 2 3 x", ""},
		{"two", "12", "12", "1! 2! 3 x", ""},
		{"the last one, under another layer", "3", "3", "1 2 3! x", ""},
		{"all of a layer", "123", "123", "1! 2! 3! x", ""},
		{"nothing is cached", "123", "123x", "1- 2- 3- x-", ""},
		{"another is missing before", "2", "12", "1- 2- 3- x-", ""},
		{"another is missing after", "1", "12", "1- 2- 3- x-", ""},
		{"another is missing later", "1", "13", "1! 2 3- x-", ""},
		{"two, of which one is decided by nothing", "13", "13x", "1! 2 3- x-", ""},
		{"one that has changed something", "12", "2", "1 2- 3- x-", "2"},
		{"one of two has changed something", "12", "12", "1- 2- 3- x-", "2"},
		{"one that is stored always", "", "1", "1- 2- 3- x-", ""},
	}
	g, k := build(t, Options{}, "RUN 1\nRUN 2\nRUN 3\n", "Containerfile.x:\nFROM base\nRUN x\n", "Containerfile.y:\nRUN y\n")
	for _, tt := range tests {
		a := answers(g, k, 0, len(g.Steps()))
		name := func(s *Step) string { return strings.TrimPrefix(s.Text(), "RUN ") }
		for _, s := range g.Steps() {
			if strings.Contains(tt.missing, name(s)) {
				delete(a.Cached, k.Step[s])
			}
		}
		a.Unstored = func(s *Step) bool { return strings.Contains(tt.unstored, name(s)) }
		for _, s := range g.Steps() {
			a.Previous[s.Layer.Name] = append(a.Previous[s.Layer.Name], Old{Key: k.Step[s], Record: k.Record(s), Changed: strings.Contains(tt.changed, name(s))})
		}
		var got []string
		p := NewPlan(g, k, a)
		for _, pl := range p.Layers[:2] {
			for _, it := range pl.Items {
				word := name(it.Step)
				switch {
				case it.Decides && it.Why == conditional:
					word += "!"
				case it.State == ToRun && it.Why != conditional:
					word += "-"
				}
				got = append(got, word)
			}
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if s := p.Layers[2].Items[0].State; s != Cached {
			t.Errorf("%s: a step of a layer composed after it is %s", tt.name, s)
		}
	}
}

func TestPlanSaysWhy(t *testing.T) {
	const old = "ENV A=1\nRUN one\nCOPY a /a\nRUN three\n"
	tests := []struct {
		name string
		text string
		want []string // of the steps to run that change the root
	}{
		{"the last RUN changed", "ENV A=1\nRUN one\nCOPY a /a\nRUN 3\n", []string{"RUN changed"}},
		{"a RUN in the middle", "ENV A=1\nRUN 1\nCOPY a /a\nRUN three\n", []string{"RUN changed", "key of line 2 changed", "key of line 3 changed"}},
		{"other files", "ENV A=1\nRUN one\nCOPY b /a\nRUN three\n", []string{"source, files changed", "key of line 3 changed"}},
		{"a new RUN", "ENV A=1\nRUN one\nRUN new\nCOPY a /a\nRUN three\n", []string{"new", "key of line 3 changed", "key of line 4 changed"}},
		{"a RUN appended", "ENV A=1\nRUN one\nCOPY a /a\nRUN three\nRUN four\n", []string{"new"}},
		{"ENV changed", "ENV A=2\nRUN one\nCOPY a /a\nRUN three\n", []string{"ENV A changed", "key of line 2 changed", "ENV A changed"}},
		{"no longer cached", old, []string{}},
		{"another encoding", "ENV A=1\nRUN 1\nCOPY a /a\nRUN three\nRUN four\n", []string{EncodingChanged, EncodingChanged, EncodingChanged, "new"}},
	}
	g0, k0 := build(t, Options{}, old)
	for _, tt := range tests {
		g, k := build(t, Options{}, tt.text)
		a := answers(g0, k0, 0, 3)
		for _, s := range g0.Steps() {
			a.Previous["base"] = append(a.Previous["base"], Old{Key: k0.Step[s], Line: s.Pos().Line, Record: k0.Record(s), Took: 40 * time.Second, Recoded: tt.name == "another encoding"})
		}
		got := []string{}
		for _, it := range NewPlan(g, k, a).Layers[0].Items {
			if it.State == ToRun && it.Step.ChangesRoot() {
				got = append(got, it.Why)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// bigFiles returns n layers of m instructions each, every one with a RUN.
func bigFiles(t testing.TB, n, m int) []*frontend.File {
	var texts []string
	for l := range n {
		var b strings.Builder
		fmt.Fprintf(&b, "Containerfile.l%d:\n", l)
		for i := range m {
			switch i % 10 {
			case 0:
				fmt.Fprintf(&b, "ENV VAR_%d=value-%d\n", i%50, i)
			case 1:
				fmt.Fprintf(&b, "WORKDIR /srv/app-%d\n", i)
			default:
				fmt.Fprintf(&b, "RUN uv pip install --system package-%d==1.%d.0 && echo ${VAR_%d}\n", i, l, i%50)
			}
		}
		texts = append(texts, b.String())
	}
	return parse(t, texts...)
}

func benchmarkPlan(b *testing.B, layers, each int, cached bool) {
	files := bigFiles(b, layers, each)
	var a Answers
	if cached {
		g, err := Build(files, Options{})
		if err != nil {
			b.Fatal(err)
		}
		k := keysOf(b, g, testBase)
		a = answers(g, k, 0, layers*each)
	}
	b.ReportAllocs()
	for b.Loop() {
		g, err := Build(files, Options{})
		if err != nil {
			b.Fatal(err)
		}
		NewPlan(g, keysOf(b, g, testBase), a)
	}
}

func BenchmarkPlan1000Cached(b *testing.B)         { benchmarkPlan(b, 1, 1000, true) }
func BenchmarkPlan1000ToRun(b *testing.B)          { benchmarkPlan(b, 1, 1000, false) }
func BenchmarkPlan10000Over100Layers(b *testing.B) { benchmarkPlan(b, 100, 100, true) }
func BenchmarkPlan10000ToRun(b *testing.B)         { benchmarkPlan(b, 100, 100, false) }
func BenchmarkPlan20000Over200Layers(b *testing.B) { benchmarkPlan(b, 200, 100, true) }

// TestWhatIsBesideATreeIsInItsKey compares the keys of FETCHes of one commit.
func TestWhatIsBesideATreeIsInItsKey(t *testing.T) {
	keyOf := func(flags string) key.Key {
		g, err := Build(parse(t, "FETCH "+flags+" github:o/r /x\n"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		pins := make(Pins)
		for _, src := range g.Sources {
			pins[src.ID] = Pin{Commit: strings.Repeat("a", 40)}
		}
		k, err := g.Keys(testBase, pins)
		if err != nil {
			t.Fatal(err)
		}
		return k.Step[g.Steps()[0]]
	}
	if keyOf("") != keyOf("--lfs=false --submodules=false") || keyOf("--lfs") != keyOf("--lfs=true") {
		t.Error("another way to write it is another key")
	}
	seen := make(map[key.Key]bool)
	for _, flags := range []string{"", "--lfs", "--submodules", "--lfs --submodules"} {
		seen[keyOf(flags)] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d keys, want 4", len(seen))
	}
}
