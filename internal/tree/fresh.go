package tree

import (
	"path"
	"time"

	"github.com/clayer/clayer/internal/beneath"
)

// A Fresh is something with a time that it got between two readings.
type Fresh struct {
	Path    string
	ModTime time.Time
	Size    int64
	File    bool // a regular one
}

// Written lists what was made, or got another time, between two readings, with a time that
// within holds, but for what the filter leaves out and what is hidden, either of which may be
// nil. What is in one directory follows each other.
func Written(before, after *Reading, within func(time.Time) bool, filter Filter, hide func(path string) bool) (list []Fresh) {
	var directory func(at string, b, a int32)
	directory = func(at string, b, a int32) {
		type below struct {
			path string
			pair
		}
		var enter []below
		for p := range pairs(before, b, after, a) {
			if p.after < 0 {
				continue
			}
			at, n := join(at, p.name), after.at(p.after)
			if n.nothing() || n.is(mount) || hide != nil && hide(at) || filter != nil && filter.Prune(at) {
				continue
			}
			if n.isDir() {
				enter = append(enter, below{at, p})
			}
			if within(n.mtime().time()) && !(p.before >= 0 && before.at(p.before).same(n)) && (filter == nil || !filter.Skip(at)) {
				list = append(list, Fresh{at, n.mtime().time(), n.Size, n.isFile()})
			}
		}
		for _, d := range enter {
			directory(d.path, d.before, d.pair.after)
		}
	}
	directory("", 0, 0)
	return list
}

// Restamped has the reading, which was made of dir and which nobody else has yet, show the
// times that what it lists got since, and what its files hold by now where it has digests.
func (r *Reading) Restamped(dir string, list []Fresh) error {
	parents := beneath.Parents{Dir: dir}
	defer parents.Close()
	linked := make(map[uint64]int32) // names that are not in the list are others of the same files
	for _, f := range list {
		i := r.find(f.Path)
		if i < 0 {
			continue
		}
		fd, name, err := parents.Of(f.Path)
		if beneath.Moved(err) {
			continue
		}
		if err == nil {
			err = r.restamp(fd, name, i)
		}
		if err != nil {
			return err
		}
		if n := r.at(i); n.linked() {
			linked[n.Ino] = i
		}
	}
	if len(linked) == 0 {
		return nil
	}
	for i := range r.n {
		n := r.at(i)
		from, ok := linked[n.Ino]
		if !ok || !n.isFile() || i == from {
			continue
		}
		now := r.at(from)
		n.MSec, n.MNsec, n.CSec, n.CNsec = now.MSec, now.MNsec, now.CSec, now.CNsec
		if x, ok := r.sums[from]; ok {
			r.sums[i] = x
		}
	}
	return nil
}

// Touched has the comparison of the reading with an earlier one report the directories of the
// list, also where their times are what they were before: who unpacks what is in them changes
// their times.
func (r *Reading) Touched(list []Fresh) {
	for _, f := range list {
		if i := r.find(f.Path); i >= 0 && r.at(i).isDir() {
			r.at(i).Flags |= touched
		}
	}
}

// find returns the index of a path, -1 if it is not there.
func (r *Reading) find(p string) int32 {
	if p == "" || p == "." {
		return 0
	}
	return r.child(r.find(path.Dir(p)), path.Base(p))
}
