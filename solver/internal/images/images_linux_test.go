package images

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content/oci"

	"github.com/clayer/clayer/cache/registry"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/internal/ocitest"
	"github.com/clayer/clayer/solver/internal/downloads"
)

// A fake is a registry that serves a layout, and lies where a test has it lie.
type fake struct {
	layout string
	tag    ocispec.Descriptor
	answer func(w http.ResponseWriter, req *http.Request) bool // true: it has answered
	asked  int
}

func (f *fake) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	f.asked++
	if f.answer != nil && f.answer(w, req) {
		return
	}
	name := filepath.Base(req.URL.Path)
	if name == "v1" {
		name = f.tag.Digest.String()
	}
	_, hex, _ := strings.Cut(name, ":")
	data, err := os.ReadFile(filepath.Join(f.layout, "blobs/sha256", hex))
	if err != nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if strings.Contains(req.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", mediaTypeOf(data))
		w.Header().Set("Docker-Content-Digest", name)
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	if req.Method != http.MethodHead {
		_, _ = w.Write(data)
	}
}

func mediaTypeOf(data []byte) string {
	for _, t := range []string{ocispec.MediaTypeImageIndex, dockerManifest} {
		if strings.Contains(string(data), `"mediaType":"`+t+`"`) && strings.Contains(string(data), `"schemaVersion":2,"mediaType":"`+t) {
			return t
		}
	}
	return ocispec.MediaTypeImageManifest
}

// start serves images as one index, and returns a source that reads them, and what is named v1.
func start(t *testing.T, images ...ocitest.Image) (*fake, *Source, imageref.Ref) {
	t.Helper()
	f := &fake{layout: t.TempDir()}
	to, err := oci.New(f.layout)
	if err != nil {
		t.Fatal(err)
	}
	var all []ocispec.Descriptor
	for _, im := range images {
		d, err := ocitest.Push(t.Context(), to, im)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	f.tag = all[0]
	if len(all) > 1 {
		if f.tag, err = ocitest.PushIndex(t.Context(), to, all...); err != nil {
			t.Fatal(err)
		}
	}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	s := &Source{
		Platform: "linux/amd64", Work: filepath.Join(dir, "run"), Blobs: &downloads.Dir{Path: filepath.Join(dir, "downloads")},
		Registry: func(r registry.Repository) (*registry.Client, error) {
			return registry.NewClient(r, registry.Login{}, transfer.Options{Retries: -1}), nil
		},
	}
	t.Cleanup(s.Close)
	ref, err := imageref.Parse(strings.TrimPrefix(srv.URL, "http://") + "/me/tool:v1")
	if err != nil {
		t.Fatal(err)
	}
	return f, s, ref
}

func files(ctx context.Context, s *Source, ref imageref.Ref) (string, error) {
	pin, err := s.Pin(ctx, ref)
	if err != nil {
		return "", err
	}
	st, err := s.Files(ctx, ref, pin, []string{"/x"})
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(filepath.Join(st.Dir, "x"))
	return string(data), err
}

func simple(text string) ocitest.Image {
	return ocitest.Image{Layers: [][]byte{ocitest.Gzip(ocitest.Tar("file x 644 " + text))}}
}

func on(arch, text string) ocitest.Image {
	im := simple(text)
	im.Platform = ocispec.Platform{OS: "linux", Architecture: arch}
	return im
}

func TestPlatforms(t *testing.T) {
	docker := on("amd64", "docker")
	docker.Docker = true
	for _, tt := range []struct {
		name   string
		images []ocitest.Image
		want   string // or what the error holds
	}{
		{"one image", []ocitest.Image{simple("one")}, "one"},
		{"of Docker's media types", []ocitest.Image{docker}, "docker"},
		{"an index", []ocitest.Image{on("arm64", "arm"), on("amd64", "amd")}, "amd"},
		{"of 32 bits", []ocitest.Image{on("arm64", "arm"), on("386", "old")}, "old"},
		{"none fits", []ocitest.Image{on("arm64", "arm"), on("s390x", "z")}, "is not there for linux/amd64: it is for linux/arm64, linux/s390x"},
		{"one alone for another", []ocitest.Image{on("arm64", "arm")}, "arm"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, s, ref := start(t, tt.images...)
			var warned string
			s.Warn = func(text string) { warned += text }
			got, err := files(t.Context(), s, ref)
			if err == nil && got != tt.want || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
			if (warned != "") != (tt.name == "one alone for another") {
				t.Errorf("warned %q", warned)
			}
			if err != nil {
				return
			}
			// What was downloaded is not asked for again, by digest nothing is.
			f.asked = 0
			again := &Source{Platform: s.Platform, Blobs: &downloads.Dir{Path: s.Blobs.Path}, Registry: s.Registry}
			t.Cleanup(again.Close)
			if _, err := files(t.Context(), again, ref); err != nil || f.asked != 1 {
				t.Errorf("again: %d requests, %v", f.asked, err)
			}
			ref.Digest, f.asked = f.tag.Digest, 0
			if _, err := files(t.Context(), again, ref); err != nil || f.asked != 0 {
				t.Errorf("by digest: %d requests, %v", f.asked, err)
			}
		})
	}
}

func TestRegistriesThatLie(t *testing.T) {
	isBlob := func(req *http.Request) bool { return strings.Contains(req.URL.Path, "/blobs/") }
	body := func(is func(*http.Request) bool, text string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, req *http.Request) bool {
			if !is(req) {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
			_, _ = w.Write([]byte(text))
			return true
		}
	}
	status := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true }
	}
	for _, tt := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request) bool
		want   string
		fault  bool
	}{
		{"another blob", body(isBlob, "short"), "want sha256", false},
		{"an endless blob", body(isBlob, strings.Repeat("x", 1<<20)), "that its manifest says", false},
		{"another manifest", func(w http.ResponseWriter, req *http.Request) bool {
			if isBlob(req) || req.Method == http.MethodHead {
				return false
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Content-Length", "2")
			_, _ = w.Write([]byte("{}"))
			return true
		}, "digest", false},
		{"a huge manifest", func(w http.ResponseWriter, req *http.Request) bool {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			_, _ = w.Write([]byte(strings.Repeat(" ", 5<<20)))
			return true
		}, "", false},
		{"no such image", status(404), "there is no such image", true},
		{"no login", status(401), "requires a login for me/tool", false},
		{"forbidden", status(403), "requires authentication to read me/tool", false},
		{"too many", status(429), "limits requests", false},
		{"broken", status(500), "500", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, s, ref := start(t, simple("text"))
			f.answer = tt.answer
			got, err := files(t.Context(), s, ref)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), ref.String()) {
				t.Errorf("%q, error %v, want one with %q and %s", got, err, tt.want, ref)
			}
			if fault := (*Fault)(nil); errors.As(err, &fault) != tt.fault {
				t.Errorf("a fault of the file: %v, want %v", !tt.fault, tt.fault)
			}
			if left, _ := filepath.Glob(filepath.Join(s.Blobs.Path, "part-*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestTagOfARegistryThatIsAway(t *testing.T) {
	f, s, ref := start(t, simple("text"))
	was, err := s.Pin(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	for code, taken := range map[int]bool{429: true, 503: true, 404: false, 403: false} {
		f.answer = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true }
		var warned string
		again := &Source{Platform: s.Platform, Blobs: s.Blobs, Registry: s.Registry, Warn: func(text string) { warned = text }}
		pin, err := again.Pin(t.Context(), ref)
		if taken != (err == nil && pin == was && strings.Contains(warned, "taken as it was last")) {
			t.Errorf("%d: %s, %v, warned %q", code, pin, err, warned)
		}
	}
}
