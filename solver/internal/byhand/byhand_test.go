package byhand

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/sandbox"
)

// planned returns the survey of a composition of one file, of whose steps those are in the
// root, or in a store, that are named.
func planned(t *testing.T, text, present, cached string) *survey.Survey {
	t.Helper()
	f, err := frontend.Parse("Containerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	g, err := dag.Build([]*frontend.File{f}, dag.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pins := make(dag.Pins)
	for _, src := range g.Sources {
		pins[src.ID] = dag.Pin{Digest: "sha256:" + strings.Repeat("0", 64)}
	}
	keys, err := g.Keys(dag.Base{Platform: "linux/amd64"}, pins)
	if err != nil {
		t.Fatal(err)
	}
	sv := survey.New(new(record.State), "")
	sv.Answers = dag.Answers{Present: make(map[*dag.Step]bool), Cached: make(map[key.Key]dag.Found)}
	for _, s := range g.Steps() {
		if strings.Contains("; "+present+";", "; "+s.Text()+";") {
			sv.Answers.Present[s] = true
			if !s.ChangesRoot() {
				continue
			}
			sv.State.Log = append(sv.State.Log, record.Event{Key: keys.Step[s]})
		}
		if strings.Contains("; "+cached+";", "; "+s.Text()+";") {
			sv.Answers.Cached[keys.Step[s]] = dag.Found{Store: "dir"}
		}
	}
	sv.Plan = dag.NewPlan(g, keys, sv.Answers)
	return sv
}

func TestStep(t *testing.T) {
	tests := []struct {
		name, file, present, cached, text string
		foreign                           bool // other steps are in the root
		want                              string
	}{
		{name: "the only line", file: "RUN pip install six", text: "RUN pip install six"},
		{name: "all before it is there", file: "RUN a\nENV X=1\nRUN pip install six", present: "RUN a; ENV X", text: "RUN pip install six"},
		{name: "a variable that is new", file: "RUN a\nENV X=1\nRUN pip install six", present: "RUN a", text: "RUN pip install six", want: "Containerfile:2 is not in the root"},
		{name: "what is copied for it", file: "RUN a\nCOPY r.txt /tmp/\nRUN pip install -r /tmp/r.txt", present: "RUN a", text: "RUN pip install -r /tmp/r.txt"},
		{name: "no line", file: "ENV X=1", text: "RUN pip install six", want: "not the last one"},
		{name: "another line is the last", file: "RUN pip install six\nRUN a", present: "RUN a", text: "RUN pip install six", want: "not the last one"},
		{name: "a line of the same beginning", file: "RUN pip install six attrs", text: "RUN pip install six", want: "not the last one"},
		{name: "a step before it is not there", file: "RUN a\nRUN pip install six", text: "RUN pip install six", want: "Containerfile:1 is not in the root"},
		{name: "what is copied for another step", file: "COPY r.txt /tmp/\nRUN a\nRUN pip install six", present: "RUN a", text: "RUN pip install six", want: "Containerfile:1 is not in the root"},
		{name: "a download for it", file: "FETCH https://example.org/r.txt /tmp/\nRUN pip install -r /tmp/r.txt", text: "RUN pip install -r /tmp/r.txt", want: "Containerfile:1 is not in the root"},
		{name: "it is there", file: "RUN pip install six", present: "RUN pip install six", text: "RUN pip install six", want: "is not in the root as it stands"},
		{name: "a store has it", file: "RUN pip install six", cached: "RUN pip install six", text: "RUN pip install six", want: "in a store already"},
		{name: "other steps are there", file: "RUN pip install six", foreign: true, text: "RUN pip install six", want: "other steps were applied"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sv := planned(t, tt.file, tt.present, tt.cached)
			if tt.foreign {
				sv.State.Log = append(sv.State.Log, record.Event{Key: key.Key{1}})
			}
			s, err := Step(sv, tt.text)
			switch {
			case tt.want == "" && (err != nil || s.Text() != tt.text):
				t.Errorf("%v, %v, want its step", s, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestDiffers(t *testing.T) {
	const run = "RUN pip install six"
	tests := []struct {
		name, file string
		environ    string // of the step in a solve, by spaces
		session    map[string]string
		want       string
	}{
		{name: "nothing is set", file: run},
		{name: "the session has it", file: "ENV A=1\n" + run, environ: "A=1", session: map[string]string{"A": "1"}},
		{name: "the session lacks it", file: "ENV A=1\n" + run, environ: "A=1", want: "another $A"},
		{name: "the session has another", file: "ENV A=1\n" + run, environ: "A=1", session: map[string]string{"A": "2"}, want: "another $A"},
		{name: "an argument", file: "ARG A=1\n" + run, environ: "A=1", session: map[string]string{"A": "2"}, want: "another $A"},
		{name: "a search path with more", file: "ENV PATH=/opt/bin:$PATH\n" + run, environ: "PATH=/opt/bin:/usr/bin", session: map[string]string{"PATH": "/home/x:/opt/bin:/usr/bin"}},
		{name: "a search path with less", file: "ENV PATH=/opt/bin:$PATH\n" + run, environ: "PATH=/opt/bin:/usr/bin", session: map[string]string{"PATH": "/usr/bin"}, want: "another $PATH"},
		{name: "what the file does not set", file: run, environ: "A=1", session: map[string]string{"A": "2"}},
		{name: "an empty value", file: "ENV A=\n" + run, environ: "A=", session: map[string]string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			steps := planned(t, tt.file, "", "").Plan.Graph.Steps()
			err := Differs(steps[len(steps)-1], strings.Fields(tt.environ), tt.session)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// changed is a root on which an install has changed paths; of directories they end in "/".
type changed struct {
	sandbox.InPlace
	paths string
	err   error
}

func (c changed) Run(context.Context, sandbox.Command) (snapshot.Changes, error) {
	return func(yield func(*snapshot.Entry, error) bool) {
		for p := range strings.FieldsSeq(c.paths) {
			e := &snapshot.Entry{Path: strings.TrimSuffix(p, "/"), Kind: snapshot.File}
			if strings.HasSuffix(p, "/") {
				e.Kind = snapshot.Dir
			}
			if !yield(e, nil) {
				return
			}
		}
	}, c.err
}

// What is watched is read to its end, or not at all: an install beside others is no step.
func TestWatched(t *testing.T) {
	failed, others := errors.New("failed"), errors.New("others were at work")
	tests := []struct {
		name       string
		paths      string
		run, alone error
		want       string // the error
		empty      bool
	}{
		{name: "files", paths: "usr/lib/ usr/lib/six.py"},
		{name: "directories alone", paths: "usr/lib/ var/", empty: true},
		{name: "nothing", empty: true},
		{name: "a file of the user's work", paths: "usr/lib/six.py home/me/project/f", want: "/home/me/project/f changed meanwhile"},
		{name: "a directory of the user's work", paths: "usr/lib/six.py home/me/project/"},
		{name: "beside others", paths: "usr/lib/six.py", alone: others, want: "others were at work"},
		{name: "nothing, beside others", alone: others, want: "others were at work", empty: true},
		{name: "it is not read", run: failed, want: "failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			empty := false
			v := View{InPlace: changed{paths: tt.paths, err: tt.run}, Root: t.TempDir(), Projects: []string{"home/me/project"}, Alone: func() error { return tt.alone }, Empty: &empty}
			changes, err := v.Run(t.Context(), sandbox.Command{})
			if err == nil {
				for _, err = range changes {
					if err != nil {
						break
					}
				}
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) || v.IsEmpty() != tt.empty {
				t.Errorf("%v, empty: %t, want %q, %t", err, v.IsEmpty(), tt.want, tt.empty)
			}
		})
	}
}
