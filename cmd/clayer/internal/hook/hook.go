// Package hook writes what makes a session begin with its environment: a boot
// script, and what has the host of the session run it.
package hook

import (
	"cmp"
	_ "embed"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/clayer/clayer/internal/credential"
	"github.com/clayer/clayer/internal/lazyregexp"
)

//go:embed install.sh
var installScript string

//go:embed boot.sh
var bootScript string

// Options are what a boot script does.
type Options struct {
	Version     string        // of the release that is downloaded, "v1.2.3"; "" for none
	Pins        []string      // the SHA-256 of its programs, in hex
	PinsFile    string        // the pins.txt of the release; "" to download it
	DownloadURL string        // a mirror of the releases, which is asked last; "" for none
	Program     string        // without a Version: where clayer is if it is not on PATH, absolute or in the project
	Layers      []string      // what is composed; none: what the project lists
	EnvFiles    string        // a directory whose *.env files are sourced; "" for none
	Repo        string        // --repo; "" for none
	Stores      []string      // --store
	Budget      time.Duration // --budget of the solve; 0 for that of the host
	Base        string        // the image of the base that CI builds on, as skopeo names it; "" for none

	onlyOwn bool // the pins are of this program alone

	FileRepo   string   // what the project's clayer.toml sets, which the script's commands read
	FileStores []string // the stores that it sets
}

// repo returns the repository that sessions use.
func (o *Options) repo() string { return cmp.Or(o.Repo, o.FileRepo) }

// A File is one that a hook is made of.
type File struct {
	Path string // relative to the project, or absolute; with slashes
	Text []byte
	Mode fs.FileMode
	Note string // what is left to do where the file is there and can't be changed

	merge func(old []byte) ([]byte, error) // nil: Text replaces what is there
}

// plain is what a script may contain without quotes.
var plain = lazyregexp.New(`^[A-Za-z0-9_./:@%+=-]+$`)

// missing is what a script says that no release can be downloaded for.
const missing = `clayer_install() {
	echo "clayer: no clayer is on PATH, nor is there $CLAYER_BOOT_PROGRAM; the build that wrote this script is no release, and can't be downloaded" >&2
	echo "hint: put clayer on PATH when the machine is set up, or write this script for a release: clayer init KIND --release v1.2.3" >&2
	return 1
}
`

// script returns the boot script of a host, which is the file at in the project.
func (h *host) script(o Options) ([]byte, error) {
	for name, words := range map[string][]string{"--env-files": {o.EnvFiles}, "--repo": {o.Repo}, "--download-url": {o.DownloadURL}, "--release": {o.Version, strings.Join(o.Pins, "")}, "a layer": o.Layers, "--store": o.Stores, "--prebuild": {o.Base}} {
		for _, w := range words {
			if hasCredential(w) {
				return nil, fmt.Errorf("%s holds a credential, which can't stand in a script: sessions get it by a variable, or by the configuration of git", name)
			}
			if w != "" && !plain().MatchString(w) {
				return nil, fmt.Errorf("%q can't stand in a script", w)
			}
		}
	}
	// Of the script's own variables, the session's have the last word. A host that lists them,
	// and leaves them empty, has none.
	or := "-"
	if h.emptyVariables {
		or = ":-"
	}
	var variables strings.Builder
	set := func(name, value string, exported bool) {
		if value == "" {
			return
		}
		fmt.Fprintf(&variables, "%[1]s=${%[1]s%[3]s%[2]s}\n", name, value, or)
		if exported {
			fmt.Fprintf(&variables, "export %s\n", name)
		}
	}
	set("CLAYER_ENV_FILES", o.EnvFiles, false)
	set("CLAYER_DOWNLOAD_URL", o.DownloadURL, false)
	set("CLAYER_REPO", o.Repo, true)
	if !h.strict {
		set("CLAYER_BEST_EFFORT", "true", true)
	}
	if budget := h.budgetOf(o); budget > 0 {
		set("CLAYER_BUDGET", fmt.Sprintf("%.0fs", budget.Seconds()), true)
	}
	set("CLAYER_STORE", strings.Join(o.Stores, "\n"), true)
	if h.yes {
		set("CLAYER_YES", "1", true)
	}
	if h.session {
		set("CLAYER_NO_SYNC", "true", true)
	}
	if h.bash {
		set("CLAYER_BOOT_BASH", "1", false)
	}

	program, install := `"$CLAYER_BOOT_DIR/clayer"`, ""
	if o.Version == "" {
		program = "'" + strings.ReplaceAll(o.Program, "'", `'\''`) + "'"
		install = strings.ReplaceAll(missing, "KIND", h.name)
	} else {
		install = installer()
	}
	layers := ""
	if len(o.Layers) > 0 {
		layers = " " + strings.Join(o.Layers, " ")
	}
	at := cmp.Or(h.at, "clayer-boot.sh")
	_, here, _ := strings.Cut(bootScript, "# clayer_here prints")
	here, _, _ = strings.Cut(here, "\n\n{{.Install}}")
	// Not by text/template: what it may call by name, which is any method, would
	// all stay in the binary: 4.5 MB.
	fill := strings.NewReplacer("{{.Path}}", at, "{{.Version}}", o.Version, "{{.Pins}}", strings.Join(o.Pins, " "), "{{.Program}}", program,
		"{{.Variables}}", variables.String(), "{{.Layers}}", layers, "{{.Install}}", install,
		"{{.Base}}", o.Base, "{{.Here}}", "# clayer_here prints"+here)
	return []byte(fill.Replace(cmp.Or(h.template, bootScript))), nil
}

// hasCredential reports whether a text that others will read has a user, or a password, in a
// URL. The user of an address of SSH is none.
func hasCredential(text string) bool {
	return credential.IsValue(strings.ReplaceAll(text, "ssh://git@", "ssh://"))
}

// installer returns the shell function clayer_install.
func installer() string {
	_, install, _ := strings.Cut(installScript, "# BEGIN install\n")
	install, _, _ = strings.Cut(install, "# END install\n")
	return install
}

// InstallScript returns a script that takes a version, its pins and a directory, and installs
// clayer there, whatever is on PATH.
func InstallScript() string {
	return "clayer() { :; }\n" + installer() + "clayer_install \"$1\" \"$2\" \"$3\"\n"
}
