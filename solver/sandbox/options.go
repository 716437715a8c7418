package sandbox

// Options say where a sandbox works.
type Options struct {
	Root string // "/", or the folder of a complete root file system

	// Over is a folder with changes that is laid over Root, for --dest: every
	// view begins with a copy of what it holds. "" means none. Only an overlay
	// can do that.
	Over string

	// Work is an existing folder in which views are made, and probes.
	Work string

	// Hide lists absolute paths in the root that are never captured, and that a
	// command sees as empty in an overlay: clayer's own state. Work is one, if
	// it lies below Root. A path that lies in the folder Root or Over of the
	// machine is taken for the one in the root. "" is passed over.
	Hide []string

	// Compare says how a sandbox in place tells what changed.
	Compare Compare

	// Warn is told, each text once, what views can't show or keep apart here.
	// nil logs it.
	Warn func(text string)
}

// Compare says by what a change of a file is found in place.
type Compare string

// The values of Options.Compare.
const (
	CompareAuto   Compare = ""       // ctime where a probe shows that it can be trusted, else digests
	CompareCTime  Compare = "ctime"  // ctime and inode, mode, owner, size and mtime
	CompareDigest Compare = "digest" // the content of every file
)
