package buildchecks

import (
	"strings"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// host, path, tag and digest are the parts of the name of an image.
const (
	hostPart   = `[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?`
	hostName   = `(?:` + hostPart + `(?:\.` + hostPart + `)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?`
	pathPart   = `[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*`
	tagName    = `[\w][\w.-]{0,127}`
	digestName = `[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[[:xdigit:]]{32,}`
)

var (
	image     = lazyregexp.New(`^` + hostName + `/(` + pathPart + `(?:/` + pathPart + `)*)(?::` + tagName + `)?(?:@` + digestName + `)?$`)
	onlyHex   = lazyregexp.New(`^[a-f0-9]{64}$`)
	maxImages = 255 // bytes of the path of an image
)

// isReference reports whether a word can be the name of an image. The part before the first
// slash is a host if it has a dot, a port or a capital letter; else the host is Docker's.
func isReference(word string) bool {
	if onlyHex().MatchString(word) {
		return false
	}
	host, rest, ok := strings.Cut(word, "/")
	if !ok || host != "localhost" && !strings.ContainsAny(host, ".:") && host == strings.ToLower(host) {
		host, rest = "docker.io", word
	}
	m := image().FindStringSubmatch(host + "/" + rest)
	return m != nil && len(m[1]) <= maxImages
}

// secret and harmless are parts of the names of variables, in any case.
var (
	secret   = lazyregexp.New(`(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)`)
	harmless = lazyregexp.New(`(?i)(?:_|^)(?:public|file|version)(?:_|$)`)
)

func isSecret(name string) bool { return secret().MatchString(name) && !harmless().MatchString(name) }
