// Package ocitest runs a registry for tests: distribution's own, on loopback.
package ocitest

import (
	"bufio"
	"errors"
	"fmt"
	"go/build"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// User may log in to a registry that requires a login, with Password.
const (
	User     = "me"
	Password = "pw-of-the-registry"

	hashed = "$2a$04$J.xspFGLAmR7Km9BSKooVuFiyW4g29y2BB69Jzvv35Ly7bMXSZbq2" // by bcrypt
)

// Options are how the registry is.
type Options struct {
	Login    bool // it requires one
	NoDelete bool // nothing can be deleted
	ReadOnly bool // nothing can be pushed either
}

// Command returns the path of the registry, as .ci/run installs it. The error
// says that there is none.
func Command() (string, error) {
	if path, err := exec.LookPath("registry"); err == nil {
		return path, nil
	}
	path := filepath.Join(build.Default.GOPATH, "clayer-tools", "registry")
	if _, err := os.Stat(path); err != nil {
		return "", errors.New("the registry of github.com/distribution/distribution is not installed; .ci/run does that")
	}
	return path, nil
}

// A Registry is a process, and the directory that it stores everything in.
type Registry struct {
	Host string // with its port

	process *os.Process
	done    chan struct{}
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// Start starts a registry on what dir holds. The caller closes it.
func Start(dir string, opt Options) (*Registry, error) {
	command, err := Command()
	if err != nil {
		return nil, err
	}
	auth := ""
	if opt.Login {
		file := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(file, []byte(User+":"+hashed+"\n"), 0o600); err != nil {
			return nil, err
		}
		auth = fmt.Sprintf("auth:\n  htpasswd:\n    realm: test\n    path: %q\n", file)
	}
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf(`version: 0.1
log: {level: info}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: %t}
  maintenance: {readonly: {enabled: %t}, uploadpurging: {enabled: false}}
http: {addr: "127.0.0.1:0", secret: test}
%s`, filepath.Join(dir, "data"), !opt.NoDelete, opt.ReadOnly, auth)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(command, "serve", config)
	cmd.Env = []string{"OTEL_TRACES_EXPORTER=none"}
	log, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &Registry{process: cmd.Process, done: make(chan struct{})}
	host := make(chan string, 1)
	go func() {
		defer close(r.done)
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				host <- m[1]
				break
			}
		}
		for lines.Scan() { // or it would wait for someone who reads
		}
		_ = cmd.Wait() // it is killed in the end
	}()
	select {
	case r.Host = <-host:
		return r, nil
	case <-r.done:
		return nil, errors.New("the registry ended at once")
	case <-time.After(30 * time.Second):
		r.Close()
		return nil, errors.New("the registry does not listen")
	}
}

// New starts a registry that ends with the test. The test is skipped where
// there is none.
func New(t testing.TB, opt Options) *Registry {
	t.Helper()
	if _, err := Command(); err != nil {
		t.Skip(err)
	}
	r, err := Start(t.TempDir(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// Close ends the registry, as a power cut does.
func (r *Registry) Close() {
	_ = r.process.Kill()
	<-r.done
}
