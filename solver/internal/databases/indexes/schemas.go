package indexes

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/clayer/clayer/internal/order"
)

// The compiled schemas of GLib are a hash table in a file, GVDB:
//
//	8 bytes  magic
//	4        version, 0
//	4        options
//	8        where the table is: begin and end, as of all that is referred to
//
// A table has
//
//	 4        number of words of a filter, in the lower 27 bits
//	 4        number of buckets
//	 4 each   words of the filter
//	 4 each   buckets: the index of the first item of each
//	24 each   items: hash, parent, begin and length (2) of the key, type (1), 1, the value
//
// A value is a table ("H"), or the bytes of a variant ("v"), which begin at a multiple of 8.
// One item of a table has no key, and the indexes of others as its value ("L"): it is the
// parent of these. The records are the items of the table: a schema each, which is a table
// of its keys.
const (
	gvdbMagic  = "GVariant"
	gvdbHeader = 24
	gvdbItem   = 24
	gvdbNoItem = 0xffffffff
	gvdbDepth  = 8 // tables in tables; those of schemas are two deep
)

// An item of a table. Its value is that of a variant, or the items of a table as
// appendItems writes them; of the list none.
type item struct {
	key   string
	kind  byte // 'v', 'H' or 'L'; with isListed if the list has it
	value string
}

const isListed = 0x80

func parseSchemas(file []byte) ([]Record, bool) {
	if len(file) < gvdbHeader || string(file[:8]) != gvdbMagic || binary.LittleEndian.Uint32(file[8:]) != 0 {
		return nil, false
	}
	budget := 4 * len(file) // tables that share what they have could be of any size
	items, ok := readTable(file, file[16:], &budget, gvdbDepth)
	if !ok {
		return nil, false
	}
	list := make([]Record, 0, len(items))
	for _, it := range items {
		list = append(list, Record{it.key, string(appendItems(nil, []item{it}))})
	}
	return list, true
}

// at returns what a pointer refers to.
func at(file, pointer []byte) (b []byte, ok bool) {
	begin, end := binary.LittleEndian.Uint32(pointer), binary.LittleEndian.Uint32(pointer[4:])
	if begin > end || int64(end) > int64(len(file)) {
		return nil, false
	}
	return file[begin:end], true
}

// readTable returns the items of a table, by their keys.
func readTable(file, pointer []byte, budget *int, depth int) ([]item, bool) {
	t, ok := at(file, pointer)
	if !ok || len(t) < 8 || depth == 0 {
		return nil, false
	}
	head := 8 + 4*(uint64(binary.LittleEndian.Uint32(t)&(1<<27-1))+uint64(binary.LittleEndian.Uint32(t[4:])))
	if head > uint64(len(t)) || (uint64(len(t))-head)%gvdbItem != 0 {
		return nil, false
	}
	var items []item
	list, parents := uint32(gvdbNoItem), uint32(gvdbNoItem) // the index of the list, and who is a parent
	for t = t[head:]; len(t) > 0; t = t[gvdbItem:] {
		begin, size := uint64(binary.LittleEndian.Uint32(t[8:])), uint64(binary.LittleEndian.Uint16(t[12:]))
		if begin+size > uint64(len(file)) {
			return nil, false
		}
		it := item{key: string(file[begin : begin+size]), kind: t[14]}
		switch it.kind {
		case 'L':
			if it.key != "" || list != gvdbNoItem {
				return nil, false
			}
			list = uint32(len(items))
		case 'v':
			v, ok := at(file, t[16:])
			if !ok {
				return nil, false
			}
			it.value = string(v)
		case 'H':
			below, ok := readTable(file, t[16:], budget, depth-1)
			if !ok {
				return nil, false
			}
			it.value = string(appendItems(nil, below))
		default:
			return nil, false
		}
		if parent := binary.LittleEndian.Uint32(t[4:]); parent != gvdbNoItem {
			if parents != gvdbNoItem && parents != parent || it.kind == 'L' {
				return nil, false
			}
			parents, it.kind = parent, it.kind|isListed
		}
		if *budget -= len(it.key) + len(it.value) + gvdbItem; *budget < 0 {
			return nil, false
		}
		items = append(items, it)
	}
	order.Stable(items, func(a, b item) int { return strings.Compare(a.key, b.key) })
	for i := range items[min(1, len(items)):] {
		if items[i].key == items[i+1].key {
			return nil, false
		}
	}
	return items, parents == gvdbNoItem || parents == list
}

// appendItems writes items one after the other: what they are, and nothing of where they were.
func appendItems(b []byte, items []item) []byte {
	for _, it := range items {
		b = append(b, it.kind)
		b = binary.AppendUvarint(b, uint64(len(it.key)))
		b = append(b, it.key...)
		b = binary.AppendUvarint(b, uint64(len(it.value)))
		b = append(b, it.value...)
	}
	return b
}

// itemsOf reads what appendItems wrote.
func itemsOf(text string) (items []item) {
	next := func() string {
		size, n := binary.Uvarint([]byte(text[:min(len(text), binary.MaxVarintLen64)]))
		s := text[n : n+int(size)]
		text = text[n+int(size):]
		return s
	}
	for text != "" {
		it := item{kind: text[0]}
		text = text[1:]
		it.key = next()
		it.value = next()
		items = append(items, it)
	}
	return items
}

func writeSchemas(records []Record) []byte {
	var items []item
	for _, r := range records {
		items = append(items, itemsOf(r.Text)...)
	}
	w := gvdbWriter{file: make([]byte, gvdbHeader)}
	copy(w.file, gvdbMagic)
	begin, end := w.table(items)
	w.pointer(16, begin, end)
	return w.file
}

type gvdbWriter struct{ file []byte }

// grow adds bytes at a multiple of a number.
func (w *gvdbWriter) grow(size, multiple int) (begin int) {
	for len(w.file)%multiple != 0 {
		w.file = append(w.file, 0)
	}
	begin = len(w.file)
	w.file = append(w.file, make([]byte, size)...)
	return begin
}

func (w *gvdbWriter) put(at, n int) { binary.LittleEndian.PutUint32(w.file[at:], uint32(n)) }

func (w *gvdbWriter) pointer(at, begin, end int) {
	w.put(at, begin)
	w.put(at+4, end)
}

// table writes a table, without a filter, and with a bucket for each item.
func (w *gvdbWriter) table(items []item) (begin, end int) {
	listed := 0
	for _, it := range items {
		listed += int(it.kind / isListed)
	}
	if listed > 0 && !slices.ContainsFunc(items, func(it item) bool { return it.kind == 'L' }) {
		items = append(items, item{kind: 'L'})
	}
	n := len(items)
	buckets := make([][]item, n)
	for _, it := range items {
		b := gvdbHash(it.key) % uint32(n)
		buckets[b] = append(buckets[b], it)
	}
	begin = w.grow(8+4*n+gvdbItem*n, 4)
	end = len(w.file)
	w.put(begin, 5<<27) // as GLib writes it
	w.put(begin+4, n)
	first, i := begin+8+4*n, 0
	parent, children := gvdbNoItem, []int(nil)
	for b, in := range buckets {
		w.put(begin+8+4*b, i)
		for _, it := range in {
			w.item(first+gvdbItem*i, it)
			switch {
			case it.kind == 'L':
				parent = i
			case it.kind&isListed != 0:
				children = append(children, i)
			}
			i++
		}
	}
	for _, c := range children {
		w.put(first+gvdbItem*c+4, parent)
	}
	if parent != gvdbNoItem {
		list := w.grow(4*len(children), 4)
		for i, c := range children {
			w.put(list+4*i, c)
		}
		w.pointer(first+gvdbItem*parent+16, list, len(w.file))
	}
	return begin, end
}

func (w *gvdbWriter) item(at int, it item) {
	key := w.grow(len(it.key), 1)
	copy(w.file[key:], it.key)
	binary.LittleEndian.PutUint32(w.file[at:], gvdbHash(it.key))
	binary.LittleEndian.PutUint32(w.file[at+4:], gvdbNoItem)
	w.put(at+8, key)
	binary.LittleEndian.PutUint16(w.file[at+12:], uint16(len(it.key)))
	w.file[at+14] = it.kind &^ isListed
	switch w.file[at+14] {
	case 'H':
		begin, end := w.table(itemsOf(it.value))
		w.pointer(at+16, begin, end)
	case 'v':
		begin := w.grow(len(it.value), 8)
		copy(w.file[begin:], it.value)
		w.pointer(at+16, begin, begin+len(it.value))
	}
}

func gvdbHash(key string) uint32 {
	h := uint32(5381)
	for _, c := range []byte(key) {
		h = h*33 + uint32(int8(c))
	}
	return h
}
