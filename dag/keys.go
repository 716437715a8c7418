package dag

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/gitsource"
	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/frontend/mount"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// Base is what the first key of every layer depends on.
type Base struct {
	Platform string   // "linux/amd64 debian 12 python3.11": what the root is
	ID       string   // --base-id: a word of the user's
	Salts    []string // --salt, in the order given
	Commits  []string // of --invalidate-on: "owner/repo@commit"
}

// A Pin is what a source resolved to: exactly one of its fields is set, but of what a RUN mounts,
// which may be files, stages and images.
type Pin struct {
	Digest string // "sha256:..", of a URL's bytes or of local files; of a stage or an image that is copied from
	Commit string // of a Git tree
	Stages string // "sha256:..", of the stages that a RUN mounts
	Images string // "sha256:..", of the images that a RUN mounts

	// Mounted are the digests that Images is of, with spaces between them, in the order of the
	// mounts: they are noted, so that EarlierImage finds them.
	Mounted string
}

// Pins holds what the network and the disk said, by Source.ID.
type Pins map[string]Pin

// Keys are the chain keys of a graph.
type Keys struct {
	Step   map[*Step]key.Key
	Layer  map[*Layer]key.Key // the key of the layer's last step
	Commit map[*Step]string   // that a FETCH of a Git tree is pinned to
	inputs map[*Step]key.Inputs
	base   key.Key // of a layer on the bare root, before its first step
	pins   Pins
}

// Record returns the inputs of the step's key, as they may be stored.
func (k *Keys) Record(s *Step) key.Record { return key.Explain(k.inputs[s]) }

// Of returns the keys of the steps of a layer, in order.
func (k *Keys) Of(l *Layer) []key.Key {
	all := make([]key.Key, len(l.Steps))
	for i, s := range l.Steps {
		all[i] = k.Step[s]
	}
	return all
}

// Composite returns one key for the whole composition.
func (k *Keys) Composite(g *Graph) key.Key {
	return key.Sum("composition", func(w key.Writer) {
		for _, l := range g.Layers {
			w.Field("layer", k.Layer[l].String())
		}
	})
}

// Keys computes the chain key of every step. All sources must be pinned.
func (g *Graph) Keys(base Base, pins Pins) (*Keys, error) {
	first := key.Sum("layer", base.inputs)
	n := 0
	for _, l := range g.Layers {
		n += len(l.Steps)
	}
	k := &Keys{
		Step:   make(map[*Step]key.Key, n),
		Layer:  make(map[*Layer]key.Key, len(g.Layers)),
		Commit: make(map[*Step]string),
		inputs: make(map[*Step]key.Inputs, n),
		base:   first,
		pins:   pins,
	}
	for _, l := range g.Layers {
		prev := first
		if l.On != nil && !l.Ordered {
			prev = k.Layer[l.On]
		}
		for _, s := range l.Steps {
			var pin Pin
			if s.Source != nil {
				var ok bool
				if pin, ok = pins[s.Source.ID]; !ok {
					return nil, fmt.Errorf("%s: %s: source is not pinned", s.Pos(), s.Word())
				}
			}
			if pin.Commit != "" {
				k.Commit[s] = pin.Commit
			}
			in := s.inputs(prev, pin)
			k.inputs[s] = in
			prev = key.Sum("step", in)
			if st := s.stored(); st != nil {
				prev = st.Key
			}
			k.Step[s] = prev
		}
		k.Layer[l] = prev
	}
	return k, nil
}

func (b Base) inputs(w key.Writer) {
	w.Field("platform", b.Platform)
	w.Field("base-id", b.ID)
	for _, s := range b.Salts {
		w.Field("salt", s)
	}
	for _, c := range b.Commits {
		w.Field("invalidate-on", c)
	}
}

// Names of inputs that explanations treat apart.
const (
	inPrevious    = "previous"
	inCacheBust   = "cache-bust"
	inInstruction = "instruction"
	inCommand     = "command"
	inContent     = "content"
	inCommit      = "commit"
	inStage       = "stage"
	inImage       = "image"
	noteSource    = "source"
	noteImage     = "image " // and its digest: the value of a note cannot be read back
)

// inputs lists what the step's result depends on. It is the one list that is
// both hashed and explained; a change here is a new key.Encoding.
func (s *Step) inputs(prev key.Key, pin Pin) key.Inputs {
	if st := s.stored(); st != nil {
		return func(w key.Writer) {
			for _, in := range st.Inputs {
				w.Field(in.Name, in.Value)
			}
		}
	}
	return func(w key.Writer) {
		w.Field(inPrevious, prev.String())
		for _, text := range s.CacheBust {
			w.Field(inCacheBust, text)
		}
		switch in := s.Instr.(type) {
		case *frontend.Env:
			w.Field(inInstruction, "ENV")
			for _, v := range in.Vars {
				w.Private("ENV "+v.Name, v.Value)
			}
		case *frontend.Run:
			runInputs(w, in)
			option(w, inContent, pin.Digest)
			option(w, inStage, pin.Stages)
			option(w, inImage, pin.Images)
			noteImages(w, in, pin.Mounted)
			option(w, "environment", string(s.Layer.outside.inherit))
			for _, v := range s.named {
				option(w, "session "+v.Name, v.digest)
			}
			option(w, "source-date-epoch", s.Epoch)
			w.Field("capture", s.capture)
		case *frontend.Fetch:
			w.Field(inInstruction, fetchWord(in))
			// Where the bytes come from is no input, but a note; their name may be an
			// input: what is no archive is stored under it.
			w.Field("name", fetchName(in.Source))
			option(w, inCommit, pin.Commit)
			option(w, inContent, pin.Digest)
			w.Note(noteSource, in.Source)
			w.Field("strip", strconv.Itoa(in.Strip))
			w.Field("extract", string(in.Extract))
			w.Field("dest", in.Dest)
			ownerInputs(w, in.Owner)
			option(w, "submodules", given(in.Submodules))
			option(w, "lfs", given(in.LFS))
			option(w, "keep-git-dir", given(in.GitDir))
			each(w, "exclude", in.Exclude)
		case *frontend.Copy:
			if in.Fetched {
				w.Field(inInstruction, "FETCH")
				w.Field("name", "//"+in.Sources[0])
				w.Field(inContent, pin.Digest)
				w.Note(noteSource, in.Image.String())
				w.Field("dest", path.Clean(in.Dest))
				ownerInputs(w, in.Owner)
				break
			}
			w.Field(inInstruction, "COPY")
			w.Field("source", strings.Join(in.Sources, "\x00"))
			switch {
			case in.Stage != nil:
				w.Field(inStage, pin.Digest)
			case in.Image != nil:
				w.Field(inImage, pin.Digest)
				if in.Image.Layout == "" {
					w.Note(noteSource, in.Image.String())
				}
			default:
				w.Field(inContent, pin.Digest)
			}
			w.Field("dest", in.Dest)
			ownerInputs(w, in.Owner)
			option(w, "parents", given(in.Parents))
			each(w, "exclude", in.Exclude)
		case *frontend.Workdir:
			w.Field(inInstruction, "WORKDIR")
			w.Field("path", in.Path)
			option(w, "user", in.User)
		case *frontend.Snapshot:
			w.Field(inInstruction, "SNAPSHOT")
			w.Field("path", in.Path)
			w.Field("capture", string(in.Capture))
		default:
			panic(fmt.Sprintf("dag: step of %T", in))
		}
	}
}

func runInputs(w key.Writer, in *frontend.Run) {
	w.Field(inInstruction, "RUN")
	switch {
	case in.Exec != nil:
		w.Field(inCommand, "exec "+strings.Join(in.Exec, "\x00"))
	case in.Script != "":
		w.Field(inCommand, "script "+in.Script)
	default:
		w.Field(inCommand, "shell "+in.Command)
		w.Field("shell", strings.Join(in.Shell, "\x00"))
	}
	for _, m := range in.Mounts {
		text := fmt.Sprintf("%s target=%q id=%q sharing=%s ro=%t required=%t env=%s mode=%o uid=%d gid=%d size=%d",
			m.Type, m.Target, m.ID, m.Sharing, m.ReadOnly, m.Required, m.EnvName, m.Mode, m.UID, m.GID, m.Size)
		if m.Source != "" {
			text += fmt.Sprintf(" source=%q", m.Source)
		}
		// The pins of mounts are in order within their kind: this says which is whose.
		switch {
		case m.Stage != nil:
			text += " from=stage"
		case m.Image != nil:
			text += " from=image"
		}
		if m.Type == mount.Cache && m.HasFiles() && m.Source == "" && m.Owned {
			text += " empty" // it begins with nothing of what it is from
		}
		w.Field("mount", text)
	}
	vars := func(kind string, vs []frontend.Var) {
		if !slices.IsSortedFunc(vs, byVarName) {
			vs = slices.SortedFunc(slices.Values(vs), byVarName)
		}
		for _, v := range vs {
			w.Private(kind+" "+v.Name, v.Value)
		}
	}
	vars("ENV", in.Env)
	vars("ARG", in.Args)
	w.Field("workdir", in.Dir)
	option(w, "user", in.User)
	option(w, "network", in.Network)
}

// noteImages notes the images that a RUN mounts, with their digests. One that is on this machine
// is always there to be asked.
func noteImages(w key.Writer, in *frontend.Run, digests string) {
	left := strings.Fields(digests)
	for i := range in.Mounts {
		m := &in.Mounts[i]
		if m.Image == nil || m.Stage != nil || !m.HasFiles() || len(left) == 0 {
			continue
		}
		if m.Image.Layout == "" {
			w.Note(noteImage+left[0], m.Image.String())
		}
		left = left[1:]
	}
}

// option writes an input that most steps lack.
func option(w key.Writer, name, value string) {
	if value != "" {
		w.Field(name, value)
	}
}

// each writes an input that a step has any number of.
func each(w key.Writer, name string, values []string) {
	for _, v := range values {
		w.Field(name, v)
	}
}

// given returns the value of an option that is set, as a field has it.
func given(set bool) string {
	if set {
		return "true"
	}
	return ""
}

func byVarName(a, b frontend.Var) int { return strings.Compare(a.Name, b.Name) }

func ownerInputs(w key.Writer, o frontend.Ownership) {
	w.Field("chown", o.Chown)
	w.Field("chmod", string(o.Chmod))
}

// stored returns what a store has of a step that is no line of a file; nil for one that is.
func (s *Step) stored() *frontend.Stored {
	if run, ok := s.Instr.(*frontend.Run); ok {
		return run.Stored
	}
	return nil
}

// StoredStep returns a step of an earlier solve as an instruction that is restored.
func StoredStep(k key.Key, rec key.Record, at frontend.Meta) *frontend.Run {
	st := &frontend.Stored{Key: k}
	for _, in := range rec {
		if !in.Note {
			st.Inputs = append(st.Inputs, frontend.Var{Name: in.Name, Value: in.Value})
		}
	}
	return &frontend.Run{Meta: at, Stored: st}
}

// EarlierPin returns what the source of a FETCH, or the image of a COPY, was pinned to in an
// earlier solve, if rec is the record of one from the same source.
func EarlierPin(rec key.Record, in frontend.Instruction) (p Pin, ok bool) {
	switch in := in.(type) {
	case *frontend.Copy:
		if in.Image == nil {
			return p, false
		}
		return EarlierImage(rec, *in.Image)
	case *frontend.Fetch:
		if rec.Get(inInstruction) != fetchWord(in) || !rec.Noted(noteSource, in.Source) {
			return p, false
		}
		p = Pin{Digest: rec.Get(inContent), Commit: rec.Get(inCommit)}
	}
	switch {
	case p.Digest == "":
		return p, commitID().MatchString(p.Commit)
	case p.Commit == "":
		return p, digest.Digest(p.Digest).Validate() == nil
	}
	return p, false
}

// EarlierImage returns what an image was pinned to in an earlier solve, if rec is the record of a
// COPY from it, or of a RUN that mounts it.
func EarlierImage(rec key.Record, ref imageref.Ref) (p Pin, ok bool) {
	if rec.Noted(noteSource, ref.String()) {
		p.Digest = cmp.Or(rec.Get(inImage), rec.Get(inContent)) // of a COPY, or of a FETCH
	}
	for _, in := range rec {
		if dg, is := strings.CutPrefix(in.Name, noteImage); is && in.Note && rec.Noted(in.Name, ref.String()) {
			p.Digest = dg
		}
	}
	return p, digest.Digest(p.Digest).Validate() == nil
}

// fetchWord says by whose meaning a FETCH, or ADD, makes files.
func fetchWord(f *frontend.Fetch) string {
	if f.Add {
		return "ADD"
	}
	return "FETCH"
}

var commitID = lazyregexp.New(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// fetchName returns the last path part of a URL, and the directory in a
// repository of a github: source.
func fetchName(source string) string {
	if rest, ok := strings.CutPrefix(source, "github:"); ok {
		_, sub, _ := strings.Cut(rest, "//")
		return "//" + sub
	}
	if gitsource.Is(source) {
		tree, _ := gitsource.Parse(source) // Resolve has seen that it is one
		return "//" + tree.Dir
	}
	source, _, _ = strings.Cut(source, "#")
	source, _, _ = strings.Cut(source, "?")
	return path.Base(source)
}
