// Package inventory knows which packages a root has, by the files in which package
// managers note them. The inventory of a root before clayer changes it first is its base
// record: what the base has beyond it later was installed by hand.
package inventory

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/rootfs"
)

// An Inventory is what a root has.
type Inventory struct {
	Version int       `json:"version"`
	At      time.Time `json:"at"`
	Home    string    `json:"home,omitempty"` // whose directories were looked at too; absolute

	// Packages has versions by name, by the place: the manager, and of those that have a
	// directory of packages, as "python /usr/lib/python3/dist-packages", that one. A
	// program that no manager notes has no version.
	Packages map[string]map[string]string `json:"packages"`
}

// Program is in place of a manager for what was put into a directory of programs.
const Program = "program"

// A Package is one that was installed by hand.
type Package struct {
	Manager string `json:"manager"` // as snapshot.Need has it, or Program
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Was     string `json:"was,omitempty"` // the version that the base record has; "" for none
	Dir     string `json:"dir,omitempty"` // that it is in, absolute; "": the manager has but one
}

// String is the package as people are told of it.
func (p Package) String() string {
	switch {
	case p.Manager == Program:
		return path.Join(p.Dir, p.Name)
	case p.Version == "":
		return p.Name
	}
	return p.Name + " " + p.Version
}

// Text lists packages in a line.
func Text(list []Package) string {
	const most = 3
	var names []string
	for _, p := range list[:min(len(list), most)] {
		names = append(names, p.String())
	}
	text := strings.Join(names, ", ")
	if more := len(list) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// A ByHandError is the warning that a step runs on a machine that has what neither its
// base record nor clayer explains.
type ByHandError struct{ Packages []Package }

func (e *ByHandError) Error() string { return e.Short() + ", which other machines lack" }

// Short says what was installed.
func (e *ByHandError) Short() string { return "installed by hand: " + Text(e.Packages) }

// Since returns what an inventory has that the one before has not, or in another version.
// What is in the home of another user than before is left out: nobody knows what was
// there.
func (i *Inventory) Since(before *Inventory) (list []Package) {
	for place, versions := range i.Packages {
		manager, dir, _ := strings.Cut(place, " ")
		if i.Home != before.Home && i.Home != "" && pathname.Under(dir, i.Home) {
			continue
		}
		for name, version := range versions {
			was, had := before.Packages[place][name]
			if !had || was != version {
				list = append(list, Package{manager, name, version, was, dir})
			}
		}
	}
	sortPackages(list)
	return list
}

func sortPackages(list []Package) {
	order.Stable(list, func(a, b Package) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.Manager, b.Manager), strings.Compare(a.Dir, b.Dir), strings.Compare(a.Name, b.Name))
	})
}

// rank puts programs last: most often something else says more.
func rank(p Package) int {
	if isProgram(p) {
		return 1
	}
	return 0
}

// Needs returns packages as needs of a snapshot whose step found them. A Program is none:
// what runs it needs it, as an interpreter or by its own name.
func (i *Inventory) Needs(list []Package) (needs []snapshot.Need) {
	for _, p := range list {
		n := snapshot.Need{Kind: snapshot.NeedPackage, Manager: p.Manager, Name: p.Name}
		switch p.Manager {
		case snapshot.ManagerDpkg:
			n.Name += " (= " + p.Version + ")"
		case snapshot.ManagerPython:
			n.Version = "==" + p.Version
		case snapshot.ManagerNPM, snapshot.ManagerAPK:
			n.Version = p.Version
		default:
			continue
		}
		if p.Dir != "" {
			n.Search = i.search(p)
		}
		needs = append(needs, n)
	}
	return needs
}

// AddNeeds adds to needs those of packages that are none of them yet.
func (i *Inventory) AddNeeds(needs []snapshot.Need, list []Package) []snapshot.Need {
	for _, n := range i.Needs(list) {
		if !slices.ContainsFunc(needs, func(x snapshot.Need) bool { return x.Kind == n.Kind && x.Manager == n.Manager && x.Name == n.Name }) {
			needs = append(needs, n)
		}
	}
	return needs
}

// search returns the directories in which a package may be as well as in its own.
func (i *Inventory) search(p Package) []string {
	dirs := []string{p.Dir}
	for place := range i.Packages {
		if manager, dir, _ := strings.Cut(place, " "); manager == p.Manager && dir != p.Dir && (i.Home == "" || !pathname.Under(dir, i.Home)) {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs[1:])
	return dirs
}

// fileName is where the base record is in the state directory, and fileVersion what it is.
const (
	fileName    = "base.json"
	fileVersion = 1
)

// load reads the base record of a root; nil for none.
func load(dir record.Dir) (*Inventory, error) {
	data, err := dir.ReadFile(fileName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	i := new(Inventory)
	if err := json.Unmarshal(data, i); err != nil {
		return nil, errhint.With(fmt.Errorf("%s is damaged: %w", dir.Path(fileName), err), "remove it: what is installed by then counts as the base machine's")
	}
	if i.Version != fileVersion { // what it says is not known
		return nil, nil
	}
	return i, nil
}

// Changed reports whether changes are of what a manager has.
func Changed(changes snapshot.Changes, manager string) bool {
	for e, err := range changes {
		dir, base := path.Split(e.Path)
		switch {
		case err != nil:
			return true
		case manager == snapshot.ManagerDpkg && e.Path == dpkgStatus,
			manager == snapshot.ManagerAPK && e.Path == apkInstalled,
			manager == snapshot.ManagerPython && (infoDir().MatchString(base) || infoDir().MatchString(path.Base(dir))),
			manager == snapshot.ManagerNPM && base == "package.json" && strings.Contains(dir, "node_modules/"):
			return true
		}
	}
	return false
}

// Record makes what a root has its base record, where it has none, under the root's lock.
func Record(lock *rootfs.Lock, home string) error {
	root := lock.Root()
	if is, err := root.StateDir().Exists(fileName); is || err != nil {
		return err
	}
	now, err := Read(root.Names(), home)
	if err != nil {
		return err
	}
	_, now, err = now.base(root, lock.State())
	if err != nil {
		return err
	}
	data, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return root.StateDir().ReplaceFile(fileName, data)
}

// RecordLater is Record for a root that an earlier version of clayer has changed, and that
// nothing changes now. What fails is tried again by the next solve.
func RecordLater(ctx context.Context, root *rootfs.Root, home string) {
	if is, err := root.StateDir().Exists(fileName); is || err != nil {
		return
	}
	if lock, err := root.Lock(ctx, false, nil); err == nil {
		_ = Record(lock, home)
		_ = lock.Unlock()
	}
}

// base returns a view of a root without what is applied, as far as an inventory of it goes,
// and that inventory. i is that of the root with all that is applied.
func (i *Inventory) base(root *rootfs.Root, state *record.State) (*names.View, *Inventory, error) {
	v := root.Names()
	if len(state.Log) == 0 {
		return v, i, nil
	}
	changes, err := root.RevertOf(nil, state.Log, i.paths())
	if err == nil {
		err = v.Add(changes)
	}
	if err != nil {
		return nil, nil, err
	}
	was, err := Read(v, i.Home)
	return v, was, err
}

// paths returns what reports whether an inventory depends on a path, which is relative to
// the root: a list of packages, a directory of them or above it, or what is in it and says
// which they are.
func (i *Inventory) paths() func(p string) bool {
	var dirs []string // with a slash at the end
	for place := range i.Packages {
		if _, dir, _ := strings.Cut(place, " /"); dir != "" {
			dirs = append(dirs, dir+"/")
		}
	}
	return func(p string) bool {
		for _, dir := range dirs {
			in, ok := strings.CutPrefix(p, dir)
			if !ok && strings.HasPrefix(dir, p) && dir[len(p)] == '/' {
				return true
			}
			if depth := strings.Count(in, "/"); ok && (depth == 0 || depth == 1 && in[0] == '@' || depth <= 2 && slices.Contains(describing, path.Base(in))) {
				return true
			}
		}
		return p == dpkgStatus || p == apkInstalled
	}
}

// describing are files of packages that say which they are, or what they came with.
var describing = []string{"package.json", "RECORD", "METADATA", "PKG-INFO", "entry_points.txt"}

// ByHand returns what a root has beyond its base record and what clayer has applied, as
// state has it; nothing where there is no record.
func ByHand(root *rootfs.Root, state *record.State, home string) (now *Inventory, list []Package, err error) {
	before, err := load(root.StateDir())
	if err != nil || before == nil {
		return nil, nil, err
	}
	if now, err = Read(root.Names(), home); err != nil || len(now.Since(before)) == 0 {
		return now, nil, err // no need to find out what clayer has applied
	}
	v, now, err := now.base(root, state)
	if err != nil {
		return nil, nil, err
	}
	list, err = withoutScripts(v, withoutCaptured(state, now.Since(before)))
	return now, list, err
}

// withoutScripts drops the programs that came with a package of the list: pip notes them
// in its RECORD.
func withoutScripts(v *names.View, list []Package) ([]Package, error) {
	scripts := make(map[string]bool)
	for _, p := range list {
		if p.Manager != snapshot.ManagerPython || !slices.ContainsFunc(list, isProgram) {
			continue
		}
		d, err := v.Directory(p.Dir)
		if err != nil {
			return nil, err
		}
		all, err := d.Names()
		if err != nil {
			return nil, err
		}
		for _, info := range all {
			if m := infoDir().FindStringSubmatch(info); m == nil || normal(m[1]) != p.Name {
				continue
			}
			data, err := readable(v, path.Join(p.Dir, info, "RECORD"))
			if err != nil {
				return nil, err
			}
			for line := range strings.Lines(string(data)) {
				name, _, _ := strings.Cut(line, ",")
				scripts[path.Join(p.Dir, name)] = true
			}
		}
	}
	return slices.DeleteFunc(list, func(p Package) bool { return isProgram(p) && scripts[p.String()] }), nil
}

func isProgram(p Package) bool { return p.Manager == Program }
