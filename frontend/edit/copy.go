package edit

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/clayer/clayer/internal/safefile"
)

// copiesDir is where COPY puts the files that an install reads.
const copiesDir = "/usr/local/share/clayer"

// maxList bounds a list of requirements, in bytes.
const maxList = 1 << 20

// copy makes the file at p one that the next session has too, by a COPY, and
// returns where; or why that can't be.
func (in *Install) copy(p string, at Place) (dest, why string) {
	if strings.HasPrefix(p, copiesDir+"/") {
		return p, "" // an instruction of ours that is read back
	}
	p = strings.TrimPrefix(p, "file://")
	real := at.abs(p)
	if at.Context == "" {
		return p, "" // as a RUN says it
	}
	info, err := os.Stat(real)
	switch {
	case err != nil:
		return "", fmt.Sprintf("%s can't be read", p)
	case info.IsDir():
		return "", fmt.Sprintf("%s is a directory of this machine", p)
	case !info.Mode().IsRegular():
		return "", fmt.Sprintf("%s is no file", p)
	}
	rel, err := filepath.Rel(at.Context, real)
	if err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Sprintf("%s is not beside the Containerfile, so COPY can't copy it", p)
	}
	if why := selfContained(real, info.Size()); why != "" {
		return "", why
	}
	c := Copy{Source: filepath.ToSlash(rel), Dest: path.Join(copiesDir, filepath.ToSlash(rel))}
	in.Copies = append(in.Copies, c)
	return c.Dest, ""
}

// selfContained says why a list of requirements can't be copied alone:
// it names other files of this machine.
func selfContained(path string, size int64) (why string) {
	if ext := filepath.Ext(path); ext != ".txt" && ext != ".in" {
		return ""
	}
	if size > maxList {
		return filepath.Base(path) + " is too large for a list of requirements"
	}
	data, err := safefile.Read(path, maxList)
	if err != nil {
		return filepath.Base(path) + " can't be read"
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		first, rest, _ := strings.Cut(strings.Replace(line, "=", " ", 1), " ")
		switch {
		case (first == "-r" || first == "-c" || first == "-e" || first == "--requirement" || first == "--constraint" || first == "--editable") &&
			!isURL(strings.TrimSpace(rest)),
			strings.HasPrefix(line, "."), strings.HasPrefix(line, "/"), strings.Contains(line, "file:"):
			return fmt.Sprintf("%s names %s, which is of this machine", filepath.Base(path), line)
		case holdsCredential(line):
			return filepath.Base(path) + " holds a credential"
		}
	}
	return ""
}

// words are the arguments of the COPY for the file.
func (c Copy) line() (string, bool) {
	text, ok := Quote([]string{c.Source, c.Dest})
	plain := ok && !strings.ContainsAny(text, `'"\ $*?[`+"`")
	return "COPY " + c.Source + " " + c.Dest, plain || text == c.Source+" "+c.Dest
}
