package indexes

import (
	"bytes"
	"encoding/binary"
)

// A reader reads a file whose parts refer to each other by offsets. Numbers are of the
// highest byte first. One that refers to what is not there is broken.
type reader struct {
	file   []byte
	broken bool
	budget int // of bytes; records that share what they have could be any number
}

func (r *reader) number(at, size int) int {
	if at < 0 || at > len(r.file)-size {
		r.broken = true
		return 0
	}
	if size == 2 {
		return int(binary.BigEndian.Uint16(r.file[at:]))
	}
	return int(binary.BigEndian.Uint32(r.file[at:]))
}

func (r *reader) text(at int) string {
	const longest = 4096
	if at < 0 || at >= len(r.file) {
		r.broken = true
		return ""
	}
	s, _, ok := bytes.Cut(r.file[at:min(len(r.file), at+longest)], []byte{0})
	if r.budget -= len(s) + 8; !ok || r.budget < 0 {
		r.broken = true
	}
	return string(s)
}

// A writer writes what a reader reads. What it does for each number is not inlined, so that
// the program stays small.
type writer struct {
	file  []byte
	texts map[string]int // where they are
}

// grow adds bytes at a multiple of 4.
//
//go:noinline
func (w *writer) grow(size int) (begin int) {
	begin = len(w.file)
	w.file = append(w.file, make([]byte, (size+3)/4*4)...)
	return begin
}

//go:noinline
func (w *writer) put(at, n int) { binary.BigEndian.PutUint32(w.file[at:], uint32(n)) }

// text returns where a text is; it is written once.
func (w *writer) text(text string) int {
	at, ok := w.texts[text]
	if !ok {
		at = w.bytes(text + "\x00")
		w.texts[text] = at
	}
	return at
}

func (w *writer) bytes(text string) (at int) {
	at = w.grow(len(text))
	copy(w.file[at:], text)
	return at
}
