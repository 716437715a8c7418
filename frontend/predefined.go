package frontend

import (
	"cmp"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend/internal/lexical"
)

// Args are what decides the ARGs before the first FROM, beside the file.
type Args struct {
	Build    map[string]string // --build-arg
	Platform string            // "linux/amd64", of the machine that is built for; "" if unknown
}

// platformArgs are ARGs that hold in FROM lines, and in a stage that names them by ARG,
// without BUILD or TARGET before them.
var platformArgs = []string{"PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT"}

// predefined returns the value of an ARG that BuildKit sets itself. What is built is for the
// machine that builds it.
func (f *File) predefined(name string) (string, bool) {
	if name == "TARGETSTAGE" {
		return cmp.Or(f.target, "default"), f.args.Platform != ""
	}
	part, ok := strings.CutPrefix(name, "TARGET")
	if !ok {
		part, ok = strings.CutPrefix(name, "BUILD")
	}
	if !ok || f.args.Platform == "" || !slices.Contains(platformArgs, part) {
		return "", false
	}
	parts := append(strings.SplitN(f.args.Platform, "/", 3), "", "")
	return map[string]string{"PLATFORM": f.args.Platform, "OS": parts[0], "ARCH": parts[1], "VARIANT": parts[2]}[part], true
}

// Proxies are the variables by which programs find proxies. --build-arg sets them for all
// RUNs, whether or not an ARG names them, and is then no part of a key.
var Proxies = []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"}

// IsPredefined reports whether --build-arg can set a variable that no ARG names.
func IsPredefined(name string) bool {
	for _, prefix := range []string{"TARGET", "BUILD"} {
		if part, ok := strings.CutPrefix(name, prefix); ok && slices.Contains(platformArgs, part) {
			return true
		}
	}
	return name == "TARGETSTAGE" || name == "SOURCE_DATE_EPOCH" || strings.HasPrefix(name, "BUILDKIT_") ||
		slices.ContainsFunc(Proxies, func(p string) bool { return strings.EqualFold(p, name) })
}

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
		return faultf("%s names nothing%s", word, r.reason(word)).withHint("FROM lines see the ARGs before the first FROM alone: ARG NAME=VALUE there, or --build-arg")
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

// flag expands the value of a flag, of which something has to remain.
func (r *resolver) flag(f lexical.Flag) (string, error) {
	value := r.expand(f.Value)
	if r.err == nil && strings.Trim(value, ":") == "" && strings.Contains(f.Value, "$") {
		return "", faultf("--%s=%s is empty%s", f.Name, f.Value, r.reason(f.Value)).withHint("ARG or ENV before this line sets a variable; those of an image are not here")
	}
	return value, nil
}
