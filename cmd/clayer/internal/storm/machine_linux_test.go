package storm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// groundDir is where the ground lies in the machine.
const groundDir = "/ground"

// enterMachine makes a small machine in dir and makes its root the root of this
// process: a shell, a user database, devices, and the program at exe. It returns
// where the program lies.
//
// With --dest a RUN sees the machine's root, and clayer reads all of it: here
// that takes no time, is the same everywhere, and touches nothing that is
// anybody's.
func enterMachine(dir, exe string) (program string, err error) {
	if err := mountDisk(dir, "mode=755"); err != nil {
		return "", err
	}
	in := func(p string) string { return filepath.Join(dir, p) }
	for _, d := range []string{"bin", "etc", "proc", "sys", "run", "root", "var/tmp"} {
		if err := os.MkdirAll(in(d), 0o755); err != nil {
			return "", err
		}
	}
	if err := mountDisk(in("tmp"), "mode=1777"); err != nil {
		return "", err
	}
	if err := addShell(dir); err != nil {
		return "", err
	}
	if err := put(in("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n", 0o644); err != nil {
		return "", err
	}
	if err := makeDevices(in("dev")); err != nil {
		return "", err
	}
	if err := mountDisk(in(groundDir), "mode=755"); err != nil {
		return "", err
	}
	program = filepath.Join(groundDir, "clayer")
	if err := put(in(program), "", 0o755); err != nil {
		return "", err
	}
	if err := unix.Mount(exe, in(program), "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("bind %s: %w", exe, err)
	}
	if err := unix.Mount("proc", in("proc"), "proc", 0, ""); err != nil {
		return "", fmt.Errorf("mount /proc: %w", err)
	}
	if err := os.Chdir(dir); err != nil {
		return "", err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return "", fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return "", fmt.Errorf("detach the old root: %w", err)
	}
	return program, os.Chdir("/")
}

// applets are the commands that recipes use.
var applets = strings.Fields("sh cat cp mv ln rm mkdir touch chmod chown mkfifo true sleep [")

// addShell makes root a system that has a shell and a name.
func addShell(root string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := put(filepath.Join(root, "bin/busybox"), string(data), 0o755); err != nil {
		return err
	}
	for _, name := range applets {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			return err
		}
	}
	return put(filepath.Join(root, "etc/os-release"), "ID=storm\nVERSION_ID=1\n", 0o644)
}

// makeDevices mounts a file system with the devices that every program expects.
func makeDevices(dir string) error {
	if err := mountDisk(dir, "mode=755"); err != nil {
		return err
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9} {
		path := filepath.Join(dir, name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o666); err != nil {
			return err
		}
	}
	return nil
}
