package ui

import "testing"

func TestFold(t *testing.T) {
	for _, tt := range []struct {
		line string
		most int
		hang int
		want string
	}{
		{"short\n", 30, 4, "short\n"},
		{"a line of words that is too long\n", 30, 4, "a line of words that is too\n    long\n"},
		{"  name   text that goes on and on\n", 30, 9, "  name   text that goes on and\n         on\n"},
		{"    /a/path/that/is/longer/than/the/terminal\n", 30, 4, "    /a/path/that/is/longer/than/the/terminal\n"},
		{"see /a/path/that/is/longer/than/the/terminal now\n", 30, 4, "see /a/path/that/is/longer/than/the/terminal\n    now\n"},
		{"without an end, and too long for it", 30, 4, "without an end, and too long\n    for it"},
		{"wide 漢字漢字漢字 漢字漢字漢字 漢字\n", 30, 2, "wide 漢字漢字漢字 漢字漢字漢字\n  漢字\n"},
		{"a column    far to the right of it\n", 20, 100, "a column    far to\n    the right of it\n"},
	} {
		if got := fold(tt.line, tt.most, tt.hang); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.line, got, tt.want)
		}
	}
}
