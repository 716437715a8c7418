package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/clayer/clayer/internal/githubtest"
)

// githubs holds the GitHub of each script.
var githubs sync.Map

// scriptTB is a script as a githubtest.TB.
type scriptTB struct {
	ts   *testscript.TestScript
	mu   sync.Mutex
	errs []string
	stop []func()
}

func (t *scriptTB) Errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errs = append(t.errs, fmt.Sprintf(format, args...))
}

func (t *scriptTB) Cleanup(f func()) { t.stop = append(t.stop, f) }

func (t *scriptTB) end() {
	for _, f := range t.stop {
		f()
	}
	t.stop = nil
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.errs) > 0 {
		t.ts.Fatalf("the GitHub of the test saw: %s", strings.Join(t.errs, "; "))
	}
}

type scriptGitHub struct {
	*githubtest.Server
	tb *scriptTB
}

func cmdGitHub(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: github")
	}
	tb := &scriptTB{ts: ts}
	gh := githubtest.New(tb)
	ts.Defer(tb.end)
	githubs.Store(ts, &scriptGitHub{gh, tb})
	gh.Repo("me/env", githubtest.Repo{})
	gh.Token("ghp_test0123456789", "write")
	gh.Token("ghp_readonly456789", "read")
	ts.Setenv("GH_TOKEN", "ghp_test0123456789")
	ts.Setenv("GITHUB_API_URL", gh.URL)
	ts.Setenv("GITHUB_SERVER_URL", gh.URL)
}

func theGitHub(ts *testscript.TestScript) *scriptGitHub {
	gh, ok := githubs.Load(ts)
	if !ok {
		ts.Fatalf("say github first")
	}
	return gh.(*scriptGitHub)
}

func cmdGitHubRepo(ts *testscript.TestScript, neg bool, args []string) {
	var r githubtest.Repo
	for _, a := range args[1:] {
		switch a {
		case "private":
			r.Private = true
		case "immutable":
			r.Immutable = true
		case "empty":
			r.Empty = true
		default:
			r.Files = filesIn(ts, a)
		}
	}
	ts.Setenv("COMMIT", theGitHub(ts).Repo(args[0], r))
}

func cmdGitHubCommit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: github-commit NAME REF DIR")
	}
	ts.Setenv("COMMIT", theGitHub(ts).Commit(args[0], args[1], filesIn(ts, args[2])))
}

func filesIn(ts *testscript.TestScript, dir string) map[string]string {
	files := make(map[string]string)
	root := ts.MkAbs(dir)
	ts.Check(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		files[filepath.ToSlash(rel)] = string(data)
		return err
	}))
	return files
}

func cmdGitHubFail(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 5 {
		ts.Fatalf("usage: github-fail STATUS TIMES TEXT [BODY [AFTER]]")
	}
	status, err := strconv.Atoi(args[0])
	ts.Check(err)
	times, err := strconv.Atoi(args[1])
	ts.Check(err)
	f := githubtest.Fault{Match: args[2], Status: status, Times: times}
	if len(args) > 3 {
		f.Body = args[3]
	}
	if len(args) > 4 {
		f.After, err = strconv.Atoi(args[4])
		ts.Check(err)
	}
	theGitHub(ts).Fail(f)
}

func cmdGitHubReleases(ts *testscript.TestScript, neg bool, args []string) {
	list := theGitHub(ts).Releases(args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(list, "\n")+"\n"), 0o644))
}

func cmdGitHubAsked(ts *testscript.TestScript, neg bool, args []string) {
	list := theGitHub(ts).Asked()
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(list, "\n")+"\n"), 0o644))
}

func cmdGitHubLegacy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: github-legacy NAME TAG DIR")
	}
	files := map[string][]byte{}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, content := range filesIn(ts, args[2]) {
		ts.Check(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))}))
		_, err := w.Write([]byte(content))
		ts.Check(err)
	}
	ts.Check(w.Close())
	ts.Check(z.Close())
	files["layer.tar.gz"] = b.Bytes()
	theGitHub(ts).Release(args[0], args[1], files)
}

func cmdGitHubCorrupt(ts *testscript.TestScript, neg bool, args []string) {
	theGitHub(ts).Corrupt(args[0], args[1])
}

func cmdGitHubHeal(ts *testscript.TestScript, neg bool, args []string) { theGitHub(ts).Heal() }

func cmdGitHubLimit(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	gh := theGitHub(ts)
	gh.Limit(n, gh.Now().Add(time.Hour))
}

func cmdGitHubDown(ts *testscript.TestScript, neg bool, args []string) { theGitHub(ts).tb.end() }
