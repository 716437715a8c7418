package clitest

import (
	"bytes"
	"os/exec"
	"syscall"
	"time"
)

// Confined returns a command in a root, with /proc there and the directory work at /work,
// which no other process sees: mounts of its own. In the root "/" it has no mounts of its own but those that it makes.
// user is UID:GID, or "" for this one.
func Confined(root, work, user string, argv ...string) *exec.Cmd {
	const script = `set -e; root=$1 work=$2 user=$3; shift 3
[ "$root" = / ] || { mount -t proc proc "$root/proc"; mount --bind "$work" "$root/work"; }; exec chroot $user "$root" "$@"`
	if user != "" {
		user = "--userspec=" + user
	}
	return exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, "sh", root, work, user}, argv...)...)
}

// Output runs a command, and returns what it prints. One that has not ended in time gets
// the signal: SIGQUIT has a program in Go print where it hangs.
func Output(cmd *exec.Cmd, limit time.Duration, sig syscall.Signal) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer time.AfterFunc(limit, func() { _ = cmd.Process.Signal(sig) }).Stop()
	err := cmd.Wait()
	return out.String(), err
}
