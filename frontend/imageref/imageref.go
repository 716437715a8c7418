// Package imageref reads the names of images, as docker pull and --build-context take them.
// It is pure.
package imageref

import (
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// A Ref names an image in a registry, or in an OCI image layout.
type Ref struct {
	Host, Repository string        // "docker.io" and "library/alpine"; "" in a layout
	Layout           string        // the directory of the layout; "" in a registry
	Tag              string        // "" in a layout without one, and where Digest alone is given
	Digest           digest.Digest // "" where the tag says which image it is
}

// Hub is the registry of names without a host.
const Hub = "docker.io"

// Form is how an image is named.
const Form = "[HOST/]REPOSITORY[:TAG][@sha256:DIGEST]"

// An Error is what is wrong with a name, and what to write instead.
type Error struct{ Message, Hint string }

func (e *Error) Error() string { return e.Message }

var (
	hostForm       = lazyregexp.New(`^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?$`)
	repositoryForm = lazyregexp.New(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm        = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

// Parse reads a name as docker pull does: without a host it is one of Docker Hub, without a tag
// or a digest it has the tag latest.
func Parse(name string) (r Ref, err error) {
	malformed := &Error{"malformed name of an image", Form}
	rest, dg, err := cutDigest(name)
	if err != nil {
		return r, err
	}
	if strings.Contains(rest, "://") {
		return r, &Error{"no scheme goes before the name of an image", Form}
	}
	r.Digest = dg
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		rest, r.Tag = rest[:i], rest[i+1:]
		if !tagForm().MatchString(r.Tag) {
			return r, malformed
		}
	}
	r.Host, r.Repository, _ = strings.Cut(rest, "/")
	if r.Repository == "" || !strings.ContainsAny(r.Host, ".:") && r.Host != "localhost" && strings.ToLower(r.Host) == r.Host {
		r.Host, r.Repository = Hub, rest
	}
	if r.Host == "index."+Hub {
		r.Host = Hub
	}
	if r.Host == Hub && !strings.Contains(r.Repository, "/") {
		r.Repository = "library/" + r.Repository
	}
	if !hostForm().MatchString(r.Host) || !repositoryForm().MatchString(r.Repository) || len(r.Repository) > 255 {
		if lower := strings.ToLower(rest); lower != rest {
			malformed.Hint = "names of images are in lower case: " + lower
		}
		return r, malformed
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r, nil
}

// ParseLayout reads DIR[:TAG][@DIGEST] of an image in an OCI image layout, with or without // before it.
func ParseLayout(text string) (r Ref, err error) {
	rest, dg, err := cutDigest(strings.TrimPrefix(text, "//"))
	if err != nil {
		return r, err
	}
	r.Layout, r.Digest = rest, dg
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') && tagForm().MatchString(rest[i+1:]) {
		r.Layout, r.Tag = rest[:i], rest[i+1:]
	}
	if r.Layout == "" {
		return r, &Error{"no directory is named", "oci-layout:DIR[:TAG][@sha256:DIGEST]"}
	}
	r.Layout = path.Clean(r.Layout)
	return r, nil
}

// cutDigest takes off a digest. What else stands after an @ is not quoted: a password may
// stand before it.
func cutDigest(name string) (rest string, dg digest.Digest, err error) {
	rest, text, ok := strings.Cut(name, "@")
	if !ok {
		return name, "", nil
	}
	dg = digest.Digest(text)
	if dg.Validate() != nil || dg.Algorithm() != digest.SHA256 {
		return "", "", &Error{"what stands after @ in the name of an image is no digest", "@sha256: and 64 hex digits"}
	}
	return rest, dg, nil
}

// String returns the name in full.
func (r Ref) String() string {
	name := r.Host + "/" + r.Repository
	if r.Layout != "" {
		name = "oci-layout:" + r.Layout
	}
	if r.Tag != "" {
		name += ":" + r.Tag
	}
	if r.Digest != "" {
		name += "@" + r.Digest.String()
	}
	return name
}
