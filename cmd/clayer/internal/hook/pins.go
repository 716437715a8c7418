package hook

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/safefile"
)

// pinLine is one of pins.txt: the SHA-256 of a program, its version and its platform.
var pinLine = lazyregexp.New(`^([0-9a-f]{64}) [ *]clayer_(\d+\.\d+\.\d+(?:-(?:alpha|beta|rc)\.\d+)?)_([a-z0-9]+_[a-z0-9]+)$`)

// readPins reads a pins.txt: the version, "v1.2.3", and the pin of each platform.
func readPins(text []byte) (version string, pins map[string]string, err error) {
	pins = make(map[string]string)
	for line := range strings.Lines(string(text)) {
		m := pinLine().FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if m == nil {
			return "", nil, fmt.Errorf("%.60q is no pin: want a SHA-256 and a name such as clayer_1.2.3_linux_amd64", line)
		}
		if version != "" && version != "v"+m[2] {
			return "", nil, fmt.Errorf("it is about %s and v%s", version, m[2])
		}
		version, pins[m[3]] = "v"+m[2], m[1]
	}
	if version == "" {
		return "", nil, errors.New("it has no pins")
	}
	return version, pins, nil
}

// pin sets the pins of the release in o: those of PinsFile, or else of the release. The
// program that runs has to be one of them, if it is of that release.
func (o *Options) pin(ctx context.Context, client *transfer.Client, build string) error {
	own, ownName := "", runtime.GOOS+"_"+runtime.GOARCH
	if o.Version == build {
		if program, err := os.Executable(); err == nil {
			if data, err := os.ReadFile(program); err == nil {
				own = fmt.Sprintf("%x", sha256.Sum256(data))
			}
		}
	}
	var pins map[string]string
	if o.PinsFile != "" {
		text, err := safefile.Read(o.PinsFile, frontend.MaxFile)
		if err == nil {
			pins, err = pinsOf(o.Version, text)
		}
		if err != nil {
			return usage.Errorf("--pins-file %s: %w", o.PinsFile, err)
		}
	} else {
		var err error
		if pins, err = fetchPins(ctx, client, o.Version, o.DownloadURL); err != nil && own == "" {
			return errhint.With(fmt.Errorf("the pins of release %s: %w", o.Version, err), "--pins-file FILE reads them from the pins.txt of the release")
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if pins == nil {
		pins, o.onlyOwn = map[string]string{ownName: own}, true
	}
	if own != "" && pins[ownName] != own {
		return errhint.With(fmt.Errorf("this clayer says that it is %s, but its SHA-256 is %s, and the release's pin is %s", build, own, pins[ownName]),
			"install the release again, or give its pins.txt by --pins-file FILE")
	}
	o.Pins = slices.Sorted(maps.Values(pins))
	return nil
}

// pinsOf reads the pins of a version.
func pinsOf(version string, text []byte) (map[string]string, error) {
	found, pins, err := readPins(text)
	if err == nil && found != version {
		err = fmt.Errorf("it has the pins of %s, not of %s", found, version)
	}
	return pins, err
}

// fetchPins downloads the pins of a release: npm, GitHub and mirror are asked in turn.
func fetchPins(ctx context.Context, client *transfer.Client, version, mirror string) (pins map[string]string, err error) {
	read := func(text []byte) (err error) {
		pins, err = pinsOf(version, text)
		return err
	}
	number := strings.TrimPrefix(version, "v")
	return pins, first(ctx, client, []question{
		{npm(), "/container-layer/-/container-layer-" + number + ".tgz", func(text []byte) error {
			text, err := member(bytes.NewReader(text), "package/pins.txt")
			if err != nil {
				return err
			}
			return read(text)
		}},
		{github(), "/download/v" + number + "/pins.txt", read},
		{strings.TrimSuffix(mirror, "/"), "/download/v" + number + "/pins.txt", read},
	})
}

// listed is a wheel in the index of PyPI.
var listed = lazyregexp.New(`container_layer-(\d+)\.(\d+)\.(\d+)-py3-none-`)

// Latest returns the latest release, "v1.2.3": PyPI, npm, GitHub and mirror are asked in turn.
func Latest(ctx context.Context, client *transfer.Client, mirror string) (latest string, err error) {
	read := func(text []byte) (err error) {
		latest, _, err = readPins(text)
		return err
	}
	return latest, first(ctx, client, []question{
		{fromEnv("CLAYER_PYPI_URL", "https://pypi.org/simple"), "/container-layer/", func(text []byte) error {
			var most [3]int
			for _, m := range listed().FindAllSubmatch(text, -1) {
				var v [3]int
				for i := range v {
					v[i], _ = strconv.Atoi(string(m[i+1]))
				}
				if slices.Compare(v[:], most[:]) > 0 {
					most = v
				}
			}
			if most == [3]int{} {
				return errors.New("it lists no release")
			}
			latest = fmt.Sprintf("v%d.%d.%d", most[0], most[1], most[2])
			return nil
		}},
		{npm(), "/container-layer/latest", func(text []byte) error {
			var manifest struct{ Version string }
			if err := json.Unmarshal(text, &manifest); err != nil {
				return err
			}
			if latest = "v" + manifest.Version; !released().MatchString(latest) {
				return fmt.Errorf("%q is no release", manifest.Version)
			}
			return nil
		}},
		{github(), "/latest/download/pins.txt", read},
		{strings.TrimSuffix(mirror, "/"), "/latest/download/pins.txt", read},
	})
}

// fromEnv returns the address of a host that releases are downloaded from: what the session
// says, which may be "" for none, or what is usual.
func fromEnv(variable, usual string) string {
	if url, ok := os.LookupEnv(variable); ok {
		usual = url
	}
	return strings.TrimSuffix(usual, "/")
}

func npm() string { return fromEnv("CLAYER_NPM_URL", "https://registry.npmjs.org") }
func github() string {
	return fromEnv("CLAYER_GITHUB_URL", "https://github.com/clayer/clayer/releases")
}

// A question is what a host is asked, if there is one, and who reads the answer.
type question struct {
	host, path string
	read       func(text []byte) error
}

// first asks until one answer can be read.
func first(ctx context.Context, client *transfer.Client, questions []question) error {
	failed := errors.New("there is no host to ask")
	for _, q := range questions {
		if q.host == "" {
			continue
		}
		var b bytes.Buffer
		_, err := client.Get(ctx, q.host+q.path, &b, transfer.GetOptions{})
		if err == nil {
			if err = q.read(b.Bytes()); err == nil {
				return nil
			}
			err = fmt.Errorf("%s: %w", q.host+q.path, err)
		}
		if failed = err; ctx.Err() != nil {
			break
		}
	}
	return failed
}

// member returns a file of an archive.
func member(r io.Reader, name string) ([]byte, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil, fmt.Errorf("%s is not in it", name)
		}
		if err != nil {
			return nil, err
		}
		if h.Name == name {
			return io.ReadAll(io.LimitReader(t, frontend.MaxFile))
		}
	}
}
