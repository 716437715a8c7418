package ui

import (
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

const minute = "2006-01-02 15:04" // how lists show a time

// WriteStatus writes the layers that are applied to a root.
func WriteStatus(w io.Writer, st *solver.RootStatus) {
	_ = Folded(w, 14, func(w io.Writer) error { writeStatus(w, st); return nil })
}

func writeStatus(w io.Writer, st *solver.RootStatus) {
	defer func() {
		for _, d := range st.Durability {
			fmt.Fprintf(w, "%-12s  %s: %s\n", "durability", d.Mode, printable.Line(d.Why))
		}
	}()
	if len(st.State.Layers) == 0 {
		fmt.Fprintf(w, "%s   nothing applied\n", st.Root)
		writeMissing(w, st.Shortfall)
		return
	}
	fmt.Fprintf(w, "%s   %s\n", st.Root, printable.Line(st.State.Platform))
	for _, l := range st.State.Layers {
		var entries, steps int
		var bytes int64
		key, at := "-", ""
		for _, s := range l.Steps {
			entries += s.Entries
			bytes += s.Bytes
			if s.Digest != "" { // an ENV changes no file, and counts nowhere
				steps++
			}
			key, at = s.Key.Short(), s.At.Local().Format(minute)
		}
		fmt.Fprintf(w, "%-12s  %s   %s   %s   %s   %s\n", printable.Line(l.Name), key, sizes.Count(steps, "step"), sizes.Count(entries, "change"),
			sizes.Format(bytes), at)
	}
	writeMissing(w, st.Shortfall)
	writeByHand(w, st.ByHand)
}

// writeMissing writes which layers the last solve left out, in whole or in part.
func writeMissing(w io.Writer, s *solver.Shortfall) {
	if s != nil {
		fmt.Fprintf(w, "incomplete since %s: clayer status --report says what is missing\n", s.At.Local().Format(minute))
	}
}

// ByHand says what was installed by hand.
func ByHand(list []exec.Installed) string { return (&exec.ByHandError{Packages: list}).Short() }

func writeByHand(w io.Writer, list []exec.Installed) {
	if len(list) > 0 {
		fmt.Fprintln(w, printable.Line(ByHand(list)))
	}
}

// WriteDrift writes how the layers of a solve differ from the root.
func WriteDrift(w io.Writer, d *solver.Drifted) {
	_ = Folded(w, 14, func(w io.Writer) error { writeDrift(w, d); return nil })
}

func writeDrift(w io.Writer, d *solver.Drifted) {
	for _, l := range d.Layers {
		fmt.Fprintf(w, "%-12s  %s\n", printable.Line(l.Name), printable.Line(l.Text))
	}
	for _, u := range d.Removed {
		fmt.Fprintln(w, printable.Line(fmt.Sprintf("%s:%d: %s %s", u.Layer, u.Line, u.Text, u.Unmet)))
	}
	writeByHand(w, d.ByHand)
}

// Undone says what an undo did.
func Undone(res *solver.UndoResult) string {
	text := "nothing to undo"
	if res.Steps > 0 || res.Files > 0 {
		text = fmt.Sprintf("%s undone, %s", sizes.Count(res.Steps, "step"), sizes.Count(res.Files, "change"))
	}
	if n := len(res.Preserved); n > 0 {
		text += fmt.Sprintf(", %s preserved", sizes.Count(n, "file"))
	}
	return text
}

// Verified are applied files, and how many there are of each state.
type Verified struct {
	Files     []drift.FileState `json:"files"`
	AsApplied int               `json:"asApplied"`
	Changed   int               `json:"changed"`
	Missing   int               `json:"missing"`

	ByHand []exec.Installed   `json:"byHand,omitempty"` // what was installed by hand
	Unmet  []solver.UnmetStep `json:"unmet,omitempty"`  // applied steps that need what is gone
}

// NewVerified counts files.
func NewVerified(files []drift.FileState) *Verified {
	v := &Verified{Files: append([]drift.FileState{}, files...)} // JSON has no null
	for _, f := range files {
		switch f.State {
		case drift.AsApplied:
			v.AsApplied++
		case drift.Changed:
			v.Changed++
		case drift.Missing:
			v.Missing++
		}
	}
	return v
}

// Text writes the files that are not as applied.
func (v *Verified) Text(w io.Writer) {
	for _, f := range v.Files {
		if f.State != drift.AsApplied {
			fmt.Fprintf(w, "%-8s  /%s%s\n", f.State, printable.Line(f.Path), why(f))
		}
	}
	for _, s := range v.Unmet {
		fmt.Fprintf(w, "%-8s  %s:%d  %s  %s\n", "unmet", printable.Line(s.Layer), s.Line, printable.Line(s.Text), printable.Line(s.Unmet))
	}
}

// WriteTree writes files, sorted by path, as a tree. Those in a new directory are
// summed up in its line, unless all are to be listed.
func WriteTree(w io.Writer, files []drift.FileState, all bool) {
	var open []string // the directories whose line is written
	for i := 0; i < len(files); i++ {
		f := files[i]
		size, n := f.Size, 0
		last := i
		if f.Dir && f.State == drift.New {
			for last+1 < len(files) && strings.HasPrefix(files[last+1].Path, f.Path+"/") {
				last++
				size += files[last].Size
				if !files[last].Dir {
					n++
				}
			}
		}
		parts := strings.Split(f.Path, "/")
		depth := 0
		for depth < len(open) && depth < len(parts)-1 && open[depth] == parts[depth] {
			depth++
		}
		open = open[:depth]
		for ; depth < len(parts)-1; depth++ {
			fmt.Fprintf(w, "%s%s/\n", strings.Repeat("  ", depth), printable.Line(parts[depth]))
			open = append(open, parts[depth])
		}
		name, tail := path.Base(f.Path), ""
		if f.Dir {
			name += "/"
			open = append(open, path.Base(f.Path))
		}
		if f.State != drift.Missing && (!f.Dir || n > 0) {
			tail = "   " + sizes.Format(size)
		}
		if n > 0 && !all {
			tail += "   " + sizes.Count(n, "file")
		}
		fmt.Fprintf(w, "%s%s   %s%s%s\n", strings.Repeat("  ", depth), printable.Line(name), f.State, why(f), tail)
		if !all {
			i = last
		}
	}
}

func why(f drift.FileState) string {
	if len(f.What) == 0 {
		return ""
	}
	return "  (" + strings.Join(f.What, ", ") + ")"
}

// maxShort bounds the layers that are listed as not whole.
const maxShort = 15

// WriteShortfall writes what is missing of a composition, why, and what completes it.
func WriteShortfall(w io.Writer, s *solver.Shortfall) {
	if s == nil {
		return
	}
	_ = Folded(w, 4, func(w io.Writer) error { writeShortfall(w, s); return nil })
}

// WriteReport writes what the last solve of a root left out.
func WriteReport(w io.Writer, st *solver.RootStatus) {
	switch {
	case st.Shortfall != nil:
		WriteShortfall(w, st.Shortfall)
	case len(st.State.Layers) == 0:
		fmt.Fprintln(w, "nothing is applied")
	default:
		fmt.Fprintln(w, "nothing is missing")
	}
}

func writeShortfall(w io.Writer, s *solver.Shortfall) {
	if s.Problem != "" {
		fmt.Fprintf(w, "clayer: incomplete: %s\n", printable.Line(s.Problem))
	}
	for i, l := range s.Layers {
		if i == maxShort {
			fmt.Fprintf(w, "clayer: incomplete: %s more\n", sizes.Count(len(s.Layers)-maxShort, "layer"))
			break
		}
		has := fmt.Sprintf("has %d of %s", l.Steps, sizes.Count(l.Of, "step"))
		if !l.As.IsZero() {
			has = "is as it was made on " + l.As.Local().Format(minute)
		}
		fmt.Fprintf(w, "clayer: incomplete: %s %s; %s:%d: %s: %s\n", printable.Line(l.Name), has, printable.Line(l.File), l.Line, printable.Line(l.Text), printable.Line(l.Why))
	}
	if s.Command != "" {
		fmt.Fprintf(w, "clayer: to complete it: %s\n", printable.Line(s.Command))
	}
}
