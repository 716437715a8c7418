package frontend

import (
	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/frontend/filemode"
	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/frontend/internal/lexical"
	"github.com/clayer/clayer/frontend/metadata"
	"github.com/clayer/clayer/frontend/mount"
	"github.com/clayer/clayer/frontend/problem"
)

// Pos is where an instruction stands.
type Pos = problem.Pos

// A Problem is something in a Containerfile that must be changed by its writer.
type Problem = problem.Problem

// Problems is all that is wrong with one or more files, by position.
type Problems = problem.Problems

// Nearest returns the one of known that word was probably meant to be, and "" where none is
// near.
func Nearest(word string, known []string) string { return lexical.Nearest(word, known) }

// A File is a parsed Containerfile.
type File struct {
	Path         string        // as the user named it
	Dir          string        // of the file: sibling layers are looked up in it; see also ContextOf
	Name         string        // the layer's name, see LayerName; a caller may change it
	Instructions []Instruction // as written, nothing expanded
	Source       string        // the text as it was read
	Lines        []string      // the text, for the excerpt in an error

	// Of a stage: its name, or number; the one that it, or the last one, builds on by FROM,
	// whose instructions it begins with; and how many lines name it.
	Stage string
	On    *File
	Uses  int
	Below []*File       // layers that it builds on, by FROM of the first, and that are not composed
	Image *imageref.Ref // whose files it is built on, as SetBase has it; nil for the machine's

	stages []*File // but for the last one
	last   string  // the name of that
	target string  // the name of the stage that is built; "" if it has none
	args   Args

	context string // that COPY reads from; "" for Dir
	escape  rune   // what "# escape=" sets; 0 means a backslash
}

// Instruction is one of *Env *Arg *Run *Fetch *Copy *Workdir *User *Snapshot
// *Shell *From *Ignored.
type Instruction interface{ Base() *Meta }

// Meta is what every instruction has.
type Meta struct {
	Pos       Pos
	Word      string   // upper case, "RUN"
	Text      string   // the instruction on one line, for display: continuations joined, white space folded, heredocs as "<<EOF"
	CacheBust []string // texts of the "# cache-bust:" comments directly before it
}

// Base returns m; it makes every type that embeds Meta an Instruction.
func (m *Meta) Base() *Meta { return m }

// A Var is a variable with its value. A value may refer to variables of the
// session, see Substitute.
type Var struct{ Name, Value string }

// Env is ENV.
type Env struct {
	Meta
	Vars []Var
}

// Arg is ARG; one line may declare several.
type Arg struct {
	Meta
	Args []ArgDecl
}

// ArgDecl is one name of an ARG line. Default is nil where none is given.
type ArgDecl struct {
	Name    string
	Default *string
}

// Run is RUN. Exactly one of Exec, Command and Script is set.
type Run struct {
	Meta
	Exec    []string // RUN ["a","b"]
	Command string   // for the shell; heredocs follow it as the shell reads them
	Script  string   // RUN <<EOF whose text begins with "#!": a program of its own
	Mounts  []Mount
	Flags   []string // the values of --mount as written; Resolve makes Mounts of them
	origins []Origin // what from= of each of them names

	// Set by Resolve: what is in effect at this line.
	Env   []Var
	Args  []Var // without those that an ENV overrides
	Dir   string
	Shell []string

	// Stored says that it is no line of a file but a step of an earlier solve: it is restored,
	// and cannot be run.
	Stored *Stored

	User    string // set by Resolve: who runs it, as USER has it; "" for the user who runs clayer
	Network string // "none"; "" for the machine's
}

// A Mount is what RUN --mount mounts. Its Origin is that of a bind, and of a cache that begins
// with files.
type Mount struct {
	mount.Mount
	Origin
}

// HasFiles reports whether the mount shows files that are known before the RUN, so that its
// result depends on them.
func (m *Mount) HasFiles() bool {
	return m.Type == mount.Bind || m.Type == mount.Cache && m.Origin != Origin{}
}

// A Stored is a step that is known by what a store has of it.
type Stored struct {
	Key    [32]byte // its chain key
	Inputs []Var    // what the key is made of, as its record has it
}

// Extract is the --extract of FETCH.
type Extract string

// What FETCH does with an archive.
const (
	ExtractAuto  Extract = "auto"
	ExtractTrue  Extract = "true"
	ExtractFalse Extract = "false"
)

// Fetch is FETCH, and ADD of a URL or a Git source.
type Fetch struct {
	Meta
	Source   string // http(s)://.., github:owner/repo[@ref][//subdir], or as gitsource.Parse reads it; before Resolve also oci:
	Dest     string // a directory; absolute and clean after Resolve
	Checksum digest.Digest
	Strip    int
	Extract  Extract
	Owner    Ownership

	Submodules, LFS bool // of a Git repository

	// Add says that it is an ADD as in Docker: Dest is as for COPY, a download is stored as
	// it is unless Extract is auto, and a repository is copied with its submodules.
	Add     bool
	GitDir  bool     // the directory .git too
	Exclude []string // patterns of what is left out of a repository
	Commit  string   // what the commit of a repository has to begin with
	Unpack  *bool    // --unpack, if it is written

	flags []lexical.Flag // as written; Resolve sets the fields above by them

	remote *Copy // the ADD that it is; nil after Resolve
}

// Ownership is --chown and --chmod.
type Ownership struct {
	Chown string // "user", "user:group", "1:2" or ""
	Chmod filemode.Mode
}

// An Origin is what --from, or from=, names. The zero Origin is the build context of the file.
type Origin struct {
	From    string        // as written
	Context string        // the directory that From names by --build-context
	Stage   *File         // the stage of the file that From names, with what it builds on
	Image   *imageref.Ref // the image that From names
	Like    string        // the stage that the name of an image resembles; "" for none

	named *File // the stage that is another name of Image; nil for none
}

// IsRoot reports whether an origin is a root of its own, which no path leaves.
func (o *Origin) IsRoot() bool { return o.Stage != nil || o.Image != nil }

// Copy is COPY, ADD of local files, and, after Resolve, FETCH of an image.
type Copy struct {
	Meta
	Sources []string // relative to the Containerfile's directory, or the root of a stage or an image; may hold patterns
	Origin           // what Sources are in
	Inline  []Inline // COPY <<name dest
	Dest    string   // absolute and, but for a final slash, clean after Resolve
	Owner   Ownership

	Exclude []string // patterns of what is left out, below each source; expanded by nobody
	Parents bool     // the directories above what is copied are too
	Fetched bool     // set by Resolve: it is a FETCH of an image, whose source is Origin.From
	Link    bool     // --link, which changes nothing here but where links stand in dest
	Unpack  bool     // of an ADD: a source that is a tar archive is unpacked

	flags []lexical.Flag // those with variables, as written

	// Remote makes, of an ADD, the instruction for one source that is a URL or a repository.
	// nil for a COPY, and after Resolve.
	Remote func(source string) (*Fetch, error)
}

// Inline is a file that stands in the Containerfile.
type Inline struct {
	Name, Content string
	Expand        bool // Resolve expands variables in Content; false for <<"name", and after Resolve
}

// Workdir is WORKDIR.
type Workdir struct {
	Meta
	Path string // absolute and clean after Resolve
	User string // set by Resolve: who owns the directory if it is made, as USER has it; "" for root
}

// User is USER.
type User struct {
	Meta
	Name string // "name", "name:group", "1" or "1:2"; "" after Resolve is none
}

// Capture is how much SNAPSHOT captures.
type Capture string

// The captures.
const (
	CaptureAuto    Capture = ""        // by where the path is
	CaptureAll     Capture = "all"     // the path as it stands at the end of the layer
	CaptureChanged Capture = "changed" // what the layer changed under it
)

// Snapshot is SNAPSHOT.
type Snapshot struct {
	Meta
	Path    string  // absolute and clean after Resolve
	Capture Capture // all or changed after Resolve
}

// Shell is SHELL.
type Shell struct {
	Meta
	Argv []string
}

// From is FROM.
type From struct {
	Meta
	Image    string
	Platform string // --platform, as written
	Alias    string // AS name: of the stage that begins here
	Stage    bool   // Image is a stage of the file
}

// Ignored is a Dockerfile instruction that has no effect here, but for the
// images that are exported.
type Ignored struct {
	Meta
	// Args is what follows the word, as BuildKit's parser has it: the list of a JSON form; of
	// LABEL triples of name, value and separator; of EXPOSE, VOLUME and HEALTHCHECK the words;
	// of any other word all of the line. Resolve expands those of LABEL, EXPOSE, VOLUME and
	// STOPSIGNAL. A label may refer to variables of the session, see Substitute.
	Args   []string
	JSON   bool             // Args is of a JSON form
	Health *metadata.Health // what HEALTHCHECK says
}

// Scope is what is in effect at a line. The zero Scope is that of a first line.
type Scope struct {
	Env   []Var    // by order of definition, each name once
	Args  []Var    // declared ARGs that have a value, likewise
	Dir   string   // "" means "/"
	Shell []string // nil means /bin/sh -c
	User  string   // of RUNs, as USER has it; "" for the user who runs clayer

	Session   map[string]string // the variables of the live machine
	BuildArgs map[string]string // --build-arg
}
