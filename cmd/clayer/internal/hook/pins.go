package hook

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/safefile"
)

// pinLine is one of pins.txt: the SHA-256 of a program, and its name.
var pinLine = lazyregexp.New(`^([0-9a-f]{64}) [ *](clayer_[a-z0-9]+_[a-z0-9]+)$`)

// ReadPins reads a pins.txt.
func ReadPins(text []byte) (map[string]string, error) {
	pins := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		m := pinLine().FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if m == nil {
			return nil, fmt.Errorf("%q is no pin: want a SHA-256 and a name such as clayer_linux_amd64", strings.TrimSpace(line))
		}
		pins[m[2]] = m[1]
	}
	if len(pins) == 0 {
		return nil, errors.New("it has no pins")
	}
	return pins, nil
}

// Mirror returns the address of a host that releases are downloaded from: what the session
// says, which may be "" for none, or what is usual.
func Mirror(variable, usual string) string {
	if url, ok := os.LookupEnv(variable); ok {
		usual = url
	}
	return strings.TrimSuffix(usual, "/")
}

// pin sets the pins of the release in o: those of PinsFile, or else of the release. The
// program that runs has to be one of them, if it is of that release.
func (o *Options) pin(ctx context.Context, client *transfer.Client, build string) error {
	own, ownName := "", "clayer_"+runtime.GOOS+"_"+runtime.GOARCH
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
			pins, err = ReadPins(text)
		}
		if err != nil {
			return usage.Errorf("--pins %s: %w", o.PinsFile, err)
		}
	} else {
		var err error
		if pins, err = FetchPins(ctx, client, o.Version, o.DownloadURL); err != nil && own == "" {
			return errhint.With(fmt.Errorf("the pins of release %s: %w", o.Version, err), "--pins FILE reads them from the pins.txt of the release")
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
			"install the release again, or give its pins.txt by --pins FILE")
	}
	o.Pins = slices.Sorted(maps.Values(pins))
	return nil
}

// FetchPins downloads the pins of a release: npm, GitHub and mirror are asked in turn.
func FetchPins(ctx context.Context, client *transfer.Client, version, mirror string) (map[string]string, error) {
	number := strings.TrimPrefix(version, "v")
	var failed error
	ask := func(host, path string, unpack bool) map[string]string {
		if host == "" || ctx.Err() != nil {
			return nil
		}
		var b bytes.Buffer
		_, err := client.Get(ctx, host+path, &b, transfer.GetOptions{})
		text := b.Bytes()
		if err == nil && unpack {
			text, err = member(&b, "package/pins.txt")
		}
		var pins map[string]string
		if err == nil {
			pins, err = ReadPins(text)
		}
		if err != nil {
			failed = errors.Join(failed, err)
		}
		return pins
	}
	pins := ask(Mirror("CLAYER_NPM_URL", "https://registry.npmjs.org"), "/container-layer/-/container-layer-"+number+".tgz", true)
	for _, releases := range []string{Mirror("CLAYER_GITHUB_URL", "https://github.com/clayer/clayer/releases"), strings.TrimSuffix(mirror, "/")} {
		if pins == nil {
			pins = ask(releases, "/download/v"+number+"/pins.txt", false)
		}
	}
	if pins == nil && failed == nil {
		failed = errors.New("there is no host to ask")
	}
	if pins == nil {
		return nil, failed
	}
	return pins, nil
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
