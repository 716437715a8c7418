package needs

import (
	"crypto/sha256"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// Saved has the digests of files of a root by path: what they were before a RUN that
// changes the root itself.
type Saved map[string]Sum

// A Sum is the digest of a file, and the stamp that it had then.
type Sum struct {
	Digest [sha256.Size]byte
	stamp  stamp
}

type stamp struct {
	ino          uint64
	size         int64
	mtime, ctime syscall.Timespec
}

// maxSaved bounds a file whose digest is saved: what people and programs edit is small.
const maxSaved = 1 << 20

// Sums returns the digests of the files that commands edit, those in /etc and the dot
// files of a home: nobody can say afterwards what a RUN found in others. A file that has
// its stamp in before is not read again.
func Sums(root, home string, before Saved) (Saved, error) {
	all := make(Saved, len(before))
	add := func(at string, d fs.DirEntry) {
		if !d.Type().IsRegular() {
			return
		}
		info, err := d.Info()
		if err != nil || info.Size() > maxSaved {
			return
		}
		rel, err := filepath.Rel(root, at)
		if err != nil {
			return
		}
		st := info.Sys().(*syscall.Stat_t)
		s := Sum{stamp: stampOf(st)}
		if was, ok := before[rel]; ok && was.stamp == s.stamp {
			all[rel] = was
			return
		}
		data, err := os.ReadFile(at)
		if err != nil {
			return // what this user cannot read, the RUN cannot edit
		}
		s.Digest = sha256.Sum256(data)
		all[rel] = s
	}
	err := filepath.WalkDir(filepath.Join(root, "etc"), func(at string, d fs.DirEntry, err error) error {
		if err == nil {
			add(at, d)
		}
		return nil
	})
	if home != "" && path.Clean(home) != "/" {
		at := filepath.Join(root, home)
		entries, _ := os.ReadDir(at)
		for _, d := range entries {
			if strings.HasPrefix(d.Name(), ".") {
				add(filepath.Join(at, d.Name()), d)
			}
		}
	}
	return all, err
}
