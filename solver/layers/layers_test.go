package layers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/frontend"
)

// write makes files of a map in a new directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLookup(t *testing.T) {
	dir := write(t, map[string]string{
		"Containerfile": "", "Containerfile.here": "", "here": "", "layers/Containerfile.JuliaSR": "", "layers/Containerfile": "", "layers/Containerfile.mojo": "", "other.txt": "",
	})
	tests := []struct {
		args []string
		want string // relative to dir; "" for an error
	}{
		{[]string{"base", "mojo", "here"}, "layers/Containerfile layers/Containerfile.mojo Containerfile.here"},
		{[]string{"juliasr"}, "layers/Containerfile.JuliaSR"},
		{[]string{"other.txt"}, "other.txt"},
		{[]string{"layers/Containerfile.mojo"}, "layers/Containerfile.mojo"},
		{[]string{filepath.Join(dir, "other.txt")}, "other.txt"},
		{nil, "Containerfile"},
		{[]string{"nosuch"}, ""},
		{[]string{"layers"}, ""},
	}
	check := func(args []string, want string) {
		t.Helper()
		paths, err := Lookup(dir, args, func(text string) { t.Errorf("Lookup(%q) warns: %s", args, text) })
		var got []string
		for _, p := range paths {
			rel, _ := filepath.Rel(dir, p)
			got = append(got, rel)
		}
		if strings.Join(got, " ") != want || (err != nil) != (want == "") {
			t.Errorf("Lookup(%q) = %v, %v, want %s", args, got, err, want)
		}
	}
	for _, tt := range tests {
		check(tt.args, tt.want)
	}
	for text, want := range map[string]string{
		`{"layers": ["base"], "extra": ["mojo"]}`: "layers/Containerfile layers/Containerfile.mojo",
		`{"layers": []}`: "",
		`{`:              "",
	} {
		path := filepath.Join(dir, compositionFile)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		check(nil, want)
	}
}

// What is wrong with a file that lists layers is told by what it is, where it is.
func TestListedLayers(t *testing.T) {
	const file, local = compositionFile, localFile
	for _, tt := range []struct {
		files map[string]string
		want  string // the names of the files, or what the error holds
		warns string // what the warning begins with
	}{
		{map[string]string{file: `{"layers": ["base", "mojo", "base"]}`}, "Containerfile Containerfile.mojo", ""},
		{map[string]string{file: "\ufeff" + `{"$schema": "x", "layers": ["mojo"]}`}, "Containerfile.mojo", ""},
		{map[string]string{file: `{"layers": ["base"]}`, local: `{"extra": ["mojo"]}`}, "Containerfile Containerfile.mojo", ""},
		{map[string]string{local: `{"extra": ["mojo"]}`}, "Containerfile Containerfile.mojo", ""}, // on top of the default
		{map[string]string{file: "{\n\"layers\": [\"base\"],\n}"}, file + ":3: it is no JSON: ", ""},
		{map[string]string{file: ""}, "it is no JSON: ", ""},
		{map[string]string{file: `["base"]`}, "it is no JSON object", ""},
		{map[string]string{file: `{"layer": ["base"]}`}, "no layers are listed", file + `: "layer" is neither layers nor extra`},
		{map[string]string{file: `{"layers": ["base"], "Extra": ["mojo"]}`}, "Containerfile", file + `: "Extra" is neither layers nor extra`},
		{map[string]string{file: `{"_comment": ["ours"], "_": 1, "layers": ["base"]}`}, "Containerfile", ""},
		{map[string]string{file: `{"layers": "base"}`}, `"layers" is no list of names`, ""},
		{map[string]string{file: `{"layers": ["base", 1]}`}, `"layers" is no list of names`, ""},
		{map[string]string{file: `{"layers": ["base", ""]}`}, `"layers" is no list of names`, ""},
		{map[string]string{file: `{"layers": []}`}, "no layers are listed", ""},
		{map[string]string{file: `null`}, "no layers are listed", ""},
		{map[string]string{file: `{"layers": ["nosuch", "../base"]}`}, file + `: "nosuch" is no file, and no layer of that name`, ""},
		{map[string]string{file: `{"layers": ["base"]}`, local: `{"extra": ["nosuch"]}`}, "Containerfile", local + `: "nosuch" is no file, and no layer of that name: it is left out`},
		{map[string]string{file: `{"layers": ["nosuch", "mojo"]}`}, "Containerfile.mojo", file + `: "nosuch" is no file`},
		{map[string]string{file: `{"layers": ["base"]}`, local: `{"extra": [`}, local + ":1: it is no JSON", ""},
	} {
		tt.files["Containerfile"], tt.files["Containerfile.mojo"] = "", ""
		dir := write(t, tt.files)
		var warned string
		paths, err := Lookup(dir, nil, func(text string) { warned += strings.TrimPrefix(text, dir+"/") })
		got := fmt.Sprint(err)
		if err == nil {
			for i, p := range paths {
				paths[i], _ = filepath.Rel(dir, p)
			}
			got = strings.Join(paths, " ")
		}
		if got != tt.want && (err == nil || !strings.Contains(got, tt.want)) {
			t.Errorf("%v: %s, want %s", tt.files, got, tt.want)
		}
		if (warned == "") != (tt.warns == "") || !strings.HasPrefix(warned, tt.warns) {
			t.Errorf("%v: warns %q, want %q", tt.files, warned, tt.warns)
		}
	}
}

func TestLoadFindsSiblings(t *testing.T) {
	dir := write(t, map[string]string{
		"Containerfile":          "RUN base\n",
		"Containerfile.JuliaSR":  "FROM base\nRUN julia\n",
		"Containerfile.x":        "FROM juliasr\nRUN x\n",
		"Containerfile.image":    "FROM debian:12\nRUN y\n",
		"Containerfile.problem":  "FROM base\nRUNN\n",
		"other/Containerfile.zz": "FROM base\nRUN z\n",
	})
	names := func(path string) string {
		files, err := Load(t.Context(), []string{filepath.Join(dir, path)}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range files {
			got = append(got, f.Name)
		}
		return strings.Join(got, " ")
	}
	for path, want := range map[string]string{
		"Containerfile.x":        "x juliasr base",
		"Containerfile.image":    "image",
		"other/Containerfile.zz": "zz", // base is no sibling of it
	} {
		if got := names(path); got != want {
			t.Errorf("Load(%s) = %s, want %s", path, got, want)
		}
	}
	var ps frontend.Problems
	if files, err := Load(t.Context(), []string{filepath.Join(dir, "Containerfile.problem")}, Options{}); !errors.As(err, &ps) || len(files) != 2 {
		t.Errorf("a file with a problem: %d files, %v", len(files), err)
	}
}
