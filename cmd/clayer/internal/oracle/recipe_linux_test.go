package oracle

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
)

// corpusDir has files as people have them, and the root that they are built on.
const corpusDir = "../../../../testdata/corpus"

// A recipe is a file of the corpus with what is beside it. The comment of its archive says
// what kind it is of, and in lines "word: value" how it is built.
type recipe struct {
	name               string
	text               string // of the Dockerfile
	file               string // its name
	context            string // the directory to copy from, "" for the file's
	target             string // the last stage
	buildArgs, secrets []string
	images             map[string]string // by their names, those below images in the base
	probe              string            // a command that succeeds in the result
	planned            bool              // it needs what is not to be had here, as the network
	later              string            // why it is not played yet
	overlay            bool              // it works in no other sandbox
	files              map[string]File
}

func corpus(t *testing.T) []*recipe {
	t.Helper()
	var names []string
	for pattern := range strings.SplitSeq(*flagCorpus, ",") {
		found, err := filepath.Glob(filepath.Join(corpusDir, pattern+".txtar"))
		if err != nil || found == nil {
			t.Fatalf("no files of the corpus are called %s: %v", pattern, err)
		}
		names = append(names, found...)
	}
	var list []*recipe
	for _, name := range names {
		if filepath.Base(name) == "base.txtar" {
			continue
		}
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := parseRecipe(archive)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.name = strings.TrimSuffix(filepath.Base(name), ".txtar")
		list = append(list, r)
	}
	return list
}

func parseRecipe(a *txtar.Archive) (*recipe, error) {
	crlf := false // a checkout on Windows
	r := &recipe{file: "Dockerfile", images: make(map[string]string), files: make(map[string]File)}
	for line := range strings.Lines(string(a.Comment)) {
		word, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case !ok:
		case word == "file":
			r.file = value
		case word == "context":
			r.context = value
		case word == "target":
			r.target = value
		case word == "arg":
			r.buildArgs = append(r.buildArgs, value)
		case word == "secret":
			r.secrets = append(r.secrets, value)
		case word == "image":
			name, from, _ := strings.Cut(value, " = ")
			r.images[name] = from
		case word == "probe":
			r.probe = value
		case word == "planned":
			r.planned = true
		case word == "overlay":
			r.overlay = true
		case word == "crlf":
			crlf = true
		case word == "later":
			r.later = value
		}
	}
	for _, f := range a.Files {
		name, file := parseFile(f)
		if crlf {
			file.Content = strings.ReplaceAll(file.Content, "\n", "\r\n")
		}
		r.files[name] = file
	}
	r.text = r.files[r.file].Content
	if r.text == "" || r.probe == "" && !r.planned {
		return nil, fmt.Errorf("it has no %s, or no probe", r.file)
	}
	return r, nil
}

func (r *recipe) write(dir string) error { return writeFiles(r.files, dir) }

var syntax = regexp.MustCompile(`(?m)\A#\s*syntax\s*=.*$`)

// withoutSyntax leaves out which image BuildKit should download to read the file.
func (r *recipe) withoutSyntax() *recipe {
	without := *r
	without.files = maps.Clone(r.files)
	file := r.files[r.file]
	file.Content = syntax.ReplaceAllString(file.Content, "# the syntax of Docker")
	without.files[r.file] = file
	return &without
}

func (r *recipe) path(dir string) string { return filepath.Join(dir, r.file) }

// args are the program's for a command, with the files in dir.
func (r *recipe) args(command, dir string, images map[string]layout, more ...string) []string {
	args := append([]string{command, "-f", r.path(dir)}, more...)
	if r.context != "" {
		args = append(args, "--context="+filepath.Join(dir, r.context))
	}
	if r.target != "" {
		args = append(args, "--target="+r.target)
	}
	for _, a := range r.buildArgs {
		args = append(args, "--build-arg="+a)
	}
	for _, s := range r.secrets {
		args = append(args, "--secret="+s)
	}
	for name, from := range r.images {
		args = append(args, "--build-context="+name+"="+images[from].context)
	}
	return args
}

// inPlace reports whether nothing of a file needs an overlay.
func (r *recipe) inPlace() bool { return !r.overlay && len(from.FindAllString(r.text, -1)) == 1 }

var (
	from     = regexp.MustCompile(`(?im)^FROM(?:\s+--platform=\S+)?\s+(\S+)(?:\s+AS\s+(\S+))?`)
	firstArg = regexp.MustCompile(`(?m)^ARG\s+(.*)$`)
)

// bases are the images that stages are built on, as BuildKit calls them.
func (r *recipe) bases() []string {
	values := make(map[string]string)
	expand := func(s string) string {
		return os.Expand(strings.Trim(s, `"`), func(name string) string {
			name, fallback, _ := strings.Cut(name, ":-")
			return cmp.Or(values[name], fallback)
		})
	}
	head, _, _ := strings.Cut("\n"+r.text, "\nFROM")
	for _, m := range firstArg.FindAllStringSubmatch(head, -1) {
		for word := range strings.FieldsSeq(m[1]) {
			name, value, _ := strings.Cut(word, "=")
			values[name] = expand(value)
		}
	}
	for _, a := range r.buildArgs {
		name, value, _ := strings.Cut(a, "=")
		values[name] = value
	}
	var names, stages []string
	for _, m := range from.FindAllStringSubmatch(r.text, -1) {
		name := expand(m[1])
		if name != "scratch" && !slices.Contains(stages, strings.ToLower(name)) {
			name = strings.TrimPrefix(strings.TrimPrefix(name, "docker.io/"), "library/")
			names = append(names, strings.TrimSuffix(name, ":latest"))
		}
		stages = append(stages, strings.ToLower(m[2]))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (r *recipe) buildkitArgs(dir string, base layout, images map[string]layout) []string {
	args := []string{
		"--local=context=" + filepath.Join(dir, r.context), "--local=dockerfile=" + filepath.Dir(r.path(dir)),
		"--opt=filename=" + filepath.Base(r.file),
	}
	for _, name := range r.bases() {
		args = append(args, base.named(name)...)
	}
	for name, from := range r.images {
		args = append(args, images[from].named(strings.TrimSuffix(name, ":latest"))...)
	}
	if r.target != "" {
		args = append(args, "--opt=target="+r.target)
	}
	for _, a := range r.buildArgs {
		args = append(args, "--opt=build-arg:"+a)
	}
	for _, s := range r.secrets {
		args = append(args, "--secret="+s)
	}
	return args
}

// images are in the base's archive, and not in the base.
const imagesDir = "images/"

func toolbox() (base map[string]File, images map[string]map[string]File, err error) {
	archive, err := txtar.ParseFile(filepath.Join(corpusDir, "base.txtar"))
	if err != nil {
		return nil, nil, err
	}
	base, images = make(map[string]File), make(map[string]map[string]File)
	for _, f := range archive.Files {
		name, file := parseFile(f)
		rest, ok := strings.CutPrefix(name, imagesDir)
		if !ok {
			base[name] = file
			continue
		}
		image, path, _ := strings.Cut(rest, "/")
		if images[image] == nil {
			images[image] = make(map[string]File)
		}
		images[image][path] = file
	}
	return base, images, nil
}

// makeToolbox makes the root that the corpus is built on: busybox, and programs that do to
// files what those of the images do.
func makeToolbox(dir string) error {
	files, _, err := toolbox()
	if err != nil {
		return err
	}
	if err := makeBase(dir); err != nil {
		return err
	}
	for _, name := range []string{"opt", "srv"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"opt", "srv", "home", "mnt", "dev/shm", "usr/local/lib", "usr/local/bin", "usr/lib", "lib"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	list, err := exec.Command("busybox", "--list").Output()
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(list)) {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return writeFiles(files, dir)
}

// makeImages makes the images that files copy from, as layouts below dir.
func makeImages(dir string) (map[string]layout, error) {
	_, images, err := toolbox()
	if err != nil {
		return nil, err
	}
	layouts := make(map[string]layout)
	for name, files := range images {
		root, out := filepath.Join(dir, name, "root"), filepath.Join(dir, name, "layout")
		if err := writeFiles(files, root); err != nil {
			return nil, err
		}
		manifest, err := makeLayout(root, out)
		if err != nil {
			return nil, err
		}
		layouts[name] = layout{out, manifest, "oci-layout:" + out}
	}
	return layouts, nil
}

// push puts the images into a registry, of which they are taken then.
func push(ctx context.Context, images map[string]layout, host string) error {
	for name, l := range images {
		repo, err := remote.NewRepository(host + "/of/" + name)
		if err != nil {
			return err
		}
		repo.PlainHTTP = true
		store, err := oci.NewFromFS(ctx, os.DirFS(l.dir))
		if err != nil {
			return err
		}
		if _, err := oras.Copy(ctx, store, l.manifest.String(), repo, "latest", oras.DefaultCopyOptions); err != nil {
			return err
		}
		l.context = "docker-image://" + host + "/of/" + name
		images[name] = l
	}
	return nil
}
