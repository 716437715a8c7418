// Package hook writes what makes a session begin with its environment: a boot
// script, and what has Claude Code, GitHub Actions or a devcontainer run it.
package hook

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/frontend/lazyregexp"
)

// Kinds are the hosts that there are hooks for.
var Kinds = []string{"claude", "github", "devcontainer", "boot"}

//go:embed install.sh
var installScript string

//go:embed boot.sh
var bootScript string

// Options are what a boot script does.
type Options struct {
	Version   string   // of the release, "v1.2.3"
	Checksums string   // the SHA-256 of its checksums.txt, in hex
	Layers    []string // what is composed; none: what the project lists
	EnvFiles  string   // a folder whose *.env files are sourced; "" for none
}

// A File is one that a hook is made of.
type File struct {
	Path string // relative to the project, with slashes
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
	script, err := boot(at, o)
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
		files = append(files, File{Text: []byte("- name: clayer\n  run: sh " + at + "\n  env:\n    GH_TOKEN: ${{ github.token }}\n"),
			Note: "a step of a job, behind actions/checkout"})
	case "devcontainer":
		const line = `"postCreateCommand": "sh .devcontainer/clayer-boot.sh"`
		files = append(files, File{Path: ".devcontainer/devcontainer.json", Mode: 0o644,
			Text: []byte("{\n\t\"image\": \"mcr.microsoft.com/devcontainers/base:debian\",\n\t" + line + "\n}\n"),
			// It has comments, as a rule, which no JSON package keeps.
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

// plain is what may stand in a script as it is.
var plain = lazyregexp.New(`^[A-Za-z0-9_./-]+$`)

func boot(at string, o Options) ([]byte, error) {
	_, part, _ := strings.Cut(installScript, "# BEGIN install\n")
	part, _, _ = strings.Cut(part, "# END install\n")
	layers := ""
	for _, w := range append([]string{o.Version, o.Checksums}, o.Layers...) {
		if !plain().MatchString(w) {
			return nil, fmt.Errorf("%q can't stand in a script", w)
		}
	}
	if o.EnvFiles != "" && !plain().MatchString(o.EnvFiles) {
		return nil, fmt.Errorf("%q can't stand in a script", o.EnvFiles)
	}
	if len(o.Layers) > 0 {
		layers = " " + strings.Join(o.Layers, " ")
	}
	envFiles := ""
	if o.EnvFiles != "" {
		envFiles = "CLAYER_ENV_FILES=${CLAYER_ENV_FILES-" + o.EnvFiles + "}\n"
	}
	// Not by text/template: what it may call by name, which is any method, would
	// all be kept in the binary: 4.5 MB.
	fill := strings.NewReplacer("{{.Path}}", at, "{{.Version}}", o.Version, "{{.Checksums}}", o.Checksums,
		"{{.EnvFiles}}", envFiles, "{{.Layers}}", layers, "{{.Install}}", part)
	return []byte(fill.Replace(bootScript)), nil
}

// Write writes the file under dir. A file that is as it should be is left alone;
// one that a user may have changed is only replaced if it is a boot script, or
// what it holds stays. It reports whether anything was written.
func (f File) Write(ctx context.Context, dir string) (bool, error) {
	path := filepath.Join(dir, filepath.FromSlash(f.Path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	isNew := false
	changed, err := edit.Update(ctx, path, func(old []byte) ([]byte, error) {
		isNew = old == nil
		if old == nil || f.merge == nil && bytes.Contains(old, []byte("clayer init")) {
			return f.Text, nil
		}
		if f.merge == nil {
			return nil, fmt.Errorf("%w, and not of clayer init", fs.ErrExist)
		}
		return f.merge(old)
	})
	if err == nil && isNew {
		err = os.Chmod(path, f.Mode)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", f.Path, err)
	}
	return changed, err
}

// Checksums asks the release for what its checksums.txt is, which pins all of it.
func Checksums(ctx context.Context, base, version string) (string, error) {
	var b bytes.Buffer
	url := base + "/download/v" + strings.TrimPrefix(version, "v") + "/checksums.txt"
	if _, err := transfer.New(transfer.Options{UserAgent: "clayer"}).Get(ctx, url, &b, transfer.GetOptions{}); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(b.Bytes())), nil
}

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

// claudeSettings adds the SessionStart hook to the settings, and keeps the rest
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

// object is a JSON object whose members keep their order.
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
