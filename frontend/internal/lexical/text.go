package lexical

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend/internal/fault"
)

// OnlyComments reports whether there is no instruction in a text, which
// BuildKit's parser takes for an error.
func OnlyComments(src []byte) bool {
	for line := range bytes.Lines(src) {
		if text := string(line); !IsBlank(text) && !IsComment(text) {
			return false
		}
	}
	return true
}

// CommentAfter explains the error of an instruction that a comment
// follows: in Docker, and so here, its words are arguments. In a RUN they are the
// shell's.
func CommentAfter(known []string, word, text string, escape byte, err error) error {
	if word == "RUN" || !slices.Contains(known, word) {
		return err
	}
	words, _ := SplitWords(text, 0, escape)
	i := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "#") })
	if i < 0 {
		return err
	}
	return fault.Errorf("%v; a comment starts a line of its own", err).WithHint("put %q on the line above", strings.Join(words[i:], " "))
}

// IsWord reports whether a text can be the word of an instruction, in upper case.
func IsWord(s string) bool {
	return s != "" && len(s) <= 20 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// maxText is the longest Meta.Text, in runes.
const maxText = 500

// Display returns an instruction as it is shown: on one line, blanks folded.
func Display(text string) string {
	word, rest := text, ""
	if i := strings.IndexAny(text, " \t"); i >= 0 {
		word, rest = text[:i], text[i:]
	}
	text = Redact(Show(strings.Join(strings.Fields(strings.ToUpper(word)+" "+rest), " ")))
	if r := []rune(text); len(r) > maxText {
		text = string(r[:maxText-1]) + "…"
	}
	return text
}

// CacheBust returns the texts of the cache-bust comments of lines from to to,
// counted from 1.
func CacheBust(lines []string, from, to int) []string {
	var list []string
	for i := from; i <= min(to, len(lines)); i++ {
		text, ok := strings.CutPrefix(strings.TrimSpace(lines[i-1]), "#")
		if !ok {
			continue
		}
		name, value, ok := strings.Cut(text, ":")
		if ok && strings.EqualFold(strings.TrimSpace(name), "cache-bust") {
			list = append(list, strings.TrimSpace(value))
		}
	}
	return list
}

// JSONStrings reads the JSON form of arguments.
func JSONStrings(args string) (list []string, ok bool) {
	if !strings.HasPrefix(args, "[") || json.Unmarshal([]byte(args), &list) != nil {
		return nil, false
	}
	return list, true
}
