// Package remote says how git reaches a repository: its address, and what the
// configuration and the environment of a working directory have about that.
package remote

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// OriginOf returns the URL of the origin of dir, as it is configured; "" for none.
func OriginOf(ctx context.Context, dir string) string {
	cmd := exec.CommandContext(ctx, "git", "config", "--get", "remote.origin.url")
	cmd.Dir, cmd.Env = dir, Environ()
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(out), "\n")
}

// Settings returns what the configuration of the repository around dir says about
// reaching servers. What the user and the system have configured applies anyway.
// What git does not read, as in a directory of another user, is not taken.
func Settings(ctx context.Context, path, dir string) (all [][2]string) {
	for _, scope := range []string{"--local", "--worktree"} {
		cmd := exec.CommandContext(ctx, path, "config", "--includes", scope, "--list", "-z")
		cmd.Dir, cmd.Env = dir, Environ()
		out, err := cmd.Output()
		if err != nil {
			continue
		}
		for entry := range strings.SplitSeq(string(out), "\x00") {
			name, value, ok := strings.Cut(entry, "\n")
			if !ok {
				value = "true" // a name alone
			}
			kv := [2]string{name, value}
			if name != "" && reaches(name) && !slices.Contains(all, kv) { // --worktree may be the same file
				all = append(all, kv)
			}
		}
	}
	return all
}

// reaches reports whether a setting says how a server is reached.
func reaches(name string) bool {
	section, _, _ := strings.Cut(name, ".")
	switch section {
	case "http", "url", "credential":
		return true
	}
	return slices.Contains([]string{"core.sshcommand", "core.gitproxy", "core.askpass", "ssh.variant", "remote.origin.pushurl", "remote.origin.proxy"}, name)
}

// SecretsOf returns the credentials in a setting: those of a header, and of a URL.
func SecretsOf(name, value string) (all []string) {
	if strings.HasSuffix(name, ".extraheader") {
		words := strings.Fields(value)
		if len(words) < 2 {
			return nil
		}
		last := words[len(words)-1]
		all = append(all, last)
		if plain, err := base64.StdEncoding.DecodeString(last); err == nil {
			if _, password, ok := strings.Cut(string(plain), ":"); ok && len(password) > 3 {
				all = append(all, password)
			}
		}
		return all
	}
	if rest, ok := strings.CutPrefix(name, "url."); ok {
		if base, _, ok := strings.Cut(rest, ".insteadof"); ok {
			return Address{URL: base}.Secrets()
		}
	}
	return Address{URL: value}.Secrets()
}

// Write writes a setting as a configuration file has it.
func Write(b *strings.Builder, name, value string) {
	section, rest, _ := strings.Cut(name, ".")
	key := rest
	if at := strings.LastIndexByte(rest, '.'); at >= 0 {
		sub := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(rest[:at])
		section, key = section+` "`+sub+`"`, rest[at+1:]
	}
	value = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(value)
	fmt.Fprintf(b, "[%s]\n\t%s = \"%s\"\n", section, key, value)
}

// redirecting are the variables that would lead git to another repository, or have it
// print what it should not.
func redirecting(name string) bool {
	switch name {
	case "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR",
		"GIT_NAMESPACE", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE", "GIT_QUARANTINE_PATH", "GIT_CONFIG", "GIT_PREFIX",
		"GIT_DEFAULT_HASH", "GIT_CURL_VERBOSE", "GIT_LITERAL_PATHSPECS", "GIT_PROTOCOL", "LC_ALL", "LANGUAGE":
		return true
	}
	return strings.HasPrefix(name, "GIT_TRACE") || strings.HasPrefix(name, "GIT_AUTHOR_") || strings.HasPrefix(name, "GIT_COMMITTER_")
}

// Environ returns the session's environment, as git gets it.
func Environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return redirecting(name)
	})
	env = append(env, "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "SSH_ASKPASS_REQUIRE=never", "GIT_NO_REPLACE_OBJECTS=1", "GIT_ADVICE=0",
		"GIT_AUTHOR_NAME=clayer", "GIT_AUTHOR_EMAIL=clayer@localhost", "GIT_COMMITTER_NAME=clayer", "GIT_COMMITTER_EMAIL=clayer@localhost")
	for name, value := range map[string]string{
		"GIT_ALLOW_PROTOCOL":       "http:https:ssh:git:file",
		"GIT_HTTP_LOW_SPEED_LIMIT": "1000",
		"GIT_HTTP_LOW_SPEED_TIME":  "30",
	} {
		if os.Getenv(name) == "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}
