package probe

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/record"
)

func applied(name, snapshot string) record.Layer {
	k := key.Key{1}
	return record.Layer{Name: name, Steps: []record.Applied{
		{Key: key.Key{2}}, // an ENV
		{Key: k, Digest: digest.FromString(snapshot), Entries: 1},
	}}
}

// A layer that was rejected leaves the root, if it consists of the same snapshots and is
// asked by the same command.
func TestLeave(t *testing.T) {
	rejected := Result{Layer: "tool", Content: Applied(applied("tool", "one")), Command: "true"}
	for _, c := range []struct {
		name     string
		commands map[string]string
		state    record.Layer
		leaves   bool
	}{
		{"the same", map[string]string{"tool": "true"}, applied("tool", "one"), true},
		{"another snapshot", map[string]string{"tool": "true"}, applied("tool", "two"), false},
		{"another layer", map[string]string{"tool": "true", "other": "true"}, applied("other", "one"), false},
		{"another command", map[string]string{"tool": "false"}, applied("tool", "one"), false},
		{"no command", nil, applied("tool", "one"), false},
	} {
		var l Log
		l.Reject(rejected)
		gone := l.Leave(c.commands, &record.State{Layers: []record.Layer{c.state}}, nil)
		if got := gone[key.Key{1}] != ""; got != c.leaves || len(gone) > 1 {
			t.Errorf("%s: %v leaves", c.name, gone)
		}
	}
}

// What is built as it was restored, and is asked again, is not built for ever.
func TestABuildEndsARejection(t *testing.T) {
	r := Result{Layer: "tool", Content: Applied(applied("tool", "one")), Command: "true", Why: "exit code 1"}
	var l Log
	l.Reject(r)
	l.Add(r)
	state := &record.State{Layers: []record.Layer{applied("tool", "one")}}
	if gone := l.Leave(map[string]string{"tool": "true"}, state, nil); len(gone) > 0 {
		t.Errorf("%v leaves", gone)
	}
	if last, ok := l.Find(r); !ok || last.Failure() != "failed: exit code 1" {
		t.Errorf("%+v, %t", last, ok)
	}
}
