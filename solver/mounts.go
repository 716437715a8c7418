package solver

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver/sandbox"
)

// runMounts are the mounts of one RUN, and what is held while it runs.
type runMounts struct {
	list  []sandbox.Mount
	locks []*flock.Flock
	temps []string

	folders map[string]string // of private caches that another RUN has, by id
}

// mounts prepares the mounts of a RUN: folders of cache mounts are made and
// locked, secrets are read, and those asked for as variables added to env.
func (r *Request) mounts(ctx context.Context, run *frontend.Run, env *[]string) (*runMounts, error) {
	rm := &runMounts{folders: make(map[string]string)}
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

func (rm *runMounts) add(r *Request, m frontend.Mount, env *[]string) error {
	mount := sandbox.Mount{Target: m.Target, Mode: m.Mode, UID: m.UID, GID: m.GID, ReadOnly: m.ReadOnly, Size: m.Size}
	switch m.Type {
	case frontend.MountTmpfs:
		mount.Tmpfs = true
	case frontend.MountCache:
		folder, err := rm.cacheFolder(r, m)
		if err != nil {
			return err
		}
		mount.Source = folder
	case frontend.MountSecret:
		content, ok, err := r.secret(m.ID)
		if err != nil {
			return err
		}
		if !ok {
			if m.Required {
				return fmt.Errorf("secret %q is required, and not given: --secret id=%s,src=FILE or --secret id=%s,env=NAME", m.ID, m.ID, m.ID)
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
func (r *Request) secret(id string) ([]byte, bool, error) {
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

// mountsFolder holds the folders of cache mounts.
func (r *Request) mountsFolder() string { return filepath.Join(r.Cache, "mounts") }

// cachePath returns the folder of a cache mount's id.
func (r *Request) cachePath(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(r.mountsFolder(), hex.EncodeToString(sum[:8]))
}

// lock locks the caches that a RUN wants for itself, each once and in one order
// for all: two RUNs that want the same two don't wait for each other.
// sharing=locked waits until no other RUN has the cache; sharing=private takes
// an empty folder while another RUN has it.
func (rm *runMounts) lock(ctx context.Context, r *Request, mounts []frontend.Mount) error {
	sharing := make(map[string]string)
	for _, m := range mounts {
		if m.Type == frontend.MountCache && m.Sharing != "shared" && m.Sharing != "" && sharing[m.ID] != "locked" {
			sharing[m.ID] = m.Sharing
		}
	}
	if len(sharing) == 0 {
		return nil
	}
	if err := os.MkdirAll(r.mountsFolder(), 0o755); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(sharing)) {
		l := flock.New(r.cachePath(id)+".lock", flock.SetPermissions(0o600))
		rm.locks = append(rm.locks, l)
		locked, err := l.TryLock()
		if err == nil && !locked {
			if sharing[id] == "locked" {
				_, err = l.TryLockContext(ctx, 50*time.Millisecond)
			} else if rm.folders[id], err = os.MkdirTemp(r.mountsFolder(), "private-"); err == nil {
				rm.temps = append(rm.temps, rm.folders[id])
				err = os.Remove(rm.folders[id]) // made anew, with the mount's mode
			}
		}
		if err != nil {
			return fmt.Errorf("lock cache %q: %w", id, err)
		}
	}
	return nil
}

// cacheFolder returns the folder that a cache mount binds: one for each id,
// kept from solve to solve.
func (rm *runMounts) cacheFolder(r *Request, m frontend.Mount) (string, error) {
	if err := os.MkdirAll(r.mountsFolder(), 0o755); err != nil {
		return "", err
	}
	folder := cmp.Or(rm.folders[m.ID], r.cachePath(m.ID))
	switch err := os.Mkdir(folder, os.FileMode(m.Mode&0o777)); {
	case err == nil:
		// The umask and, for root, another owner: as the mount asks for.
		if err := os.Chmod(folder, os.FileMode(m.Mode&0o777)); err != nil {
			return "", err
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(folder, m.UID, m.GID); err != nil {
				return "", err
			}
		}
	case !errors.Is(err, os.ErrExist):
		return "", err
	}
	return folder, nil
}

// release gives back locks and folders that were for this RUN alone.
func (rm *runMounts) release() {
	for _, f := range rm.locks {
		f.Close()
	}
	for _, dir := range rm.temps {
		os.RemoveAll(dir)
	}
}
