// Package machine says what kind of machine this is: the platform that enters every
// key, and whether the machine ends with its session.
package machine

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/safefile"
)

// Platform says what a root is, as far as it decides whether a snapshot fits:
// "linux/amd64 debian 12 python3.11". searchPath is the PATH in which python3
// is looked up.
//
// It is read once per root, before anything is changed there, and stored with
// the state: a layer that installs python3 must not change its own key.
func Platform(ctx context.Context, root, searchPath string) string {
	parts := []string{runtime.GOOS + "/" + runtime.GOARCH}
	if id, version := osRelease(root); id != "" {
		parts = append(parts, strings.TrimSpace(id+" "+version))
	}
	if v := python(ctx, root, searchPath); v != "" {
		parts = append(parts, v)
	}
	return strings.Join(parts, " ")
}

// maxRelease bounds os-release, in bytes.
const maxRelease = 1 << 20

// osRelease returns ID and VERSION_ID of os-release(5), "" if not given.
func osRelease(root string) (id, version string) {
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		path, err := Within(root, name)
		if err != nil {
			continue
		}
		text, err := safefile.Read(path, maxRelease)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			k, v, _ := strings.Cut(line, "=")
			v = strings.Trim(strings.TrimSpace(v), `"'`)
			switch strings.TrimSpace(k) {
			case "ID":
				id = v
			case "VERSION_ID":
				version = v
			}
		}
		return id, version
	}
	return "", ""
}

var pythonName = lazyregexp.New(`^python3\.\d+`)

// python returns "python3.X" for the python3 that a RUN would find, "" for none.
func python(ctx context.Context, root, searchPath string) string {
	for _, dir := range filepath.SplitList(searchPath) {
		if !filepath.IsAbs(dir) {
			continue
		}
		path, err := Within(root, filepath.Join(dir, "python3"))
		if err != nil {
			continue
		}
		if info, err := os.Stat(path); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			continue
		}
		// Distributions have python3 -> python3.11: no need to start it.
		if v := pythonName().FindString(filepath.Base(path)); v != "" {
			return v
		}
		// clayer's own shim is found before the program, or there is none.
		if strings.HasPrefix(beginning(path), "#!/bin/sh\n"+edit.ShimMark+"\n") {
			continue
		}
		if v := pyenv(root, path); v != "" {
			return v
		}
		if root == "/" {
			ask := exec.CommandContext(ctx, path, "-c", `import sys; print("python%d.%d" % sys.version_info[:2])`)
			ask.WaitDelay = time.Second // children may hold the output open
			ask.Dir = root              // pyenv goes by the directory that it is called in
			out, err := ask.Output()
			if v := pythonName().FindString(string(out)); err == nil && v != "" {
				return v
			}
		}
		// A python3 that is no link, in another root: by its library's directory.
		libs, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "..", "lib", "python3.*"))
		for _, lib := range libs {
			if v := pythonName().FindString(filepath.Base(lib)); v != "" {
				return v
			}
		}
		return "python3"
	}
	return ""
}

var (
	pyenvShim      = lazyregexp.New(`(?s)\A#!/usr/bin/env bash\n.*\nexport PYENV_ROOT="([^"]+)"\n(?:.*\n)?exec "([^"]+)/libexec/pyenv" exec "\$program" "\$@"\s*\z`)
	python3Version = lazyregexp.New(`\A(3\.\d+)\.\d+\s*\z`)
)

// pyenv returns "python3.X" for a shim of pyenv, a script that takes as long as all
// else that a plan does to start the python3 that it stands for. It is "" for any
// other program, and where more than pyenv's global version decides.
func pyenv(root, shim string) string {
	m := pyenvShim().FindStringSubmatch(beginning(shim))
	if m == nil {
		return ""
	}
	for _, name := range []string{"PYENV_VERSION", "PYENV_DIR", "PYENV_HOOK_PATH"} {
		if os.Getenv(name) != "" {
			return ""
		}
	}
	home, err := Within(root, m[1])
	if err != nil {
		return ""
	}
	may := []string{"/.python-version"}
	for _, hooks := range []string{m[1] + "/pyenv.d", m[2] + "/pyenv.d", m[1] + "/plugins/*/etc/pyenv.d", "/usr/etc/pyenv.d", "/usr/local/etc/pyenv.d", "/etc/pyenv.d", "/usr/lib/pyenv/hooks"} {
		may = append(may, hooks+"/version-name")
	}
	for _, name := range may {
		if there, err := filepath.Glob(filepath.Join(root, name)); err != nil || len(there) > 0 {
			return ""
		}
	}
	v := python3Version().FindStringSubmatch(beginning(filepath.Join(home, "version")))
	if v == nil {
		return ""
	}
	real := filepath.Join(home, "versions", strings.TrimSpace(v[0]), "bin/python"+v[1])
	if info, err := os.Stat(real); err != nil || info.Mode()&0o111 == 0 {
		return ""
	}
	return "python" + v[1]
}

// beginning returns the first 4 KiB of a file; "" if it can't be read.
func beginning(path string) string {
	f, err := safefile.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 4<<10)
	n, _ := io.ReadFull(f, b)
	return string(b[:n])
}

// Within returns the path on this machine that name has in root, with all
// symbolic links resolved as a process chrooted to root sees them.
func Within(root, name string) (string, error) {
	done, rest := "/", filepath.Clean("/"+name)
	for range 255 {
		rest = strings.TrimPrefix(rest, "/")
		if rest == "" {
			return filepath.Join(root, done), nil
		}
		part, more, _ := strings.Cut(rest, "/")
		if part == ".." {
			done, rest = filepath.Dir(done), more
			continue
		}
		next := filepath.Join(done, part)
		info, err := os.Lstat(filepath.Join(root, next))
		if err != nil {
			return "", err
		}
		if info.Mode()&os.ModeSymlink == 0 {
			done, rest = next, more
			continue
		}
		target, err := os.Readlink(filepath.Join(root, next))
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			done = "/"
		}
		// Not cleaned: ".." after a link is the parent of where the link leads.
		rest = target + "/" + more
	}
	return "", &os.PathError{Op: "resolve", Path: name, Err: errors.New("too many levels of symbolic links")}
}
