package frontend

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/frontend/filemode"
	"github.com/clayer/clayer/frontend/gitsource"
	"github.com/clayer/clayer/frontend/internal/address"
	"github.com/clayer/clayer/frontend/internal/fault"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// FETCH, COPY and ADD: the instructions that add files.

var fetchFlags = []string{"checksum", "strip", "extract", "chmod", "chown", "submodules", "lfs"}

func buildFetch(m Meta, s *source) (Instruction, error) {
	f := &Fetch{Meta: m, Extract: ExtractAuto}
	for _, fl := range s.flags {
		f.flags = append(f.flags, fl)
		if !slices.Contains(fetchFlags, fl.Name) {
			return nil, unknownFlag(fl, fetchFlags...)
		}
		if fl.Value == "" && (fl.HasValue || fl.Name != "submodules" && fl.Name != "lfs") {
			return nil, fault.Errorf("--%s requires a value", fl.Name).WithHint("--%s=...", fl.Name)
		}
	}
	args, err := s.exactly(m.Word, "source", "dest")
	if err != nil {
		return nil, err
	}
	f.Source, f.Dest = args[0], args[1]
	return f, nil
}

// errEmpty is for an argument that expands to nothing, since a variable is not set. It would
// name a larger directory than intended.
var errEmpty = fault.Errorf("an argument is empty when its variables are expanded").WithHint("${NAME:?} fails where NAME is not set")

// checkFetch looks at a FETCH whose variables are expanded.
func checkFetch(f *Fetch) error {
	if f.Source == "" || f.Dest == "" {
		return errEmpty
	}
	if err := address.Check(f.Source, f.Add); err != nil {
		return err
	}
	if (f.Submodules || f.LFS) && address.IsDownload(f.Source) {
		return fault.Errorf("--submodules and --lfs are for Git repositories").WithHint(gitsource.Form)
	}
	if f.Add {
		return nil
	}
	return checkDest(f)
}

// checkDest makes the dest of a FETCH clean, which is a directory.
func checkDest(f *Fetch) error {
	switch {
	case f.Dest == "":
		return errEmpty
	case !path.IsAbs(f.Dest):
		return fault.Errorf("dest %q is not absolute", f.Dest).WithHint("write /%s", path.Clean(f.Dest))
	}
	f.Dest = path.Clean(f.Dest)
	return nil
}

// ofImage returns a FETCH of an image, whose variables are expanded, as the COPY that it is but
// for its dest, which is a directory. A checksum says which image it is as a digest in the name does.
func (f *Fetch) ofImage() (Instruction, error) {
	for _, name := range []string{"strip", "extract", "submodules", "lfs"} {
		if f.Given(name) {
			return nil, fault.Errorf("--%s is not for images, of which FETCH takes the files", name).WithHint("oci:IMAGE//PATH takes what is at a path")
		}
	}
	ref, source, err := address.Image(f.Source)
	if err != nil {
		return nil, err
	}
	if f.Checksum != "" && ref.Digest != "" && ref.Digest != f.Checksum {
		return nil, fault.Errorf("--checksum=%s, and @%s in the source", f.Checksum, ref.Digest)
	}
	if f.Checksum != "" {
		ref.Digest = f.Checksum
	}
	c := &Copy{Meta: f.Meta, Sources: []string{source}, Origin: Origin{From: f.Source, Image: &ref}, Owner: f.Owner, Fetched: true}
	if err := checkDest(f); err != nil {
		return nil, err
	}
	if c.Dest = f.Dest; c.Dest != "/" {
		c.Dest += "/"
	}
	return c, nil
}

// setFetchFlag sets a flag whose variables are expanded.
func setFetchFlag(f *Fetch, name, value string) error {
	switch name {
	case "checksum":
		d := digest.Digest(strings.ToLower(value))
		if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
			return fault.Errorf("--checksum=%s is malformed", value).WithHint("--checksum=sha256: and 64 hex digits")
		}
		f.Checksum = d
	case "strip":
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return fault.Errorf("--strip=%s: want a number of path parts, 0 or more", value)
		}
		f.Strip = n
	case "extract":
		f.Extract = Extract(value)
		if !slices.Contains([]Extract{ExtractAuto, ExtractTrue, ExtractFalse}, f.Extract) {
			return fault.Errorf("--extract=%s: want auto, true or false", value)
		}
	case "submodules", "lfs":
		if !slices.Contains([]string{"", "true", "false"}, value) {
			return fault.Errorf("--%s=%s: want true or false", name, value)
		}
		*map[string]*bool{"submodules": &f.Submodules, "lfs": &f.LFS}[name] = value != "false"
	default:
		return setOwnership(&f.Owner, name, value)
	}
	return nil
}

var chownForm = lazyregexp.New(`^[A-Za-z0-9_.-]*(:[A-Za-z0-9_.-]*)?$`)

// setOwnership sets what a flag says, --chown or --chmod.
func setOwnership(o *Ownership, name, value string) (err error) {
	switch name {
	case "chown":
		if !chownForm().MatchString(value) {
			return fault.Errorf("--chown=%s: want user or user:group", value)
		}
		o.Chown = value
	case "chmod":
		o.Chmod, err = filemode.Parse(value)
	default:
		return fault.Errorf("--%s is not known here", name)
	}
	return err
}

// checkCopySource refuses what is not in the Containerfile's directory. A stage, or an image, is
// a root, which no path leaves.
func checkCopySource(source string, inRoot bool) error {
	if inRoot {
		return nil
	}
	if p := path.Clean(strings.TrimLeft(source, "/")); p == ".." || strings.HasPrefix(p, "../") {
		return fault.Errorf("source %q leaves the Containerfile's directory", source)
	}
	return nil
}
