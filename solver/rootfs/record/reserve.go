package record

import "path"

// Room is what something takes of a disk.
type Room struct {
	Bytes int64 `json:"bytes,omitempty"`
	Files int64 `json:"files,omitempty"`
}

// Plus returns the sum of two.
func (r Room) Plus(x Room) Room { return Room{r.Bytes + x.Bytes, r.Files + x.Files} }

// Minus returns the difference of two.
func (r Room) Minus(x Room) Room { return Room{r.Bytes - x.Bytes, r.Files - x.Files} }

// Needs returns what undoing takes that was announced so far.
func (j *Journal) Needs() Room { return j.needs }

// roomFor returns what undoing a change takes at most, beside the files that move:
// its lines in the journal of the undo, names in directories, attributes.
func (j *Journal) roomFor(c *Change, line int) Room {
	const (
		// What a name takes in a directory: 264 bytes if it is the longest, in a
		// block that is half empty. Undo moves each file to the trash, under a short one.
		longName, shortName = 512, 48

		// A block for the first name that comes back to a directory, which has
		// filled up meanwhile; or for the first attribute of a file.
		block = 4096
	)
	need := Room{Bytes: int64(line) + shortName}
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
// Room if nothing is.
func (s *State) UndoNeeds() Room {
	if s.Pristine() {
		return Room{}
	}
	need := Room{Bytes: s.size} // state.json is written again
	for _, events := range [][]Event{s.Log, s.Preserved} {
		for i := range events {
			need = need.Plus(events[i].needs())
		}
	}
	if s.Profile != nil {
		need = need.Plus(s.Profile.needs()).Plus(ProfileRoom)
	}
	return need
}

// ProfileRoom is what the file of State.Profile takes, which undo --to makes again: with
// the directories that it is made in.
var ProfileRoom = Room{Bytes: 16 << 10, Files: 4}

func (ev *Event) needs() Room {
	if ev.Room == (Room{}) { // of a version that did not count it
		return Room{Bytes: 2 * (ev.To - ev.From)}
	}
	return ev.Room
}
