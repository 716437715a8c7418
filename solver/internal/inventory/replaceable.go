package inventory

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
)

// Replaceable returns the paths of a root at which an install may replace or delete
// something: where Python and npm have packages, what these have elsewhere, and programs;
// and the files of the Debian packages that it will replace.
func (i *Inventory) Replaceable(root string, debian []string) (paths []string) {
	dir := os.DirFS(root)
	if i == nil {
		return nil
	}
	for _, name := range debian {
		lists, _ := fs.Glob(dir, "var/lib/dpkg/info/"+name+".*") // its own files; the names of packages are no patterns
		also, _ := fs.Glob(dir, "var/lib/dpkg/info/"+name+":*")
		for _, file := range append(lists, also...) {
			paths = append(paths, file)
			if data, err := fs.ReadFile(dir, file); err == nil && path.Ext(file) == ".list" {
				for line := range strings.Lines(string(data)) {
					p := strings.TrimPrefix(strings.TrimSpace(line), "/")
					if info, err := fs.Lstat(dir, p); err == nil && !info.IsDir() { // a directory may have others'
						paths = append(paths, p)
					}
				}
			}
		}
	}
	// There may be more than can be held: programs are few, and last by their name.
	for _, place := range slices.Backward(slices.Sorted(maps.Keys(i.Packages))) {
		manager, at, _ := strings.Cut(place, " /")
		switch {
		case at == "", manager == Program && at == "opt":
			continue
		case manager == snapshot.ManagerPython:
			paths = append(paths, besides(dir, at)...)
		}
		paths = append(paths, at)
	}
	return paths
}

// besides returns the files that the packages of a directory of Python have elsewhere, such
// as manual pages.
func besides(dir fs.FS, at string) (paths []string) {
	records, _ := fs.Glob(dir, at+"/*.dist-info/RECORD")
	for _, name := range records {
		data, err := fs.ReadFile(dir, name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if name, _, _ := strings.Cut(line, ","); strings.HasPrefix(name, "../") {
				paths = append(paths, strings.TrimPrefix(path.Join("/", at, name), "/"))
			}
		}
	}
	return paths
}
