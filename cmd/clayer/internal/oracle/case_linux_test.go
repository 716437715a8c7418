package oracle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// A Case is a Containerfile and the files beside it.
type Case struct {
	Lines []string        // the instructions after FROM; one may have several lines
	Files map[string]File // by path; a directory that nothing is in ends in a slash
}

// A File is a file of the context, or a link.
type File struct {
	Content string // of a link, its target
	Mode    os.FileMode
	Link    bool
}

const (
	containerfile = "Containerfile"
	baseName      = "oracle" // in FROM
)

// The files of these names are an archive, whatever content they have.
var archives = []string{"pack.tar", "pack.tgz"}

// Text is the Containerfile. An empty line stands between instructions, and nowhere else.
func (c *Case) Text() string {
	return "FROM " + baseName + "\n\n" + strings.Join(c.Lines, "\n\n") + "\n"
}

// lineOf returns which instruction stands at a line of the Containerfile; -1 is none.
func (c *Case) lineOf(number int) int {
	at := 3
	for i, l := range c.Lines {
		next := at + strings.Count(l, "\n") + 2
		if number >= at && number < next {
			return i
		}
		at = next
	}
	return -1
}

func (c *Case) clone() *Case {
	return &Case{slices.Clone(c.Lines), maps.Clone(c.Files)}
}

func (c *Case) without(i int) *Case {
	return &Case{slices.Delete(slices.Clone(c.Lines), i, i+1), c.Files}
}

// write makes the context in dir.
func (c *Case) write(dir string) error {
	if err := writeFiles(c.Files, dir); err != nil {
		return err
	}
	if err := c.writeLayers(dir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, containerfile), []byte(c.Text()), 0o644)
}

func writeFiles(files map[string]File, dir string) error {
	for name, f := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		switch {
		case strings.HasSuffix(name, "/"):
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
		case f.Link:
			if err := os.Symlink(f.Content, path); err != nil {
				return err
			}
		default:
			content := []byte(f.Content)
			if slices.Contains(archives, name) {
				content = pack(strings.HasSuffix(name, "gz"))
			}
			if err := os.WriteFile(path, content, 0o644); err != nil {
				return err
			}
			if err := os.Chmod(path, f.Mode); err != nil {
				return err
			}
		}
	}
	return nil
}

// pack makes the archive that ADD unpacks.
func pack(compressed bool) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range []tar.Header{
		{Name: "packed/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 7, Gid: 8},
		{Name: "packed/file", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 7, Gid: 8, Size: 7},
		{Name: "packed/run", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 7},
		{Name: "packed/link", Typeflag: tar.TypeSymlink, Linkname: "file"},
		{Name: "packed/same", Typeflag: tar.TypeLink, Linkname: "packed/file", Mode: 0o640, Uid: 7, Gid: 8},
	} {
		h.ModTime = time.Unix(1_000_000_000, 0)
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("packed\n")); err != nil {
				panic(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	if !compressed {
		return out.Bytes()
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(out.Bytes()); err != nil {
		panic(err)
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return zipped.Bytes()
}

// String is the case as a txtar archive. The name of a file is followed by its mode, unless
// that is 644, or by -> if it is a link.
func (c *Case) String() string {
	a := &txtar.Archive{Files: []txtar.File{{Name: containerfile, Data: []byte(c.Text())}}}
	for _, name := range slices.Sorted(maps.Keys(c.Files)) {
		f := c.Files[name]
		mark := ""
		switch {
		case f.Link:
			mark = " ->"
		case f.Mode != 0o644:
			mark = fmt.Sprintf(" %o", f.Mode)
		}
		content := f.Content
		if content != "" && !strings.HasSuffix(content, "\n") {
			content += "\n"
		}
		a.Files = append(a.Files, txtar.File{Name: name + mark, Data: []byte(content)})
	}
	return string(txtar.Format(a))
}

// parse reads what String writes.
func parse(data []byte) (*Case, error) {
	c := &Case{Files: make(map[string]File)}
	for _, f := range txtar.Parse(data).Files {
		if f.Name == containerfile {
			from, rest, _ := strings.Cut(string(f.Data), "\n\n")
			if from != "FROM "+baseName {
				return nil, fmt.Errorf("the Containerfile begins with %q, want FROM %s and an empty line", from, baseName)
			}
			c.Lines = strings.Split(strings.TrimSuffix(rest, "\n"), "\n\n")
			continue
		}
		name, file := parseFile(f)
		c.Files[name] = file
	}
	return c, nil
}

// parseFile reads a file of a context, as String writes it.
func parseFile(f txtar.File) (name string, file File) {
	file = File{Content: string(f.Data), Mode: 0o644}
	name, mark := f.Name, ""
	if i := strings.LastIndexByte(name, ' '); i > 0 {
		name, mark = name[:i], name[i+1:]
	}
	if mode, err := strconv.ParseUint(mark, 8, 12); err == nil {
		file.Mode = os.FileMode(mode)
	} else if mark == "->" {
		file.Link, file.Content = true, strings.TrimSuffix(file.Content, "\n")
	} else {
		name = f.Name
	}
	return name, file
}
