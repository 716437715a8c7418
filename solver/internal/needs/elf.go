package needs

import (
	"bytes"
	"debug/elf"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A binary is what the dynamic loader reads of an ELF file.
type binary struct {
	class, machine int
	interpreter    string   // of a program
	search         []string // as it stands in the file
	needed         []string // sonames
	versions       map[string][]string
	defines        map[string]bool // the versions that a library defines
}

// maxBinary bounds a file that has to be in memory to be read.
const maxBinary = 64 << 20

// readBinary reads an ELF file; nil for any other.
func readBinary(r io.Reader) *binary {
	at, ok := r.(io.ReaderAt)
	if !ok {
		data, err := io.ReadAll(io.LimitReader(r, maxBinary))
		if err != nil {
			return nil
		}
		at = bytes.NewReader(data)
	}
	f, err := elf.NewFile(at)
	if err != nil {
		return nil // whatever it is, no loader takes it
	}
	b := &binary{class: 32, machine: int(f.Machine), defines: make(map[string]bool)}
	if f.Class == elf.ELFCLASS64 {
		b.class = 64
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
			if name, err := io.ReadAll(p.Open()); err == nil {
				b.interpreter = string(bytes.TrimRight(name, "\x00"))
			}
		}
	}
	b.needed, _ = f.ImportedLibraries() // none where that cannot be read
	b.search, _ = f.DynString(elf.DT_RUNPATH)
	if len(b.search) == 0 {
		b.search, _ = f.DynString(elf.DT_RPATH)
	}
	b.search = strings.Split(strings.Join(b.search, ":"), ":")
	needs, _ := f.DynamicVersionNeeds()
	b.versions = make(map[string][]string, len(needs))
	for _, n := range needs {
		for _, v := range n.Needs {
			if v.Flags&elf.VER_FLG_WEAK == 0 {
				b.versions[n.Name] = append(b.versions[n.Name], v.Dep)
			}
		}
	}
	defined, _ := f.DynamicVersions()
	for _, v := range defined {
		b.defines[v.Name] = true
	}
	return b
}

// expand returns the directories in which a file at a path searches before the default
// ones, without those that depend on more than where it is.
func (b *binary) expand(p string) (dirs []string) {
	origin := "/" + path.Dir(p)
	for _, dir := range b.search {
		dir = strings.NewReplacer("$ORIGIN", origin, "${ORIGIN}", origin).Replace(dir)
		if path.IsAbs(dir) && !strings.Contains(dir, "$") {
			dirs = append(dirs, path.Clean(dir))
		}
	}
	return dirs
}

// highest reduces versions of symbols to the highest of each name.
func highest(versions []string) []string {
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
