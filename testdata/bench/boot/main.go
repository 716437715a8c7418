// Command boot measures the start of a session by the script of "clayer init claude",
// alternately with what it is compared to, and prints medians. Call it by
// testdata/bench/run-boot.
//
//   - warm: the whole script, where nothing is left to do, beside "sh -c true" and
//     "clayer status".
//   - cold: a machine without clayer and without the environment, which come as a wheel and
//     as a snapshot of 90 MB, over a network of 100 MB/s on loopback; beside the transfer of
//     both, and the unpacking of the snapshot by testdata/bench.
package main

import (
	"bytes"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	rate  = 100e6 // bytes a second, of all connections together
	files = 90    // of 1 MB each, which do not compress
)

func main() {
	release := flag.String("release", "", "the directory that cmd/pack wrote, of version 1.2.3")
	unpack := flag.String("bench", "", "the program of testdata/bench")
	base := flag.String("dir", "/dev/shm", "where all is written")
	runs := flag.Int("runs", 7, "runs of each, after a warm-up")
	flag.Parse()
	if err := run(*release, *unpack, *base, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "boot:", err)
		os.Exit(1)
	}
}

// A network serves files at a bounded rate.
type network struct {
	mu   sync.Mutex
	sent time.Time // when all that was sent is through
}

func (n *network) Write(w http.ResponseWriter, p []byte) error {
	for len(p) > 0 {
		part := p[:min(len(p), 256<<10)]
		n.mu.Lock()
		if now := time.Now(); n.sent.Before(now.Add(-50 * time.Millisecond)) {
			n.sent = now
		}
		n.sent = n.sent.Add(time.Duration(float64(len(part)) / rate * 1e9))
		wait := time.Until(n.sent)
		n.mu.Unlock()
		time.Sleep(wait)
		if _, err := w.Write(part); err != nil {
			return err
		}
		p = p[len(part):]
	}
	return nil
}

// A session is a machine: a home, and a directory that collects the changes.
type session struct {
	dir, clayer string
	env         []string
}

func (s *session) command(argv ...string) (time.Duration, error) {
	c := exec.Command(argv[0], argv[1:]...)
	c.Dir, c.Env = filepath.Join(s.dir, "project"), s.env
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	start := time.Now()
	err := c.Run()
	took := time.Since(start)
	if err != nil || bytes.Contains(out.Bytes(), []byte("incomplete")) || bytes.Contains(out.Bytes(), []byte("cannot set up")) {
		return took, fmt.Errorf("%s: %v\n%s", strings.Join(argv, " "), err, out.Bytes())
	}
	return took, nil
}

// fresh makes it a machine that has nothing.
func (s *session) fresh() error {
	for _, d := range []string{"home", "out"} {
		if err := os.RemoveAll(filepath.Join(s.dir, d)); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func run(release, unpack, base string, runs int) error {
	dir, err := os.MkdirTemp(base, "clayer-boot-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	wheels, err := filepath.Glob(filepath.Join(release, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return fmt.Errorf("%q has not one wheel, of this machine's platform: %v", release, err)
	}
	s := &session{dir: dir, clayer: filepath.Join(dir, "build/clayer")}
	at := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	for _, d := range []string{"project", "build", "tree", "spent"} {
		if err := os.Mkdir(at(d), 0o755); err != nil {
			return err
		}
	}
	archives, _ := filepath.Glob(filepath.Join(release, "clayer_linux_*.tar.gz"))
	if text, err := exec.Command("tar", "-C", at("build"), "-xzf", archives[0], "clayer").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	for i := range files {
		data := make([]byte, 1e6)
		_, _ = rand.Read(data)
		if err := os.WriteFile(at("tree", fmt.Sprint(i)), data, 0o644); err != nil {
			return err
		}
	}

	// The store is built on another machine, which packs the tree.
	net := new(network)
	var got struct {
		sync.Mutex
		paths []string
	}
	wheel := filepath.Base(wheels[0])
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Lock()
		got.paths = append(got.paths, r.URL.Path)
		got.Unlock()
		var data []byte
		var err error
		switch {
		case r.URL.Path == "/pypi/simple/container-layer/":
			data = fmt.Appendf(nil, "<!DOCTYPE html><a href=\"../../%s#sha256=1\">%[1]s</a>", wheel)
		case r.URL.Path == "/pypi/"+wheel:
			data, err = os.ReadFile(wheels[0])
		default:
			data, err = os.ReadFile(at(filepath.Clean(r.URL.Path)))
		}
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_ = net.Write(w, data)
	}))
	defer srv.Close()
	s.env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + at("home"), "TMPDIR=" + dir, "CLAYER_DEST=" + at("out"), "CLAUDE_PROJECT_DIR=" + at("project"),
		"CLAYER_PYPI_URL=" + srv.URL + "/pypi/simple", "CLAYER_NPM_URL=", "CLAYER_GITHUB_URL=", "CLAYER_STORE=" + srv.URL + "/store", "CLAYER_PUSH=false"}
	if err := os.WriteFile(at("project", "Containerfile"), []byte("RUN mkdir -p /opt && cp -a "+at("tree")+" /opt/tree\n"), 0o644); err != nil {
		return err
	}
	if err := s.fresh(); err != nil {
		return err
	}
	builder := &session{dir: dir, env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + at("build"), "TMPDIR=" + dir}}
	for _, args := range [][]string{
		{"solve", "--dest=" + at("out"), "--store=dir:" + at("store")},
		{"init", "claude", "--release=v1.2.3", "--pins-file=" + filepath.Join(release, "pins.txt")},
	} {
		if _, err := builder.command(append([]string{s.clayer}, args...)...); err != nil {
			return err
		}
	}
	script := at("project", ".claude/hooks/clayer-boot.sh")

	// cold: what is transferred is transferred by this process beside it.
	if err := s.fresh(); err != nil {
		return err
	}
	got.paths = nil
	if _, err := s.command("sh", script); err != nil {
		return err
	}
	asked := slices.Clone(got.paths)
	fmt.Printf("cold: it asks for %d files\n", len(asked))
	snapshot := ""
	var largest int64
	blobs, _ := filepath.Glob(at("store/blobs/sha256/*"))
	for _, b := range blobs {
		if info, err := os.Stat(b); err == nil && info.Size() > largest {
			snapshot, largest = b, info.Size()
		}
	}
	var cold, transfers, unpacks []time.Duration
	for range runs {
		if err := s.fresh(); err != nil {
			return err
		}
		took, err := s.command("sh", script)
		if err != nil {
			return err
		}
		cold = append(cold, took)
		start := time.Now()
		for _, path := range asked {
			resp, err := http.Get(srv.URL + path)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, resp.Body)
			if resp.Body.Close(); err != nil {
				return err
			}
		}
		transfers = append(transfers, time.Since(start))
		if err := os.RemoveAll(at("spent")); err != nil {
			return err
		}
		unpacked := time.Duration(0)
		for _, args := range [][]string{{"contend", "decode", snapshot, "-"}, {"contend", "write", at("tree"), at("spent")}} {
			out, err := exec.Command(unpack, args...).Output()
			if err != nil {
				return fmt.Errorf("%s %s: %w", unpack, args[0], err)
			}
			var wall, cpu int64
			if _, err := fmt.Sscan(string(out), &wall, &cpu); err != nil {
				return err
			}
			unpacked += time.Duration(wall)
		}
		unpacks = append(unpacks, unpacked)
	}
	t, u := median(transfers), median(unpacks)
	fmt.Printf("cold: boot %.2f s; transfer %.2f s, unpacking %.2f s: %.2f × (target 1.15)\n", median(cold).Seconds(), t.Seconds(), u.Seconds(), median(cold).Seconds()/(t+u).Seconds())

	// warm
	installed := at("home/.cache/clayer/bin/clayer")
	var warm, status []time.Duration
	for i := range 4*runs + 1 {
		a, err := s.command("sh", script)
		if err != nil {
			return err
		}
		b, err := s.command("sh", "-c", "sh -c true; "+installed+" status")
		if err != nil {
			return err
		}
		if i > 0 {
			warm, status = append(warm, a), append(status, b)
		}
	}
	fmt.Printf("warm: boot %.1f ms; sh -c true and clayer status %.1f ms: %.2f ×\n", ms(median(warm)), ms(median(status)), ms(median(warm))/ms(median(status)))
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(all []time.Duration) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}
