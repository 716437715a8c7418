package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/tree"
)

// Check says what Choose would choose, without writing anything: an overlay is
// tried with its changes in memory, in namespaces of its own. Whether Work can
// hold one is not seen.
func Check(kind string, opt Options) (name, how, why string, err error) {
	if kind != "inplace" {
		var s Sandbox
		s, err = checkOverlay(opt)
		if err == nil {
			why := "it keeps the root untouched"
			if kind == "overlay" {
				why = "as asked"
			}
			return s.Name(), s.How(), why, nil
		}
		if kind == "overlay" {
			return "", "", "", err
		}
		why = "no overlay here, " + short(err)
	} else {
		why = "as asked"
	}
	if opt.Over != "" || opt.Root != "/" && !mayChroot() {
		_, err := NewInPlace(opt)
		return "", "", "", err
	}
	how = "compares ctime, if it can be trusted"
	switch {
	case opt.Compare == CompareCTime:
		how = "compares ctime, as asked"
	case opt.Compare == CompareDigest:
		how = "compares digests, as asked"
	}
	return "inplace", how, why, nil
}

func checkOverlay(opt Options) (Sandbox, error) {
	return firstWay(func(rooted bool) (*overlay, error) {
		s := &overlay{Options: opt, rooted: rooted}
		return s, s.withIDs(s.check)
	})
}

// check has a helper mount all that a command would see, over nothing but memory.
func (s *overlay) check() error {
	root, err := filepath.Abs(s.Root)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return err
	}
	s.Root, s.Warn = root, func(string) {} // told when it is done in earnest
	v := &view{s: s}
	return v.help(context.Background(), job{Task: taskCheck, Mounts: probeMounts}, nil, nil, nil)
}

// checkView makes a view in a tmpfs that only the helper sees.
func (h *helper) checkView() error {
	if err := makePrivate("/dev"); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	at := ""
	for _, dir := range []string{"/tmp", "/run", "/var/tmp", "/mnt", "/media", "/srv"} {
		if st, err := os.Lstat(dir); err != nil || !st.IsDir() || h.Root != "/" && pathname.Under(h.Root, dir) {
			continue
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount a tmpfs: %w", err)
		}
		at = dir
		break
	}
	if at == "" {
		return errors.New("there is no /tmp to try in")
	}
	h.View = filepath.Join(at, "view")
	for _, d := range []string{"", upperDir, workDir, rootDir, stageDir} {
		if err := os.Mkdir(filepath.Join(h.View, d), 0o755); err != nil {
			return err
		}
	}
	if h.Rooted {
		if err := unix.Setxattr(filepath.Join(h.View, upperDir), "trusted.overlay.probe", []byte("y"), 0); err != nil {
			return fmt.Errorf("set an xattr: %w", err)
		}
		return nil
	}
	top, err := os.ReadDir(h.Root)
	if err != nil {
		return err
	}
	for _, d := range top {
		p := filepath.Join(h.Root, d.Name())
		if d.IsDir() && unix.Access(p, unix.R_OK|unix.X_OK) == nil {
			if err := os.Mkdir(filepath.Join(h.View, upperDir, d.Name()), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// A Finding is something that decides how RUN is run here.
type Finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"` // what would change it
}

// Diagnose tells what there is on this machine for sandboxes, each by trying
// it. scratch is a folder that may be written, for the probe of ctime.
func Diagnose(opt Options, scratch string) []Finding {
	var list []Finding
	add := func(name string, err error, text, remedy string) {
		f := Finding{Name: name, OK: err == nil, Text: text}
		if err != nil {
			f.Text, f.Remedy = err.Error(), remedy
		}
		list = append(list, f)
	}
	who := "uid " + fmt.Sprint(os.Geteuid())
	if os.Geteuid() == 0 {
		who = "root"
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		who += ", Linux " + unix.ByteSliceToString(u.Release[:])
	}
	list = append(list, Finding{"machine", true, who + ", / is " + fsName(opt.Root), ""})
	for _, rooted := range []bool{true, false} {
		s := &overlay{Options: opt, rooted: rooted}
		name, remedy := "overlay "+s.How(), "a container with CAP_SYS_ADMIN: docker run --cap-add SYS_ADMIN --security-opt apparmor=unconfined"
		if !rooted {
			remedy = "user namespaces: sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; seccomp=unconfined in a container"
		} else if os.Geteuid() != 0 {
			add(name, errors.New("not root"), "", "run as root")
			continue
		}
		add(name, s.check(), "works", remedy)
	}
	trust, err := tree.Probe(scratch)
	if err == nil && trust.Doubt != "" {
		err = errors.New(trust.Doubt)
	}
	add("ctime", err, "tells of every change", "--compare=digest is used in its place: slower, and as exact")
	name, how, why, err := Check("auto", opt)
	add("inplace", nil, "works without any privilege", "")
	add("sandbox", err, fmt.Sprintf("%s (%s): %s", name, how, why), "")
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
