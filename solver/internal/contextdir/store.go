package contextdir

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/clayer/clayer/internal/safefile"
)

// What is known is a file for each directory that was read, with its path and inode in the name.
// It is written as a whole and renamed into place: of several processes the last one's stays,
// and each of them is right. It belongs to the user, and nobody else can write to it: unlike
// all else in the cache directory, what it says is believed.
const (
	partPrefix = "part-"

	maxStored = 128 << 20           // bytes of one: a million files
	maxAll    = 256 << 20           // bytes of all together
	maxCount  = 64                  // how many
	unused    = 30 * 24 * time.Hour // how long one stays that nobody reads
	refreshed = 24 * time.Hour      // how often one that is read gets a new time
)

// openStore opens the directory for what is known.
func openStore(path string, create bool) (dir *os.Root, err error) {
	if create {
		dir, err = safefile.MakeDir(path, 0o700)
	} else {
		dir, err = safefile.OpenDir(path)
	}
	if err != nil {
		return nil, err
	}
	if err := safefile.CheckDir(dir); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// storedAs is the name of what is known of a directory.
func storedAs(dir string, id *Stat) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %s", id.Dev, id.Ino, dir))
	return hex.EncodeToString(sum[:])
}

// load reads what is known of the directory; it is empty where there is nothing, or nothing
// that could be believed.
func (r *Reading) load(top *os.File) *known {
	k := &known{}
	var id Stat
	if err := id.ofOpen(int(top.Fd())); err != nil {
		return k
	}
	k.name = storedAs(r.path, &id)
	dir, err := openStore(r.store, false)
	if err != nil {
		return k
	}
	defer dir.Close()
	f, err := safefile.OpenFile(dir, k.name, os.O_RDONLY, 0)
	if err != nil {
		return k
	}
	defer f.Close()
	if safefile.CheckFile(f) != nil {
		return k
	}
	data, err := safefile.ReadAll(f, maxStored)
	if err != nil {
		return k
	}
	written, dirs, err := decode(data)
	if err != nil || written.Time().After(time.Now().Add(tick)) { // the clock was set back since
		return k
	}
	k.dirs = dirs
	if info, err := f.Stat(); err == nil && time.Since(info.ModTime()) > refreshed {
		_ = dir.Chtimes(k.name, time.Time{}, time.Now()) // sweep takes what nobody reads
	}
	return k
}

// known is what earlier solves have learned of the files of a directory.
type known struct {
	name string // what it is stored as
	dirs map[string][]byte
}

// recall gives files the digests that are known, and returns the others. Those of one directory
// stand together.
func (k *known) recall(files []*File) (others []*File) {
	var dirs []string
	in := make(map[string][]*File)
	for rest := files; len(rest) > 0; {
		dir, _ := path.Split(rest[0].Path)
		n := 1
		for n < len(rest) && len(rest[n].Path)-len(rest[n].Node.Name) == len(dir) && strings.HasPrefix(rest[n].Path, dir) {
			n++
		}
		if in[dir] == nil {
			dirs = append(dirs, dir)
			in[dir] = rest[:n:n]
		} else {
			in[dir] = append(in[dir], rest[:n]...)
		}
		rest = rest[n:]
	}
	for _, dir := range dirs {
		of := in[dir]
		if byName := func(a, b *File) int { return strings.Compare(a.Node.Name, b.Node.Name) }; !slices.IsSortedFunc(of, byName) {
			slices.SortFunc(of, byName)
		}
		var rec record
		at := reader{data: k.dirs[path.Clean(dir)]}
		have := at.next(&rec)
		for _, f := range of {
			for have && string(rec.name) < f.Node.Name {
				have = at.next(&rec)
			}
			if n := f.Node; have && string(rec.name) == n.Name && rec.version == n.version() {
				n.sum, n.size, n.hashed = rec.sum, n.Size, true
			} else {
				others = append(others, f)
			}
		}
	}
	return others
}

// note notes the digest of a file.
func (r *Reading) note(name string, rec record) {
	if r.fresh == nil {
		r.fresh = make(map[string][]record)
	}
	dir := path.Dir(name)
	r.fresh[dir] = append(r.fresh[dir], rec)
}

// save stores what was learned. An error is no loss but that of a shortcut.
func (r *Reading) save() {
	r.hashing.Lock()
	defer r.hashing.Unlock()
	if len(r.fresh) == 0 {
		return
	}
	fresh := r.fresh
	r.fresh = nil
	r.known.dirs = r.merged(fresh)
	data := encode(timeFrom(time.Now()), r.known.dirs)
	if len(data) > maxStored {
		return
	}
	dir, err := openStore(r.store, true)
	if err != nil {
		return
	}
	defer dir.Close()
	if safefile.WriteFile(dir, r.known.name, partPrefix, data) == nil {
		sweep(dir, r.known.name)
	}
}

// merged returns what is known now: of the files that were hashed what they are, and of others
// what was known, unless they are gone.
func (r *Reading) merged(fresh map[string][]record) map[string][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	dirs := make(map[string][]byte, len(r.known.dirs)+len(fresh))
	for dir, data := range r.known.dirs {
		if fresh[dir] == nil && !r.isGone(dir) {
			dirs[dir] = data
		}
	}
	for dir, recs := range fresh {
		byName := make(map[string]record, len(recs))
		at := reader{data: r.known.dirs[dir]}
		for rec := (record{}); at.next(&rec); {
			if name := string(rec.name); !r.isGone(path.Join(dir, name)) {
				byName[name] = rec
			}
		}
		for _, rec := range recs {
			byName[string(rec.name)] = rec
		}
		var data []byte
		for _, name := range slices.Sorted(maps.Keys(byName)) {
			data = byName[name].append(data)
		}
		dirs[dir] = data
	}
	return dirs
}

// isGone reports whether a path was not there when the nearest directory above it was listed.
func (r *Reading) isGone(name string) bool {
	for name != "." {
		dir := path.Dir(name)
		if l := r.lists[dir]; l != nil {
			_, found := slices.BinarySearchFunc(l.nodes, path.Base(name), func(n *Node, name string) int { return strings.Compare(n.Name, name) })
			return !found
		}
		name = dir
	}
	return false
}

// sweep removes what killed processes left, what nobody has read for long, and the oldest of
// what is too much; not the one of that name.
func sweep(dir *os.Root, name string) {
	_, _ = safefile.Sweep(dir, ".", func(name string) bool { return strings.HasPrefix(name, partPrefix) })
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return
	}
	var infos []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && e.Name() != name && !strings.HasPrefix(e.Name(), partPrefix) {
			infos = append(infos, info)
		}
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].ModTime().After(infos[j].ModTime()) })
	var sum int64
	for i, info := range infos {
		sum += info.Size()
		if i+1 >= maxCount || sum > maxAll-maxStored || time.Since(info.ModTime()) > unused {
			_ = dir.Remove(info.Name())
		}
	}
}
