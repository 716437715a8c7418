package tarheader

import (
	"archive/tar"
	"bytes"
	"strconv"
	"strings"
)

// Append adds the headers of an entry, as a tar.Writer writes them where the format is
// FormatPAX: a PAX header is there only for what the plain header cannot say.
func Append(to []byte, h *tar.Header) ([]byte, error) {
	if to, ok := appendQuick(to, h); ok {
		return to, nil
	}
	b := bytes.NewBuffer(to)
	// A copy, so that headers of the caller's need not be on the heap.
	c := *h
	c.Format = tar.FormatPAX
	if err := tar.NewWriter(b).WriteHeader(&c); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// What fits into the fields of a plain header.
const (
	maxName   = 100
	maxPrefix = 155
	maxID     = 1<<21 - 1
	maxNumber = 1<<33 - 1 // a size, or a time
)

// blank is a header without anything in it.
var blank = func() (b [blockSize]byte) {
	for _, f := range numbers {
		number(b[f.from:f.to], 0)
	}
	copy(b[257:], "ustar\x0000")
	return b
}()

// appendQuick writes the headers that snapshots have nearly always; of anything else it
// says false.
func appendQuick(to []byte, h *tar.Header) ([]byte, bool) {
	switch h.Typeflag {
	case tar.TypeReg:
		if strings.HasSuffix(h.Name, "/") {
			return to, false
		}
	case tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
		if h.Size != 0 {
			return to, false
		}
	default:
		return to, false
	}
	sec, nsec := int64(0), 0
	if !h.ModTime.IsZero() {
		sec, nsec = h.ModTime.Unix(), h.ModTime.Nanosecond()
	}
	if h.Name == "" || !isASCII(h.Name) || !isASCII(h.Linkname) || len(h.Linkname) > maxName || len(h.PAXRecords) > 0 || len(h.Uname)+len(h.Gname) > 0 ||
		uint64(h.Mode) > maxID || uint64(h.Uid) > maxID || uint64(h.Gid) > maxID || uint64(h.Size) > maxNumber || uint64(sec) > maxNumber ||
		h.Devmajor|h.Devminor != 0 || !h.AccessTime.IsZero() || !h.ChangeTime.IsZero() {
		return to, false
	}
	name, prefix := h.Name, ""
	fits := len(name) <= maxName
	if !fits {
		at := splitAt(name)
		if at > 0 {
			prefix, name, fits = name[:at], name[at+1:], true
		}
	}
	if nsec != 0 || !fits {
		// What the tar.Writer does where there is a PAX header.
		name, prefix = h.Name, ""
		to = appendPAX(to, h, sec, nsec)
	}
	at := len(to)
	to = append(to, blank[:]...)
	b := (*[blockSize]byte)(to[at:])
	b[typeAt] = h.Typeflag
	field(b[:maxName], name)
	copy(b[157:257], h.Linkname)
	number(b[100:108], h.Mode)
	number(b[108:116], int64(h.Uid))
	number(b[116:124], int64(h.Gid))
	number(b[sizeAt:136], h.Size)
	number(b[136:148], sec)
	copy(b[345:500], prefix)
	putSum(b)
	return to, true
}

// appendPAX adds a header with the time, and the name if it is long, and before it its own.
func appendPAX(to []byte, h *tar.Header, sec int64, nsec int) []byte {
	at := len(to)
	to = append(to, blank[:]...)
	if nsec != 0 {
		var text [32]byte
		v := append(strconv.AppendInt(text[:0], sec, 10), '.')
		point := len(v)
		v = strconv.AppendInt(v, int64(nsec)+1e9, 10)
		v = append(v[:point], v[point+1:]...) // without the 1 before it
		to = appendRecord(to, "mtime", bytes.TrimRight(v, "0"))
	}
	if len(h.Name) > maxName {
		to = appendRecord(to, "path", h.Name)
	}
	size := len(to) - at - blockSize
	to = append(to, zeroBlock[:-size&(blockSize-1)]...)
	b := (*[blockSize]byte)(to[at:])
	b[typeAt] = tar.TypeXHeader
	clear(b[329:345]) // it has no device, not even 0
	dir := strings.LastIndexByte(h.Name, '/') + 1
	n := copy(b[:maxName], h.Name[:dir])
	n += copy(b[n:maxName], "PaxHeaders.0/")
	n += copy(b[n:maxName], h.Name[dir:])
	for ; n > 0 && b[n-1] == '/'; n-- {
		b[n-1] = 0
	}
	number(b[sizeAt:136], int64(size))
	putSum(b)
	return to
}

var zeroBlock [blockSize]byte

// appendRecord adds "<length> <key>=<value>\n"; the length counts itself.
func appendRecord[T string | []byte](to []byte, key string, value T) []byte {
	n := len(key) + len(value) + 3
	size := n + digits(n)
	if digits(size) > digits(n) {
		size++
	}
	to = append(strconv.AppendInt(to, int64(size), 10), ' ')
	to = append(append(to, key...), '=')
	return append(append(to, value...), '\n')
}

func digits(n int) int {
	d := 1
	for ; n >= 10; n /= 10 {
		d++
	}
	return d
}

// field writes a text that may be too long. Some readers take a file whose name ends with a
// slash for a directory.
func field(b []byte, s string) {
	if copy(b, s) < len(s) && b[len(b)-1] == '/' {
		b[len(strings.TrimRight(s[:len(b)-1], "/"))] = 0
	}
}

// number writes n in octal, with a NUL after it.
func number(b []byte, n int64) {
	b[len(b)-1] = 0
	for i := len(b) - 2; i >= 0; i-- {
		b[i] = '0' + byte(n&7)
		n >>= 3
	}
}

// putSum writes the sum.
func putSum(b *[blockSize]byte) {
	number(b[sumAt:sumAt+7], int64(sum(b)))
	b[sumAt+7] = ' '
}

// splitAt returns where a name that is too long is cut in two at a slash; 0 if it can't be.
func splitAt(name string) int {
	n := len(name)
	if n > maxPrefix+1 {
		n = maxPrefix + 1
	} else if name[n-1] == '/' {
		n--
	}
	i := strings.LastIndexByte(name[:n], '/')
	if i <= 0 || i == len(name)-1 || len(name)-i-1 > maxName {
		return 0
	}
	return i
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 || s[i] == 0 {
			return false
		}
	}
	return true
}
