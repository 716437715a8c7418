package oracle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/build"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// tool finds a program on PATH, or where .ci/run installs what it builds.
func tool(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path := filepath.Join(build.Default.GOPATH, "clayer-tools", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("%s is not installed; .ci/run does that", name)
	}
	return path
}

// A buildkit is a daemon, and the base that it builds on.
type buildkit struct {
	buildctl, address string
	layout            string
	base              digest.Digest
}

// startBuildkit starts a daemon that has all it writes in dir. It ends with the test.
func startBuildkit(t *testing.T, dir, layout string, base digest.Digest) *buildkit {
	t.Helper()
	b := &buildkit{tool(t, "buildctl"), "unix://" + filepath.Join(dir, "socket"), layout, base}
	daemon := tool(t, "buildkitd")
	for _, name := range []string{"runc", "unshare"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
	if out, err := exec.Command("unshare", "--mount", "sh", "-ec",
		`cd "$0"; mkdir lower upper work at; mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none at; umount at; rm -r lower upper work at`, dir).CombinedOutput(); err != nil {
		t.Skipf("no overlay in %s: %s", dir, out)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	// In namespaces of its own, so that no mount and no process stays.
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		daemon, "--config=/dev/null", "--addr="+b.address, "--root="+filepath.Join(dir, "root"),
		"--containerd-worker=false", "--oci-worker=true", "--oci-worker-binary=runc", "--oci-worker-snapshotter=overlayfs",
		"--oci-worker-net=host", "--oci-worker-gc=false", "--oci-cni-config-path=/dev/null", "--otel-socket-path="+filepath.Join(dir, "otel"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := exec.Command(b.buildctl, "--addr="+b.address, "debug", "workers").Run()
		if err == nil {
			return b
		}
		select {
		case err := <-ended:
			ended <- err
		default:
			if time.Now().Before(deadline) {
				continue
			}
		}
		said, _ := os.ReadFile(log.Name())
		t.Fatalf("buildkitd does not answer: %v\n%s", err, said)
	}
}

// A refusal is that a build failed, and at which lines.
type refusal struct {
	lines []int
	said  string
}

var buildkitLine = regexp.MustCompile(`(?m)^` + containerfile + `:(\d+)$`)

// build builds what is in dir, and puts the tree into the archive out.
func (b *buildkit) build(ctx context.Context, dir, out string) (*refusal, error) {
	args := []string{"--local=context=" + dir, "--local=dockerfile=" + dir, "--opt=filename=" + containerfile}
	args = append(args, named(baseName, b.layout, b.base)...)
	if extra := filepath.Join(dir, extraContext); isDir(extra) {
		args = append(args, "--local="+extraContext+"="+extra, "--opt=context:"+extraContext+"=local:"+extraContext)
	}
	return b.run(ctx, out, args)
}

// named has an image be the one of a layout.
func named(image, layout string, manifest digest.Digest) []string {
	id := "layout-" + manifest.Encoded()[:12]
	return []string{"--oci-layout=" + id + "=" + layout, "--opt=context:" + image + "=oci-layout://" + id + "@" + manifest.String()}
}

func (b *buildkit) run(ctx context.Context, out string, args []string) (*refusal, error) {
	cmd := exec.CommandContext(ctx, b.buildctl, slices.Concat([]string{"--addr=" + b.address, "build", "--progress=plain", "--frontend=dockerfile.v0"},
		args, []string{"--output=type=tar,dest=" + out})...)
	cmd.Env = append(os.Environ(), sessionToken)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case !errors.As(err, &exit):
		return nil, err
	}
	m := buildkitLine.FindSubmatch(said.Bytes())
	if m == nil {
		return nil, fmt.Errorf("buildctl: %w\n%s", err, said.Bytes())
	}
	line, err := strconv.Atoi(string(m[1]))
	text := said.String()
	if i := strings.Index(text, "------\n"); i >= 0 { // the steps before are of no interest
		text = text[i:]
	}
	return &refusal{[]int{line}, text}, err
}
