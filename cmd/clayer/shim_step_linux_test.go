package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/testexec"
)

// What is installed by hand on / is a step, for root and for a plain user, whose home it
// goes to; and a shim that is killed leaves nothing that stands in the way of the next one.
func TestShimStepOnTheRootItself(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	for _, tt := range []struct{ user, home string }{{"0:0", "root"}, {"1000:1000", "home/me"}} {
		t.Run(tt.user, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			if err := clitest.MakeRoot(root); err != nil {
				t.Fatal(err)
			}
			const pip = `#!/bin/sh
[ "$1" = install ] || exit 0
mkdir -p ~/.local/lib/site ~/.ssh
echo "$2" > ~/.local/lib/site/"$2.py"
echo key >> ~/.ssh/known_hosts
[ "$2" != killer ] || kill -9 $PPID
`
			const prepare = `
mkdir -p "$1/proc" "$1/dev" "$1/usr/bin" "$1/tmp" "$1/$3/proj" "$1/usr/local/bin"
chmod 1777 "$1/tmp"
chmod 755 "$1" "${1%/root}"
cp "$2" "$1/usr/local/bin/clayer"
printf %s "$4" > "$1/usr/bin/pip"
chmod 755 "$1/usr/bin/pip"
chown -R "$5" "$1/$3"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
chroot=$(command -v chroot)
exec env -i HOME="/$3" PATH=/usr/local/bin:/usr/bin:/bin CLAYER_YES=1 "$chroot" --userspec="$5" "$1" /bin/sh -euxc "$6"
`
			const session = `
cd ~/proj
clayer shim install
eval "$(clayer shim env)"
pip install killer || :
test ! -e Containerfile
pip install six
clayer solve --sandbox=inplace
clayer verify

clayer undo
test ! -e ~/.local/lib/site/six.py
test -e ~/.local/lib/site/killer.py
test -e ~/.ssh/known_hosts
`
			cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-euc", prepare,
				"sh", root, clayerProgram(t), tt.home, pip, tt.user, session)
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Contains(string(out), "no snapshot") || !strings.Contains(string(out), "1 present") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// Whenever the shim, or the process that reads and packs for it, is ended: the line is there
// or not, the next solve makes the root what the file says, another machine gets all of the
// package, and undo gives the first one back.
func TestShimsThatAreEnded(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	const files = 300
	const pip = `#!/bin/sh
[ "$1" = install ] || exit 0
site=${PIPROOT-}/usr/lib/site
mkdir -p $site/$2
for i in 1 2 3 4 5 6 7 8 9 10; do
	for j in 1 2 3 4 5 6 7 8 9 10; do
		for k in 1 2 3; do [ -e $site/$2/$i-$j-$k ] || echo "$2 $i $j $k" > $site/$2/$i-$j-$k; done
	done
done
`
	// What is ended, and how; the name of the process that packs is found by its descriptor.
	ways := map[string]func(t *testing.T, shim *exec.Cmd){
		"kill":   func(_ *testing.T, shim *exec.Cmd) { _ = shim.Process.Kill() },
		"Ctrl-C": func(_ *testing.T, shim *exec.Cmd) { _ = syscall.Kill(-shim.Process.Pid, syscall.SIGINT) },
		"packer": func(t *testing.T, shim *exec.Cmd) {
			for _, pid := range watchersOf(t, shim) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		},
	}
	var took time.Duration // of one that nobody ends
	for _, name := range []string{"", "kill", "Ctrl-C", "packer"} {
		const times = 6
		for i := range times {
			if name == "" && i > 0 {
				break
			}
			dir, file, env := shims(t, map[string]string{"pip": pip[len("#!/bin/sh\n"):]})
			work := filepath.Dir(dir)
			root, other := filepath.Join(work, "root"), filepath.Join(work, "other")
			for _, r := range []string{root, other} {
				if err := clitest.MakeRoot(r); err != nil {
					t.Fatal(err)
				}
				if err := os.MkdirAll(filepath.Join(r, "usr/bin"), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := testexec.WriteFile(filepath.Join(r, "usr/bin/pip"), []byte(pip)); err != nil {
					t.Fatal(err)
				}
			}
			env = append(env, "CLAYER_SHIM=", "CLAYER_ROOT="+root, "PIPROOT="+root, "CLAYER_CACHE_DIR="+filepath.Join(work, "cache"))
			clayer := func(args ...string) string {
				t.Helper()
				cmd := exec.Command(filepath.Join(work, "bin", "clayer"), args...)
				cmd.Env, cmd.Dir = append(env, "CLAYER_SHIM=lines"), work
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%s, ended the %dth time: clayer %s: %v\n%s", name, i, strings.Join(args, " "), err, out)
				}
				return string(out)
			}
			count := func(root string) int {
				list, _ := os.ReadDir(filepath.Join(root, "usr/lib/site/x"))
				return len(list)
			}

			cmd := exec.Command(filepath.Join(dir, "pip"), "install", "x")
			var out bytes.Buffer
			cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = env, work, &out, &out
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			start := time.Now()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if name != "" {
				time.AfterFunc(took*time.Duration(i+1)/times, func() { ways[name](t, cmd) })
			}
			err := cmd.Wait() // for the program too, which has our streams
			if name == "" {
				if clayer("solve", "-f", file); err != nil {
					t.Fatalf("%v\n%s", err, out.Bytes())
				}
				took = time.Since(start)
			}
			if name == "packer" && (err != nil || count(root) != files) {
				t.Errorf("the install failed with who packs it: %v\n%s", err, out.Bytes())
			}
			for len(watchersOf(t, cmd)) > 0 && t.Context().Err() == nil {
				time.Sleep(time.Millisecond) // one whose shim was killed as it began
			}
			text, err := os.ReadFile(file)
			switch {
			case err != nil: // ended before the install was
				clayer("undo")
				if name == "packer" || name == "" {
					t.Errorf("no line is written:\n%s", out.Bytes())
				}
			case string(text) != "RUN pip install x\n":
				t.Errorf("%s: the line is %q", name, text)
			default:
				clayer("solve", "-f", file)
				if got := clayer("plan", "-f", file); !strings.Contains(got, "1 present") || count(root) != files {
					t.Errorf("%s, ended the %dth time: %d files\n%s", name, i, count(root), got)
				}
				did := clayer("solve", "--root", other, "-f", file)
				if count(other) != files {
					t.Errorf("%s, ended the %dth time: another machine has %d files\n%s", name, i, count(other), did)
				}
				if name == "" && !strings.Contains(did, "1 restored") {
					t.Errorf("nothing is restored:\n%s", did)
				}
				clayer("undo")
			}
			if _, err := os.Stat(filepath.Join(root, "var/lib/clayer")); err == nil {
				t.Errorf("%s, ended the %dth time: undo leaves a state", name, i)
			}
		}
	}
}

// watchersOf returns the processes that read and pack for a shim.
func watchersOf(t *testing.T, shim *exec.Cmd) (pids []int) {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Error(err)
	}
	for _, name := range list {
		line, _ := os.ReadFile(name)
		args := strings.Split(string(line), "\x00")
		if len(args) > 4 && args[1] == "shim" && args[2] == "watch" && args[4] == filepath.Dir(shim.Path) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}
