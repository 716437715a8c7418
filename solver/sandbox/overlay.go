package sandbox

// OverlayOptions say where an overlay sandbox works.
type OverlayOptions struct {
	Root string // "/", or the folder of a complete root file system

	// Over is a folder with changes that is laid over Root, for --dest: every
	// view begins with a copy of what it holds. "" means none.
	Over string

	// Work is an existing folder in which views are made. It lies on a file
	// system of its own kind: a disk or a tmpfs, no overlay.
	Work string

	// Hide lists absolute paths in the root that a command sees as empty, and
	// that are never captured: clayer's own state. Work is one, if it lies
	// below Root. A path that lies in the folder Root or Over of the machine
	// is taken for the one in the root. "" is passed over.
	Hide []string

	// Warn is told, each text once, what views can't show or keep apart here.
	// nil logs it.
	Warn func(text string)
}
