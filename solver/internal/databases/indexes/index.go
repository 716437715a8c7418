// Package indexes reads and writes the indexes that tools make of the files of all packages:
// the schemas of GLib, the icons of a theme, which programs open which type of file, the
// menu of info. Two indexes can be merged by their records, without the tools.
package indexes

import "bytes"

// A Record is one of what an index lists. No two have the same name and text.
type Record struct {
	Name string // for people
	Text string // all that the index says of it
}

// A Format is how an index is written.
type Format uint8

const (
	Schemas Format = iota // gschemas.compiled of GLib
	Icons                 // icon-theme.cache of GTK
	Opens                 // mimeinfo.cache: which programs open a type of file
	Info                  // dir of info
)

// Parse returns the records of a file, in order. It reports false for one that is not
// understood.
func (f Format) Parse(file []byte) ([]Record, bool) {
	if len(bytes.TrimSpace(file)) == 0 {
		return nil, true
	}
	switch f {
	case Schemas:
		return parseSchemas(file)
	case Icons:
		return parseIcons(file)
	case Opens:
		return parseOpens(string(file))
	}
	return parseInfo(string(file))
}

// Write returns a file with records that Parse returned, of this file or others.
func (f Format) Write(records []Record) []byte {
	switch f {
	case Schemas:
		return writeSchemas(records)
	case Icons:
		return writeIcons(records)
	case Opens:
		return writeOpens(records)
	}
	return writeInfo(records)
}
