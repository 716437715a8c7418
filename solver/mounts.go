package solver

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
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/sandbox"
)

// runMounts are the mounts of one RUN, and what is held while it runs.
type runMounts struct {
	list  []sandbox.Mount
	locks []*os.File
	temps []string
	open  []*os.Root // the sources of cache mounts: no other directory gets their inode meanwhile

	dirs map[string]string // of caches that are for this RUN alone, by id
}

// A MissingSecretError says that Options.Secrets lacks a secret that a RUN requires.
type MissingSecretError struct{ ID string }

func (e *MissingSecretError) Error() string {
	return fmt.Sprintf("secret %q is required, and not given", e.ID)
}

// mounts prepares the mounts of a RUN: directories of cache mounts are made and
// locked, secrets are read, and those asked for as variables added to env.
func (r *session) mounts(ctx context.Context, run *frontend.Run, env *[]string) (*runMounts, error) {
	rm := &runMounts{dirs: make(map[string]string)}
	if err := rm.lock(ctx, r, run.Mounts); err != nil {
		rm.release()
		return nil, err
	}
	for _, m := range run.Mounts {
		if err := rm.add(r, m, env); err != nil {
			rm.release()
			return nil, fmt.Errorf("--mount=type=%s: %w", m.Type, err)
		}
	}
	return rm, nil
}

func (rm *runMounts) add(r *session, m frontend.Mount, env *[]string) error {
	mount := sandbox.Mount{Target: m.Target, Mode: m.Mode, UID: m.UID, GID: m.GID, ReadOnly: m.ReadOnly, Size: m.Size}
	switch m.Type {
	case frontend.MountTmpfs:
		mount.Tmpfs = true
	case frontend.MountCache:
		path, dir, err := rm.cacheDir(r, m)
		if err != nil {
			return err
		}
		rm.open = append(rm.open, dir)
		mount.Source = path
		if mount.SourceID, err = sandbox.IDOf(dir); err != nil {
			return err
		}
	case frontend.MountSecret:
		content, ok, err := r.secret(m.ID)
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
		mount.Content = content
		if content == nil {
			mount.Content = []byte{}
		}
	default:
		return fmt.Errorf("unknown type")
	}
	rm.list = append(rm.list, mount)
	return nil
}

// secret returns the content of a secret, and whether it was given.
func (r *session) secret(id string) ([]byte, bool, error) {
	s, ok := r.Secrets[id]
	if !ok {
		return nil, false, nil
	}
	if s.Content != nil {
		return s.Content, true, nil
	}
	if s.Env != "" {
		for _, kv := range r.Environ {
			if v, ok := strings.CutPrefix(kv, s.Env+"="); ok {
				return []byte(v), true, nil
			}
		}
		return nil, false, fmt.Errorf("secret %q: variable %s is not set", id, s.Env)
	}
	content, err := safefile.Read(s.File, MaxSecret)
	if err != nil {
		return nil, false, fmt.Errorf("secret %q: %w", id, err)
	}
	return content, true, nil
}

// cacheFailed reports that cache mounts are empty, once: what prevents them fails
// the store beside them too.
func (r *session) cacheFailed(err error) {
	if r.Cache != "" {
		r.Report.StoreFailed(report.LocalStore, fmt.Errorf("cache mounts are empty, and are not stored: %w", err))
	}
}

// mountsDir opens the directory that holds those of cache mounts.
func (r *session) mountsDir() (*os.Root, error) {
	if r.Cache == "" {
		return nil, errors.New("there is no cache directory")
	}
	dir, err := safefile.MakeDir(filepath.Join(r.Cache, "mounts"), 0o700)
	if err != nil {
		return nil, err
	}
	// Nothing verifies what is in a cache mount, and the mode of its own directory is
	// the one that RUN asks for: no other user may reach it.
	if err = errors.Join(safefile.CheckDir(dir), hasSpace(dir)); err == nil {
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
func hasSpace(dir *os.Root) error {
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
	if st.Bavail*uint64(st.Bsize) < minBytes || st.Files > 0 && st.Ffree < minFiles {
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
func (rm *runMounts) lock(ctx context.Context, r *session, mounts []frontend.Mount) error {
	sharing := make(map[string]string)
	for _, m := range mounts {
		if m.Type == frontend.MountCache && m.Sharing != "shared" && m.Sharing != "" && sharing[m.ID] != "locked" {
			sharing[m.ID] = m.Sharing
		}
	}
	if len(sharing) == 0 {
		return nil
	}
	dir, err := r.mountsDir()
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
			r.cacheFailed(err)
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
func (rm *runMounts) cacheDir(r *session, m frontend.Mount) (string, *os.Root, error) {
	mode := os.FileMode(m.Mode & 0o777)
	private, alone := rm.dirs[m.ID]
	if private != "" {
		dir, err := safefile.OpenDir(private)
		return private, dir, err
	}
	if !alone {
		path, dir, err := r.sharedDir(m, mode)
		if err == nil {
			return path, dir, nil
		}
		r.cacheFailed(err)
	}
	path, err := r.privateDir()
	if err != nil {
		return "", nil, err
	}
	rm.temps = append(rm.temps, path)
	rm.dirs[m.ID] = path
	dir, err := safefile.OpenDir(path)
	if err != nil {
		return "", nil, err
	}
	if err := adorn(dir, m, mode); err != nil {
		return "", nil, errors.Join(err, dir.Close())
	}
	return path, dir, nil
}

// privateDir makes an empty directory, beside the others where it can.
func (r *session) privateDir() (string, error) {
	if dir, err := r.mountsDir(); err == nil {
		defer dir.Close()
		if path, err := os.MkdirTemp(dir.Name(), "private-"); err == nil {
			return path, nil
		}
	}
	return os.MkdirTemp("", "clayer-mount-")
}

// sharedDir returns the directory of a cache mount's id, and makes it if it is not there.
func (r *session) sharedDir(m frontend.Mount, mode os.FileMode) (string, *os.Root, error) {
	dir, err := r.mountsDir()
	if err != nil {
		return "", nil, err
	}
	defer dir.Close()
	name := cacheName(m.ID)
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
		if err := adorn(there, m, mode); err != nil {
			return "", nil, errors.Join(err, there.Close())
		}
	}
	return filepath.Join(dir.Name(), name), there, nil
}

// adorn gives a new directory what its mount asks for: mkdir knows the umask and,
// for root, another owner.
func adorn(dir *os.Root, m frontend.Mount, mode os.FileMode) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(mode); err != nil || os.Geteuid() != 0 {
		return err
	}
	return f.Chown(m.UID, m.GID)
}

// release releases locks, and removes directories, that were for this RUN alone.
func (rm *runMounts) release() {
	for _, dir := range rm.open {
		dir.Close()
	}
	for _, f := range rm.locks {
		f.Close()
	}
	for _, dir := range rm.temps {
		os.RemoveAll(dir)
	}
}
