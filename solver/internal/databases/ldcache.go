package databases

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/clayer/clayer/internal/order"
)

// The cache of the dynamic linker lists where libraries are, by soname. ldconfig makes it
// of the files in the directories that it is told of; to merge two, no file is looked at.
//
// Numbers are those of the machine, offsets are from the beginning:
//
//	20 bytes  magic
//	 4        number of entries
//	 4        bytes of the strings
//	 1        byte order: 0 not said, 2 little, 3 big
//	 3
//	 4        where extensions are; 0: there are none
//	12
//	24 each   entries: flags, offsets of soname and path, 4 bytes, hardware capabilities
//	          strings, each with a zero at its end
const (
	ldMagic  = "glibc-ld.so.cache1.1"
	ldHeader = 48
	ldEntry  = 24
	ldLittle = 2
)

// An ldLibrary is an entry of the cache.
type ldLibrary struct {
	soname, path string
	flags        uint32
}

// parseLibraries returns the entries of a cache. It reports false for one that is not
// understood, or that has libraries for certain processors alone, which refer to an
// extension.
func parseLibraries(file []byte) ([]ldLibrary, bool) {
	if len(file) == 0 {
		return nil, true
	}
	if len(file) < ldHeader || !bytes.HasPrefix(file, []byte(ldMagic)) || file[28] != 0 && file[28] != ldLittle {
		return nil, false
	}
	n := int(binary.LittleEndian.Uint32(file[20:]))
	if n > (len(file)-ldHeader)/ldEntry {
		return nil, false
	}
	text := func(offset uint32) (string, bool) {
		if int64(offset) >= int64(len(file)) {
			return "", false
		}
		s, _, ok := bytes.Cut(file[offset:min(int64(len(file)), int64(offset)+4096)], []byte{0})
		return string(s), ok
	}
	list := make([]ldLibrary, 0, n)
	size := 0 // of all texts, which may be one and the same in a file that lies
	for i := range n {
		e := file[ldHeader+i*ldEntry:]
		soname, ok1 := text(binary.LittleEndian.Uint32(e[4:]))
		path, ok2 := text(binary.LittleEndian.Uint32(e[8:]))
		if !ok1 || !ok2 || binary.LittleEndian.Uint64(e[16:]) != 0 {
			return nil, false
		}
		if size += len(soname) + len(path); size > MaxSize {
			return nil, false
		}
		list = append(list, ldLibrary{soname, path, binary.LittleEndian.Uint32(e)})
	}
	return list, true
}

// libraries returns the entries of a cache as records.
func libraries(file []byte) []record {
	list, _ := parseLibraries(file)
	records := make([]record, 0, len(list))
	n := make(numbering)
	for _, l := range list {
		r := record{body: fmt.Sprintf("%s\x00%s\x00%d", l.soname, l.path, l.flags)}
		n.add(&r, l.soname+" "+l.path)
		records = append(records, r)
	}
	return records
}

// writeLibraries writes a cache, in the order in which it is searched. Of a soname that is
// there twice, the first counts.
func writeLibraries(records []record) []byte {
	list := make([]ldLibrary, 0, len(records))
	for _, r := range records {
		part := strings.SplitN(r.body, "\x00", 3)
		l := ldLibrary{soname: part[0], path: part[1]}
		fmt.Sscan(part[2], &l.flags)
		list = append(list, l)
	}
	order.Stable(list, func(a, b ldLibrary) int {
		return cmp.Or(compareSonames(b.soname, a.soname), cmp.Compare(b.flags, a.flags))
	})
	var texts bytes.Buffer
	at := make(map[string]uint32)
	start := ldHeader + ldEntry*len(list)
	offset := func(s string) uint32 {
		o, ok := at[s]
		if !ok {
			o = uint32(start + texts.Len())
			at[s] = o
			texts.WriteString(s)
			texts.WriteByte(0)
		}
		return o
	}
	out := make([]byte, start)
	for i, l := range list {
		e := out[ldHeader+i*ldEntry:]
		binary.LittleEndian.PutUint32(e, l.flags)
		binary.LittleEndian.PutUint32(e[4:], offset(l.soname))
		binary.LittleEndian.PutUint32(e[8:], offset(l.path))
	}
	copy(out, ldMagic)
	binary.LittleEndian.PutUint32(out[20:], uint32(len(list)))
	binary.LittleEndian.PutUint32(out[24:], uint32(texts.Len()))
	out[28] = ldLittle
	return append(out, texts.Bytes()...)
}

// compareSonames compares names as the search in a cache does: numbers in them by their
// value, and a digit after anything else.
func compareSonames(a, b string) int {
	at := func(s string) byte {
		if s == "" {
			return 0
		}
		return s[0]
	}
	for a != "" {
		switch x, y := at(a), at(b); {
		case isDigit(x) && isDigit(y):
			var m, n string
			m, a = cutNumber(a)
			n, b = cutNumber(b)
			if c := cmp.Or(cmp.Compare(len(m), len(n)), cmp.Compare(m, n)); c != 0 {
				return c
			}
		case isDigit(x):
			return 1
		case isDigit(y):
			return -1
		case x != y:
			return cmp.Compare(int8(x), int8(y))
		default:
			a, b = a[1:], b[1:]
		}
	}
	return cmp.Compare(0, int8(at(b)))
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// cutNumber cuts off the digits at the beginning, without leading zeros.
func cutNumber(s string) (number, rest string) {
	end := 0
	for end < len(s) && isDigit(s[end]) {
		end++
	}
	return strings.TrimLeft(s[:end], "0"), s[end:]
}
