package registry_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	spec "oras.land/oras-go/v2/registry"

	"github.com/clayer/clayer/cache/registry"
)

func TestFindLogin(t *testing.T) {
	for _, tt := range []struct {
		name, host   string
		env          map[string]string
		config       string
		from, helper string
		secrets      string
		err          string
	}{
		{name: "nobody"},
		{name: "the variables", env: map[string]string{registry.UserVariable: "me", registry.PasswordVariable: "pw"}, config: `{"auths":{"ghcr.io":{"auth":"bWU6b3RoZXI="}}}`, from: "$" + registry.UserVariable, secrets: "pw"},
		{name: "one variable alone", env: map[string]string{registry.PasswordVariable: "very-secret"}, err: "go together"},
		{name: "a user and a password", config: `{"auths":{"ghcr.io":{"auth":"bWU6cHc="}}}`, from: "config.json", secrets: "pw"},
		{name: "with the legacy address", config: `{"auths":{"https://ghcr.io/v1/":{"auth":"bWU6cHc="}}}`, from: "config.json", secrets: "pw"},
		{name: "Docker Hub", host: "docker.io/me/env", config: `{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6cHc="}}}`, from: "config.json", secrets: "pw"},
		{name: "an identity token", config: `{"auths":{"ghcr.io":{"identitytoken":"refresh"}}}`, from: "config.json", secrets: "refresh"},
		{name: "a registry token", config: `{"auths":{"ghcr.io":{"registrytoken":"access"}}}`, from: "config.json", secrets: "access"},
		{name: "of another host", config: `{"auths":{"quay.io":{"auth":"bWU6cHc="}}}`},
		{name: "of another repository, beside a URL", config: `{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6cHc="},"ghcr.io/other/repo":{"auth":"bWU6b3RoZXI="}}}`},
		{name: "a helper for all", config: `{"credsStore":"x"}`, helper: "docker-credential-x"},
		{name: "a helper for the host", config: `{"credsStore":"x","credHelpers":{"ghcr.io":"y"}}`, helper: "docker-credential-y"},
		{name: "damaged", config: `{"auths":{"ghcr.io":{"auth":"bWU6c2VjcmV0`, err: "is not the JSON"},
		{name: "of another form", config: `{"auths":{"ghcr.io":{"auth":"c2VjcmV0"}}}`, err: "log in again with docker login"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.config != "" {
				if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(tt.config), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			host := tt.host
			if host == "" {
				host = "ghcr.io/me/env"
			}
			ref, err := spec.ParseReference(host)
			if err != nil {
				t.Fatal(err)
			}
			l, err := registry.FindLogin(ref, func(name string) string {
				if name == "DOCKER_CONFIG" {
					return dir
				}
				return tt.env[name]
			})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "c2Vjcm") {
					t.Fatalf("error = %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if filepath.Base(l.From) != tt.from && tt.from+l.From != "" || l.Helper != tt.helper || strings.Join(l.Secrets(), " ") != tt.secrets {
				t.Errorf("from %q, helper %q, secrets %q", l.From, l.Helper, l.Secrets())
			}
		})
	}
}

func TestLoginsOfPodman(t *testing.T) {
	ref := registry.Repository{Registry: "quay.io", Repository: "org/team/tool"}
	const docker, runtime, named = ".docker/config.json", "run/containers/auth.json", "named.json"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string // the password
	}{
		{"of the runtime directory", map[string]string{runtime: `{"auths":{"quay.io":{"auth":"bWU6cG9kbWFu"}}}`}, "podman"},
		{"docker's comes first", map[string]string{docker: `{"auths":{"quay.io":{"auth":"bWU6cHc="}}}`, runtime: `{"auths":{"quay.io":{"auth":"bWU6cG9kbWFu"}}}`}, "pw"},
		{"unless it has none", map[string]string{docker: `{"auths":{"ghcr.io":{"auth":"bWU6cHc="}}}`, runtime: `{"auths":{"quay.io":{"auth":"bWU6cG9kbWFu"}}}`}, "podman"},
		{"that which is named", map[string]string{docker: `{"auths":{"quay.io":{"auth":"bWU6cHc="}}}`, named: `{"auths":{"quay.io":{"auth":"bWU6cG9kbWFu"}}}`}, "podman"},
		{"of the namespace", map[string]string{runtime: `{"auths":{"quay.io":{"auth":"bWU6cHc="},"quay.io/org":{"auth":"bWU6cG9kbWFu"},"quay.io/other":{"auth":"bWU6b3RoZXI="}}}`}, "podman"},
		{"of another one", map[string]string{runtime: `{"auths":{"quay.io/other":{"auth":"bWU6b3RoZXI="}}}`}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			env := map[string]string{"HOME": dir, "XDG_RUNTIME_DIR": filepath.Join(dir, "run")}
			for name, text := range tt.files {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if name == named {
					env["REGISTRY_AUTH_FILE"] = path
				}
			}
			l, err := registry.FindLogin(ref, func(name string) string { return env[name] })
			if got := strings.Join(l.Secrets(), " "); err != nil || got != tt.want {
				t.Errorf("%q from %q, %v; want %q", got, l.From, err, tt.want)
			}
		})
	}
}
