package indexes

import (
	"cmp"
	"slices"
	"strings"
)

// The parts of a text are divided by a zero: of which group a record is, and what it says.
func join(group, text string) string { return group + "\x00" + text }

// grouped returns the texts of records by their groups, in order.
func grouped(records []Record) (groups []string, texts map[string][]string) {
	texts = make(map[string][]string)
	for _, r := range records {
		group, text, _ := strings.Cut(r.Text, "\x00")
		if _, ok := texts[group]; !ok {
			groups = append(groups, group)
		}
		texts[group] = append(texts[group], text)
	}
	return groups, texts
}

const opensHead = "[MIME Cache]"

// parseOpens reads lines like "text/plain=a.desktop;b.desktop;".
func parseOpens(file string) (list []Record, ok bool) {
	for i, line := range strings.Split(strings.TrimSpace(file), "\n") {
		mime, programs, isRecord := strings.Cut(line, "=")
		switch {
		case i == 0 && line == opensHead:
			continue
		case i == 0, !isRecord, strings.ContainsRune(line, 0):
			return nil, false
		}
		for program := range strings.SplitSeq(strings.TrimSuffix(programs, ";"), ";") {
			list = append(list, Record{mime + " " + program, join(mime, program)})
		}
	}
	return list, true
}

func writeOpens(records []Record) []byte {
	var b strings.Builder
	b.WriteString(opensHead + "\n")
	types, programs := grouped(records)
	slices.Sort(types)
	for _, t := range types {
		b.WriteString(t + "=" + strings.Join(programs[t], ";") + ";\n")
	}
	return []byte(b.String())
}

const (
	infoMenu = "* Menu:"
	infoHead = "\x01" // the group of what is before the menu, and of nothing else
)

// parseInfo reads what is before the menu, which is a record, and then sections: a line, and
// the entries below it, "* Name: (file).  What it is.", with lines that are indented.
func parseInfo(file string) (list []Record, ok bool) {
	head, menu, ok := strings.Cut("\n"+file, "\n"+infoMenu)
	head = strings.TrimPrefix(head+"\n", "\n")
	if !ok || strings.ContainsAny(file, "\x00\x01") {
		return nil, false
	}
	rest, menu, _ := strings.Cut(menu, "\n")
	list = []Record{{"what is before the menu", join(infoHead, head+infoMenu+rest)}}
	section := ""
	for line := range strings.SplitSeq(menu, "\n") {
		line = strings.TrimRight(line, " \t\r")
		last := &list[len(list)-1]
		switch {
		case line == "":
		case strings.HasPrefix(line, "* "):
			name, _, _ := strings.Cut(line, ".")
			list = append(list, Record{section + " " + name, join(section, line)})
		case line[0] == ' ' || line[0] == '\t':
			if !strings.HasPrefix(last.Text, section+"\x00* ") {
				return nil, false
			}
			last.Text += "\n" + line
		default:
			section = line
			if heading := (Record{section, join(section, "")}); !slices.Contains(list, heading) {
				list = append(list, heading)
			}
		}
	}
	return list, true
}

func writeInfo(records []Record) []byte {
	var b strings.Builder
	sections, entries := grouped(records)
	slices.SortStableFunc(sections, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	for _, section := range sections {
		if rank(section) == 2 {
			b.WriteString("\n" + section + "\n")
		}
		for _, e := range entries[section] {
			if e != "" {
				b.WriteString(e + "\n")
			}
		}
	}
	return []byte(b.String())
}

// rank orders what is before the menu, the entries of no section, and the sections.
func rank(section string) int {
	switch section {
	case infoHead:
		return 0
	case "":
		return 1
	}
	return 2
}
