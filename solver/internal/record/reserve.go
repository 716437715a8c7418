package record

import "path"

// Space is what something takes of a disk.
type Space struct {
	Bytes int64 `json:"bytes,omitempty"`
	Files int64 `json:"files,omitempty"`
}

// Plus returns the sum of two.
func (r Space) Plus(x Space) Space { return Space{r.Bytes + x.Bytes, r.Files + x.Files} }

// Minus returns the difference of two.
func (r Space) Minus(x Space) Space { return Space{r.Bytes - x.Bytes, r.Files - x.Files} }

// Needs returns what undoing takes that was announced so far.
func (j *Journal) Needs() Space { return j.needs }

// spaceFor returns what undoing a change takes at most, beside the files that move:
// its lines in the journal of the undo, names in directories, attributes.
func (j *Journal) spaceFor(c *Change, line int) Space {
	const (
		// What a name takes in a directory: 264 bytes if it is the longest, in a
		// block that is half empty. Undo moves each file to the trash, under a short one.
		longName, shortName = 512, 48

		// A block for the first name that comes back to a directory, which has
		// filled up meanwhile; or for the first attribute of a file.
		block = 4096
	)
	need := Space{Bytes: int64(line) + shortName}
	switch {
	case c.Kind == KindGone:
		need.Bytes += longName
		if dir := path.Dir(string(c.Path)); !j.emptied[dir] {
			j.emptied[dir] = true
			need.Bytes += block
		}
	case c.Kind == KindDir: // undo announces its time too
		need.Bytes += int64(line)
	}
	if c.Records != nil && c.Now != nil { // what is undone in it may be written again
		need.Bytes += c.Now.Size + block + int64(line) // its undo is announced with its records
		need.Files++
	}
	if c.Was == nil || len(c.Was.Xattrs) == 0 {
		return need
	}
	size := int64(0)
	for name, value := range c.Was.Xattrs {
		size += int64(len(name) + len(value) + 64)
	}
	need.Bytes += block + size
	need.Files += (size + inodeSize - 1) / inodeSize
	return need
}

// inodeSize is what tmpfs, which counts attributes as inodes, takes for one.
const inodeSize = 1024

// UndoNeeds returns what undoing all takes that is applied by a state; the zero
// Space if nothing is.
func (s *State) UndoNeeds() Space {
	if s.Pristine() {
		return Space{}
	}
	need := Space{Bytes: s.size} // state.json is written again
	for _, events := range [][]Event{s.Log, s.Preserved} {
		for i := range events {
			need = need.Plus(events[i].needs())
		}
	}
	if s.Profile != nil {
		need = need.Plus(s.Profile.needs()).Plus(ProfileSpace)
	}
	return need
}

// ProfileSpace is what the file of State.Profile takes, which undo --to makes again: with
// the directories that it is made in.
var ProfileSpace = Space{Bytes: 16 << 10, Files: 4}

func (ev *Event) needs() Space {
	if ev.Space == (Space{}) { // of a version that did not count it
		return Space{Bytes: 2 * (ev.To - ev.From)}
	}
	return ev.Space
}
