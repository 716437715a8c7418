package needs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/databases"
)

// ReadDatabases reads the databases that a RUN may change, before it runs: those in
// databases.Dirs that the base has, or that are among the paths which its view has more.
func (r *Recorder) ReadDatabases(open func(path string) (*os.File, error), more []string) error {
	r.databases, r.unread = make(map[string][]byte), make(map[string]bool)
	for _, dir := range databases.Dirs {
		d, err := r.View.Directory(dir)
		if err != nil {
			return err
		}
		list, err := d.Names()
		if err != nil {
			return err
		}
		for _, name := range list {
			more = append(more, path.Join(dir, name))
		}
	}
	for _, p := range slices.Concat(databases.Paths(), more) {
		if d, known := databases.Known(p); d.IsBackup() || !known || r.databases[p] != nil {
			continue
		}
		f, err := open(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil { // a link that leads elsewhere, say: what it was is not known
			r.unread[p] = true
			continue
		}
		data, err := readDatabase(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		r.databases[p] = data
	}
	return nil
}

func readDatabase(r io.Reader) ([]byte, error) {
	return io.ReadAll(io.LimitReader(r, databases.MaxSize+1)) // of a larger one Diff says so
}

// databaseNeed returns which records of a database the RUN has changed: also where a step
// that the key covers wrote it, since on a machine with records of its own each of them
// changes that in turn.
func (r *Recorder) databaseNeed(p string) ([]snapshot.Need, error) {
	d, _ := databases.Known(p)
	if d.IsBackup() || r.unread[p] {
		return nil, nil
	}
	before, existed := r.databases[p]
	var after []byte
	if open := r.changed[p]; open != nil {
		f, err := open()
		if err != nil {
			return nil, err
		}
		after, err = readDatabase(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	c, err := d.Diff(before, after)
	if err != nil {
		return nil, err
	}
	if c.IsEmpty() && (!existed || d.IsIndex() && !d.IsLibraries()) || !d.Misses(before, after) {
		return nil, nil
	}
	n := snapshot.Need{Kind: snapshot.NeedContent, Path: p, Set: c.Set, Removed: c.Removed}
	if existed {
		n.Digest = digest.FromBytes(before)
	}
	return []snapshot.Need{n}, nil
}

// withoutSecrets returns an entry without the passwords of the machine, as Omit has it.
func (r *Recorder) withoutSecrets(e *snapshot.Entry) (*snapshot.Entry, error) {
	return omitting(e, func(d databases.Database, data []byte) []byte {
		return d.Omit(r.databases[d.Main()], data, func(key string) bool { return r.isOfChain(d.Main(), key) })
	})
}

// WithoutSecrets returns changes without any password that is in a database: whose they
// are is not known.
func WithoutSecrets(changes snapshot.Changes) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for e, err := range changes {
			if err == nil {
				e, err = omitting(e, func(d databases.Database, data []byte) []byte { return d.Omit(data, data, nil) })
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func omitting(e *snapshot.Entry, omit func(databases.Database, []byte) []byte) (*snapshot.Entry, error) {
	d, known := databases.Known(e.Path)
	if !known || !d.HasSecrets() || e.Kind != snapshot.File || e.Size > databases.MaxSize {
		return e, nil
	}
	f, err := e.Open()
	if err != nil {
		return nil, err
	}
	data, err := readDatabase(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	without := omit(d, data)
	if bytes.Equal(without, data) {
		return e, nil
	}
	out := *e
	out.Content, out.Size, out.Data = without, int64(len(without)), nil
	out.Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(without)), nil }
	return &out, nil
}

// database checks that the records which a step changed can be changed here.
func (s *Site) database(d databases.Database, n snapshot.Need) (string, error) {
	here, err := s.readHere(n.Path)
	if err != nil || n.Digest != "" && here.digest == n.Digest {
		return "", err
	}
	if d.IsIndex() && !d.IsLibraries() && n.Digest != "" && len(n.Set)+len(n.Removed) == 0 { // of a version that did not know its records
		return fmt.Sprintf("needs /%s as it was where the step ran, which differs here", n.Path), nil
	}
	conflicts, err := d.Check(here.data, s.without(n), s.pending[n.Path])
	if err != nil {
		return fmt.Sprintf("needs a change of /%s that makes no sense", n.Path), nil
	}
	if len(conflicts) > 0 {
		return fmt.Sprintf("needs a change of /%s that is not possible here: %s", n.Path, conflicts[0]), nil
	}
	return "", nil
}

// alpinePackage checks that a package is installed in a version.
func (s *Site) alpinePackage(n snapshot.Need) (string, error) {
	here, err := s.readHere("lib/apk/db/installed")
	if err != nil || bytes.Contains(here.data, []byte("\nP:"+n.Name+"\nV:"+n.Version+"\n")) {
		return "", err
	}
	return fmt.Sprintf("needs the package %s %s, which this machine lacks", n.Name, n.Version), nil
}

// A database is what a site has of one; nil data: it is not there.
type database struct {
	data   []byte
	digest digest.Digest
}

func (s *Site) readHere(p string) (database, error) {
	if here, ok := s.known.databases[p]; ok {
		return here, nil
	}
	data, err := s.View.ReadFile(p)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrInvalid) {
		data, err = nil, nil
	}
	if err != nil {
		return database{}, err
	}
	here := database{data: data}
	if data != nil {
		here.digest = digest.FromBytes(data)
	}
	s.known.databases[p] = here
	return here, nil
}

// without returns the changes of a database but for records that steps change which are
// applied before.
func (s *Site) without(n snapshot.Need) databases.Changes {
	c := databases.Changes{Set: n.Set, Removed: n.Removed}
	if len(s.pending[n.Path]) == 0 {
		return c
	}
	isPending := func(name string) bool {
		group, _, _ := strings.Cut(name, ":") // of a member
		return s.pending[n.Path][name] || s.pending[n.Path][group]
	}
	var left databases.Changes
	names := c.Names()
	for i, text := range n.Set {
		if !isPending(names[i]) {
			left.Set = append(left.Set, text)
		}
	}
	for i, text := range n.Removed {
		if !isPending(names[len(n.Set)+i]) {
			left.Removed = append(left.Removed, text)
		}
	}
	return left
}

// Expect notes that the snapshot with these needs is applied before those that are checked
// after it: a record that it changes is not as it is here by then.
func (s *Site) Expect(needs []snapshot.Need) {
	for _, n := range needs {
		if n.Kind != snapshot.NeedContent || len(n.Set)+len(n.Removed) == 0 {
			continue
		}
		if s.pending[n.Path] == nil {
			s.pending[n.Path] = make(map[string]bool)
		}
		for _, name := range (databases.Changes{Set: n.Set, Removed: n.Removed}).Names() {
			s.pending[n.Path][name] = true
		}
	}
}
