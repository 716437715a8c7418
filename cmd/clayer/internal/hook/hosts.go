package hook

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clayer/clayer/internal/splice"
)

// host is what a host of sessions reads, and how it runs it.
type host struct {
	name string
	at   string // where the boot script is in the project; "" where the host has no file for it

	budget time.Duration // of a solve: the host's limit, without a margin; 0 for none
	limit  time.Duration // after which the host ends the script, or punishes it; 0 if none is known

	strict         bool // a boot that fails, fails: the jobs of these hosts test
	yes            bool // the script runs on machines of the host alone
	session        bool // it runs in each session, after the host has copied the disk
	bash           bool // later shells read the variables from the files of bash
	emptyVariables bool // the session's variables are set, to nothing

	files func(h *host, o Options) []File // beside the script

	template string // of the script; "" for that of a boot
}

// claudeMargin is what a hook of Claude Code has beside the budget of the solve: for clayer to
// be downloaded, and to end.
const claudeMargin = time.Minute

var hosts = []*host{
	{name: "claude", at: ".claude/hooks/clayer-boot.sh", budget: 9 * time.Minute, session: true, files: forClaude},
	{name: "claude-setup", budget: 4 * time.Minute, limit: 5 * time.Minute, yes: true, bash: true, emptyVariables: true},
	{name: "codex", at: ".codex/clayer-boot.sh", budget: 9 * time.Minute, bash: true, files: pasted("the setup script of the environment, and its maintenance script")},
	{name: "cursor", at: ".cursor/clayer-boot.sh", budget: 9 * time.Minute, bash: true, files: forCursor},
	{name: "copilot", at: ".github/clayer-copilot-boot.sh", budget: 20 * time.Minute, limit: 59 * time.Minute, bash: true, files: forCopilot},
	{name: "github", at: ".github/clayer-boot.sh", strict: true, files: forGitHub},
	{name: "gitlab", at: ".gitlab/clayer-boot.sh", strict: true, files: forGitLab},
	{name: "devcontainer", at: ".devcontainer/clayer-boot.sh", bash: true, files: forDevcontainer},
	{name: "jules", at: ".jules/clayer-boot.sh", budget: 4 * time.Minute, bash: true, files: pasted("the setup script of the environment")},
	{name: "boot", at: "boot.sh"},
}

// Kinds are the hosts that there are hooks for.
func Kinds() []string {
	var names []string
	for _, h := range hosts {
		names = append(names, h.name)
	}
	return names
}

// budgetOf returns how long a solve may take; 0 for as long as it takes.
func (h *host) budgetOf(o Options) time.Duration {
	if o.Budget > 0 {
		return o.Budget
	}
	return h.budget
}

// Files returns what the hook of a kind is made of: the boot script first.
func Files(kind string, o Options) ([]File, error) {
	i := slices.IndexFunc(hosts, func(h *host) bool { return h.name == kind })
	if i < 0 {
		return nil, fmt.Errorf("%q is none of %s", kind, strings.Join(Kinds(), ", "))
	}
	h := hosts[i]
	if o.Base != "" {
		if kind != "github" || o.Budget > 0 || o.EnvFiles != "" {
			return nil, errors.New("--prebuild is for a workflow of GitHub Actions, which has no --budget and no --env-files")
		}
		h = prebuild
	}
	if budget := h.budgetOf(o); h.limit > 0 && budget > h.limit-30*time.Second {
		return nil, fmt.Errorf("--budget=%s: %s has a limit of %s for all of it, of which clayer needs 30 s to be installed and to end", budget, kind, h.limit)
	}
	if kind == "claude-setup" && o.Repo == "" && len(o.Stores) == 0 {
		o.Repo, o.Stores = o.FileRepo, o.FileStores // the script may run where the file is not
	}
	script, err := h.script(o)
	if err != nil {
		return nil, err
	}
	files := []File{{Path: h.at, Text: script, Mode: 0o755}}
	if h.at == "" {
		files[0].Note = "the setup script of the environment, all of it"
	}
	if h.files != nil {
		files = append(files, h.files(h, o)...)
	}
	return files, nil
}

// ErrByHand says that a file is there already, and what to add to it.
var ErrByHand = errors.New("it is there already")

// command is what a host runs in the project. It is of the host alone, so that nobody is asked
// whether its machine may be changed.
func (h *host) command() string { return "CLAYER_YES=1 sh " + h.at }

// pasted is a line that the user copies to a place of the host.
func pasted(where string) func(h *host, o Options) []File {
	return func(h *host, _ Options) []File {
		return []File{{Text: []byte(h.command() + "\n"), Note: where}}
	}
}

// forClaude returns the settings of Claude Code with the hook. Other hooks, and the rest, stay.
func forClaude(h *host, o Options) []File {
	seconds := (h.budgetOf(o) + claudeMargin).Seconds()
	timeout := fmt.Sprintf("%.0f", seconds)
	entry := `{
  "matcher": "startup|resume",
  "hooks": [
    {
      "type": "command",
      "command": "sh \"$CLAUDE_PROJECT_DIR/` + h.at + `\"",
      "timeout": ` + timeout + `
    }
  ]
}`
	merge := func(old []byte) ([]byte, error) {
		// One that is there gets the time that today's budget needs.
		for i := 0; ; i++ {
			group, err := splice.Value(old, "hooks", "SessionStart", i)
			if err != nil || group == nil {
				break
			}
			for j := 0; ; j++ {
				command, err := splice.Value(old, "hooks", "SessionStart", i, "hooks", j, "command")
				if err != nil || command == nil {
					break
				}
				if bytes.Contains(command, []byte("clayer-boot.sh")) {
					has, _ := splice.Value(old, "hooks", "SessionStart", i, "hooks", j, "timeout")
					if n, err := strconv.ParseFloat(string(has), 64); err == nil && n >= seconds {
						return old, nil
					}
					return splice.SetValue(old, timeout, "hooks", "SessionStart", i, "hooks", j, "timeout")
				}
			}
		}
		if string(bytes.TrimSpace(old)) == "null" {
			old = nil
		}
		return splice.SetValue(old, entry, "hooks", "SessionStart", splice.Append)
	}
	text, _ := merge(nil) // no text has no faults
	return []File{{Path: ".claude/settings.json", Text: text, Mode: 0o644, merge: merge}}
}

// ours reports whether the boot script is run already.
func (h *host) ours(old []byte) bool { return bytes.Contains(old, []byte(h.at)) }

// runFirst returns a merge that has the command line at a member of a JSON file run the boot
// script, before what it runs already.
func (h *host) runFirst(name, command string) func(old []byte) ([]byte, error) {
	return func(old []byte) ([]byte, error) {
		if h.ours(old) {
			return old, nil
		}
		value, err := splice.Value(old, name)
		if err != nil {
			return nil, fmt.Errorf("it is no JSON: %w", err)
		}
		switch {
		case value == nil || string(value) == "null" || string(value) == `""`:
			return splice.SetValue(old, `"`+command+`"`, name)
		case value[0] == '"':
			return splice.SetValue(old, `"`+command+` && `+string(value[1:]), name)
		case value[0] == '{' && name == "postCreateCommand": // several, which run at the same time
			return splice.SetValue(old, `"`+command+`"`, name, "clayer")
		}
		return nil, fmt.Errorf("%w, and %s is no command line: have it run %s first", ErrByHand, name, command)
	}
}

// forCursor returns what Cursor runs before its agent starts.
func forCursor(h *host, _ Options) []File {
	text := "{\n  \"install\": \"" + h.command() + "\"\n}\n"
	return []File{{Path: ".cursor/environment.json", Text: []byte(text), Mode: 0o644, merge: h.runFirst("install", h.command())}}
}

// forDevcontainer returns a devcontainer.json. What is there already mostly has comments, which
// stay.
func forDevcontainer(h *host, _ Options) []File {
	command := "sh " + h.at
	text := "{\n\t\"image\": \"mcr.microsoft.com/devcontainers/base:debian\",\n\t\"postCreateCommand\": \"" + command + "\"\n}\n"
	return []File{{Path: ".devcontainer/devcontainer.json", Text: []byte(text), Mode: 0o644, merge: h.runFirst("postCreateCommand", command)}}
}

// step is a step of a job of GitHub Actions.
func (h *host) step(more string) string {
	return "- name: clayer\n  run: sh " + h.at + "\n" + more + "  env:\n    GH_TOKEN: ${{ github.token }}\n"
}

// forGitHub returns the step of a job.
func forGitHub(h *host, o Options) []File {
	note := "a step of a job, after actions/checkout"
	if repo := o.repo(); repo != "" {
		note += "; to write to " + repo + " the job needs \"permissions: contents: write\", or, if that is another repository, a token of its own as GH_TOKEN"
	}
	return []File{{Text: []byte(h.step("")), Note: note}}
}

// forCopilot returns the workflow that Copilot's agent runs before it starts. Its job and its file
// have to have these names.
func forCopilot(h *host, o Options) []File {
	const job, checkout = "copilot-setup-steps", "- uses: actions/checkout@v5\n"
	minutes := int((h.budgetOf(o) + 2*time.Minute - 1) / time.Minute)
	step := h.step(fmt.Sprintf("  timeout-minutes: %d\n", minutes))
	text := `# The agent of Copilot runs this job before it starts. Written by "clayer init copilot".
name: Copilot Setup Steps
on:
  workflow_dispatch:
  push:
    paths: [.github/workflows/` + job + `.yml]
jobs:
  ` + job + `:
    runs-on: ubuntu-latest
    timeout-minutes: ` + fmt.Sprint(min(minutes+5, 59)) + `
    permissions:
      contents: read
    steps:
      ` + strings.ReplaceAll(strings.TrimSuffix(checkout+step, "\n"), "\n", "\n      ") + "\n"
	merge := func(old []byte) ([]byte, error) {
		if h.ours(old) {
			return old, nil
		}
		item := step
		isCheckout := func(item string) bool { return strings.Contains(item, "actions/checkout@") }
		if !isCheckout(string(old)) {
			item = checkout + step
		}
		merged, err := splice.AddItem(string(old), item, isCheckout, "jobs", job, "steps")
		if err != nil {
			return nil, fmt.Errorf("%w: %w: add a step that runs sh %s to the job %s, after actions/checkout", ErrByHand, err, h.at, job)
		}
		return []byte(merged), nil
	}
	return []File{{Path: ".github/workflows/" + job + ".yml", Text: []byte(text), Mode: 0o644, merge: merge}}
}

// forGitLab returns a job of GitLab CI that others extend, and what includes it. Its script is
// sourced: the shell of before_script is that of the job's own commands.
func forGitLab(h *host, _ Options) []File {
	const part = ".gitlab/clayer.yml"
	template := `# Jobs with "extends: .clayer" run in the environment. Written by "clayer init gitlab".
.clayer:
  before_script:
    - . ./` + h.at + "\n"
	const item = "- local: " + part + "\n"
	merge := func(old []byte) ([]byte, error) {
		if bytes.Contains(old, []byte(part)) {
			return old, nil
		}
		merged, err := splice.AddItem(string(old), item, func(string) bool { return false }, "include")
		if errors.Is(err, splice.ErrNone) {
			newline := "\n"
			if bytes.Contains(old, []byte("\r\n")) {
				newline = "\r\n"
			}
			head := string(old)
			if head != "" && !strings.HasSuffix(head, "\n") {
				head += newline
			}
			return []byte(head + "include:" + newline + "  " + strings.TrimSuffix(item, "\n") + newline), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w: add %q to it", ErrByHand, err, strings.TrimSpace(item))
		}
		return []byte(merged), nil
	}
	text := "include:\n  " + item + "\ntest:\n  extends: .clayer\n  script:\n    - clayer status\n"
	return []File{
		{Path: part, Text: []byte(template), Mode: 0o644},
		{Path: ".gitlab-ci.yml", Text: []byte(text), Mode: 0o644, merge: merge},
	}
}
