package solver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/sandbox"
)

// runMounts are the mounts of one RUN, and what is held while it runs.
type runMounts struct {
	list  []sandbox.Mount
	locks []*flock.Flock
	temps []string
}

// mounts prepares the mounts of a RUN: folders of cache mounts are made and
// locked, secrets are read, and those asked for as variables added to env.
func (r *Request) mounts(ctx context.Context, run *frontend.Run, env *[]string) (*runMounts, error) {
	rm := &runMounts{}
	for _, m := range run.Mounts {
		if err := rm.add(ctx, r, m, env); err != nil {
			rm.release()
			return nil, fmt.Errorf("--mount=type=%s: %w", m.Type, err)
		}
	}
	return rm, nil
}

func (rm *runMounts) add(ctx context.Context, r *Request, m frontend.Mount, env *[]string) error {
	mount := sandbox.Mount{Target: m.Target, Mode: m.Mode, UID: m.UID, GID: m.GID, ReadOnly: m.ReadOnly, Size: m.Size}
	switch m.Type {
	case frontend.MountTmpfs:
		mount.Tmpfs = true
	case frontend.MountCache:
		folder, err := rm.cacheFolder(ctx, r, m)
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
	if s.Env != "" {
		for _, kv := range r.Environ {
			if v, ok := strings.CutPrefix(kv, s.Env+"="); ok {
				return []byte(v), true, nil
			}
		}
		return nil, false, fmt.Errorf("secret %q: variable %s is not set", id, s.Env)
	}
	content, err := os.ReadFile(s.File)
	if err != nil {
		return nil, false, fmt.Errorf("secret %q: %w", id, err)
	}
	return content, true, nil
}

// cacheFolder returns the folder that a cache mount binds: one for each id,
// kept from solve to solve. sharing=locked waits until no other RUN has it;
// sharing=private takes an empty one while another RUN has it.
func (rm *runMounts) cacheFolder(ctx context.Context, r *Request, m frontend.Mount) (string, error) {
	sum := sha256.Sum256([]byte(m.ID))
	parent := filepath.Join(r.Cache, "mounts")
	folder := filepath.Join(parent, hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	if m.Sharing != "shared" && m.Sharing != "" {
		lock := flock.New(folder+".lock", flock.SetPermissions(0o600))
		rm.locks = append(rm.locks, lock)
		locked, err := lock.TryLock()
		if err == nil && !locked {
			if m.Sharing == "locked" {
				_, err = lock.TryLockContext(ctx, 50*time.Millisecond)
			} else if folder, err = os.MkdirTemp(parent, "private-"); err == nil {
				rm.temps = append(rm.temps, folder)
			}
		}
		if err != nil {
			return "", fmt.Errorf("lock cache %q: %w", m.ID, err)
		}
	}
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
