package shim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// packingTime is how long an install waits for the snapshot of the one before it, or for a
// solve.
const packingTime = time.Minute

// A Note is of a line whose snapshot is made after the shim that wrote it has ended, or
// was not made.
type Note struct {
	File  string    `json:"file"`
	Text  string    `json:"text"`            // of the line
	Error string    `json:"error,omitempty"` // why there is no snapshot; "" while it is being made
	Store bool      `json:"store,omitempty"` // the step is in the root, and its snapshot in no store
	PID   int       `json:"pid"`             // of the process that makes it
	Start string    `json:"start,omitempty"` // of that process: its number may be another one's by now
	At    time.Time `json:"at"`
}

// Making reports whether the snapshot is being made.
func (n *Note) Making() bool {
	if n.Error != "" || unix.Kill(n.PID, 0) == unix.ESRCH {
		return false
	}
	state, start := processOf(n.PID)
	return state != "Z" && start == n.Start // a zombie, where the first process waits for nobody
}

// processOf returns the state of a process, and when it started, as /proc has them; "" where
// there is none.
func processOf(pid int) (state, start string) {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return "", ""
	}
	return fields[0], fields[19] // the 22nd of the line
}

// noteSuffix ends the names of files that have a Note. They begin with sessionPrefix.
const noteSuffix = ".note"

func (o Options) noteFile() string {
	sum := sha256.Sum256([]byte(o.File))
	return filepath.Join(o.Dir, fmt.Sprintf("%s%x%s", sessionPrefix, sum[:8], noteSuffix))
}

// write notes n, and forgets what was noted of the file before.
func (o Options) write(n Note) error {
	n.File, n.PID, n.At = o.File, os.Getpid(), time.Now()
	_, n.Start = processOf(n.PID)
	return o.replace(o.noteFile(), n)
}

// Notes returns what is noted in the default directory of shims, and in those on path.
func Notes(path string) (list []Note) {
	dirs := filepath.SplitList(path)
	if dir, err := DefaultDir(); err == nil {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		list = append(list, notes(dir)...)
	}
	return list
}

// Wait waits, for packingTime at most, until no snapshot of an install is being made that
// Notes has. After a second it says once what it waits for.
func Wait(ctx context.Context, path string, waiting func(Note)) {
	for start := time.Now(); ctx.Err() == nil && time.Since(start) < packingTime; time.Sleep(20 * time.Millisecond) {
		list := Notes(path)
		i := slices.IndexFunc(list, func(n Note) bool { return n.Making() })
		if i < 0 {
			return
		}
		if waiting != nil && time.Since(start) > time.Second {
			waiting(list[i])
			waiting = nil
		}
	}
}

func notes(dir string) (list []Note) {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1) // others may have many files there: they are not looked at
	names = slices.DeleteFunc(names, func(name string) bool {
		return !strings.HasPrefix(name, sessionPrefix) || !strings.HasSuffix(name, noteSuffix)
	})
	slices.Sort(names)
	for _, name := range names {
		var n Note
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil && json.Unmarshal(data, &n) == nil && time.Since(n.At) < sessionTime {
			list = append(list, n)
		}
	}
	return list
}
