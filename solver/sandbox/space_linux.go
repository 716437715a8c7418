package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// CheckSpace returns an error that wraps ENOSPC if the file system of a directory has no
// byte or no inode left. What a command did there is then no result: a shell that tests
// for a file takes the failure of the test for an answer.
func CheckSpace(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	switch {
	case st.Flags&unix.ST_RDONLY != 0: // an image: nothing was written there
	case st.Blocks > 0 && st.Bfree == 0:
		return fmt.Errorf("the disk was full when the command ended, so that its result is not known: %w", unix.ENOSPC)
	case st.Files > 0 && st.Ffree == 0:
		return fmt.Errorf("the disk had no inode left when the command ended, so that its result is not known: %w", unix.ENOSPC)
	}
	return nil
}
