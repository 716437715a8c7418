// Package key names steps: a Key is the SHA-256 over everything that a step's
// result depends on, and a Record is the same list of inputs, stored so that a
// change of key can be explained.
//
// One function lists the inputs of a step, through the [Writer] interface; the
// hasher and the recorder are its two readers. What is hashed and what is
// explained can therefore not disagree.
package key

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
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
func (k Key) String() string { return hex.EncodeToString(k[:]) }

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
}

// Inputs lists what something depends on to w.
type Inputs func(w Writer)

// Sum hashes the inputs of a thing of the given kind ("step", "layer", ...).
//
// The encoding is canonical: its name, kind, and then a name and a value for
// each input, each string preceded by its length in bytes as a 64-bit
// big-endian number. No two lists of inputs share an encoding.
func Sum(kind string, in Inputs) Key {
	h := hasher{sha256.New()}
	h.str(version)
	h.str(kind)
	in(h)
	var k Key
	h.h.Sum(k[:0])
	return k
}

type hasher struct{ h hash.Hash }

func (h hasher) str(s string) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(s)))
	h.h.Write(n[:])
	h.h.Write([]byte(s))
}

func (h hasher) Field(name, value string)   { h.str(name); h.str(value) }
func (h hasher) Private(name, value string) { h.str(name); h.str(value) }
