package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A project's file is the nearest, up to the root of the repository, or the working
// directory, and never one that somebody else could have prepared.
func TestFindProject(t *testing.T) {
	const foreign = 4242
	for _, tt := range []struct {
		name  string
		files []string // that are there; what ends in ! belongs to somebody else
		start string
		cwd   string
		want  string
	}{
		{name: "beside the Containerfile", files: []string{"a/clayer.toml", "a/.git/"}, start: "a", want: "a"},
		{name: "above it, in the repository", files: []string{"a/clayer.toml", "a/.git/", "a/b/c/"}, start: "a/b/c", want: "a"},
		{name: "the nearest", files: []string{"a/clayer.toml", "a/.git/", "a/b/clayer.toml"}, start: "a/b", want: "a/b"},
		{name: "in a worktree", files: []string{"a/clayer.toml", "a/.git", "a/b/"}, start: "a/b", want: "a"},
		{name: "not above the repository", files: []string{"clayer.toml", "a/.git/", "a/b/"}, start: "a/b"},
		{name: "not above its own directory without a repository", files: []string{"clayer.toml", "a/b/"}, start: "a/b"},
		{name: "up to the working directory", files: []string{"a/clayer.toml", "a/b/c/"}, start: "a/b/c", cwd: "a", want: "a"},
		{name: "not up to another working directory", files: []string{"a/clayer.toml", "a/b/", "c/"}, start: "a/b", cwd: "c"},
		{name: "not one of somebody else", files: []string{"a/clayer.toml!", "a/.git/"}, start: "a"},
		{name: "not above a directory of somebody else", files: []string{"clayer.toml", ".git/", "a/!", "a/b/"}, start: "a/b"},
		{name: "nor by a repository that was prepared there", files: []string{"a/!", "a/clayer.toml!", "a/.git!", "a/b/"}, start: "a/b"},
		{name: "a checkout of somebody else", files: []string{"a/!", "a/clayer.toml!", "a/.git/!", "a/b/!"}, start: "a/b", want: "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			top, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range tt.files {
				name, others := strings.CutSuffix(name, "!")
				if others && os.Geteuid() != 0 {
					t.Skip("only root gives files away")
				}
				path := filepath.Join(top, name)
				if strings.HasSuffix(name, "/") {
					err = os.MkdirAll(path, 0o755)
				} else if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
					err = os.WriteFile(path, []byte("base-id = \"x\"\n"), 0o644)
				}
				if err == nil && others {
					err = os.Lchown(path, foreign, foreign)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			cwd := t.TempDir()
			if tt.cwd != "" {
				cwd = filepath.Join(top, tt.cwd)
			}
			t.Chdir(cwd)
			f, err := FindProject(filepath.Join(top, tt.start))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if f != nil {
				got = strings.TrimPrefix(f.Dir, top+"/")
			}
			if got != tt.want {
				t.Errorf("found in %q, want %q", got, tt.want)
			}
		})
	}
}

// What a file says is what a flag takes, or an error with its line.
func TestParse(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"stores = [\"dir:x\", \"dir:/y\", \"git:\"]", "dir:/p/x\ndir:/y\ngit:"},
		{"stores = \"dir:x\"", "clayer.toml:1: stores: want a list of texts, such as [\"dir:PATH\"]"},
		{"stores = [\n\"dir:x\\ndir:y\"]", "clayer.toml:1: stores: want a list of texts, such as [\"dir:PATH\"]"},
		{"\n[stores]\nx = 1", "clayer.toml:2: stores: want a list of texts, such as [\"dir:PATH\"]"},
		{"\nx.y = 1", "clayer.toml:2: x: unknown key"},
		{"repo = 'a/b'\nrepo = 'a/c'", "clayer.toml:2: key repo is already defined"},
		{"\ufeffstores = []", ""},
		{"build-arg = [\"A=1\"]", ""},
		{"build-arg = [\"A=1\", \"GH_TOKEN\"]", "clayer.toml:1: build-arg: want NAME=VALUE: a project's file takes nothing from the session"},
	} {
		f, err := parse(&File{Path: "clayer.toml", Dir: "/p", Project: true}, []byte(tt.text))
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = f.Value("stores")
		}
		if got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}
