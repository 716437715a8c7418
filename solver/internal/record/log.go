package record

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strconv"

	"github.com/clayer/clayer/internal/inroot"
)

// A log file is appended to, by one transaction, and made of lines:
//
//	<CRC-32C of the JSON, 8 hex digits> <JSON>
//
// A line that is cut off, or whose sum is wrong, ends the file: power was lost
// before it was synced, and so nothing that it announces was begun.

// Castagnoli is the table of the sums in the record, of lines and of content.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)

// lineOf returns the JSON of a line, and false for one that is damaged.
func lineOf(line []byte) ([]byte, bool) {
	if len(line) < 11 || line[8] != ' ' || line[len(line)-1] != '\n' {
		return nil, false
	}
	var sum [4]byte
	if _, err := hex.Decode(sum[:], line[:8]); err != nil {
		return nil, false
	}
	text := line[9 : len(line)-1]
	return text, binary.BigEndian.Uint32(sum[:]) == crc32.Checksum(text, Castagnoli)
}

// lines yields the verified lines of a file, each with where it begins; one is
// good until the next. A file that can't be read is an error, and no end.
func lines(r io.Reader, failed *error) iter.Seq2[int64, []byte] {
	return func(yield func(int64, []byte) bool) {
		in := bufio.NewReaderSize(r, 64<<10)
		var at int64
		var long []byte
		for {
			line, err := in.ReadSlice('\n')
			if errors.Is(err, bufio.ErrBufferFull) {
				long = append(long, line...)
				continue
			}
			if err != nil && err != io.EOF {
				*failed = err
				return
			}
			if len(long) > 0 {
				line = append(long, line...)
				long = nil
			}
			text, ok := lineOf(line)
			if err != nil || !ok || !yield(at, text) {
				return
			}
			at += int64(len(line))
		}
	}
}

// readRange yields what read finds in a range of a file, in bytes, to < 0 being its end,
// and then the error that read returns. A file that is not there has nothing.
func readRange(d Dir, name string, from, to int64, read func(r *io.SectionReader, yield func(Change) bool) error) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		var f *inroot.File
		err := d.with(func(h *inroot.OwnDir) (err error) {
			f, err = h.Open(name)
			return err
		})
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err == nil {
			defer f.Close()
			if to < 0 {
				to, err = f.Seek(0, io.SeekEnd)
			}
		}
		if err == nil {
			err = read(io.NewSectionReader(f, from, to-from), func(c Change) bool { return yield(c, nil) })
		}
		if err != nil {
			yield(Change{}, err)
		}
	}
}

// ReadLog yields the changes in a range of a file, in bytes, to < 0 being its end,
// in order, and sets how many bytes of it are verified. A file that is not there has
// none.
func ReadLog(d Dir, name string, from, to int64, verified *int64) iter.Seq2[Change, error] {
	return readForward(d, name, from, to, verified, parseChange)
}

// readHeads is ReadLog without metadata.
func readHeads(d Dir, name string, from, to int64, verified *int64) iter.Seq2[Change, error] {
	return readForward(d, name, from, to, verified, parseHead)
}

func readForward(d Dir, name string, from, to int64, verified *int64, parse func(path string, text []byte) (Change, error)) iter.Seq2[Change, error] {
	return readRange(d, name, from, to, func(r *io.SectionReader, yield func(Change) bool) (failed error) {
		for at, text := range lines(r, &failed) {
			*verified = at + int64(len(text)) + lineExtra
			if list, is, err := readTree(text); err != nil {
				return fmt.Errorf("%s: %w", d.Path(name), err)
			} else if is {
				for _, c := range list {
					if !yield(c) {
						return nil
					}
				}
				continue
			}
			c, err := parse(d.Path(name), text)
			if err != nil || !yield(c) {
				return err
			}
		}
		return failed
	})
}

// ReadBackward is ReadLog from the last line to the first, with where each ends. It
// remembers where the lines begin, 8 bytes for each.
func ReadBackward(d Dir, name string, from, to int64, verified *int64) iter.Seq2[Change, error] {
	return readRange(d, name, from, to, func(r *io.SectionReader, yield func(Change) bool) (failed error) {
		var starts []int64
		end := int64(0)
		for at, text := range lines(r, &failed) {
			starts = append(starts, at)
			end = at + int64(len(text)) + lineExtra
		}
		if failed != nil {
			return failed
		}
		*verified = end
		var buf []byte
		for _, at := range slices.Backward(starts) {
			buf = slices.Grow(buf[:0], int(end-at))[:end-at]
			if _, err := r.ReadAt(buf, at); err != nil {
				return err
			}
			text, lineEnd := buf[9:len(buf)-1], from+end
			end = at
			if list, is, err := readTree(text); err != nil {
				return fmt.Errorf("%s: %w", d.Path(name), err)
			} else if is {
				for _, c := range slices.Backward(list) {
					if c.End = lineEnd; !yield(c) {
						return nil
					}
				}
				continue
			}
			c, err := parseChange(d.Path(name), text)
			if c.End = lineEnd; err != nil || !yield(c) {
				return err
			}
		}
		return nil
	})
}

// Known returns how many bytes of the record of an apply can be read, from its beginning.
func (d Dir) Known(ev Event) (verified int64, err error) {
	none := func(string, []byte) (Change, error) { return Change{}, nil }
	for _, err := range readForward(d, LogName(ev.Tx), ev.From, ev.To, &verified, none) {
		if err != nil {
			return 0, err
		}
	}
	return verified, nil
}

// lineExtra is what a line has beside its JSON.
const lineExtra = 10

// parseHead is parseChange without metadata, and many times as fast where a line is as
// encoding/json writes it.
func parseHead(path string, text []byte) (Change, error) {
	if !bytes.Contains(text, []byte(`"left":`)) && !bytes.Contains(text, []byte(`"again":`)) {
		if c, ok := headOf(text); ok {
			return c, nil
		}
	}
	return parseChange(path, text)
}

// headOf reads {"seq":1,"path":"YQ==","kind":"file","n":2 and whatever follows.
func headOf(text []byte) (c Change, ok bool) {
	number := func(name string, n *int) {
		digits := 0
		if text, ok = bytes.CutPrefix(text, []byte(name)); !ok {
			return
		}
		for digits < len(text) && '0' <= text[digits] && text[digits] <= '9' {
			digits++
		}
		var err error
		*n, err = strconv.Atoi(string(text[:digits]))
		text, ok = text[digits:], err == nil
	}
	word := func(name string) (w []byte) {
		if text, ok = bytes.CutPrefix(text, []byte(name)); ok {
			w, text, ok = bytes.Cut(text, []byte(`"`))
		}
		return w
	}
	if number(`{"seq":`, &c.Seq); !ok {
		return c, false
	}
	p := word(`,"path":"`)
	if !ok {
		return c, false
	}
	if c.Kind = Kind(word(`,"kind":"`)); !ok {
		return c, false
	}
	if number(`,"n":`, &c.N); !ok {
		return c, false
	}
	var err error
	c.Path, err = base64.StdEncoding.AppendDecode(nil, p)
	return c, err == nil
}
