package gittree

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/clayer/clayer/internal/git/remote"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/printable"
)

// A Kind is what a failure means for another try.
type Kind uint8

const (
	Other       Kind = iota // what git said is all that is known
	NoRef                   // the repository is there, and the ref or commit is not
	Refused                 // another try gets the same answer
	Unreachable             // no answer is to be had
	Broken                  // another try may succeed
	noIDs                   // the server gives no commits by their ids
)

// An Error is why git did not do what it was asked for.
type Error struct {
	Kind Kind
	text string
}

func (e *Error) Error() string { return e.text }

// hints of git's words, in order: what is more exact comes first.
var hints = []struct {
	kind Kind
	re   func(s string) bool
}{
	{NoRef, words(`not our ref|couldn't find remote ref`)},
	{noIDs, words(`unadvertised object|shallow capabilities|does not support shallow`)},
	{Refused, words(`does not exist on the server|authorization error|authentication required|mismatched algorithms|error: 4(0[0-79]|[13-9]\d|51)|could not read (username|password)|authentication failed|permission denied|host key verification failed|terminal prompts disabled|access denied|not allowed|dubious ownership|repository.*(not found|not exported|does not exist)|does not appear to be a git repository|not a git repository|no such (file|repository|project)`)},
	{Unreachable, words(`could not resolve|name or service not known|no route to host|network is unreachable|certificate|connection timed out|proxy connect|response 4|code 4\d\d from proxy|transport '.*' not allowed|protocol .* is not supported`)},
	{Broken, words(`expected oid|from http (5\d\d|429)|connection refused|failed to connect|couldn't connect|could not connect|error: (5\d\d|408|429)|early eof|rpc failed|hung up|reset by peer|too slow|timed out|empty reply|recv failure|send failure|ssl_|tls|unexpected disconnect|index-pack|corrupt|bad band|bad line length|protocol error|connection closed|transfer closed|no progress|unable to access`)},
}

func words(pattern string) func(string) bool {
	re := lazyregexp.New(pattern)
	return func(s string) bool { return re().MatchString(s) }
}

// noise is what git-lfs says that is no reason.
var noise = lazyregexp.New(`^$|\d% \(|^(Errors logged|Use .git lfs|Check that|Downloading|fetch:)`)

var marks = lazyregexp.New(`^(fatal|error|remote|ERROR): *`)

// explain returns what git's failure means.
func (r *repo) explain(command string, err error, stderr string) error {
	switch {
	case errors.Is(err, errLarge):
		return &Error{Kind: Refused, text: r.where + ": the commit is too large"}
	case errors.Is(err, errStalled):
		return &Error{Kind: Broken, text: fmt.Sprintf("%s: %v", r.where, err)}
	}
	e := &Error{text: fmt.Sprintf("%s: git %s: %v", r.where, command, err)}
	var all []string
	for line := range strings.SplitSeq(strings.ReplaceAll(stderr, "\r", "\n"), "\n") {
		at := marks().FindStringIndex(line)
		if at == nil && command == "lfs" && !noise().MatchString(line) {
			at = []int{0, 0}
		}
		if at == nil && !strings.Contains(line, "ssh:") && !strings.Contains(line, "Permission denied") {
			continue
		} else if at != nil {
			line = line[at[1]:]
		}
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "% (") && !slices.Contains(all, line) {
			all = append(all, line)
		}
	}
	if len(all) > 0 {
		text := remote.WithoutLogin(strings.Join(all, "; "))
		for _, secret := range r.secrets {
			text = strings.ReplaceAll(text, secret, "...")
		}
		if runes := []rune(text); len(runes) > 300 {
			text = string(runes[:300]) + "…"
		}
		e.text = r.where + ": " + printable.Line(text)
	}
	lower := strings.ToLower(stderr)
	for _, h := range hints {
		if h.re(lower) {
			e.Kind = h.kind
			break
		}
	}
	return e
}

// IsCommit reports whether s is a whole id of a commit, by SHA-1 or SHA-256.
func IsCommit(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}
