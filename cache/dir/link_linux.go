package dir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
)

// link gives a file that has no name its place: what was brought from afar need not
// be written twice. It is an error where it can't be, as on another file system.
func (d *Dir) link(f *os.File, desc cache.Descriptor, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Nlink > 0 {
		return errors.New("it has a name, and is another's")
	}
	temp := filepath.Join(d.tmp(), "part-"+rand.Text())
	// AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH: see open(2), O_TMPFILE.
	if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, temp, unix.AT_SYMLINK_FOLLOW); err != nil {
		return err
	}
	err := d.adopt(f, temp, desc, path)
	if err != nil {
		_ = os.Remove(temp)
	}
	return err
}
