package machine

import (
	"os"
	"slices"
	"strings"

	"github.com/clayer/clayer/internal/durability"
)

// ephemeralVars are set in the machines of those who throw them away.
var ephemeralVars = []string{
	"CI", "GITHUB_ACTIONS", "CODESPACES", "GITPOD_WORKSPACE_ID", "CLAUDE_CODE_REMOTE", "CODEX_SANDBOX",
	"KUBERNETES_SERVICE_HOST", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE", "container",
}

// ephemeralFiles are there in containers.
var ephemeralFiles = []string{"/.dockerenv", "/run/.containerenv", "/run/systemd/container"}

// Ephemeral reports by which sign this machine looks like one that ends with its
// session, such as a container; "" means that it doesn't look so.
func Ephemeral(environ []string) (sign string) {
	for _, path := range ephemeralFiles {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if value != "" && value != "false" && value != "0" && slices.Contains(ephemeralVars, name) {
			return "$" + name
		}
	}
	// gVisor answers with a kernel of its own.
	if b, err := os.ReadFile("/proc/version"); err == nil && strings.Contains(string(b), "gVisor") {
		return "gVisor"
	}
	return ""
}

// Durability returns what decides which changes have to outlive a loss of power at once:
// by the signs of Ephemeral, but not by those of a CI whose runner is a machine that stays.
// environ nil is that of this process.
func Durability(environ []string, setting durability.Setting) durability.Policy {
	if environ == nil {
		environ = os.Environ()
	}
	sign := Ephemeral(environ)
	if strings.HasPrefix(sign, "$") && (variable(environ, "RUNNER_ENVIRONMENT") == "self-hosted" ||
		variable(environ, "GITLAB_CI") != "" && variable(environ, "CI_DISPOSABLE_ENVIRONMENT") == "" ||
		variable(environ, "container") == "lxc") {
		sign = ""
	}
	return durability.Policy{Setting: setting, Sign: sign}
}

func variable(environ []string, name string) (value string) {
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}
