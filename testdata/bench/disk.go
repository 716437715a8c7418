package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
)

// fresh makes a directory empty.
func (b *bench) fresh(dir string) error {
	return errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
}

// freshExt4 mounts a new ext4 at a directory: on one that was used, ext4 looks for a free inode
// past all those of the last minutes' deletions, and what was written before is written back.
func (b *bench) freshExt4(dir string) error {
	if err := b.unmount(); err != nil {
		return err
	}
	image := b.path("ext4.img")
	if err := os.Remove(image); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(8<<30), f.Close(), os.MkdirAll(dir, 0o755))
	}
	if err != nil {
		return err
	}
	// Inodes are not initialized while something is measured.
	for _, argv := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", image},
		{"mount", "-o", "loop,noinit_itable", image, dir},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", argv[0], err, out)
		}
	}
	b.mounted = dir
	return nil
}

// unmount takes the ext4 away.
func (b *bench) unmount() error {
	if b.mounted == "" {
		return nil
	}
	if out, err := exec.Command("umount", b.mounted).CombinedOutput(); err != nil {
		return fmt.Errorf("umount %s: %w: %s", b.mounted, err, out)
	}
	b.mounted = ""
	return os.Remove(b.path("ext4.img"))
}

// hasExt4 reports whether an ext4 can be mounted here.
func (b *bench) hasExt4() (why string) {
	if err := errors.Join(b.freshExt4(b.path("ext4")), b.unmount()); err != nil {
		return err.Error()
	}
	return ""
}
