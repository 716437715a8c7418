package hook

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache/transfer"
)

// releases serves files as the hosts of releases do, and has all of them asked on loopback.
func releases(t *testing.T, files map[string]string) (mirror string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := files[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = w.Write([]byte(text))
	}))
	t.Cleanup(srv.Close)
	t.Setenv("CLAYER_PYPI_URL", srv.URL+"/pypi")
	t.Setenv("CLAYER_NPM_URL", srv.URL+"/npm")
	t.Setenv("CLAYER_GITHUB_URL", srv.URL+"/github")
	return srv.URL + "/mirror"
}

func pins(version string, digit string) string {
	return fmt.Sprintf("%s  clayer_%s_linux_amd64\n%s  clayer_%[2]s_linux_arm64\n", strings.Repeat(digit, 64), version, strings.Repeat("f", 64))
}

// tgz is the main package of npm, with one file.
func tgz(t *testing.T, name, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const mainPackage = "/npm/container-layer/-/container-layer-1.2.3.tgz"

func TestPinsOfARelease(t *testing.T) {
	client := transfer.New(transfer.Options{})
	for name, tt := range map[string]struct {
		files map[string]string
		want  string // the first digit of the pin of linux/amd64, or what the error says
	}{
		"npm first":            {map[string]string{mainPackage: tgz(t, "package/pins.txt", pins("1.2.3", "1")), "/github/download/v1.2.3/pins.txt": pins("1.2.3", "2")}, "1"},
		"GitHub":               {map[string]string{"/github/download/v1.2.3/pins.txt": pins("1.2.3", "2"), "/mirror/download/v1.2.3/pins.txt": pins("1.2.3", "3")}, "2"},
		"a mirror":             {map[string]string{"/mirror/download/v1.2.3/pins.txt": pins("1.2.3", "3")}, "3"},
		"npm without the file": {map[string]string{mainPackage: tgz(t, "package/README.md", ""), "/github/download/v1.2.3/pins.txt": pins("1.2.3", "2")}, "2"},
		"no archive":           {map[string]string{mainPackage: "<html>", "/mirror/download/v1.2.3/pins.txt": pins("1.2.3", "3")}, "3"},
		"of another version":   {map[string]string{"/mirror/download/v1.2.3/pins.txt": pins("1.2.2", "3")}, "has the pins of v1.2.2"},
		"a page":               {map[string]string{"/mirror/download/v1.2.3/pins.txt": "<html>" + strings.Repeat("x", 100_000)}, `"<html>xxx`},
		"nowhere":              {nil, "403"},
		"before the release":   {map[string]string{"/mirror/download/v1.2.3/pins.txt": pins("1.2.3-rc.1", "3")}, "has the pins of v1.2.3-rc.1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := fetchPins(t.Context(), client, "v1.2.3", releases(t, tt.files))
			if len(tt.want) == 1 && (err != nil || got["linux_amd64"] != strings.Repeat(tt.want, 64) || len(got) != 2) {
				t.Errorf("%v, %v", got, err)
			}
			if len(tt.want) > 1 && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, %v, want %s", got, err, tt.want)
			}
			if err != nil && len(err.Error()) > 400 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestLatestRelease(t *testing.T) {
	client := transfer.New(transfer.Options{})
	for name, tt := range map[string]struct{ path, text, want string }{
		"PyPI":     {"/pypi/container-layer/", "<a>container_layer-1.9.0-py3-none-x.whl</a><a>container_layer-1.10.2-py3-none-x.whl</a><a>container_layer-1.10.1-py3-none-x.whl</a>", "v1.10.2"},
		"npm":      {"/npm/container-layer/latest", `{"version": "1.2.4"}`, "v1.2.4"},
		"GitHub":   {"/github/latest/download/pins.txt", pins("1.2.5", "1"), "v1.2.5"},
		"a mirror": {"/mirror/latest/download/pins.txt", pins("1.2.6", "1"), "v1.2.6"},
		"nothing":  {"/pypi/container-layer/", "", ""},
		"no JSON":  {"/npm/container-layer/latest", "{", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Latest(t.Context(), client, releases(t, map[string]string{tt.path: tt.text}))
			if tt.want != "" && (got != tt.want || err != nil) || tt.want == "" && err == nil {
				t.Errorf("%q, %v, want %s", got, err, tt.want)
			}
		})
	}
}

// A program that says that it is the release has to have its pin, and is pinned where none can
// be downloaded.
func TestPinOfThisProgram(t *testing.T) {
	client := transfer.New(transfer.Options{})
	mirror := releases(t, nil)
	o := Options{Version: "v1.2.3", DownloadURL: mirror}
	if err := o.Locate(t.Context(), client, "v1.2.3"); err != nil || len(o.Pins) != 1 || !o.onlyOwn {
		t.Errorf("%+v, %v", o, err)
	}
	var notes bytes.Buffer
	if o.WriteNeeds(&notes, "boot", "boot.sh", "v1.2.3"); !strings.Contains(notes.String(), "machines like this one only") {
		t.Error(notes.String())
	}
	o = Options{Version: "v1.2.3", PinsFile: filepath.Join(t.TempDir(), "none")}
	if err := o.Locate(t.Context(), client, "v1.2.3"); err == nil || !strings.Contains(err.Error(), "--pins-file") {
		t.Error(err)
	}
	mirror = releases(t, map[string]string{"/github/download/v1.2.3/pins.txt": strings.Repeat("1", 64) + "  clayer_1.2.3_" + runtime.GOOS + "_" + runtime.GOARCH + "\n"})
	o = Options{Version: "v1.2.3", DownloadURL: mirror}
	if err := o.Locate(t.Context(), client, "v1.2.3"); err == nil || !strings.Contains(err.Error(), "the release's pin is 1111") {
		t.Errorf("%+v, %v", o, err)
	}
}
