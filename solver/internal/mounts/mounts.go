// Package mounts prepares the mounts of a RUN: directories of caches, which outlive it and
// which other RUNs have too, and secrets.
package mounts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/mount"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/internal/workdir"
	"github.com/clayer/clayer/solver/sandbox"
)

// A Source is where mounts come from.
type Source struct {
	Dir    string                                // of the caches, made when needed; "": none outlives its RUN
	Failed func(err error)                       // reports that caches cannot be had, which are empty then
	Secret func(id string) ([]byte, bool, error) // its content, and whether it was given

	// Pin returns what the files are that a cache mount begins with, and Copy copies them into a
	// directory, which is empty, and returns the path of the one that holds them.
	Pin  func(ctx context.Context, m *frontend.Mount) (string, error)
	Copy func(ctx context.Context, m *frontend.Mount, dir string) (string, error)

	Agents map[string]Agent // by id
	OnRoot bool             // the RUN runs in place, on the root of this machine

	// Fill is called with each cache mount of a RUN before it is prepared, to fill one that is
	// empty; nil fills none.
	Fill func(ctx context.Context, id string) error

	// Show sets the source of a mount that shows files: a part of a view, or a copy that it puts
	// into a directory that dir makes.
	Show func(ctx context.Context, m *frontend.Mount, dir func() (string, error), out *sandbox.Mount) error
}

// Mounts are the mounts of one RUN, and what is held while it runs.
type Mounts struct {
	List  []sandbox.Mount
	locks []*os.File
	temps []*workdir.Dir
	trees []*os.File

	agents   []*forwarder
	hasAgent bool
	open     []*os.Root // the sources of cache mounts: no other directory gets their inode meanwhile

	dirs map[string]string // of caches that are for this RUN alone, by id
	used map[string]bool   // caches of which it holds the lock that RUNs share, by id
}

// A MissingSecretError says that nobody gave a secret that a RUN requires.
type MissingSecretError struct{ ID string }

func (e *MissingSecretError) Error() string {
	return fmt.Sprintf("secret %q is required, and not given", e.ID)
}

// Prepare prepares the mounts of a RUN: directories of caches are made and locked,
// secrets are read, and those asked for as variables added to env.
func (src *Source) Prepare(ctx context.Context, run *frontend.Run, env *[]string) (*Mounts, error) {
	rm := &Mounts{dirs: make(map[string]string), used: make(map[string]bool)}
	caches, err := src.caches(ctx, run)
	if err != nil {
		return nil, err
	}
	if err := src.fill(ctx, caches); err != nil {
		return nil, err
	}
	if err := rm.lock(ctx, src, caches); err != nil {
		rm.Release()
		return nil, err
	}
	for i := range run.Mounts {
		m := &run.Mounts[i]
		if err := rm.add(ctx, src, run, m, caches[i], env); err != nil {
			rm.Release()
			return nil, fmt.Errorf("--mount=type=%s: %w", m.Type, err)
		}
	}
	return rm, nil
}

func (src *Source) fill(ctx context.Context, mounts []cache) error {
	if src.Fill == nil || src.Dir == "" {
		return nil
	}
	for _, m := range mounts {
		if m.Type == mount.Cache {
			if err := src.Fill(ctx, m.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (rm *Mounts) add(ctx context.Context, src *Source, run *frontend.Run, m *frontend.Mount, c cache, env *[]string) error {
	out := sandbox.Mount{Target: m.Target, Mode: m.Mode, UID: m.UID, GID: m.GID, ReadOnly: m.ReadOnly, Size: m.Size}
	switch m.Type {
	case mount.Tmpfs:
		out.Tmpfs = true
	case mount.Bind:
		err := src.Show(ctx, m, func() (string, error) {
			return rm.privateDir(src)
		}, &out)
		if out.Tree != nil {
			rm.trees = append(rm.trees, out.Tree)
		}
		if err != nil {
			return err
		}
	case mount.Cache:
		path, dir, err := rm.cacheDir(ctx, src, c)
		if err != nil {
			return err
		}
		rm.open = append(rm.open, dir)
		out.Source = path
		if out.SourceID, err = sandbox.IDOf(dir); err != nil {
			return err
		}
	case mount.SSH:
		if given, err := rm.agent(src, run, m, &out, env); !given || err != nil {
			return err
		}
	case mount.Secret:
		content, ok, err := src.Secret(m.ID)
		if err != nil {
			return err
		}
		if !ok {
			if m.Required {
				return &MissingSecretError{ID: m.ID}
			}
			return nil
		}
		if m.EnvName != "" {
			*env = slices.DeleteFunc(*env, func(kv string) bool { return strings.HasPrefix(kv, m.EnvName+"=") })
			*env = append(*env, m.EnvName+"="+string(content))
		}
		if m.Target == "" {
			return nil
		}
		out.Content = content
		if content == nil {
			out.Content = []byte{}
		}
	default:
		return fmt.Errorf("unknown type")
	}
	rm.List = append(rm.List, out)
	return nil
}

func (src *Source) failed(err error) {
	if src.Dir != "" {
		src.Failed(err)
	}
}

// mountsDir opens the directory that holds those of cache mounts, if its disk has space.
func (src *Source) mountsDir(space int64) (*os.Root, error) {
	if src.Dir == "" {
		return nil, errors.New("there is no cache directory")
	}
	dir, err := safefile.MakeDir(src.Dir, 0o700)
	if err != nil {
		return nil, err
	}
	// Nothing verifies what is in a cache mount, and the mode of its own directory is
	// the one that RUN asks for: no other user may reach it.
	if err = errors.Join(safefile.CheckDir(dir), hasSpace(dir, space)); err == nil {
		err = dir.Chmod(".", 0o700)
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// hasSpace is an error where a disk is full: a RUN that fills its caches there
// would fail.
func hasSpace(dir *os.Root, space int64) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir.Name(), Err: err}
	}
	const minBytes, minFiles = 1 << 20, 16
	if st.Bavail*uint64(st.Bsize) < minBytes+uint64(space) || st.Files > 0 && st.Ffree < minFiles {
		return &fs.PathError{Op: "write", Path: dir.Name(), Err: unix.ENOSPC}
	}
	return nil
}

// cacheName returns the name of the directory of a cache mount's id.
func cacheName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8])
}

// lock locks the caches that a RUN requires for itself, each once and in one order
// for all: two RUNs that want the same two don't wait for each other.
// sharing=locked waits until no other RUN has the cache; sharing=private takes
// an empty directory while another RUN has it.
func (rm *Mounts) lock(ctx context.Context, src *Source, mounts []cache) error {
	sharing := make(map[string]string)
	for _, m := range mounts {
		if m.Type == mount.Cache && m.Sharing != "shared" && m.Sharing != "" && sharing[m.ID] != "locked" {
			sharing[m.ID] = m.Sharing
		}
	}
	if len(sharing) == 0 {
		return nil
	}
	dir, err := src.mountsDir(0)
	if err != nil {
		return nil // they are for this RUN alone: see cacheDir
	}
	defer dir.Close()
	for _, id := range slices.Sorted(maps.Keys(sharing)) {
		name := cacheName(id) + ".lock"
		l, err := safefile.TryLock(dir, name, unix.LOCK_EX)
		if errors.Is(err, safefile.ErrLocked) && sharing[id] != "locked" {
			rm.dirs[id] = "" // another RUN has it
			continue
		}
		if errors.Is(err, safefile.ErrLocked) {
			l, err = safefile.Lock(ctx, dir, name, unix.LOCK_EX)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("lock cache %q: %w", id, context.Cause(ctx))
		}
		if err != nil {
			src.failed(err)
			rm.dirs[id] = ""
			continue
		}
		rm.locks = append(rm.locks, l)
	}
	return nil
}

// cacheDir returns, by path and open, the directory that a cache mount binds: one for each id,
// for all solves. One that is for this RUN alone, since another RUN has
// the cache, or it cannot be had, is removed after it.
func (rm *Mounts) cacheDir(ctx context.Context, src *Source, m cache) (string, *os.Root, error) {
	mode := os.FileMode(m.Mode & 0o777)
	private, alone := rm.dirs[m.ID]
	if private != "" {
		dir, err := safefile.OpenDir(private)
		return private, dir, err
	}
	if !alone {
		path, dir, err := rm.sharedDir(ctx, src, m, mode)
		if err == nil {
			return path, dir, nil
		}
		if ctx.Err() != nil {
			return "", nil, context.Cause(ctx)
		}
		if errors.As(err, new(*contentError)) {
			return "", nil, err
		}
		src.failed(err)
	}
	path, err := rm.privateDir(src)
	if err != nil {
		return "", nil, err
	}
	if m.begins != nil {
		path, err = src.Copy(ctx, m.begins, path)
	} else {
		path = filepath.Join(path, "files") // the one above is locked, and the RUN may lock its own
		err = os.Mkdir(path, 0o700)
	}
	if err != nil {
		return "", nil, err
	}
	rm.dirs[m.ID] = path
	dir, err := safefile.OpenDir(path)
	if err != nil || m.begins != nil {
		return path, dir, err
	}
	if err := adorn(dir, m.Mount, mode); err != nil {
		return "", nil, errors.Join(err, dir.Close())
	}
	return path, dir, nil
}

// privateDir makes an empty directory for this RUN alone, beside the others where it can.
func (rm *Mounts) privateDir(src *Source) (string, error) {
	beside := ""
	if dir, err := src.mountsDir(0); err == nil {
		beside = dir.Name()
		dir.Close()
	}
	d, err := workdir.New(beside)
	if err != nil && beside != "" {
		d, err = workdir.New("")
	}
	if err != nil {
		return "", err
	}
	rm.temps = append(rm.temps, d)
	return d.Path, nil
}

// sharedDir returns the directory of a cache mount's id, and makes it if it is not there.
// As long as the RUN has it, nobody puts another one into its place.
func (rm *Mounts) sharedDir(ctx context.Context, src *Source, m cache, mode os.FileMode) (string, *os.Root, error) {
	dir, err := src.mountsDir(0)
	if err != nil {
		return "", nil, err
	}
	defer dir.Close()
	name := cacheName(m.ID)
	if !rm.used[m.ID] {
		l, err := safefile.Lock(ctx, dir, UsedLock(name), unix.LOCK_SH)
		if ctx.Err() != nil {
			return "", nil, fmt.Errorf("lock cache %q: %w", m.ID, context.Cause(ctx))
		}
		if err == nil { // else the file system knows no locks
			rm.locks, rm.used[m.ID] = append(rm.locks, l), true
		}
	}
	_ = Remember(dir, m.ID, m.Target) // without it, the mount works as well
	if err := m.begin(ctx, src, dir, name); err != nil {
		return "", nil, err
	}
	err = dir.Mkdir(name, 0o700)
	made := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", nil, err
	}
	there, err := safefile.OpenDirIn(dir, name) // not a link to elsewhere
	if err != nil {
		return "", nil, err
	}
	if made {
		if err := adorn(there, m.Mount, mode); err != nil {
			return "", nil, errors.Join(err, there.Close())
		}
	}
	return filepath.Join(dir.Name(), name), there, nil
}

// adorn gives a new directory what its mount asks for: mkdir knows the umask and,
// for root, another owner. A plain user cannot give it away: there it is open to the users of
// the RUN, whom another's would be closed to, and nobody else reaches it.
func adorn(dir *os.Root, m mount.Mount, mode os.FileMode) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	if os.Geteuid() != 0 {
		if m.UID != 0 || m.GID != 0 {
			mode |= 0o777
		}
		return f.Chmod(mode)
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Chown(m.UID, m.GID)
}

// Release releases locks, and removes directories, that were for this RUN alone.
func (rm *Mounts) Release() {
	for _, dir := range rm.open {
		dir.Close()
	}
	for _, f := range slices.Concat(rm.locks, rm.trees) {
		f.Close()
	}
	for _, f := range rm.agents {
		f.close()
	}
	for _, dir := range rm.temps {
		dir.Remove()
	}
}
