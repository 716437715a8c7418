package remote

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCertificates(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "proxy.pem")
	if err := os.WriteFile(file, []byte("the proxy's"), 0o644); err != nil {
		t.Fatal(err)
	}
	system := systemCertificates
	defer func() { systemCertificates = system }()
	systemCertificates = []string{filepath.Join(dir, "none"), filepath.Join(dir, "system.pem")}
	if err := os.WriteFile(systemCertificates[1], []byte("the system's"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		environ map[string]string
		config  string
		want    string // "" for git's own
	}{
		{name: "nothing is set"},
		{name: "the session's file", environ: map[string]string{"SSL_CERT_FILE": file}, want: "the system's\nthe proxy's"},
		{name: "a file that is not there", environ: map[string]string{"SSL_CERT_FILE": dir + "/no.pem"}},
		{name: "git has a variable of its own", environ: map[string]string{"SSL_CERT_FILE": file, "GIT_SSL_CAINFO": "/x"}},
		{name: "git is configured", environ: map[string]string{"SSL_CERT_FILE": file}, config: "[http]\n\tsslCAInfo = /x\n"},
		{name: "for one server", environ: map[string]string{"SSL_CERT_FILE": file}, config: "[http \"https://x.example\"]\n\tsslVerify = false\n"},
		{name: "git is configured otherwise", environ: map[string]string{"SSL_CERT_FILE": file}, config: "[http]\n\tproxyAuthMethod = basic\n", want: "the system's\nthe proxy's"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := t.TempDir()
			for _, name := range []string{"SSL_CERT_FILE", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_SSL_NO_VERIFY", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL"} {
				t.Setenv(name, tt.environ[name])
			}
			os.Unsetenv("GIT_CONFIG_GLOBAL")
			t.Setenv("HOME", home)
			t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
			if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(tt.config), 0o644); err != nil {
				t.Fatal(err)
			}
			got := Certificates(t.Context(), git, home)
			if string(got) != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			setting, err := Trust(home, got)
			written, _ := os.ReadFile(filepath.Join(home, "certificates.pem"))
			if err != nil || (setting == "") != (tt.want == "") || !bytes.Equal(written, got) || setting != "" && !strings.Contains(setting, "sslCAInfo = ") {
				t.Errorf("%q, %q, %v", setting, written, err)
			}
		})
	}
}
