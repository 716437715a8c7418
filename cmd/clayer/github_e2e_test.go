//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/githubtest"
)

// onGitHub returns a GitHub, and the variables with which clayer uses it.
func onGitHub(t testing.TB) (*githubtest.Server, []string) {
	gh := githubtest.New(t)
	gh.Repo("me/env", githubtest.Repo{})
	gh.Token("ghp_test0123456789", "write")
	return gh, []string{"GITHUB_API_URL=" + gh.URL, "GITHUB_SERVER_URL=" + gh.URL, "GH_TOKEN=ghp_test0123456789", "CLAYER_REPO=me/env"}
}

// The upload of a step is not waited for by the next: this RUN ends only when
// GitHub has the step before it.
func TestUploadOverlapsTheNextRun(t *testing.T) {
	w := newWorkspace(t)
	gh, env := onGitHub(t)
	uploading := make(chan struct{})
	gh.Fail(githubtest.Fault{Match: "POST /uploads", Do: func() { close(uploading) }})
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-uploading:
			io.WriteString(rw, "overlapped\n")
		case <-time.After(30 * time.Second):
			rw.WriteHeader(http.StatusGone)
		}
	}))
	defer srv.Close()
	w.write("Containerfile", "RUN echo one > /one\nRUN wget -q -O - "+srv.URL+"/wait\n")
	cmd := w.command("solve", "--root=root", "-f", "Containerfile", "--progress=json")
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("overlapped")) {
		t.Fatalf("%v\n%s", err, out)
	}
	// The trace: what is stored of line 1 is told while line 2 runs, or after.
	t.Logf("%s", out)
	if n := strings.Count(string(out), `"event":"stored"`); n != 2 {
		t.Errorf("%d steps stored, want 2", n)
	}
}

// A session that is killed in mid-upload leaves a draft with what arrived, and
// the next one goes on there.
func TestKilledInMidUpload(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	gh, env := onGitHub(t)
	w.write("Containerfile", "RUN echo one > /one\nRUN echo two > /two\nRUN echo three > /three\n")
	cmd := w.command("solve", "--root=root", "-f", "Containerfile")
	cmd.Env = append(cmd.Env, env...)
	started := make(chan *os.Process, 1)
	gh.Fail(githubtest.Fault{Match: "POST /uploads", After: 2, Starter: true, Do: func() { (<-started).Kill() }})
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started <- cmd.Process
	if err := cmd.Wait(); err == nil {
		t.Fatalf("not killed:\n%s", errs.String())
	}
	list := gh.Releases("me/env")
	if len(list) != 1 || !strings.Contains(list[0], "(draft)") || strings.Count(list[0], ".tar.zst") != 3 || !strings.Contains(list[0], "starter") {
		t.Fatalf("left: %v", list)
	}
	if err := os.RemoveAll(w.path("cache")); err != nil { // another machine
		t.Fatal(err)
	}
	if err := clitest.MakeRoot(w.path("other")); err != nil {
		t.Fatal(err)
	}
	cmd = w.command("solve", "--root=other", "-f", "Containerfile")
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("1 ran, 2 restored")) {
		t.Errorf("%v\n%s", err, out)
	}
	list = gh.Releases("me/env")
	if len(list) != 1 || strings.Contains(list[0], "(draft)") || strings.Contains(list[0], "starter") || !strings.Contains(list[0], "manifest.json") {
		t.Errorf("releases: %v", list)
	}
}

// BenchmarkRestoreOverLatency restores from a GitHub 50 ms away; the metric is
// what it takes in round trips, the program's start included.
func BenchmarkRestoreOverLatency(b *testing.B) {
	const latency = 50 * time.Millisecond
	for _, n := range []int{1, 12} {
		b.Run(fmt.Sprintf("%d blobs", n), func(b *testing.B) {
			dir := b.TempDir()
			gh, env := onGitHub(b)
			var text strings.Builder
			for i := range n {
				fmt.Fprintf(&text, "WORKDIR /opt/%d\n", i)
			}
			if err := os.WriteFile(dir+"/Containerfile", []byte(text.String()), 0o644); err != nil {
				b.Fatal(err)
			}
			solve := func(i int) *exec.Cmd {
				cmd := clayerCommand(b, "solve", "--dest", fmt.Sprintf("%s/out%d", dir, i), "-f", dir+"/Containerfile")
				cmd.Env = append(os.Environ(), append(env, fmt.Sprintf("CLAYER_CACHE_DIR=%s/cache%d", dir, i))...)
				return cmd
			}
			if out, err := solve(-1).CombinedOutput(); err != nil {
				b.Fatalf("%v\n%s", err, out)
			}
			gh.Latency = latency
			i := 0
			for b.Loop() {
				if out, err := solve(i).CombinedOutput(); err != nil || !bytes.Contains(out, fmt.Appendf(nil, "%d restored", n)) {
					b.Fatalf("%v\n%s", err, out)
				}
				i++
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(latency), "round-trips/op")
			gh.Latency = 0
		})
	}
}

// Ctrl-C ends an upload that takes long, and what is on this machine is whole.
func TestInterruptedUpload(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	gh, env := onGitHub(t)
	w.write("Containerfile", "RUN echo one > /one\nRUN sleep 60\n")
	cmd := w.command("solve", "--root=root", "-f", "Containerfile")
	cmd.Env = append(cmd.Env, env...)
	uploading := make(chan struct{})
	release := make(chan struct{})
	defer close(release)
	gh.Fail(githubtest.Fault{Match: "POST /uploads", Status: 500, Times: -1, Do: func() {
		close(uploading)
		<-release
	}})
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-uploading
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(40 * time.Second): // it is a bug, not a slow machine
		cmd.Process.Kill()
		t.Fatal("it does not end")
	}
	if code := cmd.ProcessState.ExitCode(); code != 130 || strings.Contains(errs.String(), "store github") {
		t.Errorf("exit code %d\n%s", code, errs.String())
	}
	if out, stderr, _ := w.run("plan", "--root=root", "-f", "Containerfile"); !strings.Contains(out, "1 cached (dir") {
		t.Errorf("the step that was finished is not kept here:\n%s%s", out, stderr)
	}
}
