package needs

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/binaries"
	"github.com/clayer/clayer/solver/internal/names"
)

// programDirs are where programs are looked for besides PATH.
var programDirs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// usualLibDirs are where the loaders of glibc and musl look without configuration. What a
// distribution adds for its processor stands in /etc/ld.so.conf.d.
var usualLibDirs = []string{"/usr/local/lib", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// libDirs returns the directories that are searched for libraries by default, in order.
// more has files of /etc/ld.so.conf.d that the view does not show.
func libDirs(v *names.View, more map[string]func() (io.ReadCloser, error)) []string {
	const conf = "etc/ld.so.conf.d"
	read := make(map[string]func() (io.ReadCloser, error))
	if d, err := v.Directory(conf); err == nil {
		list, _ := d.Names()
		for _, name := range list {
			if f, err := d.Look(name); err == nil && f.Kind == names.File {
				read[path.Join(conf, name)] = f.Open
			}
		}
	}
	if f, err := v.Find("etc/ld.so.conf"); err == nil && f.Kind == names.File {
		read["etc/ld.so.conf"] = f.Open
	}
	for p, open := range more {
		read[p] = open
	}
	var dirs []string
	for _, p := range sortedKeys(read) {
		f, err := read[p]()
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
		for lines.Scan() {
			text, _, _ := strings.Cut(lines.Text(), "#")
			for _, dir := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t,:", r) }) {
				if path.IsAbs(dir) && !strings.ContainsAny(dir, "*=") {
					dirs = append(dirs, path.Clean(dir))
				}
			}
		}
		f.Close()
	}
	for _, dir := range usualLibDirs {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// library checks that a library of the root is what a program needs.
func (s *Site) library(n snapshot.Need) (string, error) {
	if s.known.libDirs == nil {
		s.known.libDirs = libDirs(s.View, nil)
	}
	for _, dir := range slices.Concat(n.Search, s.known.libDirs) {
		at := path.Join(dir, n.Soname)
		if isKernels(at[1:]) {
			continue
		}
		b, ok := s.known.binaries[at]
		if !ok {
			f, err := s.View.Follow(at)
			if err != nil {
				return "", err
			}
			b = open(f)
			s.known.binaries[at] = b
		}
		if b == nil || b.Class != n.Class || b.Machine != n.Machine {
			continue
		}
		for _, v := range n.Versions {
			if !b.Defines[v] {
				return fmt.Sprintf("needs %s of %s, which is older here", v, n.Soname), nil
			}
		}
		return "", nil
	}
	return fmt.Sprintf("needs %s, which this machine lacks", n.Soname), nil
}

// open reads an ELF file; nil for any other, and for what is no file.
func open(f names.Found) *binaries.Binary {
	if f.Kind != names.File {
		return nil
	}
	r, err := f.Open()
	if err != nil {
		return nil
	}
	defer r.Close()
	return binaries.Read(r)
}

// interpreter checks that the root has the interpreter of a script or program.
func (s *Site) interpreter(n snapshot.Need) (string, error) {
	at := []string{n.Path}
	if n.Path == "" {
		_, dirs := s.Session()
		at = nil
		for _, dir := range slices.Concat(dirs, programDirs) {
			at = append(at, path.Join(dir, n.Name))
		}
	}
	for _, p := range at {
		f, err := s.View.Follow(p)
		if err != nil {
			return "", err
		}
		if f.Kind == names.File {
			return "", nil
		}
	}
	if n.Path == "" {
		return fmt.Sprintf("needs %s on PATH, which this machine lacks", n.Name), nil
	}
	return fmt.Sprintf("needs %s, which this machine lacks", n.Path), nil
}
