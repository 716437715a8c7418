package indexes

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/clayer/clayer/internal/order"
)

// The cache of an icon theme is a hash table of the names of icons. Numbers are of the
// highest byte first, offsets are from the beginning:
//
//	2 bytes  version 1, and 2 bytes 0
//	4        where the hash table is: the number of its buckets, and of each the offset of an icon
//	4        where the directories are: their number, and of each the offset of its name
//
// An icon has three offsets: of the next one in the bucket, of its name, and of its images:
// their number, and of each the number of a directory (2), flags (2), and the offset of
// more about it. One that says more is not understood.
const (
	iconHeader = 12
	iconNone   = 0xffffffff
)

// An image is a file with an icon: which, where, and of which types.
type image struct {
	icon, dir string
	flags     uint16
}

func (i image) record() Record {
	return Record{i.dir + "/" + i.icon, fmt.Sprintf("%s\x00%s\x00%d", i.icon, i.dir, i.flags)}
}

func parseIcons(file []byte) ([]Record, bool) {
	r := reader{file: file, budget: 16*len(file) + 1024}
	if r.number(0, 4) != 1<<16 {
		return nil, false
	}
	hash, list := r.number(4, 4), r.number(8, 4)
	var dirs []string
	for i := range r.number(list, 4) {
		if dirs = append(dirs, r.text(r.number(list+4+4*i, 4))); r.broken {
			return nil, false
		}
	}
	var images []image
	for b := range r.number(hash, 4) {
		for at := r.number(hash+4+4*b, 4); at != iconNone && !r.broken; at = r.number(at, 4) {
			name, all := r.text(r.number(at+4, 4)), r.number(at+8, 4)
			for i := range r.number(all, 4) {
				dir := r.number(all+4+8*i, 2)
				if r.number(all+4+8*i+4, 4) != 0 || dir >= len(dirs) || r.budget < 0 || r.broken {
					return nil, false
				}
				r.budget -= 8
				images = append(images, image{name, dirs[dir], uint16(r.number(all+4+8*i+2, 2))})
			}
		}
		if r.broken {
			return nil, false
		}
	}
	order.Stable(images, func(a, b image) int {
		return strings.Compare(a.icon+"\x00"+a.dir, b.icon+"\x00"+b.dir)
	})
	records := make([]Record, len(images))
	for i, m := range images {
		records[i] = m.record()
	}
	return records, !r.broken
}

func writeIcons(records []Record) []byte {
	var names, dirs []string
	numbers := make(map[string]int) // of the directories
	of := make(map[string][]image)
	for _, r := range records {
		part := strings.SplitN(r.Text, "\x00", 3)
		m := image{icon: part[0], dir: part[1]}
		fmt.Sscan(part[2], &m.flags)
		if of[m.icon] == nil {
			names = append(names, m.icon)
		}
		if _, ok := numbers[m.dir]; !ok {
			numbers[m.dir] = len(dirs)
			dirs = append(dirs, m.dir)
		}
		of[m.icon] = append(of[m.icon], m)
	}
	w := writer{file: make([]byte, iconHeader), texts: make(map[string]int)}
	w.put(0, 1<<16)
	buckets := max(1, len(names))
	hash := w.grow(4 + 4*buckets)
	w.put(4, hash)
	w.put(hash, buckets)
	for b := range buckets {
		w.put(hash+4+4*b, iconNone)
	}
	for _, name := range names {
		at, images := w.grow(12), w.grow(4+8*len(of[name]))
		first := hash + 4 + 4*int(iconHash(name)%uint32(buckets))
		w.put(at, int(binary.BigEndian.Uint32(w.file[first:])))
		w.put(first, at)
		w.put(at+8, images)
		w.put(images, len(of[name]))
		for i, m := range of[name] {
			w.put(images+4+8*i, numbers[m.dir]<<16|int(m.flags))
		}
		w.put(at+4, w.text(name))
	}
	list := w.grow(4 + 4*len(dirs))
	w.put(8, list)
	w.put(list, len(dirs))
	for i, dir := range dirs {
		w.put(list+4+4*i, w.text(dir))
	}
	return w.file
}

func iconHash(name string) uint32 {
	h := uint32(0)
	for i, c := range []byte(name) {
		if i == 0 {
			h = uint32(int8(c))
			continue
		}
		h = h<<5 - h + uint32(int8(c))
	}
	return h
}
