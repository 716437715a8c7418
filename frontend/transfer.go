package frontend

import (
	"errors"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/frontend/filemode"
	"github.com/clayer/clayer/frontend/gitsource"
	"github.com/clayer/clayer/frontend/internal/fault"
	"github.com/clayer/clayer/frontend/internal/lexical"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// FETCH, COPY and ADD: the instructions that add files.

var fetchFlags = []string{"checksum", "strip", "extract", "chmod", "chown", "submodules", "lfs"}

func buildFetch(m Meta, s *source) (Instruction, error) {
	f := &Fetch{Meta: m, Extract: ExtractAuto}
	for _, fl := range s.flags {
		if m.Word == "ADD" {
			switch fl.Name {
			case "link", "keep-git-dir":
				continue // without effect here
			case "unpack":
				fl.Name = "extract"
			}
		}
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

// isRemote reports whether the source of an ADD is not a local file.
func isRemote(source string) bool {
	return gitsource.Is(source) || slices.ContainsFunc([]string{"http://", "https://", "github:", "git@", "git://", "ssh://"}, func(p string) bool {
		return strings.HasPrefix(source, p)
	})
}

func buildAdd(m Meta, s *source) (Instruction, error) {
	words, err := s.words()
	if err != nil {
		return nil, err
	}
	if len(words) > 0 && isRemote(lexical.Unquote(words[0], s.escape)) {
		return buildFetch(m, s)
	}
	for _, w := range words[min(1, len(words)):] {
		if isRemote(lexical.Unquote(w, s.escape)) {
			return nil, fault.Errorf("a URL stands alone: ADD source dest")
		}
	}
	in, err := buildCopy(m, s)
	if c, ok := in.(*Copy); ok && len(c.Sources) == 1 && strings.HasPrefix(strings.TrimLeft(words[0], `"`), "$") {
		if f, err := buildFetch(m, s); err == nil {
			c.Remote = f.(*Fetch)
		}
	}
	return in, err
}

func buildCopy(m Meta, s *source) (Instruction, error) {
	c := &Copy{Meta: m}
	for _, f := range s.flags {
		switch f.Name {
		case "link": // it says how an image's layers are stored, which changes no file
		case "chown", "chmod":
			if f.Value == "" {
				return nil, fault.Errorf("--%s requires a value", f.Name).WithHint("--%s=...", f.Name)
			}
			c.flags = append(c.flags, f)
		case "from":
			if m.Word == "ADD" {
				return nil, fault.Errorf("--from is of COPY").WithHint("COPY --from=%s", f.Value)
			}
			if f.Value == "" {
				return nil, fault.Errorf("--from requires a value").WithHint("--from=STAGE")
			}
			c.From = f.Value
		case "parents", "exclude", "keep-git-dir", "checksum", "unpack":
			return nil, fault.Errorf("--%s is not known here", f.Name)
		default:
			return nil, unknownFlag(f, "chown", "chmod", "link")
		}
	}
	words, err := s.words()
	if err != nil {
		return nil, err
	}
	if len(words) < 2 {
		missing := []string{"source", "dest"}[len(words)]
		return nil, fault.Errorf("%s is missing", missing).WithHint("%s source... dest", m.Word)
	}
	c.Dest = words[len(words)-1]
	docs := s.node.Heredocs
	if h := parser.MustParseHeredoc(c.Dest); h != nil && len(docs) > 0 {
		return nil, fault.Errorf("dest is missing").WithHint("%s <<%s dest", m.Word, h.Name)
	}
	for _, w := range words[:len(words)-1] {
		if h := parser.MustParseHeredoc(w); h != nil && len(docs) > 0 && docs[0].Name == h.Name {
			content := docs[0].Content
			if docs[0].Chomp {
				content = parser.ChompHeredocContent(content)
			}
			c.Inline = append(c.Inline, Inline{Name: h.Name, Content: content, Expand: docs[0].Expand})
			docs = docs[1:]
			continue
		}
		c.Sources = append(c.Sources, w)
	}
	if c.From != "" && len(c.Inline) > 0 {
		return nil, fault.Errorf("--from copies files of a stage, and <<%s is part of this file", c.Inline[0].Name).WithHint("two COPYs")
	}
	return c, nil
}

var (
	githubSource = lazyregexp.New(`^github:[A-Za-z0-9][A-Za-z0-9_-]*/([A-Za-z0-9._-]+)(?:@([^\s@]+?))?(?://([^\s@]+))?$`)
	githubURL    = lazyregexp.New(`^https?://github\.com/([^/\s]+/[^/\s#]+?)\.git(?:#([^:\s]*)(?::(\S+))?)?$`)
)

// errEmpty is for an argument that expands to nothing. It would name a larger directory
// than intended.
var errEmpty = fault.Errorf("an argument is empty when its variables are expanded").WithHint("${NAME:?} fails where NAME is not set")

var errNotGit = fault.Errorf("a Git repository is fetched as github:owner/repo, git+https://.. or git+ssh://..").WithHint(gitsource.Form)

// checkFetch looks at a FETCH whose variables are expanded.
func checkFetch(f *Fetch) error {
	// ADD https://github.com/o/r.git#ref:dir is github:o/r@ref//dir.
	if m := githubURL().FindStringSubmatch(f.Source); m != nil && f.Word == "ADD" {
		f.Source = "github:" + m[1]
		if m[2] != "" {
			f.Source += "@" + m[2]
		}
		if m[3] != "" {
			f.Source += "//" + strings.Trim(m[3], "/")
		}
	}
	if f.Word == "ADD" {
		f.Source = gitsource.OfADD(f.Source)
	}
	if f.Source == "" || f.Dest == "" {
		return errEmpty
	}
	scheme, _, _ := strings.Cut(f.Source, ":")
	switch scheme {
	case "github":
		m := githubSource().FindStringSubmatch(f.Source)
		if m == nil || strings.Trim(m[1], ".") == "" || strings.HasPrefix(m[2], "-") || strings.Contains(m[2], "..") ||
			slices.Contains(strings.Split(m[3], "/"), "..") {
			return fault.Errorf("source %q is not of the form github:owner/repo[@ref][//subdir]", f.Source)
		}
	case "http", "https":
		u, err := url.Parse(f.Source)
		if err != nil || u.Host == "" {
			return fault.Errorf("source is no valid URL") // not shown: it may hold a password
		}
		if u.User != nil {
			return fault.Errorf("a user or password in a URL would be recorded, and shown").
				WithHint("fetch it in a RUN, with RUN --mount=type=secret")
		}
		if strings.HasSuffix(u.Path, ".git") {
			return errNotGit
		}
	case "git", "ssh":
		return errNotGit
	case "git+https", "git+http", "git+ssh", "git+file", "file":
		if _, err := gitsource.Parse(f.Source); err != nil {
			f := fault.Errorf("%v", err)
			if e := new(gitsource.Error); errors.As(err, &e) {
				f.Hint = e.Hint
			}
			return f
		}
	default:
		if strings.HasPrefix(scheme, "git@") {
			return errNotGit
		}
		return fault.Errorf("source %q is neither a URL nor github:owner/repo", f.Source).
			WithHint("http://, https://, git+https://, git+ssh://, file:// and github: are known; local files are for COPY")
	}
	if (f.Submodules || f.LFS) && (scheme == "http" || scheme == "https") {
		return fault.Errorf("--submodules and --lfs are for Git repositories").WithHint(gitsource.Form)
	}
	if !path.IsAbs(f.Dest) {
		return fault.Errorf("dest %q is not absolute", f.Dest).WithHint("write /%s", path.Clean(f.Dest))
	}
	f.Dest = path.Clean(f.Dest)
	return nil
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

// checkCopySource refuses what is not in the Containerfile's directory. A stage is a root,
// which no path leaves.
func checkCopySource(source string, inStage bool) error {
	if source == "" {
		return errEmpty
	}
	if inStage {
		return nil
	}
	if p := path.Clean(strings.TrimLeft(source, "/")); p == ".." || strings.HasPrefix(p, "../") {
		return fault.Errorf("source %q leaves the Containerfile's directory", source)
	}
	return nil
}
