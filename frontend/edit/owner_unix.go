//go:build unix

package edit

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// preserveOwner gives f the owner of the file that it replaces, where that may be
// done: a Containerfile in a directory that is shared stays shared.
func preserveOwner(f *os.File, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() && int(st.Gid) == os.Getegid() {
		return nil
	}
	if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}
