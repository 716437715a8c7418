package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
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
clayer plan --sandbox=inplace
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
