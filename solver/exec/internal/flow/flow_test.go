package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/survey"
)

// recorder is Work that does nothing, and remembers what it was asked to do:
// "run RUN a", "fetch RUN b".
type recorder struct {
	sv      *survey.Survey
	inPlace bool
	hook    func(ctx context.Context, call string) error // is called for each, and decides what becomes of it
	changed string                                       // the step that changes something
	undoing bool

	mu    sync.Mutex
	calls []string
	have  map[*dag.Step]bool
}

func (r *recorder) call(ctx context.Context, what string, s *dag.Step) error {
	if s != nil {
		what += " " + s.Text()
	}
	r.mu.Lock()
	r.calls = append(r.calls, what)
	r.mu.Unlock()
	if r.hook != nil {
		return r.hook(ctx, what)
	}
	return nil
}

func (r *recorder) built(ctx context.Context, what string, s *dag.Step) (Outcome, error) {
	err := r.call(ctx, what, s)
	if err == nil {
		r.set(s, true)
	}
	return Outcome{Changed: err == nil && s.Text() == r.changed, Store: err == nil}, err
}

func (r *recorder) set(s *dag.Step, have bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.have[s] = have
}

func (r *recorder) Has(s *dag.Step) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.have[s]
}

func (r *recorder) ChooseSandbox() (bool, error)              { return r.inPlace, nil }
func (r *recorder) Download(ctx context.Context, s *dag.Step) { _ = r.call(ctx, "download", s) }
func (r *recorder) Forget(s *dag.Step)                        { r.set(s, false) }
func (r *recorder) Partial(*dag.Item) bool                    { return true }
func (r *recorder) Abort(*dag.Step, error)                    {}
func (r *recorder) CloseViews()                               {}
func (r *recorder) Put(ctx context.Context, s *dag.Step)      { _ = r.call(ctx, "put", s) }
func (r *recorder) Undoes() bool                              { return r.undoing }
func (r *recorder) Undo(ctx context.Context) error            { return r.call(ctx, "undo", nil) }
func (r *recorder) Rollback() error                           { return r.call(context.Background(), "roll back", nil) }
func (r *recorder) Commit(ctx context.Context) error          { return r.call(ctx, "commit", nil) }
func (r *recorder) Complete(ctx context.Context)              { _ = r.call(ctx, "complete", nil) }
func (r *recorder) EnterRoot(ctx context.Context) error       { return r.call(ctx, "undo", nil) }
func (r *recorder) CommitInPlace(*dag.Item) error {
	return r.call(context.Background(), "commit part", nil)
}
func (r *recorder) Verify(context.Context, *dag.Item) error { return nil }
func (r *recorder) Lost(*dag.Item, error) error             { return nil }
func (r *recorder) ReportLost([]error)                      {}

func (r *recorder) Choose(_ context.Context, lost []key.Key) ([]key.Key, error) { return lost, nil }
func (r *recorder) Replanned()                                                  { _ = r.call(context.Background(), "replanned", nil) }
func (r *recorder) Apply(ctx context.Context, it *dag.Item) error {
	return r.call(ctx, "apply", it.Step)
}

func (r *recorder) Fetch(ctx context.Context, it *dag.Item, readable, whole func()) error {
	readable()
	err := r.call(ctx, "fetch", it.Step)
	whole()
	r.set(it.Step, err == nil)
	return err
}

func (r *recorder) Check(ctx context.Context, it *dag.Item) error {
	err := r.call(ctx, "check", it.Step)
	if err != nil {
		r.Forget(it.Step)
	}
	return err
}

func (r *recorder) PlacedHere(ctx context.Context, it *dag.Item) error {
	err := r.call(ctx, "place", it.Step)
	if err != nil {
		r.Forget(it.Step)
	}
	return err
}

func (r *recorder) Prepare(ctx context.Context, s *dag.Step) error { return r.call(ctx, "prepare", s) }

func (r *recorder) Make(ctx context.Context, s *dag.Step) (Outcome, error) {
	return r.built(ctx, "make", s)
}

func (r *recorder) RunIn(ctx context.Context, _ *survey.LayerView, s *dag.Step) (Outcome, error) {
	return r.built(ctx, "run", s)
}

func (r *recorder) ApplyTo(ctx context.Context, _ *survey.LayerView, s *dag.Step) error {
	return r.call(ctx, "view", s)
}

func (r *recorder) StepInPlace(ctx context.Context, it *dag.Item) (Outcome, error) {
	if it.State == dag.ToRun && it.Step.LooksAtRoot() {
		return r.built(ctx, "run", it.Step)
	}
	var out Outcome
	if it.State == dag.ToRun && it.Step.IsPlaced() {
		var err error
		if out, err = r.built(ctx, "make", it.Step); err != nil {
			return out, err
		}
	}
	return out, r.Apply(ctx, it)
}

func (r *recorder) Find(context.Context, map[*dag.Step]bool) (map[key.Key]cache.Found, error) {
	return nil, nil
}

// newFlowOf returns the flow of a solve of files, of whose steps those are cached
// that are named.
func newFlowOf(t *testing.T, cached string, texts ...string) (*Flow, *recorder) {
	t.Helper()
	var files []*frontend.File
	for i, text := range texts {
		f, err := frontend.Parse([]string{"Containerfile", "Containerfile.a", "Containerfile.b"}[i], []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	g, err := dag.Build(files, dag.Options{})
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
	sv.Answers = dag.Answers{
		Present: make(map[*dag.Step]bool), Cached: make(map[key.Key]dag.Found),
		Unstored: func(s *dag.Step) bool { return strings.Contains(s.Text(), "install") && !sv.Changed[s] },
	}
	for _, s := range g.Steps() {
		if slices.Contains(strings.Split(cached, ", "), s.Text()) {
			sv.Found[keys.Step[s]] = cache.Found{Descriptor: cache.Descriptor{Key: keys.Step[s], Size: 1, Entries: 1}, Store: "dir"}
			sv.Answers.Cached[keys.Step[s]] = dag.Found{Store: "dir", Size: 1}
		}
	}
	sv.Plan = dag.NewPlan(g, keys, sv.Answers)
	r := &recorder{sv: sv, have: make(map[*dag.Step]bool)}
	f := New(r, sv, 4)
	f.Solve(f.all())
	return f, r
}

func (r *recorder) run(t *testing.T, f *Flow, want error) {
	t.Helper()
	if err := f.Run(t.Context()); !errors.Is(err, want) {
		t.Errorf("error = %v, want %v", err, want)
	}
}

// check compares how often calls were made.
func (r *recorder) checkCount(t *testing.T, want map[string]int) {
	t.Helper()
	for call, n := range want {
		got := 0
		for _, c := range r.calls {
			if c == call {
				got++
			}
		}
		if got != n {
			t.Errorf("%q %d times, want %d\n%s", call, got, n, strings.Join(r.calls, "\n"))
		}
	}
}

// checkOrder checks that each call was made, after the one before it.
func (r *recorder) checkOrder(t *testing.T, calls ...string) {
	t.Helper()
	last := -1
	for _, c := range calls {
		i := slices.Index(r.calls[last+1:], c)
		if i < 0 {
			t.Errorf("no %q after the %d. call\n%s", c, last, strings.Join(r.calls, "\n"))
			return
		}
		last += i + 1
	}
}

var errTest = errors.New("boom")

func fails(call string) func(context.Context, string) error {
	return func(_ context.Context, c string) error {
		if c == call {
			return errTest
		}
		return nil
	}
}

func TestASharedStepRunsOnce(t *testing.T) {
	f, r := newFlowOf(t, "", "RUN shared", "FROM base\nRUN a", "FROM base\nRUN b")
	r.run(t, f, nil)
	r.checkCount(t, map[string]int{"run RUN shared": 1, "run RUN a": 1, "run RUN b": 1, "put RUN shared": 1, "apply RUN shared": 1, "commit": 1, "complete": 1})
	r.checkOrder(t, "run RUN shared", "run RUN a", "undo", "apply RUN shared", "apply RUN a", "apply RUN b", "commit", "complete")
	r.checkOrder(t, "run RUN shared", "run RUN b", "undo")
}

func TestWhatIsCachedIsFetchedAndAppliedAlone(t *testing.T) {
	f, r := newFlowOf(t, "RUN a, RUN b", "ENV X=1\nRUN a\nRUN b")
	r.run(t, f, nil)
	r.checkCount(t, map[string]int{"run RUN a": 0, "fetch RUN a": 1, "fetch RUN b": 1, "check RUN a": 0, "commit": 1, "roll back": 0})
	r.checkOrder(t, "undo", "apply RUN a", "apply RUN b", "commit", "complete")
}

func TestASnapshotIsAppliedWhileItArrives(t *testing.T) {
	f, r := newFlowOf(t, "RUN a, RUN b", "RUN a\nRUN b")
	applied := make(chan struct{})
	r.hook = func(ctx context.Context, call string) error {
		switch call {
		case "fetch RUN a":
			<-applied // else this waits for ever
		case "apply RUN a":
			close(applied)
		}
		return nil
	}
	r.run(t, f, nil)
	r.checkOrder(t, "apply RUN a", "apply RUN b", "commit")
}

func TestALostBlobRunsItsStepAndThoseAfterItOnce(t *testing.T) {
	f, r := newFlowOf(t, "RUN a, RUN b, RUN c", "RUN a\nRUN b\nRUN c\nRUN d")
	r.hook = fails("check RUN b")
	r.run(t, f, nil)
	r.checkCount(t, map[string]int{
		"fetch RUN a": 1, "run RUN a": 0, "view RUN a": 1,
		"run RUN b": 1, "run RUN c": 1, "run RUN d": 1, "undo": 1, "commit": 1, "roll back": 0,
	})
	r.checkOrder(t, "check RUN b", "view RUN a", "run RUN b", "run RUN c", "run RUN d", "undo")
}

func TestABlobLostWhileItIsAppliedRollsBackAndBuilds(t *testing.T) {
	for _, lost := range []string{"fetch RUN b", "apply RUN b"} {
		f, r := newFlowOf(t, "RUN a, RUN b", "RUN a\nRUN b")
		r.hook = func(_ context.Context, call string) error {
			r.mu.Lock()
			again := slices.Contains(r.calls, "roll back")
			r.mu.Unlock()
			if call != lost || again {
				return nil
			}
			if call == "apply RUN b" {
				return &InvalidError{f.all()[1], errTest}
			}
			return errTest
		}
		r.run(t, f, nil)
		r.checkCount(t, map[string]int{"roll back": 1, "run RUN a": 0, "run RUN b": 1, "fetch RUN a": 1, "commit": 1})
		r.checkOrder(t, "roll back", "run RUN b", "undo", "apply RUN a", "apply RUN b", "commit")
	}
}

func TestAnErrorSkipsWhatWaitsAndStoresWhatFinished(t *testing.T) {
	f, r := newFlowOf(t, "", "RUN a\nRUN b\nRUN c")
	r.hook = fails("run RUN b")
	r.run(t, f, errTest)
	r.checkCount(t, map[string]int{"run RUN a": 1, "put RUN a": 1, "put RUN b": 0, "run RUN c": 0, "undo": 0, "commit": 0, "complete": 0})
}

func TestNothingOfAFlowRunsAfterCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f, r := newFlowOf(t, "", "RUN a\nRUN b")
	r.hook = func(ctx context.Context, call string) error {
		if call != "run RUN a" {
			return nil
		}
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	if err := f.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	r.checkCount(t, map[string]int{"run RUN b": 0, "put RUN a": 0, "undo": 0})
}

func TestPutsDoNotDelayApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, r := newFlowOf(t, "", "RUN a\nRUN b")
		var committed, completed time.Duration
		start := time.Now()
		r.hook = func(_ context.Context, call string) error {
			switch call {
			case "put RUN a", "put RUN b":
				time.Sleep(time.Minute)
			case "commit":
				committed = time.Since(start)
			case "complete":
				completed = time.Since(start)
			}
			return nil
		}
		r.run(t, f, nil)
		if committed != 0 || completed != time.Minute {
			t.Errorf("committed after %s, and completed after %s; want 0 and a minute", committed, completed)
		}
	})
}

// What is being stored when a solve is cancelled has its time of grace.
func TestPutsOutliveCancelByTheirGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f, r := newFlowOf(t, "", "RUN a\nRUN b")
		start := time.Now()
		var ended time.Duration
		r.hook = func(ctx context.Context, call string) error {
			switch call {
			case "put RUN a":
				<-ctx.Done()
				ended = time.Since(start)
			case "run RUN b":
				cancel()
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		if err := f.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error = %v", err)
		}
		if ended != grace {
			t.Errorf("the put was cancelled after %s, want %s", ended, grace)
		}
	})
}

func TestASourceOfTwoStepsIsDownloadedOnce(t *testing.T) {
	f, r := newFlowOf(t, "", "FETCH https://example.com/x /a\nFETCH https://example.com/x /b\nRUN c")
	r.run(t, f, nil)
	r.checkCount(t, map[string]int{"download FETCH https://example.com/x /a": 1, "download FETCH https://example.com/x /b": 0})
	r.checkOrder(t, "download FETCH https://example.com/x /a", "make FETCH https://example.com/x /b", "view FETCH https://example.com/x /b", "run RUN c")
}

func TestInPlaceARunWaitsForTheApplyBeforeIt(t *testing.T) {
	f, r := newFlowOf(t, "RUN a", "RUN a\nWORKDIR /w\nRUN b\nWORKDIR /v")
	r.inPlace = true
	r.run(t, f, nil)
	r.checkOrder(t, "fetch RUN a", "check RUN a", "undo", "apply RUN a", "make WORKDIR /w", "apply WORKDIR /w", "run RUN b", "apply WORKDIR /v", "commit")
	r.checkCount(t, map[string]int{"run RUN b": 1, "view RUN a": 0})
}

// A step that is stored in no store decides what follows it: cached steps are fetched
// and used if it changes nothing, and run if it changes something.
func TestWhatFollowsAStepWaitsForItToDecide(t *testing.T) {
	const base, all, part = "RUN install a\nRUN b\nRUN install c\nRUN d", "FROM base\nRUN x", "FROM base\nRUN e"
	tests := []struct {
		name    string
		changed string
		lost    string // the call that fails
		fetched string
		ran     string
	}{
		{"nothing changes", "", "", "b d x", "e"},
		{"the second one changes something", "RUN install c", "", "b", "d e x"},
		{"the first one changes something", "RUN install a", "", "", "b d e x"},
		{"a snapshot is lost", "", "check RUN d", "b d", "d e x"},
		{"the first snapshot is lost", "", "fetch RUN b", "b", "b d e x"},
	}
	for _, tt := range tests {
		for _, inPlace := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, in place %t", tt.name, inPlace), func(t *testing.T) {
				f, r := newFlowOf(t, "RUN b, RUN d, RUN x", base, all, part)
				r.inPlace, r.changed = inPlace, tt.changed
				lost := 0
				r.hook = func(_ context.Context, call string) error {
					if call == tt.lost {
						lost++
						return errTest
					}
					return nil
				}
				r.run(t, f, nil)
				want := map[string]int{"run RUN install a": 1, "run RUN install c": 1, "commit": 1, "replanned": 0}
				if tt.changed != "" {
					want["replanned"] = 1
				}
				for _, name := range []string{"b", "d", "e", "x"} {
					want["fetch RUN "+name] = strings.Count(tt.fetched, name)
					want["run RUN "+name] = strings.Count(tt.ran, name)
				}
				if lost > 0 {
					delete(want, "fetch RUN x") // it may have begun
				}
				r.checkCount(t, want)
				if tt.changed == "" && tt.lost == "" {
					r.checkOrder(t, "run RUN install a", "fetch RUN b", "run RUN install c", "fetch RUN d", "run RUN e")
				}
				for _, call := range []string{"apply RUN b", "apply RUN d", "apply RUN x"} {
					if name := strings.TrimPrefix(call, "apply RUN "); !inPlace || !strings.Contains(tt.ran, name) {
						r.checkCount(t, map[string]int{call: 1})
					}
				}
			})
		}
	}
}

// What builds on nothing of a step that has not decided yet does not wait for it.
func TestOtherLayersDoNotWaitForAStepToDecide(t *testing.T) {
	f, r := newFlowOf(t, "RUN b, RUN y", "RUN install a\nRUN b", "FROM scratch\nRUN y\nRUN z")
	ran := make(chan struct{})
	r.hook = func(_ context.Context, call string) error {
		switch call {
		case "run RUN install a":
			<-ran // else this waits for ever
		case "run RUN z":
			close(ran)
		}
		return nil
	}
	r.run(t, f, nil)
	r.checkOrder(t, "run RUN z", "fetch RUN b", "check RUN b", "apply RUN b")
}

// A snapshot of it that is lost did change something: nothing is left open.
func TestALostInstallDecidesNothing(t *testing.T) {
	f, r := newFlowOf(t, "RUN install a, RUN b, RUN c", "RUN install a\nRUN b\nRUN c\nRUN d")
	r.hook = fails("check RUN install a")
	r.run(t, f, nil)
	r.checkCount(t, map[string]int{"run RUN install a": 1, "run RUN b": 1, "run RUN c": 1, "run RUN d": 1, "view RUN b": 0, "commit": 1})
}

func TestASnapshotThatCannotBeReadForAViewIsBuiltAgain(t *testing.T) {
	f, r := newFlowOf(t, "RUN a", "RUN a\nRUN b")
	tries := 0
	r.hook = func(_ context.Context, call string) error {
		if call == "view RUN a" {
			if tries++; tries == 1 {
				return &InvalidError{Item: f.all()[0], Err: errTest}
			}
		}
		return nil
	}
	r.run(t, f, nil)
	r.checkCount(t, map[string]int{"fetch RUN a": 1, "run RUN a": 1, "run RUN b": 1, "commit": 1})
	r.checkOrder(t, "check RUN a", "view RUN a", "run RUN a", "run RUN b", "apply RUN a")
}

func TestScratchThatAStepAsksForIsFetchedThen(t *testing.T) {
	f, r := newFlowOf(t, "", "RUN a\nWORKDIR /x\nRUN b")
	tries := 0
	r.hook = func(_ context.Context, call string) error {
		if call == "make WORKDIR /x" {
			if tries++; tries == 1 {
				return ErrScratch
			}
		}
		return nil
	}
	r.run(t, f, nil)
	r.checkCount(t, map[string]int{"run RUN a": 1, "make WORKDIR /x": 2, "run RUN b": 1, "put WORKDIR /x": 1, "commit": 1})
	r.checkOrder(t, "make WORKDIR /x", "make WORKDIR /x", "run RUN b", "undo", "apply WORKDIR /x")
}
