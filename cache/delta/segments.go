package delta

import "github.com/clayer/clayer/cache/snapshot/frames"

// A Segment is a range of a blob that an older one has, or that is sent.
type Segment struct {
	Range
	Older int   // which of the older blobs has it; -1: none
	From  int64 // where in that one
}

// Segments cuts a blob of size bytes into those that older blobs of a store have and those
// that are sent. Each is of at least least bytes, but for the last. It returns nil if too few
// bytes are in older blobs to be worth it.
func Segments(list frames.List, size int64, older []Source, least int64) []Segment {
	all, err := list.Of(size)
	if err != nil {
		return nil
	}
	known := index(older)
	var runs []Segment
	for _, f := range all {
		o, ok := known[f.Digest]
		if !ok {
			o.source = -1
		}
		runs = join(runs, Segment{Range{f.Offset, f.Offset + f.Size}, o.source, o.from})
	}
	segments, copied := long(runs, least), int64(0)
	for _, s := range segments {
		if s.Older >= 0 {
			copied += s.Len()
		}
	}
	if copied < max(worth, size/4) {
		return nil
	}
	return segments
}

// join appends a segment, or makes the last one longer.
func join(all []Segment, s Segment) []Segment {
	if s.Len() == 0 {
		return all
	}
	if k := len(all) - 1; k >= 0 && all[k].Older == s.Older && (s.Older < 0 || all[k].From+all[k].Len() == s.From) {
		all[k].To = s.To
		return all
	}
	return append(all, s)
}

// long makes segments of at least least bytes, but for the last: what older blobs have is
// sent where that takes it.
func long(runs []Segment, least int64) (all []Segment) {
	owed := int64(0) // bytes that are sent of what follows
	for i, r := range runs {
		need := owed
		if last := i == len(runs)-1; r.Older < 0 || r.Len() <= need || !last && r.Len()-need < least {
			need = r.Len()
		}
		begin, start := r.Range.From, r.From
		cut := begin + need
		all = join(all, Segment{Range{begin, cut}, -1, 0})
		all = join(all, Segment{Range{cut, r.To}, r.Older, start + cut - begin})
		owed = 0
		if k := len(all) - 1; all[k].Older < 0 {
			owed = max(least-all[k].Len(), 0)
		}
	}
	return all
}
