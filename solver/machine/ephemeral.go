package machine

import (
	"os"
	"slices"
	"strings"
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
