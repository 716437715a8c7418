package boots

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/clayer/clayer/internal/hosttest"
)

// storeFlag is the flag that names the store of a boot; "" for none.
func (g *ground) storeFlag() string {
	switch name := filepath.Base(g.dir); g.boot.Store {
	case "dir":
		return "--store=dir:/work/store"
	case "https":
		return "--store=https://public.s3.us-east-1.amazonaws.com/" + name
	case "s3":
		return "--store=s3://bucket/" + name
	case "github":
		return "--repo=" + hosttest.Project
	}
	return ""
}

// fill has another machine build what the store has, and damages it.
func (g *ground) fill() error {
	var versions []version
	switch g.boot.Has {
	case "earlier":
		versions = []version{earlier}
	case "now":
		versions = []version{now}
	case "both":
		versions = []version{earlier, now}
	}
	if g.boot.Store == "" {
		return nil
	}
	overlay := g.boot.clone()
	overlay.InPlace, overlay.Plain = false, false
	if overlay.Store == "https" { // what it serves is a directory
		overlay.Store = "dir"
	}
	builder := &ground{g.player, g.dir, overlay}
	m, err := builder.machine("builder", "actions", hosttest.Link{})
	if err != nil {
		return err
	}
	for _, v := range versions {
		if v == now && slices.ContainsFunc(g.boot.Layers, func(l Layer) bool {
			return slices.ContainsFunc(l.Steps, func(s Step) bool { return s.Kind == "hang" })
		}) {
			continue
		}
		if err := g.write(v); err != nil {
			return err
		}
		if _, all, code, err := m.clayer("compose", "--best-effort"); err != nil || code != 0 {
			return fmt.Errorf("fill the store: %v\n%s", err, all)
		}
	}
	if g.boot.Plain {
		if text, err := exec.Command("chown", "-R", fmt.Sprint(plainUser), g.path("work/store")).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, text)
		}
	}
	if g.boot.Store == "https" {
		public := filepath.Join(g.internet.Public, filepath.Base(g.dir))
		if err := os.CopyFS(public, os.DirFS(g.path("work/store"))); err != nil {
			return err
		}
	}
	for _, d := range g.boot.Damage {
		if err := g.damage(d); err != nil {
			return err
		}
	}
	return nil
}

const zstdMagic = "\x28\xb5\x2f\xfd"

// damage damages snapshots of the store. Releases are left alone.
func (g *ground) damage(d Damage) error {
	dir := g.path("work/store/blobs/sha256")
	if g.boot.Store == "https" {
		dir = filepath.Join(g.internet.Public, filepath.Base(g.dir), "blobs/sha256")
	}
	blobs := make(map[string]string)
	switch g.boot.Store {
	case "dir", "https":
		files, _ := filepath.Glob(dir + "/*")
		for _, f := range files {
			if data, err := os.ReadFile(f); err == nil {
				blobs[f] = string(data)
			}
		}
	case "s3":
		blobs = g.internet.S3.Objects("bucket")
		maps.DeleteFunc(blobs, func(name, _ string) bool { return !strings.HasPrefix(name, filepath.Base(g.dir)+"/") })
	}
	maps.DeleteFunc(blobs, func(_, data string) bool { return !strings.HasPrefix(data, zstdMagic) })
	names := slices.Sorted(maps.Keys(blobs))
	if len(names) == 0 {
		return nil
	}
	if d.Kind != "all" {
		names = []string{names[d.At%len(names)]}
	}
	for _, name := range names {
		data := blobs[name]
		switch {
		case d.Kind == "garbled":
			data = data[:len(data)/2] + "XXXX" + data[min(len(data), len(data)/2+4):]
		case d.Kind == "cut":
			data = data[:len(data)/2]
		case g.boot.Store == "s3":
			g.internet.S3.Delete("bucket", name)
			continue
		default:
			if err := os.Remove(name); err != nil {
				return err
			}
			continue
		}
		if g.boot.Store == "s3" {
			g.internet.S3.Set("bucket", name, data, time.Now())
		} else if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// A spoiler answers the first requests of a machine.
type spoiler struct {
	answers []string
	at      int    // a request
	then    func() // is called then
	ended   chan struct{}

	mu sync.Mutex
	n  int
}

func (s *spoiler) before(w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	s.n++
	n, answer := s.n, ""
	if n <= len(s.answers) {
		answer = s.answers[n-1]
	}
	s.mu.Unlock()
	if n == s.at {
		s.then()
	}
	switch answer {
	case "403", "404", "429", "500", "503":
		code, _ := strconv.Atoi(answer)
		http.Error(w, "not now", code)
	case "html":
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html>log in first</html>")
	case "empty":
	case "reset":
		panic(http.ErrAbortHandler)
	case "cut":
		w.Header().Set("Content-Length", "100000")
		fmt.Fprint(w, zstdMagic)
		panic(http.ErrAbortHandler)
	case "hang":
		select {
		case <-s.ended:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	default:
		return false
	}
	return true
}
