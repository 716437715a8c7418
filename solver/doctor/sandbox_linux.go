package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/fsclock"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/inplace"
	"github.com/clayer/clayer/solver/sandbox/overlay"
)

// sandbox tries each sandbox, and the probe of ctime in the temporary directory.
func (t *Target) sandbox(context.Context) []Finding {
	list := []Finding{privileges()}
	add := func(name string, err error, text, remedy string, cause Cause) {
		f := Finding{Area: "sandbox", Name: name, OK: err == nil, Text: text}
		if err != nil {
			f.Text, f.Remedy, f.Cause = err.Error(), remedy, cause
		}
		list = append(list, f)
	}
	opt := sandbox.Options{Root: t.Root}
	who := "uid " + fmt.Sprint(os.Geteuid())
	if os.Geteuid() == 0 {
		who = "root"
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		who += ", Linux " + unix.ByteSliceToString(u.Release[:])
	}
	add("machine", nil, who+", / is "+fsName(opt.Root), "", "")
	for _, rooted := range []bool{true, false} {
		how, err := overlay.CheckWay(rooted, opt)
		remedy := "user namespaces: sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; seccomp=unconfined in a container"
		if rooted {
			remedy = "a container with CAP_SYS_ADMIN: docker run --cap-add SYS_ADMIN --security-opt apparmor=unconfined"
			if os.Geteuid() != 0 {
				err, remedy = errors.New("not root"), "run as root"
			}
		}
		add("overlay "+how, err, "works", remedy, "")
	}
	trust, err := fsclock.Probe(os.TempDir())
	if err == nil && trust.Doubt != "" {
		err = errors.New(trust.Doubt)
	}
	add("ctime", err, "shows every change", "digests are compared instead: slower, and as exact", NoCTime)
	add("inplace", nil, "works without any privilege", "", "")
	s, err := sandbox.Check("auto", opt, overlay.Engine, inplace.Engine)
	text := ""
	if err == nil {
		text = s.String()
	}
	add("sandbox", err, text, "", "")
	return list
}

func fsName(root string) string {
	if root == "" {
		root = "/"
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return "unknown"
	}
	names := map[int64]string{
		unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs",
		unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs", unix.V9FS_MAGIC: "9p", unix.NFS_SUPER_MAGIC: "nfs",
		unix.FUSE_SUPER_MAGIC: "fuse",
	}
	name, ok := names[int64(st.Type)]
	if !ok {
		name = fmt.Sprintf("type %#x", st.Type)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		name += ", read-only"
	}
	return strings.TrimSpace(name)
}
