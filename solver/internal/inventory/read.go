package inventory

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/solver/internal/names"
)

const (
	dpkgStatus   = "var/lib/dpkg/status"
	apkInstalled = "lib/apk/db/installed"

	maxPackage = 1 << 20 // bytes of a package.json
)

// Read reads what a view of a root has. home is the user's; "" for none.
func Read(v *names.View, home string) (*Inventory, error) {
	if !path.IsAbs(home) || path.Clean(home) == "/" {
		home = ""
	}
	r := &reader{view: v, Inventory: &Inventory{Version: fileVersion, At: time.Now().UTC(), Home: home, Packages: make(map[string]map[string]string)}}
	for _, read := range []func() error{r.dpkg, r.apk, r.python, r.npm, r.programs} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return r.Inventory, nil
}

// A reader fills an Inventory.
type reader struct {
	*Inventory
	view *names.View
}

// readable returns the content of a file; nil where there is none that this user can read.
func readable(v *names.View, name string) ([]byte, error) {
	data, err := v.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrInvalid) {
		return nil, nil
	}
	return data, err
}

// dpkg reads the packages of which dpkg has the files.
func (r *reader) dpkg() error {
	return r.database(snapshot.ManagerDpkg, dpkgStatus, func(record []byte) (name, version string) {
		if strings.HasSuffix(field(record, "Status: "), " installed") {
			return field(record, "Package: "), field(record, "Version: ")
		}
		return "", ""
	})
}

// apk reads the packages of Alpine.
func (r *reader) apk() error {
	return r.database(snapshot.ManagerAPK, apkInstalled, func(record []byte) (name, version string) {
		return field(record, "P:"), field(record, "V:")
	})
}

// database reads the file of a manager that has a record for each package, with an empty
// line between them. of returns what a record is of; no name: nothing that is installed.
func (r *reader) database(manager, file string, of func(record []byte) (name, version string)) error {
	data, err := readable(r.view, file)
	if err != nil || data == nil {
		return err
	}
	all := make(map[string]string)
	for len(data) > 0 {
		var record []byte
		record, data, _ = bytes.Cut(data, []byte("\n\n"))
		if name, version := of(record); name != "" {
			all[name] = version
		}
	}
	r.Packages[manager] = all
	return nil
}

// field returns the value of a line that begins with a prefix; "" for none.
func field(record []byte, prefix string) string {
	for len(record) > 0 {
		var line []byte
		line, record, _ = bytes.Cut(record, []byte("\n"))
		if value, ok := bytes.CutPrefix(line, []byte(prefix)); ok {
			return string(bytes.TrimSpace(value))
		}
	}
	return ""
}

var (
	pythonDir = lazyregexp.New(`^python3(\.[0-9]+)?$`)
	infoDir   = lazyregexp.New(`^(.+?)-([^-]+)(?:-py[0-9.]+)?\.(?:dist|egg)-info$`)
)

// separators are the same in names of distributions.
var separators = strings.NewReplacer("_", "-", ".", "-")

func normal(name string) string { return strings.ToLower(separators.Replace(name)) }

// python reads the directories of the system's Pythons, and of the user's. The names of
// what is in them say all.
func (r *reader) python() error {
	for _, lib := range []string{"usr/local/lib", "usr/lib", "opt/conda/lib", r.inHome(".local/lib")} {
		list, err := r.list(lib)
		if err != nil {
			return err
		}
		for _, version := range list {
			if !pythonDir().MatchString(version) {
				continue
			}
			for _, kind := range []string{"dist-packages", "site-packages"} {
				if err := r.site(path.Join(lib, version, kind)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *reader) site(name string) error {
	d, list, err := r.directory(name)
	if err != nil || list == nil {
		return err
	}
	all := make(map[string]string)
	for _, info := range list {
		if m := infoDir().FindStringSubmatch(info); m != nil {
			all[normal(m[1])] = m[2]
		}
	}
	r.Packages[snapshot.ManagerPython+" /"+d.Path()] = all
	return nil
}

// npm reads the packages that are installed for all projects.
func (r *reader) npm() error {
	for _, name := range []string{"usr/lib/node_modules", "usr/local/lib/node_modules", r.inHome(".npm-global/lib/node_modules")} {
		d, list, err := r.directory(name)
		if err != nil {
			return err
		}
		if list == nil {
			continue
		}
		all := make(map[string]string)
		for _, name := range list {
			if !strings.HasPrefix(name, "@") {
				err = r.module(all, d.Path(), name)
			} else {
				var scoped []string
				scoped, err = r.list(path.Join(d.Path(), name))
				for _, base := range scoped {
					if err == nil {
						err = r.module(all, d.Path(), name+"/"+base)
					}
				}
			}
			if err != nil {
				return err
			}
		}
		r.Packages[snapshot.ManagerNPM+" /"+d.Path()] = all
	}
	return nil
}

func (r *reader) module(all map[string]string, dir, name string) error {
	f, err := r.view.Follow(path.Join(dir, name, "package.json"))
	if err != nil || f.Kind != names.File {
		return err
	}
	file, err := f.Open()
	if err != nil {
		return nil // this user cannot read it
	}
	defer file.Close()
	var p struct{ Version string }
	_ = json.NewDecoder(io.LimitReader(file, maxPackage)).Decode(&p) // without a version then
	all[name] = p.Version
	return nil
}

// programs reads the names in directories that no package manager has: what was built, or
// downloaded.
func (r *reader) programs() error {
	for _, name := range []string{"opt", "usr/local/bin", "usr/local/sbin", r.inHome(".local/bin"), r.inHome("bin"), r.inHome(".cargo/bin"), r.inHome("go/bin")} {
		d, list, err := r.directory(name)
		if err != nil {
			return err
		}
		if list == nil {
			continue
		}
		all := make(map[string]string, len(list))
		for _, program := range list {
			f, err := d.Look(program)
			if err != nil {
				return err
			}
			if f.Kind != names.Link || !strings.Contains(f.Target, "node_modules/") { // npm's
				all[program] = ""
			}
		}
		r.Packages[Program+" /"+d.Path()] = all
	}
	return nil
}

// inHome returns a path below the user's home; "" where there is none.
func (r *reader) inHome(name string) string {
	if r.Home == "" {
		return ""
	}
	return path.Join(r.Home, name)[1:]
}

// directory returns a directory, and what is in it; nil where it is missing.
func (r *reader) directory(name string) (d names.Directory, list []string, err error) {
	if name == "" {
		return d, nil, nil
	}
	if d, err = r.view.Directory(name); err == nil && d.Path() != "" {
		if list, err = d.Names(); list == nil {
			list = []string{}
		}
	}
	return d, list, err
}

func (r *reader) list(name string) ([]string, error) {
	_, list, err := r.directory(name)
	return list, err
}
