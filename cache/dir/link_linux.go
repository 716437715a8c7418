package dir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/safefile"
)

// link gives a file that has no name its place: what was brought from afar need not
// be written twice. It is an error where it can't be, as on another file system.
func link(root *os.Root, f *os.File, desc cache.Descriptor, name string) (*seal, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Nlink > 0 {
		return nil, errors.New("it has a name, and is another's")
	}
	temp, err := linkTemp(root, f)
	if err != nil {
		return nil, err
	}
	s, err := adopt(root, f, temp, desc, name)
	if err != nil {
		_ = root.Remove(temp)
	}
	return s, err
}

// linkTemp gives a file without a name one in tmp/.
func linkTemp(root *os.Root, f *os.File) (string, error) {
	// Another process that sweeps tmp/ takes no lock of the store for it. Without a lock
	// of the file it goes by the time, which is of now.
	_ = safefile.LockTemp(f)
	dir, err := root.Open(tmpName)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	base := partPrefix + rand.Text()
	// AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH: see open(2), O_TMPFILE.
	if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), int(dir.Fd()), base, unix.AT_SYMLINK_FOLLOW); err != nil {
		return "", err
	}
	return path.Join(tmpName, base), nil
}
