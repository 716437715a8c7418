// Package probe records what the probes of layers have said on a root: commands that
// succeed if their layer works there. A restored layer whose probe failed is rejected: the
// next plan doesn't use these snapshots on this root.
package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/survey"
)

// A Log is what is recorded beside the state of a root.
type Log struct {
	Results  []Result `json:"results,omitempty"`  // one of each layer, of its last probe
	Rejected []Result `json:"rejected,omitempty"` // layers that were restored, and failed
}

// A Result is what a probe said of a layer.
type Result struct {
	Layer   string        `json:"layer"`
	Content digest.Digest `json:"content"` // of the layer: its keys and snapshots
	Command string        `json:"command"`
	Why     string        `json:"why,omitempty"` // it failed; "": it passed
	At      time.Time     `json:"at"`
}

// Failure says how the probe failed; "" if it passed, or did not run.
func (r Result) Failure() string {
	if r.Why == "" {
		return ""
	}
	return "failed: " + r.Why
}

func (r Result) same(o Result) bool {
	return r.Layer == o.Layer && r.Content == o.Content && r.Command == o.Command
}

const (
	fileName   = "probes.json"
	maxResults = 1000 // of each list
)

// Read returns the log of a root, an empty one if there is none.
func Read(dir record.Dir) (Log, error) {
	var l Log
	data, err := dir.ReadFile(fileName)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &l)
	}
	if err != nil {
		return Log{}, fmt.Errorf("%s cannot be read, so probes run again: %w", dir.Path(fileName), err)
	}
	return l, nil
}

// Write makes l the log of a root, under its lock, without layers that are not in the state.
func (l Log) Write(dir record.Dir, state *record.State) error {
	l.Results = slices.DeleteFunc(l.Results, func(r Result) bool {
		return !slices.ContainsFunc(state.Layers, func(a record.Layer) bool { return a.Name == r.Layer })
	})
	l.Results, l.Rejected = last(l.Results), last(l.Rejected)
	data, err := json.MarshalIndent(l, "", " ")
	if err != nil {
		return err
	}
	return dir.ReplaceFile(fileName, data)
}

func last(list []Result) []Result { return list[max(0, len(list)-maxResults):] }

// Add records a result in place of the layer's last one. What was rejected and is there
// again was built: it is not rejected once more.
func (l *Log) Add(r Result) {
	l.Results = append(slices.DeleteFunc(l.Results, func(o Result) bool { return o.Layer == r.Layer }), r)
	l.Rejected = slices.DeleteFunc(l.Rejected, r.same)
}

// Reject records that a layer is not to be restored so again.
func (l *Log) Reject(r Result) { l.Rejected = append(slices.DeleteFunc(l.Rejected, r.same), r) }

// Find returns what the probe of a layer said last, of this content and by this command.
func (l *Log) Find(r Result) (last Result, ok bool) {
	i := slices.IndexFunc(l.Results, r.same)
	if i < 0 {
		return last, false
	}
	return l.Results[i], true
}

// contentOf digests what a layer consists of.
type contentOf struct{ d digest.Digester }

func (c contentOf) add(k key.Key, snapshot digest.Digest) {
	fmt.Fprintln(c.d.Hash(), k, snapshot) // a hash never fails
}

// Applied returns the content of a layer in the root.
func Applied(l record.Layer) digest.Digest {
	c := contentOf{digest.SHA256.Digester()}
	for _, a := range l.Steps {
		switch {
		case a.Digest == "": // it changes no root
		case a.LeftOut:
			c.add(a.Key, "")
		default:
			c.add(a.Key, survey.Changing(cache.Descriptor{Digest: a.Digest, Entries: a.Entries}))
		}
	}
	return c.d.Digest()
}

// planned returns the content of a layer that takes nothing but what is present or cached.
func planned(sv *survey.Survey, l *dag.Layer, keys *dag.Keys) (content digest.Digest, ok bool) {
	c := contentOf{digest.SHA256.Digester()}
	for _, s := range l.Steps {
		if !s.ChangesRoot() {
			continue
		}
		k := keys.Step[s]
		if _, cached := sv.Found[k]; !cached && !sv.Answers.Present[s] {
			return "", false
		}
		c.add(k, sv.Snapshot(s, keys))
	}
	return c.d.Digest(), true
}

// why says of a step why it runs.
const why = "the layer's probe failed here"

// Leave adds to gone the layers in the root that are not to stay: their first steps. commands
// are the probes, by layer.
func (l *Log) Leave(commands map[string]string, state *record.State, gone map[key.Key]string) map[key.Key]string {
	for _, a := range state.Layers {
		i := slices.IndexFunc(a.Steps, func(s record.Applied) bool { return s.Digest != "" })
		if i < 0 || !l.rejects(a.Name, commands, Applied(a)) {
			continue
		}
		if gone == nil {
			gone = make(map[key.Key]string)
		}
		gone[a.Steps[i].Key] = why
	}
	return gone
}

// Refuse makes the first step of each layer that was rejected run, though it is cached.
func (l *Log) Refuse(commands map[string]string, sv *survey.Survey, g *dag.Graph, keys *dag.Keys) {
	for _, layer := range g.Layers {
		i := slices.IndexFunc(layer.Steps, (*dag.Step).ChangesRoot)
		if i < 0 || len(l.Rejected) == 0 || sv.Answers.Present[layer.Steps[i]] {
			continue
		}
		k := keys.Step[layer.Steps[i]]
		content, ok := planned(sv, layer, keys)
		if sv.Answers.Gone[k] == why || ok && l.rejects(layer.Name, commands, content) {
			if sv.Answers.Unmet == nil {
				sv.Answers.Unmet = make(map[key.Key]string)
			}
			if sv.Answers.Rejected == nil {
				sv.Answers.Rejected = make(map[*dag.Layer]bool)
			}
			sv.Answers.Unmet[k], sv.Answers.Rejected[layer] = why, true
		}
	}
}

// Proven returns the layers that are in the root as the files say, and passed their probe.
func (l *Log) Proven(commands map[string]string, sv *survey.Survey, g *dag.Graph, keys *dag.Keys) map[string]bool {
	proven := make(map[string]bool)
	for _, layer := range g.Layers {
		if slices.ContainsFunc(layer.Steps, func(s *dag.Step) bool { return !sv.Answers.Present[s] }) {
			continue
		}
		content, _ := planned(sv, layer, keys)
		last, ok := l.Find(Result{Layer: layer.Name, Content: content, Command: commands[layer.Name]})
		proven[layer.Name] = ok && last.Why == ""
	}
	return proven
}

func (l *Log) rejects(layer string, commands map[string]string, content digest.Digest) bool {
	return commands[layer] != "" && slices.ContainsFunc(l.Rejected, Result{Layer: layer, Content: content, Command: commands[layer]}.same)
}
