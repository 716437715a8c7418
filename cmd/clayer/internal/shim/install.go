// Package shim comes before package managers on PATH: it runs the real program as
// if it were not there, and writes what was installed into a Containerfile.
package shim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver"
)

// Options say where shims are, and what they write to.
type Options struct {
	Dir    string // the directory of the shims, absolute
	File   string // the Containerfile, absolute
	Clayer string // this program, absolute
	Path   string // $PATH

	// Solver returns how a solve of File changes the machine, and an error where it may
	// not, or changes another place. nil: no snapshot is made.
	Solver func(context.Context) (solver.Options, error)
}

// sessionPrefix begins the names of the files that a session stores beside the shims.
const sessionPrefix = ".session-"

// DefaultDir is where shims are unless another is given: in $XDG_STATE_HOME.
func DefaultDir() (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("cannot locate the directory for shims: %w (use --dir)", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "clayer", "shims"), nil
}

// Install makes a shim of each package manager that is found on $PATH, and none
// of one that is not: who asks whether there is an apk is not to be misled. It
// begins a new session, and returns the names, sorted. It may be called again.
func Install(o Options) ([]string, error) {
	if err := safefile.MakeAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	if _, err := removeOwn(o.Dir); err != nil {
		return nil, err
	}
	return add(o, edit.Programs())
}

// add makes the shims of those programs that are there.
func add(o Options, programs []string) ([]string, error) {
	var names []string
	for _, name := range programs {
		if find(name, o.Dir, o.Path) == "" {
			continue
		}
		path := filepath.Join(o.Dir, name)
		if old, err := os.ReadFile(path); err == nil && !isShim(old) {
			return nil, fmt.Errorf("%s is no shim: give another --dir", path)
		}
		// Renamed into place: a shell may be reading the old one.
		temp := filepath.Join(o.Dir, "."+name+".new")
		if err := errors.Join(os.WriteFile(temp, []byte(executable(name, o)), 0o755), os.Chmod(temp, 0o755)); err != nil {
			return nil, err
		}
		if err := os.Rename(temp, path); err != nil {
			return nil, errors.Join(err, os.Remove(temp))
		}
		names = append(names, name)
	}
	return names, nil
}

// Uninstall removes the shims in dir, and dir if nothing else is in it. It
// returns how many there were.
func Uninstall(dir string) (int, error) {
	n, err := removeOwn(dir)
	if err != nil {
		return n, err
	}
	for range 2 { // the directory, and the one above if it was made for it
		if os.Remove(dir) != nil {
			break
		}
		if dir = filepath.Dir(dir); filepath.Base(dir) != "clayer" {
			break
		}
	}
	return n, nil
}

func removeOwn(dir string) (n int, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	programs := edit.Programs()
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		name := strings.TrimSuffix(strings.TrimPrefix(e.Name(), "."), ".new")
		switch {
		case strings.HasPrefix(e.Name(), sessionPrefix), e.Name() == countName:
		case slices.Contains(programs, name):
			data, err := os.ReadFile(path)
			if err != nil {
				return n, err
			}
			if !isShim(data) {
				continue
			}
			n++
		default:
			continue
		}
		if err := os.Remove(path); err != nil {
			return n, err
		}
	}
	return n, nil
}

func isShim(data []byte) bool { return strings.Contains(string(data), edit.ShimMark) }

// Program returns the path of this program: the one that PATH finds it by, if there
// is one, since it may be a link that the next version moves.
func Program() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if named, err := exec.LookPath(os.Args[0]); err == nil {
		if abs, err := filepath.Abs(named); err == nil && sameFile(abs, exe) {
			return abs, nil
		}
	}
	return exe, nil
}

func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}
