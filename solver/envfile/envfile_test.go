package envfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/reference"
	"github.com/clayer/clayer/internal/testexec"
)

// awkward are values that a form could garble, and what they are to be.
var awkward = []frontend.Var{
	{Name: "QUOTES", Value: `it's "quoted" \ \\ $HOME $(x) ` + "`x` ‘curly’"},
	{Name: "MULTI", Value: "one\n\ntwo\n"},
	{Name: "PATH", Value: "/x:" + reference.To("PATH") + ":/y"},
	{Name: "OLD", Value: reference.To("PATH")},
	{Name: "UNSET", Value: "a" + reference.To("NOSUCH") + "b"},
	{Name: "EMPTY", Value: ""},
	{Name: "END", Value: "CLAYER_END\nx"},
	{Name: "TAB", Value: "\t# é ß \x1b[1m"},
}

var awkwardWant = []string{
	awkward[0].Value, awkward[1].Value, "/x:/usr/bin:/bin:/y", "/usr/bin:/bin", "ab", "", awkward[6].Value, awkward[7].Value,
}

var awkwardEnviron = []string{"PATH=/usr/bin:/bin", "HOME=/nowhere"}

// Each shell that is here takes the values as they are.
func TestFormatSurvivesShells(t *testing.T) {
	printer := filepath.Join(t.TempDir(), "print")
	script := "#!/bin/sh\nfor n in QUOTES MULTI PATH OLD UNSET EMPTY END TAB; do eval \"printf '%s\\\\0' \\\"\\$$n\\\"\"; done\n"
	if err := testexec.WriteFile(printer, []byte(script)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		format string
		argv   []string
	}{
		{"sh", []string{"sh", "-euc"}},
		{"sh", []string{"dash", "-euc"}},
		{"sh", []string{"bash", "--norc", "-euc"}},
		{"sh", []string{"zsh", "-f", "-euc"}},
		{"sh", []string{"ksh", "-euc"}},
		{"fish", []string{"fish", "--no-config", "-c"}},
		{"powershell", []string{"pwsh", "-NoProfile", "-Command"}},
	} {
		t.Run(tt.argv[0], func(t *testing.T) {
			shell, err := exec.LookPath(tt.argv[0])
			if err != nil {
				t.Skip(err)
			}
			text, err := Format(awkward, tt.format, nil)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(shell, append(tt.argv[1:], string(text)+printer)...)
			cmd.Env = slices.Concat(awkwardEnviron, []string{"HOME=" + t.TempDir()})
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, text)
			}
			if diff := cmp.Diff(append(slices.Clone(awkwardWant), ""), strings.Split(string(out), "\x00")); diff != "" {
				t.Errorf("(-want +got):\n%s\nof %s", diff, text)
			}
		})
	}
	if _, err := Format(awkward, "cmd.exe", nil); err == nil {
		t.Error("an unknown shell has no error")
	}
}

func TestFormatForPowerShell(t *testing.T) {
	text, _ := Format([]frontend.Var{
		{Name: "A", Value: "it's ‘so’\n$x"}, {Name: "PATH", Value: "/x:" + reference.To("PATH")}, {Name: "B", Value: reference.To("PATH") + reference.To("C")},
	}, "powershell", nil)
	want := "$__clayer0 = ${env:PATH}\n${env:A} = 'it''s ‘‘so’’\n$x'\n${env:PATH} = '/x:' + $__clayer0 + ''\n${env:B} = '' + $__clayer0 + '' + ${env:C} + ''\n"
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
}

func TestFormatAsJSON(t *testing.T) {
	text, err := Format(awkward, "json", awkwardEnviron)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for i, v := range awkward {
		if got[v.Name] != awkwardWant[i] {
			t.Errorf("%s is %q, want %q", v.Name, got[v.Name], awkwardWant[i])
		}
	}
}

// readGitHubEnv reads a file of $GITHUB_ENV as the runner does: NAME=value, or
// NAME<<END, lines, END.
func readGitHubEnv(t *testing.T, text string) map[string]string {
	t.Helper()
	vars := make(map[string]string)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		name, end, ok := strings.Cut(lines[i], "<<")
		if !ok {
			t.Fatalf("line %d: %q", i+1, lines[i])
		}
		n := slices.Index(lines[i+1:], end)
		if n < 0 {
			t.Fatalf("%s: %q is missing", name, end)
		}
		vars[name] = strings.Join(lines[i+1:i+1+n], "\n")
		i += n + 1
	}
	return vars
}

func TestGitHub(t *testing.T) {
	vars := append(slices.Clone(awkward), frontend.Var{Name: "GITHUB_SHA", Value: "x"}, frontend.Var{Name: "NODE_OPTIONS", Value: "x"})
	env, path, left := GitHub(vars, awkwardEnviron)
	got := readGitHubEnv(t, string(env))
	for i, v := range awkward {
		if got[v.Name] != awkwardWant[i] {
			t.Errorf("%s is %q, want %q", v.Name, got[v.Name], awkwardWant[i])
		}
	}
	if len(got) != len(awkward) || len(path) > 0 || fmt.Sprint(left) != "[GITHUB_SHA NODE_OPTIONS]" {
		t.Errorf("%d variables, path %q, left %v", len(got), path, left)
	}
	// Directories before PATH: the runner puts each line before the last.
	env, path, _ = GitHub([]frontend.Var{{Name: "PATH", Value: "/a:/b:" + reference.To("PATH")}}, awkwardEnviron)
	if string(path) != "/b\n/a\n" || len(env) > 0 {
		t.Errorf("path %q, env %q", path, env)
	}
}

func TestWriteBlockReplacesItsOwnAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env.sh")
	write := func(commands string) string {
		t.Helper()
		if err := WriteBlock(t.Context(), path, []byte(commands)); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if err := os.WriteFile(path, []byte("export MINE=1"), 0o600); err != nil {
		t.Fatal(err)
	}
	once := write("export A=1\n")
	if want := "export MINE=1\n# clayer env: begin\nexport A=1\n# clayer env: end\n"; once != want {
		t.Errorf("%q, want %q", once, want)
	}
	if again := write("export A=1\n"); again != once {
		t.Errorf("a second time: %q", again)
	}
	if err := os.WriteFile(path, append(bytes.Clone([]byte(once)), "export LATER=1\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := write("export B=2\n"); got != "export MINE=1\n# clayer env: begin\nexport B=2\n# clayer env: end\nexport LATER=1\n" {
		t.Errorf("%q", got)
	}
	if got := write(""); got != "export MINE=1\nexport LATER=1\n" {
		t.Errorf("%q", got)
	}
}
