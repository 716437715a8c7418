package hook

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cmd/clayer/internal/shim"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// released is the version of a release, also of one before it, and not of a build between two.
var released = lazyregexp.New(`^v\d+\.\d+\.\d+(-(alpha|beta|rc)\.\d+)?$`)

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
	return o.pin(ctx, client, build)
}

// locateProgram sets where this program is: in the project, if it can be.
func (o *Options) locateProgram() error {
	if o.PinsFile != "" {
		return usage.Errorf("--pins-file: of which release? --release names it")
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

// WriteNeeds writes what a session's machine has to have that no hook can give it.
func (o *Options) WriteNeeds(w io.Writer, kind, script, build string) {
	script, what := cmp.Or(script, "it"), "hook"
	if kind == "skill" {
		script, what = "the skill", "skill"
	}
	if o.Version == "" {
		where, advice := o.Program, "put clayer on PATH when a session's machine is set up"
		if !filepath.IsAbs(where) {
			where, advice = where+" of this project", "commit it, or "+advice
		}
		fmt.Fprintf(w, "clayer: this clayer, %s, is no release, and can't be downloaded: %s runs the clayer on PATH, or else %s\nhint: %s, or write the %s for a release: --release v1.2.3\n",
			build, script, where, advice, what)
	}
	if o.onlyOwn {
		fmt.Fprintf(w, "clayer: the pins of release %s could not be downloaded: %s has that of this program alone, and installs clayer on machines like this one only\nhint: --pins-file FILE reads them from the pins.txt of the release\n", o.Version, script)
	}
	switch {
	case kind == "skill": // its callers name the repository
	case kind == "claude-setup" && (o.repo() != "" || len(o.Stores)+len(o.FileStores) > 0):
		fmt.Fprintln(w, "clayer: a setup script gets no variables, and has no credential: it restores what its stores give to everybody, and stores nothing elsewhere")
	case o.repo() != "" && kind != "github" && kind != "copilot": // whose steps pass the token on
		fmt.Fprintf(w, "clayer: to write to %s, or to read it if it is private, a session needs a token in GH_TOKEN\n", o.repo())
	case o.repo() == "" && len(o.Stores) == 0 && len(o.FileStores) == 0:
		fmt.Fprintln(w, "clayer: no --repo and no --store, nor a clayer.toml that sets one: every new machine builds the environment, instead of restoring it")
	}
}
