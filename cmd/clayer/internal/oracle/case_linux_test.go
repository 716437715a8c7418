package oracle

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sys/unix"
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
	Name    bool // a hard link: another name of the file that Content says
	Fifo    bool
}

const (
	containerfile = "Containerfile"
	baseName      = "oracle" // in FROM
)

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
	return os.WriteFile(filepath.Join(dir, containerfile), []byte(atServer(c.Text())), 0o644)
}

func writeFiles(files map[string]File, dir string) error {
	for _, names := range []bool{false, true} { // of files, which are there first
		for name, f := range files {
			if f.Name != names {
				continue
			}
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := writeFile(dir, path, name, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeFile(dir, path, name string, f File) error {
	switch {
	case strings.HasSuffix(name, "/"):
		if err := os.MkdirAll(path, 0o755); err != nil || f.Mode == 0o644 {
			return err
		}
		return chmod(path, f.Mode)
	case f.Link:
		return os.Symlink(f.Content, path)
	case f.Name:
		return os.Link(filepath.Join(dir, f.Content), path)
	case f.Fifo:
		return unix.Mkfifo(path, uint32(f.Mode))
	}
	content := []byte(f.Content)
	if make, ok := archives[filepath.Base(name)]; ok {
		content = make()
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return err
	}
	return chmod(path, f.Mode)
}

// chmod takes a mode as chmod(1) does.
func chmod(path string, mode os.FileMode) error { return unix.Chmod(path, uint32(mode)) }

// String is the case as a txtar archive. The name of a file is followed by its mode, unless
// that is 644, by -> if it is a link, by = if it is another name of a file, or by fifo.
func (c *Case) String() string {
	a := &txtar.Archive{Files: []txtar.File{{Name: containerfile, Data: []byte(c.Text())}}}
	for _, name := range slices.Sorted(maps.Keys(c.Files)) {
		f := c.Files[name]
		mark := ""
		switch {
		case f.Link:
			mark = " ->"
		case f.Name:
			mark = " ="
		case f.Fifo:
			mark = " fifo"
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
	} else if mark == "=" {
		file.Name, file.Content = true, strings.TrimSuffix(file.Content, "\n")
	} else if mark == "fifo" {
		file.Fifo = true
	} else {
		name = f.Name
	}
	return name, file
}
