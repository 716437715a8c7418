// Package indexes reads and writes the indexes that tools make of the files of all packages:
// the schemas of GLib, the icons of a theme, which programs open which type of file, the
// types themselves, the menu of info. Two indexes can be merged by their records, without the tools.
package indexes

import (
	"bytes"

	"github.com/clayer/clayer/internal/order"
)

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

	// What update-mime-database writes.
	Mime          // mime.cache
	MimeLists     // aliases, types and XMLnamespaces, which are sorted
	MimeParents   // subclasses
	MimeIcons     // icons and generic-icons
	MimeGlobs     // globs and globs2
	MimeMagic     // magic
	MimeTreeMagic // treemagic
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
	case Mime:
		return parseMime(file)
	case MimeLists:
		return mimeLines(string(file), " "), true
	case MimeParents, MimeGlobs:
		return mimeLines(string(file), ""), true
	case MimeIcons:
		return mimeLines(string(file), ":"), true
	case MimeMagic:
		return parseMagic(string(file))
	case MimeTreeMagic:
		return parseTreeMagic(string(file))
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
	case Mime:
		return writeMime(records)
	case MimeLists:
		return writeSorted(records)
	case MimeParents:
		return writeParents(records)
	case MimeIcons:
		return writeLines("", records)
	case MimeGlobs:
		return writeGlobs(records)
	case MimeMagic:
		return writeSections(magicHead, records)
	case MimeTreeMagic:
		return writeSections(treeHead, records)
	}
	return writeInfo(records)
}

// sortBy sorts records. It is not inlined, so that the program has one copy of it.
//
//go:noinline
func sortBy(records []Record, compare func(a, b Record) int) { order.Stable(records, compare) }
