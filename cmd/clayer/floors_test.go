package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// floors is docs/architecture.md as data: a package imports only from floors
// below its own. Test files may import what they like.
var floors = map[string]int{
	"cmd/clayer":                         12,
	"cmd/clayer/internal/ui":             9,
	"cmd/clayer/internal/buildcontext":   10,
	"cmd/pack":                           2,
	"cmd/pack/internal/wheel":            1,
	"cmd/pack/internal/npm":              1,
	"cmd/pack/internal/system":           1,
	"cmd/pack/internal/recipe":           1,
	"cmd/pack/internal/archive":          0,
	"cmd/pack/internal/release":          -1,
	"solver":                             8,
	"solver/exec":                        7,
	"solver/exec/internal/flow":          4,
	"solver/exec/internal/failure":       4,
	"solver/exec/internal/spool":         5,
	"solver/exec/internal/wrote":         6,
	"solver/exec/internal/contents":      6,
	"solver/internal/lookup":             7,
	"solver/exec/internal/schedule":      2,
	"solver/exec/internal/ownstate":      6,
	"solver/internal/mounts":             3,
	"solver/sharedmounts":                4,
	"solver/internal/byhand":             4,
	"solver/internal/environ":            3,
	"solver/internal/commands":           4,
	"solver/internal/fault":              1,
	"solver/internal/filelist":           2,
	"solver/internal/contextdir":         1,
	"solver/internal/stages":             5,
	"solver/internal/images":             4,
	"solver/internal/imagetree":          3,
	"solver/internal/transfers":          6,
	"frontend/internal/lexical":          -2,
	"frontend/internal/fault":            -3,
	"frontend/problem":                   -1,
	"frontend/mount":                     -1,
	"frontend/filemode":                  -1,
	"solver/internal/probe":              6,
	"solver/probes":                      9,
	"solver/rebuild":                     9,
	"cmd/clayer/internal/rebuilt":        10,
	"solver/internal/installs":           2,
	"solver/internal/rollback":           2,
	"solver/internal/trash":              2,
	"solver/internal/downloads":          2,
	"solver/internal/survey":             2,
	"solver/internal/running":            6,
	"solver/report":                      2,
	"solver/preserved":                   6,
	"solver/machine":                     3,
	"solver/layers":                      3,
	"solver/envfile":                     3,
	"solver/source":                      3,
	"solver/sandbox":                     2,
	"solver/sandbox/helper":              4,
	"solver/sandbox/overlay":             5,
	"solver/sandbox/inplace":             5,
	"solver/sandbox/internal/descriptor": -1,
	"solver/sandbox/internal/mountstubs": 0,
	"solver/sandbox/internal/userns":     0,
	"solver/sandbox/internal/emulate":    3,
	"solver/sandbox/internal/detached":   0,
	"solver/sandbox/internal/program":    3,
	"solver/sandbox/internal/treecopy":   2,
	"solver/rootfs":                      5,
	"solver/internal/unsynced":           3,
	"solver/internal/reserve":            2,
	"solver/internal/unpack":             3,
	"solver/internal/metadata":           2,
	"solver/internal/scratch":            4,
	"solver/rootfs/drift":                2,
	"cache/dir":                          2,
	"cache/ghrelease":                    2,
	"cache/image":                        2,
	"cache/oci":                          2,
	"cache/registry":                     1,
	"cache/web":                          2,
	"cache/s3":                           2,
	"cache/gha":                          2,
	"cache/git":                          3,
	"internal/git/remote":                0,
	"cache/git/internal/branch":          2,
	"cache/git/internal/rate":            0,
	"internal/workdir":                   0,
	"internal/gittest":                   0,
	"internal/s3test":                    0,
	"internal/ghatest":                   0,
	"internal/ocitest":                   2,
	"internal/hosttest":                  3,
	"internal/githubtest":                2,
	"cache/storetest":                    2,
	"cache/storetest/faults":             3,
	"internal/treetest":                  2,
	"cmd/clayer/internal/clitest":        0,
	"cmd/clayer/internal/doctest":        3,
	"cmd/clayer/internal/ptytest":        0,
	"solver/internal/archive":            1,
	"solver/internal/gittree":            2,
	"solver/internal/databases":          0,
	"solver/internal/databases/indexes":  -1,
	"solver/internal/merge":              2,
	"solver/internal/inventory":          6,
	"solver/internal/names":              1,
	"solver/internal/places":             2,
	"solver/internal/needs":              3,
	"solver/internal/binaries":           0,
	"solver/internal/versions":           0,
	"solver/internal/owners":             2,
	"solver/internal/users":              4,
	"solver/exec/internal/identity":      6,
	"solver/internal/revert":             2,
	"solver/internal/record":             1,
	"dag":                                1,
	"cache":                              1,
	"cache/github":                       1,
	"internal/tree":                      1,
	"internal/durability":                -2,
	"internal/inroot":                    -1,
	"internal/fsclock":                   0,
	"internal/beneath":                   0,
	"internal/clamp":                     2,
	"dag/key":                            0,
	"frontend":                           0,
	"cache/delta":                        -1,
	"cache/snapshot":                     0,
	"cache/snapshot/frames":              -2,
	"cache/snapshot/internal/tarheader":  -1,
	"cache/transfer":                     0,
	"cmd/clayer/internal/about":          11,
	"cmd/clayer/internal/hook":           10,
	"cmd/clayer/internal/parse":          9,
	"cmd/clayer/internal/mountcmd":       10,
	"cmd/clayer/internal/initcmd":        11,
	"internal/splice":                    -1,
	"cmd/clayer/internal/stores":         9,
	"cmd/clayer/internal/settings":       1,
	"cmd/clayer/internal/shim":           9,
	"cmd/clayer/internal/effort":         11,
	"cmd/clayer/internal/checkcmd":       11,
	"cmd/clayer/internal/fleet":          10,
	"solver/elsewhere":                   9,
	"solver/background":                  0,
	"solver/besteffort":                  10,
	"solver/base":                        9,
	"solver/internal/shortfall":          2,
	"frontend/edit":                      1,
	"frontend/gitsource":                 -2,
	"frontend/internal/address":          -1,
	"frontend/imageref":                  -2,
	"frontend/layername":                 -1,
	"frontend/reference":                 -1,
	"frontend/predefined":                -1,
	"frontend/buildchecks":               0,
	"solver/findings":                    9,
	"frontend/metadata":                  -1,
	"frontend/shellvars":                 0,
	"solver/capture":                     3,
	"solver/internal/catchup":            3,
	"solver/internal/variants":           4,
	"solver/internal/earlier":            5,
	"solver/internal/imageconfig":        3,
	"solver/doctor":                      7,
	"frontend/lint":                      2,
	"cmd/clayer/internal/man":            0,
	"cmd/clayer/internal/usage":          -1,
	"internal/lazyregexp":                -3, // frontend/gitsource
	"internal/order":                     -2, // dag, cache, frontend/lint
	"internal/buildflags":                -2,
	"internal/printable":                 -1,
	"internal/pathname":                  -2,
	"internal/sizes":                     -2,
	"internal/golden":                    -1,
	"internal/errhint":                   -1,
	"dag/render":                         2,
	"internal/safefile":                  -2,
	"internal/skill":                     -1,
	"internal/credential":                -1,
	"internal/ctxio":                     -1,
	"internal/elftest":                   -1,
	"internal/inherited":                 -1,
	"internal/leftover":                  -1,
	"internal/rounds":                    -1,
	"internal/testexec":                  -1,
	"internal/wire":                      -1,
}

const module = "github.com/clayer/clayer/"

func TestPackagesImportOnlyFromFloorsBelow(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git" || d.Name() == "dist") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		floor, ok := floors[pkg]
		if !ok {
			t.Errorf("%s: package %s has no floor: add it to floors and to docs/architecture.md", path, pkg)
			return nil
		}
		seen[pkg] = true
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, imp := range f.Imports {
			name, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			if strings.HasPrefix(name, "github.com/moby/buildkit") && pkg != "frontend" && pkg != "frontend/buildchecks" {
				t.Errorf("%s imports BuildKit; only frontend and frontend/buildchecks do", path)
			}
			if own, ok := strings.CutPrefix(name, module); ok && floors[own] >= floor {
				t.Errorf("%s (floor %d) imports %s (floor %d)", path, floor, own, floors[own])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range floors {
		if !seen[pkg] {
			t.Errorf("package %s has a floor, but no files", pkg)
		}
	}
}

// TestLibrariesNameNoFlags keeps the flags of clayer out of what libraries say: other
// programs have none. cmd maps errors to hints that name flags.
func TestLibrariesNameNoFlags(t *testing.T) {
	flags := make(map[string]bool)
	for _, words := range commands(newRoot(), nil) {
		c, _, err := newRoot().Find(words)
		if err != nil {
			t.Fatal(err)
		}
		c.Flags().VisitAll(func(f *pflag.Flag) { flags["--"+f.Name] = true })
	}
	delete(flags, "--all") // of SNAPSHOT too
	word := regexp.MustCompile(`--[a-z][a-z-]*`)
	for _, dir := range []string{"cache", "dag", "frontend", "internal", "solver"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			rel := strings.TrimPrefix(filepath.ToSlash(path), "../../")
			if strings.HasPrefix(rel, "frontend/edit/") || strings.HasPrefix(rel, "solver/capture/") || rel == "frontend/lint/packages.go" || rel == "cache/git/repo.go" || rel == "solver/internal/gittree/gittree.go" {
				return nil // they read and write the command lines of other programs
			}
			if rel == "solver/rootfs/profile.go" {
				return nil // the mark of files that are written already
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				for _, flag := range word.FindAllString(lit.Value, -1) {
					if flags[flag] {
						t.Errorf("%s: %s names %s: say what is the case, and let cmd/clayer/internal/ui name the flag", rel, lit.Value, flag)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestSizesOfPackages keeps every package within 2,500 lines and 18 files that are no
// tests: what has one promise takes no more.
func TestSizesOfPackages(t *testing.T) {
	const mostLines, mostFiles = 2500, 18
	lines, files := make(map[string]int), make(map[string]int)
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git" || d.Name() == "dist") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		dir := filepath.Dir(path)
		lines[dir] += bytes.Count(src, []byte("\n"))
		files[dir]++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, n := range lines {
		if n > mostLines || files[dir] > mostFiles {
			t.Errorf("%s has %d lines in %d files: move a part with a promise of its own out of it", dir, n, files[dir])
		}
	}
}

// TestTestsAreShort keeps every test function within 120 lines.
func TestTestsAreShort(t *testing.T) {
	const limit = 120
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok {
				if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; n > limit {
					t.Errorf("%s: %s has %d lines: move its table or its checks out of it", path, fn.Name.Name, n)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTopLevelHoldsOnlyWhatItShould(t *testing.T) {
	want := map[string]bool{
		"frontend": true, "dag": true, "solver": true, "cache": true, "cmd": true, "internal": true, "testdata": true, "docs": true,
		"go.mod": true, "go.sum": true, "README.md": true, "LICENSE": true, "CHANGELOG.md": true, "CONTRIBUTING.md": true, "SECURITY.md": true, "Makefile": true,
		"action.yml": true, "action.js": true, "install.sh": true, "install.py": true, "AGENTS.md": true, "llms.txt": true, // named by those who use the repository
		"bin": true, "dist": true, // made by builds, ignored by git
	}
	entries, err := os.ReadDir(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !want[e.Name()] && !strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s does not belong to the top level", e.Name())
		}
	}
}
