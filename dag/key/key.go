// Package key names steps: a Key is the SHA-256 over everything that a step's
// result depends on, and a Record is the same list of inputs, stored so that a
// change of key can be explained.
//
// One function lists the inputs of a step, through the [Writer] interface; the
// hasher and the recorder are its two readers. What is hashed and what is
// explained can therefore not disagree.
package key

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"sync"
)

// Encoding is the number of the encoding, which enters every key. A change of the
// encoding, or of what a step's inputs are, is a new number, never silent.
// docs/keys.md describes it.
const Encoding = 2

// version is what the input of every hash starts with.
var version = "clayer key " + strconv.Itoa(Encoding)

// A Key names a step by everything its result depends on.
// The zero Key is no key; it is what a step has before its sources are pinned.
type Key [sha256.Size]byte

// Parse reads the 64 hex digits that String writes.
func Parse(s string) (Key, error) {
	var k Key
	if len(s) != hex.EncodedLen(len(k)) {
		return Key{}, fmt.Errorf("key %q: %d characters, want %d", s, len(s), hex.EncodedLen(len(k)))
	}
	if _, err := hex.Decode(k[:], []byte(s)); err != nil {
		return Key{}, fmt.Errorf("key %q: %w", s, err)
	}
	return k, nil
}

// String returns the key as 64 lower-case hex digits.
func (k Key) String() string {
	var digits [2 * len(k)]byte
	hex.Encode(digits[:], k[:])
	return string(digits[:])
}

// Short returns the first 16 hex digits, as release tags show them.
func (k Key) Short() string { return hex.EncodeToString(k[:8]) }

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k == Key{} }

// MarshalText writes the key as String does, and the zero Key as nothing.
func (k Key) MarshalText() ([]byte, error) {
	if k.IsZero() {
		return nil, nil
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (k *Key) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*k = Key{}
		return nil
	}
	p, err := Parse(string(b))
	if err != nil {
		return err
	}
	*k = p
	return nil
}

// A Writer receives the inputs of a step, in an order that is part of the key.
type Writer interface {
	// Field is an input that may be stored and shown.
	Field(name, value string)
	// Private is an input of which only the digest is ever stored:
	// the values of ENV and ARG may be secrets.
	Private(name, value string)
	// Note is no input and enters no key: what an input was found by. Only the digest of
	// the value is stored.
	Note(name, value string)
}

// Inputs lists what something depends on to w.
type Inputs func(w Writer)

// Sum hashes the inputs of a thing of the given kind ("step", "layer", ...).
//
// The encoding is canonical: its name, kind, and then a name and a value for
// each input, each string preceded by its length in bytes as a 64-bit
// big-endian number. No two lists of inputs share an encoding.
func Sum(kind string, in Inputs) Key {
	h := hashers.Get().(*hasher)
	defer hashers.Put(h)
	h.sum.Reset()
	h.w.Reset(h.sum)
	h.str(version)
	h.str(kind)
	in(h)
	h.w.Flush() // a hash takes all
	var k Key
	h.sum.Sum(k[:0])
	return k
}

// hashers are used again, since a plan makes the keys of thousands of steps.
var hashers = sync.Pool{New: func() any { return &hasher{sha256.New(), bufio.NewWriter(nil)} }}

// A hasher collects the strings: a hash that gets each by itself takes longer for
// that than for their bytes.
type hasher struct {
	sum hash.Hash
	w   *bufio.Writer
}

func (h *hasher) str(s string) {
	h.w.Write(binary.BigEndian.AppendUint64(h.w.AvailableBuffer(), uint64(len(s))))
	h.w.WriteString(s)
}

func (h *hasher) Field(name, value string)   { h.str(name); h.str(value) }
func (h *hasher) Private(name, value string) { h.str(name); h.str(value) }
func (h *hasher) Note(string, string)        {}
