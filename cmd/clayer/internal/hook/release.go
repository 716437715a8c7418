package hook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cmd/clayer/internal/shim"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// Releases is where clayer's own releases are.
const Releases = "https://github.com/clayer/clayer/releases"

// released is the version of a release, and not of a build between two.
var released = lazyregexp.New(`^v\d+\.\d+\.\d+$`)

var sha256Hex = lazyregexp.New(`^[0-9a-f]{64}$`)

// Locate finds out how a session gets clayer, and sets it in o: the release that is
// downloaded, or where this program is. build is the version of this program.
func (o *Options) Locate(ctx context.Context, client *transfer.Client, build string) error {
	if o.Version == "" && released().MatchString(build) {
		o.Version = build
	}
	if o.Version == "" {
		return o.locateProgram()
	}
	if !released().MatchString(o.Version) {
		return usage.Errorf("--release %s: is no release: want one like v1.2.3", o.Version)
	}
	if o.Checksums == "" {
		sum, err := releaseChecksums(ctx, client, cmp.Or(o.DownloadURL, Releases), o.Version)
		if err != nil {
			return errhint.With(fmt.Errorf("the checksum of release %s: %w", o.Version, err), "--checksums gives the SHA-256 of its checksums.txt")
		}
		o.Checksums = sum
	}
	if !sha256Hex().MatchString(o.Checksums) {
		return usage.Errorf("--checksums %s: want the SHA-256 of the release's checksums.txt, 64 hex digits", o.Checksums)
	}
	return nil
}

// locateProgram sets where this program is: in the project, if it can be.
func (o *Options) locateProgram() error {
	if o.Checksums != "" {
		return usage.Errorf("--checksums: of which release? --release names it")
	}
	program, err := shim.Program()
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(dir, program); err == nil && filepath.IsLocal(rel) {
		program = rel
	}
	o.Program = program
	return nil
}

// releaseChecksums returns the digest of the checksums.txt of a release, which pins all of
// it.
func releaseChecksums(ctx context.Context, client *transfer.Client, base, version string) (string, error) {
	var b bytes.Buffer
	url := base + "/download/v" + strings.TrimPrefix(version, "v") + "/checksums.txt"
	if _, err := client.Get(ctx, url, &b, transfer.GetOptions{}); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(b.Bytes())), nil
}

// WriteNeeds writes what a session's machine has to have that no hook can give it.
func (o *Options) WriteNeeds(w io.Writer, kind, script, build string) {
	if o.Version == "" {
		where, advice := o.Program, "put clayer on PATH when a session's machine is set up"
		if !filepath.IsAbs(where) {
			where, advice = where+" of this project", "commit it, or "+advice
		}
		fmt.Fprintf(w, "clayer: this clayer, %s, is no release, and can't be downloaded: %s runs the clayer on PATH, or else %s\nhint: %s, or write the hook for a release: --release v1.2.3\n",
			build, script, where, advice)
	}
	switch {
	case o.repo() != "" && kind != "github": // whose step passes the token on
		fmt.Fprintf(w, "clayer: to write to %s, or to read it if it is private, a session needs a token in GH_TOKEN\n", o.repo())
	case o.repo() == "" && len(o.Stores) == 0 && !o.FileStores:
		fmt.Fprintln(w, "clayer: no --repo and no --store, nor a clayer.toml that sets one: every new machine builds the environment, instead of restoring it")
	}
}
