// Package release has what every package of a release has in common: its version, its
// names, and the programs that it is made of, each with its SHA-256.
package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"

	"github.com/clayer/clayer/internal/buildflags"
)

// Name is what the packages are called: the name clayer is another project's on PyPI.
const (
	Name        = "container-layer"
	NPMScope    = "@container-layer"
	Description = "Turn an ephemeral machine into the environment that a Containerfile describes"
	Home        = "https://github.com/clayer/clayer"
	License     = "Apache-2.0"
)

// Time is that of every file in every package, so that they are the same bytes on every
// run. It is 1980-01-02: a zip has nothing before 1980, in any time zone.
var Time = time.Unix(315619200, 0).UTC()

// A Platform is one that there are programs for.
type Platform struct {
	OS, Arch string // as Go calls them
	Wheel    string // as tags of wheels
	CPU      string // as npm calls it
}

// Platforms are all of them.
var Platforms = []Platform{
	{"linux", "amd64", "manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64", "x64"},
	{"linux", "arm64", "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64", "arm64"},
	{"darwin", "amd64", "macosx_10_12_x86_64", "x64"},
	{"darwin", "arm64", "macosx_11_0_arm64", "arm64"},
}

// A Program is clayer for one platform.
type Program struct {
	Platform
	Path   string // of the file
	Data   []byte
	SHA256 string // the pin, in hex
}

// FileName is that of the program in lists and archives.
func (p *Program) FileName() string { return "clayer_" + p.OS + "_" + p.Arch }

// A Release is a version and its programs.
type Release struct {
	Version  string // 1.2.3, or 1.2.3-rc.1, as npm and tags have it
	Programs []*Program
}

// version is one that all formats can write. Of the versions before a release, deb and rpm
// write 1.2.3~rc.1.
var version = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-(alpha|beta|rc)\.(0|[1-9]\d*))?$`)

// New returns a release without programs.
func New(v string) (*Release, error) {
	if !version.MatchString(v) {
		return nil, fmt.Errorf("version %q: want one like 1.2.3, or 1.2.3-rc.1", v)
	}
	return &Release{Version: v}, nil
}

// Python returns the version as Python writes it: 1.2.3rc1.
func (r *Release) Python() string {
	return strings.NewReplacer("-alpha.", "a", "-beta.", "b", "-rc.", "rc").Replace(r.Version)
}

// Build builds the programs from the module in top, into dir: those of the platforms that
// only lists, such as "linux/amd64,linux/arm64", or of all.
func (r *Release) Build(top, dir, only string) error {
	for _, p := range Platforms {
		if only != "" && !slices.Contains(strings.Split(only, ","), p.OS+"/"+p.Arch) {
			continue
		}
		path := filepath.Join(dir, p.OS+"-"+p.Arch, "clayer")
		build := exec.Command("go", slices.Concat([]string{"build"}, buildflags.List(), []string{"-ldflags=-s -w -X main.version=v" + r.Version, "-o", path, "./cmd/clayer"})...)
		build.Dir = top
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOAMD64=v1", "GOARM64=v8.0", "GOOS="+p.OS, "GOARCH="+p.Arch)
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("go build for %s/%s: %w\n%s", p.OS, p.Arch, err, out)
		}
		if err := r.Add(p, path); err != nil {
			return err
		}
	}
	return nil
}

// Add adds the program of a platform, which is the file path.
func (r *Release) Add(p Platform, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	r.Programs = append(r.Programs, &Program{p, path, data, hex.EncodeToString(sum[:])})
	return nil
}

// Pins returns the text of pins.txt.
func (r *Release) Pins() []byte {
	var b bytes.Buffer
	for _, p := range r.Programs {
		fmt.Fprintf(&b, "%s  clayer_%s_%s_%s\n", p.SHA256, r.Version, p.OS, p.Arch)
	}
	return b.Bytes()
}

// Deflate compresses as far as deflate goes: what is downloaded is what counts.
func Deflate(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
