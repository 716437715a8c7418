package inplace

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/pathname"
)

// In place a command sees the machine's own scratch directories, in which other
// programs are at work. What is the layer's own is known by the names in them: those
// that SetScratch got, and those that come while a command runs. All else is foreign:
// it is neither read nor captured, and nobody removes it.

// SetScratch implements sandbox.InPlace.
func (p *place) SetScratch(names []string) {
	p.scratch = make(map[string]bool)
	for _, n := range names {
		p.scratch[n] = true
	}
}

// Scratch implements sandbox.InPlace.
func (p *place) Scratch() (names []string) {
	for n := range p.scratch {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// names lists what is in the scratch directories, as paths relative to the root. One
// that is a link, or in a link, is none.
func (p *place) names() (names []string) {
	for _, dir := range snapshot.ScratchDirs() {
		at, err := p.resolve("/" + dir)
		if err != nil || at != filepath.Join(p.s.Root, dir) {
			continue
		}
		if st, err := os.Lstat(at); err != nil || !st.IsDir() {
			continue
		}
		entries, _ := os.ReadDir(at)
		for _, e := range entries {
			names = append(names, dir+"/"+e.Name())
		}
	}
	return names
}

// findForeign has all that is in the scratch directories by now, and is not the layer's,
// left out. It reports whether some of it has gone since: its name may come again.
func (p *place) findForeign() (gone bool) {
	before := p.foreign
	p.foreign = make(map[string]bool)
	for _, n := range p.names() {
		if !p.scratch[n] {
			p.foreign[n] = true
		}
	}
	for n := range before {
		gone = gone || !p.foreign[n]
	}
	return gone
}

// adoptScratch takes what has come into the scratch directories for the layer's, but for
// what a process has open: those that the command started have ended.
func (p *place) adoptScratch() {
	var fresh []string
	for _, n := range p.names() {
		if !p.scratch[n] && !p.foreign[n] && !slices.ContainsFunc(p.s.Hide, func(h string) bool { return pathname.Under("/"+n, h) || pathname.Under(h, "/"+n) }) {
			fresh = append(fresh, n)
		}
	}
	if len(fresh) == 0 {
		return
	}
	inUse := openPaths(filepath.Join(p.s.Root, "tmp"), filepath.Join(p.s.Root, "var/tmp"))
	for _, n := range fresh {
		if at := filepath.Join(p.s.Root, n); slices.ContainsFunc(inUse, func(open string) bool { return pathname.Under(open, at) }) {
			p.foreign[n] = true
			continue
		}
		if p.scratch == nil {
			p.scratch = make(map[string]bool)
		}
		p.scratch[n] = true
	}
}

// openPaths lists what processes have open, or are in, below directories of the machine,
// as far as this user may know.
func openPaths(dirs ...string) (paths []string) {
	procs, _ := os.ReadDir("/proc")
	for _, proc := range procs {
		if _, err := strconv.Atoi(proc.Name()); err != nil {
			continue
		}
		at := filepath.Join("/proc", proc.Name())
		links := []string{filepath.Join(at, "cwd"), filepath.Join(at, "exe")}
		fds, _ := os.ReadDir(filepath.Join(at, "fd"))
		for _, fd := range fds {
			links = append(links, filepath.Join(at, "fd", fd.Name()))
		}
		for _, link := range links {
			to, err := os.Readlink(link)
			if err == nil && slices.ContainsFunc(dirs, func(dir string) bool { return pathname.Under(to, dir) }) {
				paths = append(paths, to)
			}
		}
	}
	return paths
}

// hidesScratch adds, to what is never reported, the names in the scratch directories
// that are foreign.
func (p *place) hidesScratch(hidden func(string) bool) func(string) bool {
	return func(path string) bool {
		return hidden != nil && hidden(path) || p.foreign[path]
	}
}
