// Package hook writes what makes a session begin with its environment: a boot
// script, and what has Claude Code, GitHub Actions or a devcontainer run it.
package hook

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// Kinds are the hosts that there are hooks for.
var Kinds = []string{"claude", "github", "devcontainer", "boot"}

//go:embed install.sh
var installScript string

//go:embed boot.sh
var bootScript string

// Options are what a boot script does.
type Options struct {
	Version     string   // of the release that is downloaded, "v1.2.3"; "" for none
	Pins        []string // the SHA-256 of its programs, in hex
	PinsFile    string   // the pins.txt of the release; "" to download it
	DownloadURL string   // a mirror of the releases, which is asked last; "" for none
	Program     string   // without a Version: where clayer is if it is not on PATH, absolute or in the project
	Layers      []string // what is composed; none: what the project lists
	EnvFiles    string   // a directory whose *.env files are sourced; "" for none
	Repo        string   // --repo; "" for none
	Stores      []string // --store

	onlyOwn bool // the pins are of this program alone

	FileRepo   string // what the project's clayer.toml sets, which the script's commands read
	FileStores bool   // whether it sets stores
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

// Files returns what the hook of a kind is made of: the boot script first.
func Files(kind string, o Options) ([]File, error) {
	at := map[string]string{
		"claude": ".claude/hooks/clayer-boot.sh", "github": ".github/clayer-boot.sh",
		"devcontainer": ".devcontainer/clayer-boot.sh", "boot": "boot.sh",
	}[kind]
	if at == "" {
		return nil, fmt.Errorf("%q is none of %s", kind, strings.Join(Kinds, ", "))
	}
	script, err := boot(kind, at, o)
	if err != nil {
		return nil, err
	}
	files := []File{{Path: at, Text: script, Mode: 0o755}}
	switch kind {
	case "claude":
		text, err := claudeSettings(nil)
		if err != nil {
			return nil, err
		}
		files = append(files, File{Path: ".claude/settings.json", Text: text, Mode: 0o644, merge: claudeSettings})
	case "github":
		note := "a step of a job, after actions/checkout"
		if repo := o.repo(); repo != "" {
			note += "; to write to " + repo + " the job needs \"permissions: contents: write\", or, if that is another repository, a token of its own as GH_TOKEN"
		}
		files = append(files, File{Text: []byte("- name: clayer\n  run: sh " + at + "\n  env:\n    GH_TOKEN: ${{ github.token }}\n"),
			Note: note})
	case "devcontainer":
		const line = `"postCreateCommand": "sh .devcontainer/clayer-boot.sh"`
		files = append(files, File{Path: ".devcontainer/devcontainer.json", Mode: 0o644,
			Text: []byte("{\n\t\"image\": \"mcr.microsoft.com/devcontainers/base:debian\",\n\t" + line + "\n}\n"),
			// It has comments, as a rule, which no JSON package preserves.
			merge: func(old []byte) ([]byte, error) {
				if bytes.Contains(old, []byte("clayer-boot.sh")) {
					return old, nil
				}
				return nil, fmt.Errorf("%w: add %s", ErrByHand, line)
			}})
	}
	return files, nil
}

// ErrByHand says that a file is there already, and what to add to it.
var ErrByHand = errors.New("it is there already")

// plain is what a script may contain without quotes.
var plain = lazyregexp.New(`^[A-Za-z0-9_./:@%+=-]+$`)

// missing is what a script says that no release can be downloaded for.
const missing = `clayer_install() {
	echo "clayer: no clayer is on PATH, nor is there $CLAYER_BOOT_PROGRAM; the build that wrote this script is no release, and can't be downloaded" >&2
	echo "hint: put clayer on PATH when the machine is set up, or write this script for a release: clayer init KIND --release v1.2.3" >&2
	return 1
}
`

func boot(kind, at string, o Options) ([]byte, error) {
	for _, w := range slices.Concat([]string{o.EnvFiles, o.Repo, o.DownloadURL, o.Version}, o.Pins, o.Layers, o.Stores) {
		if w != "" && !plain().MatchString(w) {
			return nil, fmt.Errorf("%q can't stand in a script", w)
		}
	}
	// Of the script's own variables, the session's have the last word.
	var variables strings.Builder
	set := func(name, value string, exported bool) {
		if value == "" {
			return
		}
		fmt.Fprintf(&variables, "%[1]s=${%[1]s-%[2]s}\n", name, value)
		if exported {
			fmt.Fprintf(&variables, "export %s\n", name)
		}
	}
	set("CLAYER_ENV_FILES", o.EnvFiles, false)
	set("CLAYER_DOWNLOAD_URL", o.DownloadURL, false)
	set("CLAYER_REPO", o.Repo, true)
	if kind != "github" { // a job that tests the wrong environment has to fail
		set("CLAYER_BEST_EFFORT", "true", true)
	}
	if kind == "claude" {
		set("CLAYER_BUDGET", hookBudget, true)
	}
	set("CLAYER_STORE", strings.Join(o.Stores, "\n"), true)

	program, install := `"$CLAYER_BOOT_DIR/clayer"`, ""
	if o.Version == "" {
		program = "'" + strings.ReplaceAll(o.Program, "'", `'\''`) + "'"
		install = strings.ReplaceAll(missing, "KIND", kind)
	} else {
		install = installer()
	}
	layers := ""
	if len(o.Layers) > 0 {
		layers = " " + strings.Join(o.Layers, " ")
	}
	// Not by text/template: what it may call by name, which is any method, would
	// all stay in the binary: 4.5 MB.
	fill := strings.NewReplacer("{{.Path}}", at, "{{.Version}}", o.Version, "{{.Pins}}", strings.Join(o.Pins, " "), "{{.Program}}", program,
		"{{.Variables}}", variables.String(), "{{.Layers}}", layers, "{{.Install}}", install)
	return []byte(fill.Replace(bootScript)), nil
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

// hookBudget is how long a solve may take in a hook of Claude Code: its limit is that of
// claudeHook, in which clayer is downloaded too.
const hookBudget = "540s"

// claudeHook is the entry of Claude Code's settings that runs the boot script.
const claudeHook = `{
        "matcher": "startup|resume",
        "hooks": [
          {
            "type": "command",
            "command": "sh \"$CLAUDE_PROJECT_DIR/.claude/hooks/clayer-boot.sh\"",
            "timeout": 600
          }
        ]
      }`

// claudeSettings adds the SessionStart hook to the settings, and preserves the rest
// in its order.
func claudeSettings(old []byte) ([]byte, error) {
	if bytes.Contains(old, []byte("clayer-boot.sh")) {
		return old, nil
	}
	if len(bytes.TrimSpace(old)) == 0 {
		old = []byte("{}")
	}
	settings, err := readObject(old)
	if err != nil {
		return nil, fmt.Errorf("it is no JSON: %w", err)
	}
	hooks, err := readObject(settings.get("hooks", "{}"))
	if err != nil {
		return nil, fmt.Errorf("hooks: %w", err)
	}
	var starts []json.RawMessage
	if err := json.Unmarshal(hooks.get("SessionStart", "[]"), &starts); err != nil {
		return nil, fmt.Errorf("hooks.SessionStart: %w", err)
	}
	list := make([][]byte, 0, len(starts)+1)
	for _, s := range append(starts, json.RawMessage(claudeHook)) {
		list = append(list, s) // as it is: json.Marshal would write && as \u0026\u0026
	}
	hooks.set("SessionStart", slices.Concat([]byte("["), bytes.Join(list, []byte(",")), []byte("]")))
	settings.set("hooks", hooks.bytes())
	var b bytes.Buffer
	if err := json.Indent(&b, settings.bytes(), "", "  "); err != nil {
		return nil, err
	}
	return append(b.Bytes(), '\n'), nil
}

// object is a JSON object whose members stay in order.
type object struct {
	names  []string
	values map[string]json.RawMessage
}

func readObject(data []byte) (*object, error) {
	o := &object{values: make(map[string]json.RawMessage)}
	if err := json.Unmarshal(data, &o.values); err != nil {
		return nil, err
	}
	if o.values == nil { // null
		o.values = make(map[string]json.RawMessage)
		return o, nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	_, _ = d.Token() // the brace; it parsed a moment ago
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var skip json.RawMessage
		if err := d.Decode(&skip); err != nil {
			return nil, err
		}
		if !slices.Contains(o.names, name.(string)) {
			o.names = append(o.names, name.(string))
		}
	}
	return o, nil
}

func (o *object) get(name, none string) json.RawMessage {
	if v, ok := o.values[name]; ok {
		return v
	}
	return json.RawMessage(none)
}

func (o *object) set(name string, value json.RawMessage) {
	if _, ok := o.values[name]; !ok {
		o.names = append(o.names, name)
	}
	o.values[name] = value
}

func (o *object) bytes() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range o.names {
		if i > 0 {
			b.WriteByte(',')
		}
		key, _ := json.Marshal(name) // of a string: no error
		b.Write(key)
		b.WriteByte(':')
		b.Write(o.values[name])
	}
	b.WriteByte('}')
	return b.Bytes()
}
