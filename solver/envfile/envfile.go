// Package envfile writes variables in the forms in which shells, and the hosts of
// a session, read them.
package envfile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/frontend/reference"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// Formats are the forms that Format writes.
var Formats = []string{"sh", "fish", "powershell", "json"}

// Format writes variables as the commands of a shell, "sh", "fish" or
// "powershell", or as "json", an object with references resolved in environ. The
// commands refer to the session as it was before the first of them.
func Format(vars []frontend.Var, format string, environ []string) ([]byte, error) {
	switch format {
	case "sh":
		return Sh(vars), nil
	case "fish":
		return formatFish(vars), nil
	case "powershell", "pwsh":
		return formatPowerShell(vars), nil
	case "json":
		values := make(map[string]string, len(vars))
		for _, v := range resolved(vars, environ) {
			values[v.Name] = v.Value
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err := enc.Encode(values)
		return b.Bytes(), err
	}
	return nil, fmt.Errorf("%s: want %s", format, strings.Join(Formats, ", "))
}

// resolved returns the variables with their references resolved in environ.
func resolved(vars []frontend.Var, environ []string) []frontend.Var {
	session := make(map[string]string, len(environ))
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			session[name] = value
		}
	}
	var list []frontend.Var
	for _, v := range vars {
		list = append(list, frontend.Var{Name: v.Name, Value: reference.Substitute(v.Value, func(name string) string { return session[name] })})
	}
	return list
}

// shellName is a name that a shell can set; the environment can hold others.
var shellName = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Sh returns one command of a POSIX shell, since a POSIX shell expands all its values before
// it sets the first. zsh doesn't: what one value refers to and one before it sets
// is put aside first.
func Sh(vars []frontend.Var) []byte {
	vars = slices.DeleteFunc(slices.Clone(vars), func(v frontend.Var) bool { return !shellName().MatchString(v.Name) })
	if len(vars) == 0 {
		return nil
	}
	var aside []string
	for i, v := range vars {
		for _, name := range reference.Names(v.Value) {
			if indexVar(vars[:i], name) >= 0 && !slices.Contains(aside, name) {
				aside = append(aside, name)
			}
		}
	}
	var b bytes.Buffer
	for _, name := range aside {
		fmt.Fprintf(&b, "__clayer_%s=\"${%s-}\"; ", name, name)
	}
	b.WriteString("export")
	for _, v := range vars {
		value := reference.Substitute(quoteSh(v.Value), func(name string) string {
			if slices.Contains(aside, name) {
				name = "__clayer_" + name
			}
			return `'"${` + name + `-}"'`
		})
		fmt.Fprintf(&b, " %s=%s", v.Name, value)
	}
	for _, name := range aside {
		fmt.Fprintf(&b, "; unset __clayer_%s", name)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// quoteSh quotes a text for a POSIX shell.
func quoteSh(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// referred returns the names of the session's variables that values refer to and
// that one of vars sets, sorted: they must be read before.
func referred(vars []frontend.Var) []string {
	var names []string
	for _, v := range vars {
		for _, name := range reference.Names(v.Value) {
			if indexVar(vars, name) >= 0 {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// formatFish writes for fish, whose lists of directories are joined with ":" within
// double quotes, and split again when set.
func formatFish(vars []frontend.Var) []byte {
	vars = slices.DeleteFunc(slices.Clone(vars), func(v frontend.Var) bool { return !shellName().MatchString(v.Name) })
	if len(vars) == 0 {
		return nil
	}
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }
	was := referred(vars)
	var b bytes.Buffer
	b.WriteString("begin\n")
	for _, name := range was {
		fmt.Fprintf(&b, "set -l __clayer_%s \"$%s\"\n", name, name)
	}
	for _, v := range vars {
		value := reference.Substitute(quote(v.Value), func(name string) string {
			if slices.Contains(was, name) {
				name = "__clayer_" + name
			}
			return `'"$` + name + `"'`
		})
		fmt.Fprintf(&b, "set -gx %s %s\n", v.Name, value)
	}
	b.WriteString("end\n")
	return b.Bytes()
}

// formatPowerShell writes for PowerShell, to which four kinds of single quotes
// are one.
func formatPowerShell(vars []frontend.Var) []byte {
	quote := func(s string) string {
		return "'" + strings.NewReplacer("'", "''", "‘", "‘‘", "’", "’’", "‚", "‚‚", "‛", "‛‛").Replace(s) + "'"
	}
	was := referred(vars)
	var b bytes.Buffer
	for i, name := range was {
		fmt.Fprintf(&b, "$__clayer%d = ${env:%s}\n", i, name)
	}
	for _, v := range vars {
		value := reference.Substitute(quote(v.Value), func(name string) string {
			if i := slices.Index(was, name); i >= 0 {
				return fmt.Sprintf("' + $__clayer%d + '", i)
			}
			return "' + ${env:" + name + "} + '"
		})
		fmt.Fprintf(&b, "${env:%s} = %s\n", v.Name, value)
	}
	return b.Bytes()
}

// runnersOwn are variables that a step of GitHub Actions can't set for the next.
var runnersOwn = lazyregexp.New(`^(GITHUB_|RUNNER_|NODE_OPTIONS$)`)

// GitHub writes what a step of GitHub Actions appends to $GITHUB_ENV and to
// $GITHUB_PATH, and returns the names that it can't set. Directories before PATH
// go to the second, so that those that other steps add stay.
func GitHub(vars []frontend.Var, environ []string) (env, path []byte, left []string) {
	var e, p bytes.Buffer
	values := resolved(vars, environ)
	for i, v := range vars {
		if runnersOwn().MatchString(v.Name) {
			left = append(left, v.Name)
			continue
		}
		if front, ok := strings.CutSuffix(v.Value, ":"+reference.To("PATH")); ok && v.Name == "PATH" && len(reference.Names(front)) == 0 && !strings.Contains(front, "\n") {
			// Each line adds its directory before those of the last.
			for _, part := range slices.Backward(strings.Split(front, ":")) {
				fmt.Fprintln(&p, part)
			}
			continue
		}
		// The end is a line that the value has not.
		end := "CLAYER_END"
		for strings.Contains(values[i].Value, end) {
			end += "_"
		}
		fmt.Fprintf(&e, "%s<<%s\n%s\n%s\n", v.Name, end, values[i].Value, end)
	}
	return e.Bytes(), p.Bytes(), left
}

// Lines that the commands of WriteBlock stand between.
const (
	blockBegin = "# clayer env: begin"
	blockEnd   = "# clayer env: end"
)

// WriteBlock makes commands a part of the file at path, a script that a shell
// sources before each command, such as the one in Claude Code's
// $CLAUDE_ENV_FILE. What an earlier call wrote there is replaced; the rest of the
// file stays.
func WriteBlock(ctx context.Context, path string, commands []byte) error {
	return writeBlock(ctx, path, commands, false)
}

// WriteBlockFirst is WriteBlock, but a block that is not there yet is put at the beginning of
// the file: what a shell reads when it starts may end early.
func WriteBlockFirst(ctx context.Context, path string, commands []byte) error {
	return writeBlock(ctx, path, commands, true)
}

func writeBlock(ctx context.Context, path string, commands []byte, first bool) error {
	_, err := edit.Update(ctx, path, func(src []byte) ([]byte, error) {
		var block []byte
		if len(commands) > 0 {
			block = slices.Concat([]byte(blockBegin+"\n"), commands, []byte(blockEnd+"\n"))
		}
		begin := bytes.Index(src, []byte(blockBegin+"\n"))
		if begin < 0 {
			if first {
				return slices.Concat(block, src), nil
			}
			if len(src) > 0 && src[len(src)-1] != '\n' {
				block = append([]byte("\n"), block...)
			}
			return slices.Concat(src, block), nil
		}
		n := bytes.Index(src[begin:], []byte("\n"+blockEnd+"\n"))
		if n < 0 {
			return nil, fmt.Errorf("%s: %q has no %q", path, blockBegin, blockEnd)
		}
		rest := src[begin+n+len("\n"+blockEnd+"\n"):]
		return slices.Concat(src[:begin], block, rest), nil
	})
	return err
}

// Append appends to a file that must be there: what the host of a hook made.
func Append(path string, data []byte) (err error) {
	if len(data) == 0 {
		return nil
	}
	f, err := os.OpenFile(filepath.Clean(path), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(data) // one write: steps of a job may append at the same time
	return err
}

func indexVar(vars []frontend.Var, name string) int {
	return slices.IndexFunc(vars, func(v frontend.Var) bool { return v.Name == name })
}
