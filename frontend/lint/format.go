package lint

import (
	"encoding/json"
	"io"
)

// jsonFinding is a Finding in JSON. Fields are added, never changed.
type jsonFinding struct {
	Rule    string   `json:"rule"`
	Level   Level    `json:"level"`
	File    string   `json:"file"`
	Line    int      `json:"line"`
	EndLine int      `json:"endLine"`
	Message string   `json:"message"`
	Hint    string   `json:"hint,omitempty"`
	URL     string   `json:"url,omitempty"`
	Fix     *jsonFix `json:"fix,omitempty"`
}

type jsonFix struct {
	What  string     `json:"what"`
	Edits []jsonEdit `json:"edits"`
}

type jsonEdit struct {
	Line      int    `json:"line"`
	Column    int    `json:"column"`
	EndLine   int    `json:"endLine"`
	EndColumn int    `json:"endColumn"`
	Text      string `json:"text"`
}

// WriteJSON writes findings as a JSON list.
func WriteJSON(w io.Writer, findings []Finding) error {
	list := make([]jsonFinding, 0, len(findings))
	for _, f := range findings {
		j := jsonFinding{
			Rule: f.Rule, Level: f.Level, File: f.Pos.File, Line: f.Pos.Line, EndLine: f.Pos.End, Message: f.Message, Hint: f.Hint, URL: f.URL,
		}
		if f.Fix != nil {
			j.Fix = &jsonFix{What: f.Fix.What}
			for _, e := range f.Fix.Edits {
				j.Fix.Edits = append(j.Fix.Edits, jsonEdit(e))
			}
		}
		list = append(list, j)
	}
	return encode(w, list)
}

func encode(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
