package record

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/clayer/clayer/internal/inroot"
)

// A Journal is what one transaction announces, in a log file of its own: each line
// is synced before what it announces is done. Lines are gathered; Flush workers them
// to the kernel, which is enough for them to outlive a kill, and Sync to the disk.
//
// Its errors are hard ones, as inroot has them.
type Journal struct {
	dir      Dir
	f        *os.File
	buf      []byte                 // lines that the kernel has not
	tree     treeWriter             // changes that are to become a line
	end      int64                  // bytes so far, those in buf included
	durable  int64                  // bytes that outlive a loss of power
	unsynced bool                   // there are lines that no sync has covered
	named    bool                   // the file's name is synced
	began    bool                   // something was done to the root, or may have been
	seen     map[inroot.FileID]bool // directories whose metadata is in it, or that were made in the transaction
	needs    Space                  // to undo what was announced
	emptied  map[string]bool        // directories that a name is removed from

	// Reserve, if not nil, is called before lines are synced: it sets aside what
	// undoing them takes, as Needs returns, or fails.
	Reserve func() error

	// Spend, if not nil, is called where the disk has no space for a line. It frees
	// some and returns true, or returns false.
	Spend func() bool
}

// NewJournal makes the log of a transaction, in a Dir that is open.
func (d Dir) NewJournal(tx int) (*Journal, error) {
	// EXCL: the record of another apply is never overwritten.
	f, err := d.held.OpenFile(LogName(tx), os.O_CREATE|os.O_WRONLY|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &Journal{dir: d, f: f, seen: make(map[inroot.FileID]bool), emptied: make(map[string]bool)}, nil
}

// Add appends a line, or a part of one.
func (j *Journal) Add(c *Change) error {
	j.unsynced = true
	if !j.tree.fits(c) {
		if err := j.endTree(); err != nil {
			return err
		}
	}
	if j.tree.fits(c) {
		j.tree.add(c)
		// Undo has a line for it.
		line := (len(c.Path)+2)/3*4 + 100
		if c.Kind == KindDir {
			line += 60
		}
		j.needs = j.needs.Plus(j.spaceFor(c, line))
		return nil
	}
	line, err := j.line(func(b []byte) ([]byte, error) { return appendChange(b, c) })
	if err == nil {
		j.needs = j.needs.Plus(j.spaceFor(c, line))
	}
	return err
}

// endTree ends the line that is gathered.
func (j *Journal) endTree() error {
	if j.tree.n == 0 {
		return nil
	}
	_, err := j.line(j.tree.appendLine)
	return err
}

// line appends a line, and returns its length.
func (j *Journal) line(appendText func([]byte) ([]byte, error)) (int, error) {
	const prefix = 9
	at := len(j.buf)
	text, err := appendText(append(j.buf, "00000000 "...))
	if err != nil {
		return 0, inroot.Hard(err)
	}
	j.buf = append(text, '\n')
	line := j.buf[at:]
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.Checksum(line[prefix:len(line)-1], Castagnoli))
	hex.Encode(line, sum[:])
	j.end += int64(len(line))
	return len(line), nil
}

// AddDir announces that the metadata of a directory will change, its time at
// least, unless that was announced before.
func (j *Journal) AddDir(id inroot.FileID, path string, was func() *Meta) error {
	if j.seen[id] {
		return nil
	}
	j.seen[id] = true
	return j.Add(&Change{Kind: KindTime, Path: []byte(path), Was: was()})
}

// Made notes a directory that was made in the transaction: rolled back, it is gone.
func (j *Journal) Made(id inroot.FileID) { j.seen[id] = true }

// End is where the next line begins, in bytes. It ends the one that is gathered.
func (j *Journal) End() int64 {
	if err := j.endTree(); err != nil {
		panic("record: " + err.Error()) // a codec that cannot be made
	}
	return j.end
}

// Durable is up to where the log outlives a loss of power, in bytes.
func (j *Journal) Durable() int64 { return j.durable }

// Began reports whether there was a Sync: what is announced may have been done.
func (j *Journal) Began() bool { return j.began }

// Flush workers the lines to the kernel.
func (j *Journal) Flush() error {
	if err := j.endTree(); err != nil {
		return err
	}
	rest := j.buf
	if len(rest) == 0 {
		return nil
	}
	j.buf = j.buf[:0]
	for {
		n, err := j.dir.sys.WriteFile(j.f, rest)
		rest = rest[n:]
		if !inroot.IsFull(err) || j.Spend == nil || !j.Spend() {
			return err
		}
	}
}

// Sync makes what was announced outlive a loss of power, before it is done. It
// does nothing if all of it does already.
func (j *Journal) Sync() error {
	if !j.unsynced {
		return nil
	}
	if j.Reserve != nil {
		if err := j.Reserve(); err != nil {
			return inroot.Hard(err)
		}
	}
	j.began = true
	if err := j.SyncFile(); err != nil {
		return inroot.Hard(fmt.Errorf("journal: %w", err))
	}
	if !j.named {
		for _, dir := range []string{"log", "."} {
			if err := j.dir.held.SyncDir(dir); err != nil {
				return inroot.Hard(fmt.Errorf("journal: %w", err))
			}
		}
		j.named = true
	}
	j.unsynced = false
	return nil
}

// SyncFile syncs the lines, but not yet the name of the file.
func (j *Journal) SyncFile() error {
	if err := j.Flush(); err != nil {
		return err
	}
	if err := j.dir.sys.SyncFile(j.f); err != nil {
		return err
	}
	j.durable = j.end
	return nil
}

// Close closes the file. Lines that were not flushed are lost: what they announce
// was not begun.
func (j *Journal) Close() error { return j.f.Close() }
