package sandbox

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"github.com/clayer/clayer/internal/pathname"
)

// Options say where a sandbox works.
type Options struct {
	Root string // "/", or the directory of a complete root file system

	// Over is a directory with changes over Root, for --dest: every view begins
	// with a copy of it. "" means none. Only an overlay can do that.
	Over string

	// Work is an existing directory for views and probes.
	Work string

	// Hide lists absolute paths in the root that are never captured, and that a
	// command sees as empty in an overlay: clayer's own state. Work is one of
	// them if it is below Root. A path below the directory Root or Over of the
	// machine counts as the path in the root. "" is ignored.
	Hide []string

	// Compare says how a sandbox in place finds what changed.
	Compare Compare

	// Warn is called, once for each text, with what views cannot show or separate
	// here. nil logs it.
	Warn func(text string)
}

// Compare says what decides in place whether a file changed.
type Compare string

// The values of Options.Compare.
const (
	CompareAuto   Compare = ""       // ctime where a probe shows that it can be trusted, else digests
	CompareCTime  Compare = "ctime"  // ctime and inode, mode, owner, size and mtime
	CompareDigest Compare = "digest" // the content of every file
)

// Clean makes the directories absolute and free of links, since mounts are
// compared by the kernel's names for them, and Hide a list of clean paths in the
// root.
func (opt *Options) Clean() error {
	for _, p := range []*string{&opt.Root, &opt.Work, &opt.Over} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err == nil {
			abs, err = filepath.EvalSymlinks(abs)
		}
		if err != nil {
			return err
		}
		*p = abs
	}
	// A RUN that saw the upper directories could change them while they are mounted.
	given := append(slices.Clone(opt.Hide), opt.Work)
	opt.Hide = nil
	for _, p := range given {
		if p == "" {
			continue
		}
		if !filepath.IsAbs(p) {
			return fmt.Errorf("hide %q: not an absolute path", p)
		}
		p = filepath.Clean(p)
		for _, dir := range []string{opt.Root, opt.Over} {
			if dir != "" && dir != "/" && p != dir && pathname.Under(p, dir) {
				p = p[len(dir):]
			}
		}
		opt.Hide = append(opt.Hide, p)
	}
	return nil
}

// WarnOnce returns a function that passes each text to Warn once, or logs it.
func (opt *Options) WarnOnce(name string) func(texts []string) {
	warn, seen := opt.Warn, new(sync.Map)
	return func(texts []string) {
		for _, t := range texts {
			switch _, again := seen.LoadOrStore(t, true); {
			case again:
			case warn != nil:
				warn(t)
			default:
				slog.Warn(name + " sandbox: " + t)
			}
		}
	}
}
