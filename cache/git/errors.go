package git

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/git/remote"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/printable"
)

// act is what was asked of a repository.
type act uint8

const (
	reading act = iota
	pushing
	removing
)

// A kind is what git's failure means.
type kind uint8

const (
	unknown     kind = iota // what git said is all that is known
	noBranch                // the repository has no such branch
	moved                   // the repository is elsewhere
	gone                    // the server does not have the object any more
	old                     // the server gives no objects by their ids
	otherIDs                // the ids of its objects are of the other kind
	raced                   // another writer was faster
	noLogin                 // the server asks who it is
	forbidden               // the server does not allow it
	notFound                // there is no such repository, or it is hidden
	unreachable             // no answer is to be had
	large                   // the server does not take so much
	foreign                 // the branch is not clayer's
	notAllowed              // the user has not said yes
	broken                  // another try may succeed
)

// final reports whether all further calls would get the same.
func (k kind) final() bool {
	return slices.Contains([]kind{noLogin, forbidden, notFound, large, foreign, notAllowed}, k)
}

// An Error is why git did not do what it was asked for.
type Error struct {
	where string // the address
	kind  kind
	act   act
	said  string // in its own words
}

// Error says what git answered, and what to do.
func (e *Error) Error() string {
	said := ""
	if e.said != "" {
		said = " (" + e.said + ")"
	}
	switch e.kind {
	case noLogin:
		return fmt.Sprintf("%s requires a login%s: set up a credential helper, an SSH key, or http.extraHeader in git's configuration", e.where, said)
	case forbidden:
		right := map[act]string{reading: "read", pushing: "push to", removing: "replace"}[e.act]
		return fmt.Sprintf("not allowed to %s %s%s: ask its owner for access, or name another repository", right, e.where, said)
	case notFound:
		return fmt.Sprintf("there is no repository %s, or it is hidden%s: check its name, create it first, or log in", e.where, said)
	case unreachable:
		return fmt.Sprintf("cannot reach %s%s", e.where, said)
	case large:
		return fmt.Sprintf("%s does not take so much in one push%s", e.where, said)
	case raced:
		return fmt.Sprintf("%s: other writers were faster, again and again%s", e.where, said)
	case foreign, notAllowed:
		return e.said
	}
	return e.where + ": " + e.said
}

// RequiresConsent reports whether it was not done because the user has not allowed it.
func (e *Error) RequiresConsent() bool { return e.kind == notAllowed }

// hints of git's words, in order: what is more exact comes first.
var hints = []struct {
	kind  kind
	words string
}{
	{noBranch, `couldn't find remote ref`},
	{otherIDs, `mismatched algorithms|does not support this repository's hash algorithm`},
	{gone, `not our ref`},
	{old, `unadvertised object`},
	{large, `error: 413|exceeds .*limit|file size limit|too large|larger than`},
	{forbidden, `protected branch|hook declined|deny updating|denyNonFastForwards|non-fast-forward updates|cannot force`},
	{raced, `\[rejected\]|shallow update not allowed|fetch first|stale info|cannot lock ref|failed to update ref|failed to lock|reference already exists|incorrect old value|is at [0-9a-f]+ but expected`},
	{moved, `error: 30[1278]`},
	{noLogin, `could not read (username|password)|authentication failed|invalid credentials|permission denied \((publickey|password)|host key verification failed|error: 401|terminal prompts disabled`},
	{forbidden, `error: 403|permission to .* denied|not allowed|access denied|permission denied|read[- ]only|insufficient permission|not enabled|operation not permitted`},
	{notFound, `error: 404|repository.*(not found|not exported|does not exist)|does not appear to be a git repository|no such (repository|project)|not a git repository`},
	{unreachable, `could not resolve|name or service not known|no route to host|network is unreachable|ssl certificate|certificate|connection timed out|proxy connect|tunnel failed, response 4|code 4\d\d from proxy|transport '.*' not allowed|protocol .* is not supported`},
	{broken, `connection refused|failed to connect|couldn't connect|could not connect|error: (5\d\d|408|429)|early eof|rpc failed|hung up|reset by peer|too slow|timed out|empty reply|recv failure|send failure|ssl_|tls|unexpected disconnect|invalid index-pack|pack has|inflate|bad pack|corrupt|sha1 mismatch|bad band|bad line length|protocol error|disk full|unpack|service unavailable|expected|malformed|truncated|invalid|connection closed|transfer closed|no progress|unable to access`},
}

var words = func() (all []func() *regexp.Regexp) {
	for _, h := range hints {
		all = append(all, lazyregexp.New(h.words))
	}
	return all
}()

// explain returns what git's failure means.
func (p *program) explain(command string, err error, stderr string) error {
	where := p.where
	if errors.Is(err, errLarge) {
		return &Error{where: where, kind: foreign, said: where + ": the branch has more than a list of snapshots: name another branch"}
	}
	said := p.said(stderr)
	if errors.Is(err, errStalled) {
		return &Error{where: where, kind: broken, said: strings.TrimPrefix(said+": "+err.Error(), ": ")}
	}
	e := &Error{where: where, said: said}
	if said == "" {
		e.said = fmt.Sprintf("git %s: %v", command, err)
	}
	lower := strings.ToLower(stderr)
	for i, re := range words {
		if re().MatchString(lower) {
			e.kind = hints[i].kind
			break
		}
	}
	if e.kind == noLogin && strings.Contains(lower, "host key verification failed") {
		return errhint.With(e, "add the server's key to ~/.ssh/known_hosts: no one is there to confirm it")
	}
	return e
}

var marks = lazyregexp.New(`^(fatal|error|remote|warning|ERROR): *| ! \[`)

// said returns what git printed that says why, on one line, of a bounded length, without
// credentials.
func (p *program) said(stderr string) string {
	var all []string
	for line := range strings.SplitSeq(strings.ReplaceAll(stderr, "\r", "\n"), "\n") {
		line = strings.TrimRight(line, " ")
		at := marks().FindStringIndex(line)
		if at == nil || strings.HasPrefix(line, "warning:") {
			if strings.Contains(line, "Permission denied") || strings.Contains(line, "ssh:") || strings.Contains(line, "verification failed") {
				all = append(all, strings.TrimSpace(line))
			}
			continue
		}
		text := strings.TrimSpace(line)
		if !strings.HasPrefix(line, " !") {
			text = strings.TrimSpace(line[at[1]:])
		}
		if text != "" && !strings.Contains(text, "% (") && !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	text := p.clean(strings.Join(all, "; "))
	if r := []rune(text); len(r) > 300 {
		text = string(r[:300]) + "…"
	}
	return text
}

// clean returns a text as it may be shown.
func (p *program) clean(text string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, secret := range p.secrets {
		text = strings.ReplaceAll(text, secret, "...")
	}
	return printable.Line(remote.WithoutLogin(text))
}
