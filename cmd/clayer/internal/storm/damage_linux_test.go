package storm

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// What is damaged, by name: patterns in a cache directory, or in the state
// directory.
var damages = map[string]string{
	"blob":      "store/blobs/sha256/*",
	"step":      "store/keys/*/*",
	"index":     "store/index.json",
	"layout":    "store/oci-layout",
	"download":  "downloads/*/*",
	"lock":      "store/lock",
	"blobs":     "store/blobs/sha256",
	"all blobs": "store/blobs",
	"steps":     "store/keys",
	"tmp":       "store/tmp",
	"store":     "store",
	"downloads": "downloads",
	"views":     "run",
}

var (
	files       = []string{"blob", "blob", "blob", "step", "step", "index", "layout", "download", "lock"}
	directories = []string{"blobs", "all blobs", "steps", "tmp", "store", "downloads", "views"}
	stateFiles  = []string{"lock", "state.json", "state.new", "log", "stage", "originals", "trash", "work"}
)

func drawDamage(rng *rand.Rand, r *Round) Damage {
	d := Damage{Where: "local", Which: rng.IntN(1000)}
	if r.Store == "dir" && rng.IntN(3) == 0 {
		d.Where = "far"
	}
	switch n := rng.IntN(20); {
	case n < 1:
		d.Where, d.What = "state", pick(rng, stateFiles...)
		d.How = pick(rng, "link outside", "dangling link")
	case n < 6:
		d.What, d.How = pick(rng, directories...), pick(rng, "link outside", "link outside", "link to itself", "file", "fifo", "delete", "forbid", "foreign files")
	default:
		d.What, d.How = pick(rng, files...), pick(rng, "flip", "flip", "flip", "truncate", "empty", "append", "delete", "swap", "lie",
			"link outside", "link to itself", "dangling link", "fifo", "directory", "huge", "forbid", "device")
	}
	return d
}

// damage does it, if there is something to do it to.
func (p *play) damage(d Damage) {
	path := p.find(d)
	if path == "" {
		return
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err != nil || dir != filepath.Dir(path) {
		return // below a link, where an earlier damage led it: what is outside is not to change
	}
	p.plant(path)
	if err := p.harm(path, d); err != nil {
		p.t.Logf("damage %v: %v", d, err) // what is damaged already may refuse
	}
}

// find returns the file that is to be damaged, and "" where there is none.
func (p *play) find(d Damage) string {
	if d.Where == "state" {
		state := p.state()
		path := filepath.Join(state, d.What)
		if _, err := os.Lstat(path); err == nil {
			return "" // what is there is clayer's: without it there is no undo
		}
		if p.mode.User && os.Geteuid() == 0 {
			defer func() { os.Lchown(state, p.owner(), p.owner()) }()
		}
		if os.MkdirAll(state, 0o755) != nil {
			return ""
		}
		return path
	}
	dir, pattern := p.cache(), damages[d.What]
	if d.Where == "far" {
		var ok bool
		if pattern, ok = cutStore(pattern); !ok {
			return ""
		}
		dir = p.path("far")
	}
	if resolved, err := filepath.EvalSymlinks(filepath.Dir(filepath.Join(dir, pattern))); err == nil && !isBelow(resolved, dir) {
		return "" // a link leads outside already
	}
	if !slices.Contains(files, d.What) || d.What == "lock" {
		path := filepath.Join(dir, pattern)
		// os.RemoveAll waits for ever where the parent is a FIFO.
		if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
			return ""
		}
		return path
	}
	found, _ := filepath.Glob(filepath.Join(dir, pattern))
	found = slices.DeleteFunc(found, func(path string) bool {
		resolved, err := filepath.EvalSymlinks(filepath.Dir(path))
		return err != nil || !isBelow(resolved, dir)
	})
	if len(found) == 0 {
		return ""
	}
	return found[d.Which%len(found)]
}

// cutStore makes a pattern in the cache directory one in a store.
func cutStore(pattern string) (string, bool) {
	if pattern == "store" {
		return ".", false
	}
	rel, err := filepath.Rel("store", pattern)
	return rel, err == nil && rel[0] != '.'
}

func (p *play) harm(path string, d Damage) error {
	replace := func(make func() error) error {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := make(); err != nil {
			return err
		}
		return os.Lchown(path, p.owner(), p.owner())
	}
	edit := func(change func(data []byte) []byte) error {
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, change(data), 0o644)
	}
	switch d.How {
	case "flip":
		return edit(func(b []byte) []byte {
			if len(b) > 0 {
				b[d.Which*7919%len(b)] ^= byte(1 << (d.Which % 8))
			}
			return b
		})
	case "truncate":
		return edit(func(b []byte) []byte { return b[:len(b)/2] })
	case "empty":
		return edit(func(b []byte) []byte { return nil })
	case "append":
		return edit(func(b []byte) []byte { return append(b, "more"...) })
	case "delete":
		return os.RemoveAll(path)
	case "swap":
		others, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
		return os.Rename(path, others[len(others)-1])
	case "lie":
		return edit(func(b []byte) []byte {
			for _, l := range [][2]string{{`"size":`, `"size":9`}, {`"digest":"sha256:`, `"digest":"sha512:`}, {`"entries":`, `"entries":-`}, {`"schemaVersion":2`, `"schemaVersion":2e400`}} {
				if d.Which%4 == 0 || bytes.Count(b, []byte(l[0])) == 0 {
					b = bytes.Replace(b, []byte(l[0]), []byte(l[1]), 1)
				}
				d.Which /= 2
			}
			return b
		})
	case "link outside":
		target := p.path("outside/file")
		if slices.Contains(directories, d.What) || slices.Contains([]string{"log", "stage", "originals", "trash", "work"}, d.What) {
			target = p.path("outside/blobs")
		}
		return replace(func() error { return os.Symlink(target, path) })
	case "link to itself":
		return replace(func() error { return os.Symlink(filepath.Base(path), path) })
	case "dangling link":
		return replace(func() error { return os.Symlink(p.path("outside/new"), path) })
	case "fifo":
		return replace(func() error { return unix.Mkfifo(path, 0o644) })
	case "device":
		return replace(func() error { return unix.Mknod(path, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) })
	case "directory":
		return replace(func() error { return os.Mkdir(path, 0o755) })
	case "file":
		return replace(func() error { return os.WriteFile(path, []byte("a file\n"), 0o644) })
	case "huge":
		return replace(func() error { return os.WriteFile(path, bytes.Repeat([]byte("["), 1<<20), 0o644) })
	case "forbid":
		if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink != 0 {
			return err // it would be what the link leads to
		}
		return unix.Fchmodat(unix.AT_FDCWD, path, 0, 0)
	case "foreign files":
		if info, err := os.Lstat(path); err != nil || !info.IsDir() {
			return errors.Join(err, unix.ENOTDIR)
		}
		for _, name := range []string{"README", "sub/file"} {
			file := filepath.Join(path, name)
			if err := put(file, "not clayer's\n", 0o644); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("unknown damage %q", d.How)
}

// unplantState removes links that damage put into the state directory, as their
// user would, and reports whether there were any.
func (p *play) unplantState() (any bool) {
	for path := range p.planted {
		if !isBelow(path, p.state()) {
			continue
		}
		any = true
		if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 && os.Remove(path) != nil {
			continue // the disk is read-only
		}
		delete(p.planted, path)
	}
	return any
}
