package frontend

import (
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/frontend/internal/fault"
	"github.com/clayer/clayer/frontend/internal/lexical"
)

// Args are what a file is read with: what decides its FROM lines, and names in --from.
type Args struct {
	Build    map[string]string  // --build-arg
	Platform string             // "linux/amd64", of the machine that is built for; "" if unknown
	Contexts map[string]Context // --build-context: by the names that --from has
}

// A Context is what a build context has: a directory, or an image.
type Context struct {
	Dir   string
	Image *imageref.Ref // nil for a directory
}

// Args returns what the file was read with.
func (f *File) Args() Args { return f.args }

// global returns what is in effect after the instructions before the first FROM.
func (f *File) global(before []Instruction) *resolver {
	r := f.resolver(Scope{BuildArgs: f.args.Build})
	r.isGlobal = true
	for _, in := range before {
		_, _ = r.resolve(in) // its errors are Resolve's
	}
	return r
}

// expandFrom expands the variables of a FROM, by the ARGs before the first one.
func (r *resolver) expandFrom(from *From) error {
	if !strings.Contains(from.Image, "$") {
		return nil
	}
	r.err = nil
	word := from.Image
	if from.Image = r.expand(word); from.Image == "" && r.err == nil {
		return fault.Errorf("%s names nothing%s", word, r.reason(word)).WithHint("FROM lines see the ARGs before the first FROM alone; one without a default has the value of a build argument")
	}
	return r.err
}

// reason says which variables of a word that is empty are not set, or empty.
func (r *resolver) reason(word string) string {
	var names []string
	state := "empty"
	for _, m := range named().FindAllStringSubmatch(word, -1) {
		value, ok := (variables{r, false}).Get(m[1])
		if value != "" || slices.Contains(names, "$"+m[1]) {
			continue
		}
		if names = append(names, "$"+m[1]); !ok {
			state = "not set"
		}
	}
	switch len(names) {
	case 0:
		return ""
	case 1:
		return ": " + names[0] + " is " + state
	}
	return ": " + strings.Join(names, " and ") + " are " + state
}

// lacks reports whether a word refers to a variable that nothing sets, and does not say what
// to do without it: those of an image are not here, and without them a path is another one.
func (r *resolver) lacks(word string) bool {
	for _, at := range named().FindAllStringSubmatchIndex(word, -1) {
		fallback := word[at[0]+1] == '{' && strings.ContainsAny(strings.TrimPrefix(word[at[1]:], ":")[:1], "-+")
		if _, ok := (variables{r, false}).Get(word[at[2]:at[3]]); !ok && !fallback {
			return true
		}
	}
	return false
}

// flag expands the value of a flag. Nothing may remain of it, which is no flag, where all its
// variables are set.
func (r *resolver) flag(f lexical.Flag) (string, error) {
	value := r.expand(f.Value)
	if r.err == nil && strings.Trim(value, ":") == "" && strings.Contains(f.Value, "$") && (value != "" || r.lacks(f.Value)) {
		return "", fault.Errorf("--%s=%s is empty%s", f.Name, f.Value, r.reason(f.Value)).WithHint("ARG or ENV before this line sets a variable; those of an image are not here")
	}
	return value, nil
}
