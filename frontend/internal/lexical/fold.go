package lexical

import "strings"

// Fold makes one space of the blanks around each seam of a shell command: the
// indentation of a continuation line is layout, and must not enter a key. It
// does so only where a shell splits words, so not within quotes, $(..), ${..}
// or backquotes, and after an escaped blank; where that is not clear, it leaves
// the rest of the command as it is.
func Fold(cmd string, seams []int) string {
	if len(seams) == 0 {
		return cmd
	}
	var out []byte
	var open []byte // what closes the constructs that are open: " ) } `
	protected := 0  // the blanks of out[:protected] stay
	inDouble := func() bool {
		for i := len(open) - 1; i >= 0; i-- {
			switch open[i] {
			case '"':
				return true
			case ')', '`':
				return false
			}
		}
		return false
	}
	top := func() byte {
		if len(open) == 0 {
			return 0
		}
		return open[len(open)-1]
	}
	push := func(closer byte) { open = append(open, closer) }
	pop := func() { open = open[:len(open)-1] }

	for i := 0; i < len(cmd); {
		for len(seams) > 0 && seams[0] < i {
			seams = seams[1:]
		}
		if len(seams) > 0 && seams[0] == i {
			seams = seams[1:]
			if len(open) == 0 {
				blank := false
				for len(out) > protected && isBlankByte(out[len(out)-1]) {
					out, blank = out[:len(out)-1], true
				}
				for i < len(cmd) && isBlankByte(cmd[i]) {
					i, blank = i+1, true
				}
				if blank {
					out = append(out, ' ')
				}
				// Blanks may hold more seams, those of lines without text.
				for len(seams) > 0 && seams[0] <= i {
					seams = seams[1:]
				}
				if i == len(cmd) {
					break
				}
			}
		}
		c, n := cmd[i], 1
		switch {
		case c == '\\' && i+1 < len(cmd):
			n = 2
			protected = len(out) + 2
		case c == '\'' && !inDouble():
			end := strings.IndexByte(cmd[i+1:], '\'')
			if end < 0 {
				return string(append(out, cmd[i:]...))
			}
			n = end + 2
			if i > 0 && cmd[i-1] == '$' && end > 0 && cmd[i+end] == '\\' {
				// $'it\'s': whether that is the end depends on the shell.
				return string(append(out, cmd[i:]...))
			}
			protected = len(out) + n
		case c == '"' && top() == '"', c == ')' && top() == ')',
			c == '}' && top() == '}', c == '`' && top() == '`':
			pop()
			protected = len(out) + 1
		case c == '"', c == '`':
			push(c)
		case c == '$' && i+1 < len(cmd) && cmd[i+1] == '(':
			push(')')
			n = 2
		case c == '$' && i+1 < len(cmd) && cmd[i+1] == '{':
			push('}')
			n = 2
		case c == '(' && top() == ')':
			push(')')
		case c == 'c' && top() == ')' && strings.HasPrefix(cmd[i:], "case") && i+4 < len(cmd) && isBlankByte(cmd[i+4]):
			// The patterns of case hold unpaired parentheses.
			return string(append(out, cmd[i:]...))
		}
		out = append(out, cmd[i:i+n]...)
		i += n
	}
	return string(out)
}

func isBlankByte(c byte) bool { return c == ' ' || c == '\t' }
