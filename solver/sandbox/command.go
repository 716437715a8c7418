package sandbox

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/tree"
)

// A Command is one RUN.
type Command struct {
	Argv    []string
	Script  []byte   // if set, a program with a "#!" line that is executed instead of Argv
	Env     []string // "NAME=value"; nothing else is inherited
	Dir     string   // absolute; created in the root if missing
	Mounts  []Mount
	Output  io.Writer     // stdout and stderr together, as they come
	Timeout time.Duration // 0 means none
	// NoNetwork has it find no network but a loopback interface of its own. Where that cannot
	// be had, the error wraps ErrNoNetworkNamespace.
	NoNetwork bool
	Filter    *snapshot.Filter // which changes are reported; nil means the default exclusions

	// Epoch is the time that what the command wrote gets, in the root of the view too, where
	// the time that it has is one since the first Run of the view. Zero: times stay.
	Epoch time.Time

	// User runs the command; nil is the user of this process. Where that cannot become the
	// user, it runs the command itself, with Env, and calls Refused, which may be nil.
	User    *User
	Refused func(why string)

	// MachineTemp has a Layered view show the machine's own temporary files, over the
	// scratch of steps. What the command changes there is dropped, but in a scratch
	// directory that is a mount of its own.
	MachineTemp bool

	// Begin, if set, is called by an InPlace view just before the command starts,
	// with the reading of the root before it, and with the targets of secrets at
	// which nothing existed: what Recover and RemoveSecrets need if this process
	// is killed meanwhile.
	Begin func(before *tree.Reading, secrets []string) error

	// Dirty lists paths, relative to the root, for an InPlace view: what a RUN
	// that failed or was removed did to them could not be undone. Their state
	// after the command is reported as a change.
	Dirty []string
}

// A User is who runs a command, by what the root calls it.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
	Env      []string // of the command, instead of Command.Env
}

// A Mount is what a command sees at Target and is not part of the root.
// Exactly one of Source, Tree, Content and Tmpfs is set.
type Mount struct {
	Target   string   // absolute and clean
	Source   string   // a directory of the machine that is bound there (a cache mount), or a file
	Tree     *os.File // a part of a view, as its Tree gives it; what is changed there is dropped
	Socket   bool     // Source is a socket: in place a link leads to it
	Passing  bool     // Source is for this command alone: nobody sees what it changes there
	SourceID FileID   // of Source: another directory there is an error; zero: any
	Content  []byte   // a file with this content (a secret); never on disk, except in place where docs/sandboxes.md says so
	Tmpfs    bool
	Size     int64 // bytes of a tmpfs; 0 means no limit
	Mode     uint32
	UID, GID int
	ReadOnly bool
}

// A FileID says which directory a path led to when it was opened. Whoever owns a
// directory above can exchange it since.
type FileID struct{ Dev, Ino uint64 }

// IDOf returns the id of an open directory.
func IDOf(dir *os.Root) (FileID, error) {
	info, err := dir.Stat(".")
	if err != nil {
		return FileID{}, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return FileID{uint64(st.Dev), st.Ino}, nil
}

// Changes returns the filter of the command, compiled with scratch, and checks its
// mounts.
func (c *Command) Changes() (*snapshot.Filter, *snapshot.Matcher, error) {
	filter := c.Filter
	if filter == nil {
		filter = new(snapshot.Filter)
	}
	matcher, err := filter.CompileWithScratch()
	if err == nil {
		err = c.CheckMounts()
	}
	return filter, matcher, err
}

// CheckMounts returns an error for a mount whose target cannot be one.
func (c *Command) CheckMounts() error {
	for _, m := range c.Mounts {
		if !filepath.IsAbs(m.Target) || filepath.Clean(m.Target) != m.Target || m.Target == "/" {
			return fmt.Errorf("mount %q: not a clean absolute path below /", m.Target)
		}
	}
	return nil
}

// Targets lists what the mounts cover, which is not part of a change.
func (c *Command) Targets() (targets []string) {
	for _, m := range c.Mounts {
		targets = append(targets, m.Target)
	}
	return targets
}
