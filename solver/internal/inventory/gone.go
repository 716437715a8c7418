package inventory

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/needs"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/rootfs"
)

// Gone returns of applied steps what packages they need that a root lacks by now, as
// needs.Site says it. Only what has changed since the last commit is looked at.
func Gone(root *rootfs.Root, state *record.State) map[key.Key]string {
	if len(state.Log) == 0 {
		return nil
	}
	since := state.Log[len(state.Log)-1].Done
	changed := make(map[string]bool)
	hasChanged := func(n snapshot.Need) bool {
		return needsPackage(n) && slices.ContainsFunc(placesOf(n), func(name string) bool {
			is, known := changed[name]
			if !known {
				is = changedSince(root.Dirs(), name, since)
				changed[name] = is
			}
			return is
		})
	}
	var site *needs.Site
	var gone map[key.Key]string
	for _, l := range state.Layers {
		for _, a := range l.Steps {
			if !slices.ContainsFunc(a.Needs, hasChanged) {
				continue
			}
			if site == nil {
				site = needs.NewSite(root.Names(), nil)
				gone = make(map[key.Key]string)
			}
			packages := slices.DeleteFunc(slices.Clone(a.Needs), func(n snapshot.Need) bool { return !needsPackage(n) })
			if unmet, err := site.Unmet(packages); err == nil && unmet != "" {
				gone[a.Key] = unmet
			}
		}
	}
	return gone
}

// needsPackage reports whether a step needs a package that it has not installed. Another
// version of its own ones is of a later step, or was installed by hand.
func needsPackage(n snapshot.Need) bool {
	return n.Kind == snapshot.NeedPackage && n.Type != snapshot.PackageOwn
}

// An Unmet is an applied step that needs a package which the root lacks by now.
type Unmet struct {
	Layer string `json:"layer"`
	Line  int    `json:"line"`
	Text  string `json:"text"`
	Unmet string `json:"unmet"` // "needs six==1.16, which this machine lacks", or "lacks six, which was removed by hand"
}

// UnmetSteps returns the steps that Gone has, in their order, and what was Removed.
func UnmetSteps(root *rootfs.Root, home string) (list []Unmet, err error) {
	state, err := root.State()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", rootfs.ErrRoot, err)
	}
	gone := Gone(root, state)
	for _, l := range state.Layers {
		for _, a := range l.Steps {
			if unmet := gone[a.Key]; unmet != "" {
				list = append(list, Unmet{l.Name, a.Line, a.Text, unmet})
			}
		}
	}
	removed, err := Removed(root, state, home)
	return append(list, removed...), err
}

// placesOf returns the files and directories that say whether a package is there.
func placesOf(n snapshot.Need) []string {
	switch n.Manager {
	case snapshot.ManagerDpkg:
		return []string{dpkgStatus}
	case snapshot.ManagerAPK:
		return []string{apkInstalled}
	}
	return n.Search
}

// changedSince reports whether what stands at a path was changed since, or is missing.
func changedSince(roots []string, name string, since time.Time) bool {
	found := false
	for _, root := range roots {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(root, name), &st) == nil {
			found = true
			if time.Unix(st.Ctim.Unix()).After(since) {
				return true
			}
		}
	}
	return !found
}
