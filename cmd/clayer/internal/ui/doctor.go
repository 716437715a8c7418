package ui

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/clayer/clayer/solver/doctor"
)

// NameFlags adds to what clayer doctor found the flags that help.
func NameFlags(list []doctor.Finding) []doctor.Finding {
	for i := range list {
		nameFlags(&list[i])
	}
	return list
}

func nameFlags(f *doctor.Finding) {
	inCache := f.Name == "cache"
	inTemp := f.Name == "temporary files"
	switch f.Cause {
	case doctor.NotEphemeral:
		f.Text += ": solve changes / only with --yes"
	case doctor.Unprivileged:
		f.Text += ": only --dest, and roots of your own"
	case doctor.LittleSpace:
		switch {
		case inCache:
			f.Remedy = "--cache-dir on another disk, or a smaller --cache-size"
		case !inTemp:
			f.Remedy = "a smaller environment, or --dest on another disk"
		}
	case doctor.ReadOnly:
		switch {
		case inCache:
			f.Remedy = "--cache-dir DIR on a disk that can be written"
		case !inTemp:
			f.Remedy = "--dest DIR, or --root DIR, on a disk that can be written"
		}
	case doctor.NoCTime:
		f.Remedy = "--compare=digest is used instead: slower, and as exact"
	case doctor.Refused:
		f.Remedy = "have the proxy allow this host; until then --store dir:PATH"
	case doctor.Unreachable:
		f.Remedy = "a network, or HTTPS_PROXY; without it, --store dir:PATH"
	case doctor.StoreFailed:
		f.Remedy = "solve goes on without a store that fails, unless you give --require-cache"
	}
}

// WriteExamination writes what clayer doctor found, by area.
func WriteExamination(w io.Writer, list []doctor.Finding) error {
	longest := 0
	for _, f := range list {
		longest = max(longest, width(f.Name))
	}
	return Folded(w, longest+6, func(w io.Writer) error { return writeExamination(w, list) })
}

func writeExamination(w io.Writer, list []doctor.Finding) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	area := ""
	for i, f := range list {
		mark := "✓"
		if !f.OK {
			mark = "✗"
		}
		if f.Area != area {
			area = f.Area
			fmt.Fprintf(t, "%s\n", area)
		}
		fmt.Fprintf(t, "  %s %s\t%s\n", mark, f.Name, f.Text)
		if again := i+1 < len(list) && list[i+1].Area == f.Area && list[i+1].Remedy == f.Remedy; f.Remedy != "" && !again {
			fmt.Fprintf(t, "  \t→ %s\n", f.Remedy)
		}
	}
	return t.Flush()
}
