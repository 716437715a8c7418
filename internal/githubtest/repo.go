package githubtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

type repo struct {
	id        int64
	name      string // "owner/repo"
	private   bool
	immutable bool // the setting: published releases can't be changed
	branch    string
	refs      map[string]string            // "refs/heads/main" → commit
	trees     map[string]map[string]string // commit → path → content
	releases  []*release
	used      map[string]bool // tags that immutable releases had
	aliases   []string        // names it had before
}

type release struct {
	ID         int64     `json:"id"`
	Tag        string    `json:"tag_name"`
	Name       string    `json:"name"`
	Body       string    `json:"body"`
	Draft      bool      `json:"draft"`
	Prerelease bool      `json:"prerelease"`
	Immutable  bool      `json:"immutable"`
	Created    time.Time `json:"created_at"`
	UploadURL  string    `json:"upload_url"`
	Assets     []*asset  `json:"assets"`
}

type asset struct {
	ID      int64     `json:"id"`
	Name    string    `json:"name"`
	State   string    `json:"state"`
	Size    int64     `json:"size"`
	Digest  string    `json:"digest,omitempty"`
	Updated time.Time `json:"updated_at"`
	data    []byte
}

// A Repo is a repository to be.
type Repo struct {
	Private   bool
	Immutable bool              // the setting for releases
	Empty     bool              // without a commit
	Files     map[string]string // of the first commit
}

// Repo makes a repository, "owner/repo", and returns its first commit.
func (s *Server) Repo(name string, opt Repo) string {
	s.mu.Lock()
	s.nextID++
	s.repos[name] = &repo{
		id: s.nextID, name: name, private: opt.Private, immutable: opt.Immutable, branch: "trunk",
		refs: make(map[string]string), trees: make(map[string]map[string]string), used: make(map[string]bool),
	}
	s.mu.Unlock()
	if opt.Empty {
		return ""
	}
	files := opt.Files
	if files == nil {
		files = map[string]string{"README.md": name}
	}
	return s.Commit(name, "refs/heads/trunk", files)
}

// Commit sets a ref to a new commit of these files and returns its id.
func (s *Server) Commit(name, ref string, files map[string]string) string {
	s.mu.Lock()
	s.nextID++
	sum := sha1.Sum(fmt.Append(nil, name, ref, files, s.nextID))
	s.mu.Unlock()
	id := hex.EncodeToString(sum[:])
	s.CommitAs(name, ref, id, files)
	return id
}

// CommitAs is Commit with an id that a repository elsewhere gave the commit.
func (s *Server) CommitAs(name, ref, id string, files map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[name]
	r.trees[id] = maps.Clone(files)
	r.refs[ref] = id
}

// Rename gives a repository another name; the old one leads there.
func (s *Server) Rename(from, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[from]
	r.aliases = append(r.aliases, from)
	r.name = to
	delete(s.repos, from)
	s.repos[to] = r
}

// Release adds a published release with files, as another tool would.
func (s *Server) Release(name, tag string, files map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[name]
	rel := s.newRelease(r, tag, tag, "", false)
	for _, n := range slices.Sorted(maps.Keys(files)) {
		s.addAsset(rel, n, files[n])
	}
}

// Releases lists the releases in words, sorted: "tag: asset asset", with "draft"
// and "starter" where it is so.
func (s *Server) Releases(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, rel := range s.repos[name].releases {
		line := rel.Tag
		if rel.Draft {
			line += " (draft)"
		} else if !rel.Prerelease {
			line += " (full release)"
		}
		line += ":"
		names := []string{}
		for _, a := range rel.Assets {
			n := a.Name
			if a.State != "uploaded" {
				n += " (" + a.State + ")"
			}
			names = append(names, n)
		}
		slices.Sort(names)
		list = append(list, line+" "+strings.Join(names, " "))
	}
	slices.Sort(list)
	return list
}

// Texts returns all that is told of the releases but the files: titles and bodies.
func (s *Server) Texts(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, rel := range s.repos[name].releases {
		fmt.Fprintf(&b, "%s\n%s\n%s\n", rel.Tag, rel.Name, rel.Body)
	}
	return b.String()
}

// Age makes all assets older.
func (s *Server) Age(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.repos {
		for _, rel := range r.releases {
			rel.Created = rel.Created.Add(-d)
			for _, a := range rel.Assets {
				a.Updated = a.Updated.Add(-d)
			}
		}
	}
}

// Corrupt changes a byte of each asset whose name has the text in it.
func (s *Server) Corrupt(name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rel := range s.repos[name].releases {
		for _, a := range rel.Assets {
			if strings.Contains(a.Name, text) && len(a.data) > 0 {
				a.data = bytes.Clone(a.data)
				a.data[len(a.data)/2] ^= 0xff
			}
		}
	}
}

func (s *Server) newRelease(r *repo, tag, title, body string, draft bool) *release {
	s.nextID++
	rel := &release{
		ID: s.nextID, Tag: tag, Name: title, Body: body, Draft: draft, Prerelease: true, Created: s.Now(), Assets: []*asset{},
		UploadURL: fmt.Sprintf("%s/repos/%s/releases/%d/assets{?name,label}", s.Uploads, r.name, s.nextID),
	}
	r.releases = append(r.releases, rel)
	return rel
}

func (s *Server) addAsset(rel *release, name string, data []byte) *asset {
	s.nextID++
	a := &asset{ID: s.nextID, Name: name, State: "uploaded", Size: int64(len(data)), Updated: s.Now(), data: data}
	if !s.NoDigest {
		a.Digest = digest.FromBytes(data).String()
	}
	rel.Assets = append(rel.Assets, a)
	return a
}

func (r *repo) release(id string) *release {
	n, _ := strconv.ParseInt(id, 10, 64)
	for _, rel := range r.releases {
		if rel.ID == n {
			return rel
		}
	}
	return nil
}

func (r *repo) tagged(tag string) *release {
	for _, rel := range r.releases {
		if !rel.Draft && rel.Tag == tag {
			return rel
		}
	}
	return nil
}

func (r *repo) asset(id string) (*release, *asset) {
	n, _ := strconv.ParseInt(id, 10, 64)
	for _, rel := range r.releases {
		for _, a := range rel.Assets {
			if a.ID == n {
				return rel, a
			}
		}
	}
	return nil, nil
}

// resolve finds the commit of a ref as the API does.
func (r *repo) resolve(ref string) string {
	if ref == "HEAD" {
		return r.refs["refs/heads/"+r.branch]
	}
	for _, p := range []string{"refs/tags/" + ref, "refs/heads/" + ref, "refs/" + ref} {
		if id := r.refs[p]; id != "" {
			return id
		}
	}
	for id := range r.trees {
		if len(ref) >= 7 && strings.HasPrefix(id, ref) {
			return id
		}
	}
	return ""
}

var route = regexp.MustCompile(`^/(repos/[^/]+/[^/]+|repositories/\d+|uploads/repos/[^/]+/[^/]+|[^/]+/[^/]+?)(?:\.git)?(/.*)?$`)

// answer does what GitHub does. f is a fault whose Starter leaves a broken asset.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, f *Fault) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil || r.ContentLength > 0 && int64(len(body)) != r.ContentLength {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Date", s.Now().Format(http.TimeFormat))
	m := route.FindStringSubmatch(r.URL.Path)
	switch {
	case r.URL.Path == "/rate_limit" && s.may(r) == "bad":
		fail(w, 401, "Bad credentials")
		return
	case r.URL.Path == "/rate_limit": // the one question that counts against no limit
		if s.rate >= 0 {
			w.Header().Set("X-RateLimit-Limit", "60")
			w.Header().Set("X-RateLimit-Remaining", strconv.Itoa(s.rate))
			w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(s.reset.Unix(), 10))
		}
		s.send(w, r, 200, map[string]any{})
		return
	case m == nil:
		fail(w, 404, "Not Found")
		return
	}
	base, rest := m[1], m[2]
	may := s.may(r)
	api := strings.HasPrefix(base, "repos/") || strings.HasPrefix(base, "repositories/")
	upload := strings.HasPrefix(base, "uploads/")
	if api && s.rate >= 0 {
		if s.rate == 0 {
			w.Header().Set("X-RateLimit-Remaining", "0")
			w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(s.reset.Unix(), 10))
			fail(w, 403, "API rate limit exceeded for 127.0.0.1.")
			return
		}
		s.rate--
		w.Header().Set("X-RateLimit-Remaining", strconv.Itoa(s.rate+1))
	}
	if may == "bad" {
		fail(w, 401, "Bad credentials")
		return
	}
	name := strings.TrimPrefix(strings.TrimPrefix(base, "uploads/"), "repos/")
	rp := s.repos[name]
	if id, ok := strings.CutPrefix(base, "repositories/"); ok {
		for _, x := range s.repos {
			if strconv.FormatInt(x.id, 10) == id {
				rp = x
			}
		}
	}
	if rp == nil {
		for _, x := range s.repos {
			if slices.Contains(x.aliases, name) {
				to := fmt.Sprintf("%s/repositories/%d%s", s.URL, x.id, rest)
				if upload {
					to = s.Uploads + "/repos/" + x.name + rest
				} else if !api {
					to = s.URL + "/" + x.name + rest
				}
				if r.URL.RawQuery != "" {
					to += "?" + r.URL.RawQuery
				}
				w.Header().Set("Location", to)
				fail(w, 301, "Moved Permanently")
				return
			}
		}
	}
	if rp == nil || rp.private && may == "" {
		fail(w, 404, "Not Found")
		return
	}
	write := r.Method != http.MethodGet
	if write && may != "write" {
		if may == "" {
			fail(w, 401, "Requires authentication")
		} else {
			fail(w, 403, "Resource not accessible by personal access token")
		}
		return
	}
	switch {
	case upload:
		s.upload(w, r, rp, rest, body, f)
	case api:
		s.serveAPI(w, r, rp, rest, body, may)
	default:
		s.serveWeb(w, r, rp, rest)
	}
}

func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request, rp *repo, rest string, body []byte, may string) {
	parts := strings.Split(strings.Trim(rest, "/"), "/")
	switch {
	case rest == "":
		s.send(w, r, 200, map[string]any{"full_name": rp.name, "private": rp.private, "default_branch": rp.branch, "permissions": map[string]bool{"pull": true, "push": may == "write"}})
	case parts[0] == "commits":
		ref := strings.Join(parts[1:], "/")
		switch id := rp.resolve(ref); {
		case len(rp.refs) == 0:
			fail(w, 409, "Git Repository is empty.")
		case id == "":
			fail(w, 422, "No commit found for SHA: "+ref)
		default:
			s.send(w, r, 200, id)
		}
	case parts[0] == "tarball":
		id := parts[1]
		files := rp.trees[id]
		if files == nil {
			fail(w, 404, "Not Found")
			return
		}
		http.Redirect(w, r, s.sign(s.Archives, func() []byte { return tarball(rp.name, id, files) }), http.StatusFound)
	case parts[0] == "releases":
		s.serveReleases(w, r, rp, parts[1:], body, may)
	case r.Method == http.MethodDelete && strings.HasPrefix(rest, "/git/refs/tags/"):
		if rp.refs["refs/tags/"+parts[3]] == "" {
			fail(w, 422, "Reference does not exist")
			return
		}
		delete(rp.refs, "refs/tags/"+parts[3])
		w.WriteHeader(204)
	default:
		fail(w, 404, "Not Found")
	}
}

func (s *Server) serveReleases(w http.ResponseWriter, r *http.Request, rp *repo, parts []string, body []byte, may string) {
	var in struct {
		Tag   *string `json:"tag_name"`
		Name  *string `json:"name"`
		Body  *string `json:"body"`
		Draft *bool   `json:"draft"`
		Pre   *bool   `json:"prerelease"`
	}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &in); err != nil {
			fail(w, 400, "Problems parsing JSON")
			return
		}
	}
	exists := map[string]string{"resource": "Release", "code": "already_exists", "field": "tag_name"}
	switch {
	case len(parts) == 0 && r.Method == http.MethodPost:
		if len(rp.refs) == 0 {
			fail(w, 422, "Repository is empty.")
			return
		}
		rel := s.newRelease(rp, *in.Tag, *in.Name, *in.Body, in.Draft != nil && *in.Draft)
		s.send(w, r, 201, rel)
	case len(parts) == 0:
		var list []any
		for _, rel := range slices.Backward(rp.releases) {
			if rel.Draft && may != "write" {
				continue
			}
			// What a broken upload left is not in the list of releases.
			shown := *rel
			shown.Assets = slices.DeleteFunc(slices.Clone(rel.Assets), func(a *asset) bool { return a.State != "uploaded" })
			list = append(list, shown)
		}
		s.page(w, r, list)
	case parts[0] == "tags":
		rel := rp.tagged(parts[1])
		if rel == nil {
			fail(w, 404, "Not Found")
			return
		}
		s.send(w, r, 200, rel)
	case parts[0] == "assets":
		rel, a := rp.asset(parts[1])
		switch {
		case a == nil || rel.Draft && may != "write":
			fail(w, 404, "Not Found")
		case r.Method == http.MethodDelete && rel.Immutable:
			fail(w, 422, "Cannot delete asset from an immutable release")
		case r.Method == http.MethodDelete:
			rel.Assets = slices.DeleteFunc(rel.Assets, func(x *asset) bool { return x == a })
			w.WriteHeader(204)
		case r.Header.Get("Accept") == "application/octet-stream":
			http.Redirect(w, r, s.sign(s.CDN, func() []byte { return a.data }), http.StatusFound)
		default:
			s.send(w, r, 200, a)
		}
	default:
		rel := rp.release(parts[0])
		if rel == nil || rel.Draft && may != "write" {
			fail(w, 404, "Not Found")
			return
		}
		switch {
		case len(parts) == 2 && parts[1] == "assets":
			var list []any
			for _, a := range rel.Assets {
				list = append(list, a)
			}
			s.page(w, r, list)
		case r.Method == http.MethodDelete:
			rp.releases = slices.DeleteFunc(rp.releases, func(x *release) bool { return x == rel })
			if rel.Immutable {
				rp.used[rel.Tag] = true
			}
			w.WriteHeader(204)
		case r.Method == http.MethodPatch:
			s.edit(w, r, rp, rel, in.Tag, in.Name, in.Body, in.Draft, in.Pre, exists)
		default:
			s.send(w, r, 200, rel)
		}
	}
}

func (s *Server) edit(w http.ResponseWriter, r *http.Request, rp *repo, rel *release, tag, name, body *string, draft, pre *bool, exists map[string]string) {
	to := rel.Tag
	if tag != nil {
		to = *tag
	}
	if rel.Immutable && to != rel.Tag {
		fail(w, 422, "Cannot change the tag of an immutable release")
		return
	}
	if body != nil && len(*body) > 125_000 {
		fail(w, 422, "body is too long (maximum is 125000 characters)")
		return
	}
	if published := draft != nil && !*draft || !rel.Draft; published {
		if rp.used[to] {
			fail(w, 422, "tag_name was used by an immutable release")
			return
		}
		if x := rp.tagged(to); x != nil && x != rel {
			fail(w, 422, "Validation Failed", exists)
			return
		}
	}
	rel.Tag = to
	if name != nil {
		rel.Name = *name
	}
	if body != nil {
		rel.Body = *body
	}
	if pre != nil {
		rel.Prerelease = *pre
	}
	if draft != nil && !*draft && rel.Draft {
		rel.Draft = false
		rel.Immutable = rp.immutable
		rp.refs["refs/tags/"+rel.Tag] = rp.refs["refs/heads/"+rp.branch]
	}
	s.send(w, r, 200, rel)
}

var plainName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

func (s *Server) upload(w http.ResponseWriter, r *http.Request, rp *repo, rest string, body []byte, f *Fault) {
	parts := strings.Split(strings.Trim(rest, "/"), "/")
	rel := rp.release(parts[1])
	name := strings.Trim(plainName.ReplaceAllString(r.URL.Query().Get("name"), "."), ".")
	limit := s.BlobLimit
	if limit == 0 {
		limit = 2 << 30
	}
	switch {
	case rel == nil:
		fail(w, 404, "Not Found")
	case rel.Immutable:
		fail(w, 422, "Cannot upload assets to an immutable release.")
	case slices.ContainsFunc(rel.Assets, func(a *asset) bool { return a.Name == name }):
		fail(w, 422, "Validation Failed", map[string]string{"resource": "ReleaseAsset", "code": "already_exists", "field": "name"})
	case len(rel.Assets) >= 1000:
		fail(w, 422, "Validation Failed", map[string]string{"resource": "ReleaseAsset", "code": "custom", "message": "file count limit exceeded"})
	case int64(len(body)) >= limit:
		fail(w, 422, "Validation Failed", map[string]string{"resource": "ReleaseAsset", "code": "custom", "field": "size", "message": "size is not included in the list"})
	case f != nil && f.Starter:
		s.nextID++
		rel.Assets = append(rel.Assets, &asset{ID: s.nextID, Name: name, State: "starter", Updated: s.Now()})
	default:
		s.send(w, r, 201, s.addAsset(rel, name, body))
	}
}

// page sends a part of a list, and says by Link where the next is.
func (s *Server) page(w http.ResponseWriter, r *http.Request, list []any) {
	size, _ := strconv.Atoi(r.URL.Query().Get("per_page"))
	most := 100
	if s.PageSize > 0 {
		most = s.PageSize
	}
	if size <= 0 {
		size = 30
	}
	size = min(size, most)
	n, _ := strconv.Atoi(r.URL.Query().Get("page"))
	n = max(n, 1)
	from := min((n-1)*size, len(list))
	to := min(from+size, len(list))
	if to < len(list) {
		q := r.URL.Query()
		q.Set("page", strconv.Itoa(n+1))
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?%s>; rel="next"`, s.URL, r.URL.Path, q.Encode()))
	}
	page := list[from:to]
	if page == nil {
		page = []any{}
	}
	s.send(w, r, 200, page)
}

// serveWeb is the server: what a browser and git see.
func (s *Server) serveWeb(w http.ResponseWriter, r *http.Request, rp *repo, rest string) {
	parts := strings.Split(strings.Trim(rest, "/"), "/")
	switch {
	case len(parts) == 4 && parts[0] == "releases" && parts[1] == "download":
		if rp.private { // a token is no cookie
			http.NotFound(w, r)
			return
		}
		if rel := rp.tagged(parts[2]); rel != nil {
			for _, a := range rel.Assets {
				if a.Name == parts[3] && a.State == "uploaded" {
					http.Redirect(w, r, s.sign(s.CDN, func() []byte { return a.data }), http.StatusFound)
					return
				}
			}
		}
		http.NotFound(w, r)
	case rest == "/info/refs":
		s.advertise(w, rp)
	case parts[0] == "archive" && !rp.private:
		id := strings.TrimSuffix(parts[1], ".tar.gz")
		if files := rp.trees[id]; files != nil {
			http.Redirect(w, r, s.sign(s.Archives, func() []byte { return tarball(rp.name, id, files) }), http.StatusFound)
			return
		}
		http.NotFound(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) advertise(w http.ResponseWriter, rp *repo) {
	w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
	pkt := func(line string) { fmt.Fprintf(w, "%04x%s", len(line)+4, line) }
	pkt("# service=git-upload-pack\n")
	io.WriteString(w, "0000")
	caps := "\x00multi_ack symref=HEAD:refs/heads/" + rp.branch + " agent=git/github"
	if head := rp.refs["refs/heads/"+rp.branch]; head != "" {
		pkt(head + " HEAD" + caps + "\n")
	} else {
		pkt(strings.Repeat("0", 40) + " capabilities^{}" + caps + "\n")
	}
	for _, name := range slices.Sorted(maps.Keys(rp.refs)) {
		pkt(rp.refs[name] + " " + name + "\n")
	}
	io.WriteString(w, "0000")
}

// tarball packs a tree as GitHub does: below one directory, with a global header
// that holds the commit.
func tarball(name, commit string, files map[string]string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	t.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": commit}})
	top := strings.ReplaceAll(name, "/", "-") + "-" + commit[:7] + "/"
	t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: top, Mode: 0o775})
	for _, p := range slices.Sorted(maps.Keys(files)) {
		content := files[p]
		h := &tar.Header{Typeflag: tar.TypeReg, Name: top + p, Mode: 0o664, Size: int64(len(content)), ModTime: time.Unix(1_700_000_000, 0)}
		if strings.HasPrefix(content, "#!") {
			h.Mode = 0o775
		}
		if to, ok := strings.CutPrefix(content, "-> "); ok {
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeSymlink, to, 0, ""
		}
		t.WriteHeader(h)
		io.WriteString(t, content)
	}
	t.Close()
	z.Close()
	return b.Bytes()
}
