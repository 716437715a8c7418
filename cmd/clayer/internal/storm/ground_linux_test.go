package storm

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/treetest"
)

// long is when all was written that a round begins with: long ago.
var long = time.Unix(1_000_000_000, 0)

// plainUser has no rights and no name on any machine.
const plainUser = 424242

// A ground is where a round takes place. Its directories:
//
//	clayer     the program
//	rootdisk   a tmpfs: root (or dest), and the cache if both share a disk
//	cachedisk  a tmpfs: the cache, otherwise
//	ctx0 ctx1  the recipes
//	home tmp   HOME and TMPDIR
//	outside    files that nothing has a reason to touch
type ground struct {
	dir  string
	mode Mode
	one  bool // the cache is on the disk of the root
}

func (g *ground) path(names ...string) string {
	return filepath.Join(append([]string{g.dir}, names...)...)
}

// disk returns the mount point of a disk.
func (g *ground) disk(name string) string {
	if name == cacheDisk && !g.one {
		return g.path("cachedisk")
	}
	return g.path("rootdisk")
}

// tree is the directory that is changed: root, or dest.
// Its parent holds nothing else, so that what describes the parent includes its
// own mode and time too.
func (g *ground) tree() string { return filepath.Join(g.place(), "tree") }

// state is where clayer keeps what it applied.
func (g *ground) state() string { return filepath.Join(g.tree(), "var/lib/clayer") }

func (g *ground) place() string { return filepath.Join(g.disk(rootDisk), "place") }

func (g *ground) cache() string { return filepath.Join(g.disk(cacheDisk), "cache") }

// newGround mounts the disks in dir, and makes the base in one of them.
func newGround(dir string, r *Round) (*ground, error) {
	g := &ground{dir: dir, mode: r.Mode, one: r.OneDisk}
	disks := []string{g.disk(rootDisk)}
	if !g.one {
		disks = append(disks, g.disk(cacheDisk))
	}
	for _, disk := range disks {
		if err := mountDisk(disk, "size=24m,nr_inodes=3000,mode=755"); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{g.tree(), g.cache(), g.path("tmp"), g.path("home"), g.path("outside")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := g.makeBase(); err != nil {
		return nil, err
	}
	// One has a name as blobs do: a link to its directory must not make it one.
	for _, f := range []string{"outside/file", "outside/sub/file", "outside/blobs/" + strings.Repeat("0a", 32), "outside/blobs/file"} {
		if err := put(g.path(f), "nobody touches this\n", 0o644); err != nil {
			return nil, err
		}
	}
	for i, rec := range r.Recipes {
		if err := rec.write(g.path(fmt.Sprint("ctx", i))); err != nil {
			return nil, err
		}
	}
	return g, g.age()
}

func mountDisk(dir, options string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("storm", dir, "tmpfs", 0, options); err != nil {
		return fmt.Errorf("mount a tmpfs at %s: %w", dir, err)
	}
	return nil
}

// put writes a file and the directories above it.
func put(path, content string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// makeBase makes what is there before the first solve: a small system (with
// --dest the machine has one), and files of all kinds for steps to change.
func (g *ground) makeBase() error {
	root := g.tree()
	for _, d := range []string{"etc/s", "opt/s/lib", "opt/s/deep/er/est", "srv/s", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	if !g.mode.Dest {
		for _, d := range []string{"bin", "tmp", "proc", "dev", "sys", "run", "root"} {
			if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
				return err
			}
		}
		if err := addShell(root); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		path, content string
		mode          os.FileMode
	}{
		{"etc/s/conf", "configured\n", 0o644}, {"etc/s/secret", "secret\n", 0o600}, {"opt/s/tool", "#!/bin/sh\n", 0o755 | os.ModeSetuid},
		{"opt/s/lib/a", "a\n", 0o644}, {"opt/s/deep/er/est/f", "deep\n", 0o444}, {"srv/s/x", "x\n", 0o640}, {"srv/s/y", strings.Repeat("y\n", 9000), 0o644}, {"srv/s/z", "", 0o644},
	} {
		if err := put(filepath.Join(root, f.path), f.content, f.mode); err != nil {
			return err
		}
	}
	in := func(p string) string { return filepath.Join(root, p) }
	for _, err := range []error{
		os.Link(in("opt/s/lib/a"), in("opt/s/lib/b")), os.Symlink("x", in("srv/s/link")), os.Symlink("/nowhere", in("srv/s/broken")),
		unix.Mkfifo(in("opt/s/fifo"), 0o622), os.Chmod(in("opt/s/deep"), 0o710),
	} {
		if err != nil {
			return err
		}
	}
	_ = unix.Setxattr(in("etc/s/conf"), "user.storm", []byte("1"), 0) // not all kernels have them on tmpfs
	return nil
}

// owner is the user who runs the commands.
func (g *ground) owner() int {
	if g.mode.User {
		return plainUser
	}
	return 0
}

// age gives all that is there old times and its owner.
func (g *ground) age() error {
	owner := g.owner()
	times := unix.NsecToTimespec(long.UnixNano())
	var dirs []string
	err := filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == g.path("clayer") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := os.Lchown(path, owner, owner); err != nil {
			return err
		}
		if info.Mode()&os.ModeSetuid != 0 { // chown drops it
			if err := os.Chmod(path, info.Mode()); err != nil {
				return err
			}
		}
		if d.IsDir() {
			dirs = append(dirs, path)
			return nil
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{times, times}, unix.AT_SYMLINK_NOFOLLOW)
	})
	for _, dir := range slices.Backward(dirs) {
		if err == nil {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{times, times}, 0)
		}
	}
	return err
}

// describe returns a line for each file below dir. Times since the round began,
// which no two runs share, are all the same to it.
func describe(dir string, skip func(path string) bool) ([]string, error) {
	lines, err := treetest.Lines(dir, skip)
	for i, l := range lines {
		quoted, qerr := strconv.QuotedPrefix(l)
		fields := strings.Fields(strings.TrimPrefix(l, quoted))
		if qerr != nil || len(fields) < 4 {
			return nil, fmt.Errorf("unknown line %s", l)
		}
		if sec, _, _ := strings.Cut(fields[3], "."); len(sec) > 9 && sec > recent {
			fields[3] = "now"
		}
		lines[i] = quoted + " " + strings.Join(fields, " ")
	}
	return lines, err
}

// recent is 2020, in seconds: all that a round begins with is older.
const recent = "1577836800"

// mounts are the mount points of this namespace.
func mounts(t testing.TB) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var points []string
	for l := range strings.Lines(string(data)) {
		if f := strings.Fields(l); len(f) > 4 {
			points = append(points, f[4])
		}
	}
	slices.Sort(points)
	return points
}

// survivors are the processes beside this one, which is the first of its
// namespace: what others left behind.
func survivors() (list []string) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range entries {
		if name := e.Name(); name[0] >= '0' && name[0] <= '9' && name != "1" {
			stat, err := os.ReadFile("/proc/" + name + "/stat")
			if err != nil {
				continue
			}
			// Whoever ended is waited for here: it was handed to the first process.
			if f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])); len(f) > 0 && f[0] == "Z" {
				var pid int
				fmt.Sscan(name, &pid)
				syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
				continue
			}
			cmdline, _ := os.ReadFile("/proc/" + name + "/cmdline")
			list = append(list, name+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return list
}
