package remote

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// systemCertificates are the files that crypto/x509 reads on Linux: the first that is there.
var systemCertificates = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/pki/tls/cacert.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// Certificates returns what git has to trust to reach the servers that this process reaches:
// the certificates of the system and those of SSL_CERT_FILE, which git itself does not read.
// It returns nil where that is not set, or where git is told what to trust: by a variable of
// its own, or by the configuration that applies in dir.
func Certificates(ctx context.Context, path, dir string) []byte {
	file := os.Getenv("SSL_CERT_FILE")
	if file == "" || os.Getenv("GIT_SSL_CAINFO") != "" || os.Getenv("GIT_SSL_CAPATH") != "" || os.Getenv("GIT_SSL_NO_VERIFY") != "" {
		return nil
	}
	own, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, path, "config", "--get-regexp", `^http\.(.*\.)?ssl(cainfo|capath|verify|backend)$`)
	cmd.Dir, cmd.Env = dir, Environ()
	if told, err := cmd.Output(); err == nil && len(told) > 0 {
		return nil
	}
	for _, name := range systemCertificates {
		if system, err := os.ReadFile(name); err == nil {
			return bytes.Join([][]byte{system, own}, []byte("\n"))
		}
	}
	return own
}

// Trust writes Certificates into a directory, and returns the setting with which a repository
// uses them; "" for none.
func Trust(dir string, certificates []byte) (string, error) {
	if certificates == nil {
		return "", nil
	}
	file := filepath.Join(dir, "certificates.pem")
	if err := os.WriteFile(file, certificates, 0o600); err != nil {
		return "", err
	}
	var b strings.Builder
	Write(&b, "http.sslCAInfo", file)
	return b.String(), nil
}
