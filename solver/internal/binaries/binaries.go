// Package binaries reads which shared libraries, of which versions, an ELF file takes from
// its system, as the dynamic loader sees it. It is pure.
package binaries

import (
	"bytes"
	"debug/elf"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Binary is what the dynamic loader reads of an ELF file.
type Binary struct {
	Class       int                 // 32 or 64
	Machine     int                 // as debug/elf numbers it
	Interpreter string              // of a program
	Needed      []string            // sonames
	Versions    map[string][]string // of symbols, that it takes from a library, by soname
	Defines     map[string]bool     // the versions that a library defines

	search []string // as it stands in the file
}

// MaxSize bounds a file that has to be in memory to be read.
const MaxSize = 64 << 20

// Read reads an ELF file; nil for any other.
func Read(r io.Reader) *Binary {
	at, ok := r.(io.ReaderAt)
	if !ok {
		data, err := io.ReadAll(io.LimitReader(r, MaxSize))
		if err != nil {
			return nil
		}
		at = bytes.NewReader(data)
	}
	f, err := elf.NewFile(at)
	if err != nil {
		return nil // whatever it is, no loader takes it
	}
	b := &Binary{Class: 32, Machine: int(f.Machine), Defines: make(map[string]bool)}
	if f.Class == elf.ELFCLASS64 {
		b.Class = 64
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
			if name, err := io.ReadAll(p.Open()); err == nil {
				b.Interpreter = string(bytes.TrimRight(name, "\x00"))
			}
		}
	}
	b.Needed, _ = f.ImportedLibraries() // none where that cannot be read
	b.search, _ = f.DynString(elf.DT_RUNPATH)
	if len(b.search) == 0 {
		b.search, _ = f.DynString(elf.DT_RPATH)
	}
	b.search = strings.Split(strings.Join(b.search, ":"), ":")
	needs, _ := f.DynamicVersionNeeds()
	b.Versions = make(map[string][]string, len(needs))
	for _, n := range needs {
		for _, v := range n.Needs {
			if v.Flags&elf.VER_FLG_WEAK == 0 {
				b.Versions[n.Name] = append(b.Versions[n.Name], v.Dep)
			}
		}
	}
	defined, _ := f.DynamicVersions()
	for _, v := range defined {
		b.Defines[v.Name] = true
	}
	return b
}

// Expand returns the directories in which a file at a path searches before the default
// ones, without those that depend on more than where it is.
func (b *Binary) Expand(p string) (dirs []string) {
	origin := "/" + path.Dir(p)
	for _, dir := range b.search {
		dir = strings.NewReplacer("$ORIGIN", origin, "${ORIGIN}", origin).Replace(dir)
		if path.IsAbs(dir) && !strings.Contains(dir, "$") {
			dirs = append(dirs, path.Clean(dir))
		}
	}
	return dirs
}

// Highest reduces versions of symbols to the highest of each name.
func Highest(versions []string) []string {
	best := make(map[string]string)
	for _, v := range versions {
		name, number := splitVersion(v)
		if old, ok := best[name]; !ok || compareNumbers(number, old) > 0 {
			best[name] = number
		}
	}
	var list []string
	for name, number := range best {
		if number != "" {
			name += "_" + number
		}
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// splitVersion divides GLIBC_2.34 into its name and number. GLIBC_PRIVATE is a name.
func splitVersion(v string) (name, number string) {
	i := strings.LastIndexByte(v, '_')
	if i < 0 || i+1 == len(v) || v[i+1] < '0' || v[i+1] > '9' {
		return v, ""
	}
	return v[:i], v[i+1:]
}

func compareNumbers(a, b string) int {
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(x, y string) int {
		m, errm := strconv.Atoi(x)
		n, errn := strconv.Atoi(y)
		if errm != nil || errn != nil {
			return strings.Compare(x, y)
		}
		return m - n
	})
}
