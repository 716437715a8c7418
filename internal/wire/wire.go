// Package wire passes values between processes of the same build, as JSON in which a string
// may hold any bytes: paths and arguments are not always UTF-8.
//
// A byte that is no part of a rune is written as the rune U+10FF00 plus its value, from a
// private area of Unicode. Runes of that area are written byte by byte in the same way.
package wire

import (
	"encoding"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// first is the rune of the byte 0.
const first rune = 0x10ff00

// An Encoder writes values to a stream.
type Encoder struct{ enc *json.Encoder }

// NewEncoder returns an encoder that writes to w.
func NewEncoder(w io.Writer) Encoder { return Encoder{json.NewEncoder(w)} }

// Encode writes a value of exported fields, in one call of Write. Interfaces in it are nil,
// or JSON has them.
func (e Encoder) Encode(v any) error {
	return e.enc.Encode(rewrite(reflect.ValueOf(v), escape).Interface())
}

// A Decoder reads what an Encoder writes.
type Decoder struct{ dec *json.Decoder }

// NewDecoder returns a decoder that reads from r, and may read ahead.
func NewDecoder(r io.Reader) Decoder { return Decoder{json.NewDecoder(r)} }

// Decode reads the next value into what v points to.
func (d Decoder) Decode(v any) error {
	if err := d.dec.Decode(v); err != nil {
		return err
	}
	to := reflect.ValueOf(v).Elem()
	to.Set(rewrite(to, unescape))
	return nil
}

var textual = reflect.TypeFor[encoding.TextMarshaler]()

// rewrite returns a copy of a value with other strings. What marshals itself stays.
func rewrite(v reflect.Value, f func(string) string) reflect.Value {
	if v.Type().Implements(textual) {
		return v
	}
	out := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.String:
		out.SetString(f(v.String()))
	case reflect.Struct:
		out.Set(v)
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				out.Field(i).Set(rewrite(v.Field(i), f))
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(rewrite(v.Elem(), f))
		}
	case reflect.Slice:
		if v.IsNil() || v.Type().Elem().Kind() == reflect.Uint8 {
			return v
		}
		out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		for i := range v.Len() {
			out.Index(i).Set(rewrite(v.Index(i), f))
		}
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		out.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
		for it := v.MapRange(); it.Next(); {
			out.SetMapIndex(rewrite(it.Key(), f), rewrite(it.Value(), f))
		}
	default:
		return v
	}
	return out
}

func escape(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r >= first }) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 || r >= first {
			for _, c := range []byte(s[:n]) {
				b.WriteRune(first + rune(c))
			}
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

func unescape(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r >= first }) {
		return s
	}
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r >= first {
			b = append(b, byte(r-first))
		} else {
			b = utf8.AppendRune(b, r)
		}
	}
	return string(b)
}
