package web

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/clayer/clayer/internal/safefile"
)

// HeaderVariable names the variable with a header that a server requires, such as
// "Authorization: Bearer …".
const HeaderVariable = "CLAYER_HTTPS_HEADER"

// A Login is a header that a server gets with each request. The zero Login is anonymous.
type Login struct {
	From string // where it was found, in words; "" for none

	name, value string
	secrets     []string
}

// Secrets returns what must not be printed or leave the machine.
func (l Login) Secrets() []string { return l.secrets }

// FindLogin looks for the login of a store: in the variable CLAYER_HTTPS_HEADER, else in
// the file $NETRC or ~/.netrc, by the name of the host. An entry named "default" is not
// for a store: it would be sent to any host.
func FindLogin(at *url.URL, getenv func(string) string) (Login, error) {
	if h := getenv(HeaderVariable); h != "" {
		name, value, ok := strings.Cut(h, ":")
		value = strings.TrimSpace(value)
		if !ok || name == "" || value == "" || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }) || strings.ContainsFunc(value, unicode.IsControl) {
			return Login{}, fmt.Errorf("$%s is no header: want NAME: VALUE", HeaderVariable)
		}
		words := strings.Fields(value) // of "Bearer TOKEN", the last one is the secret
		return Login{From: "$" + HeaderVariable, name: name, value: value, secrets: []string{value, words[len(words)-1]}}, nil
	}
	path := getenv("NETRC")
	if path == "" {
		home := getenv("HOME")
		if home == "" {
			return Login{}, nil
		}
		path = filepath.Join(home, ".netrc")
	}
	data, err := safefile.Read(path, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return Login{}, nil
	}
	if err != nil {
		return Login{}, fmt.Errorf("logins: %w", err)
	}
	user, password := netrc(string(data), at.Hostname())
	if password == "" {
		return Login{}, nil
	}
	req := http.Request{Header: make(http.Header)}
	req.SetBasicAuth(user, password)
	value := req.Header.Get("Authorization")
	return Login{From: path, name: "Authorization", value: value, secrets: []string{password, value}}, nil
}

// netrc returns what a .netrc file has for a host, in its first entry for it. The format is
// that of https://www.gnu.org/software/inetutils/manual/html_node/The-_002enetrc-file.html,
// with comments as curl has them.
func netrc(text, host string) (login, password string) {
	ours := false
	words := netrcWords(text)
	for i := 0; i < len(words); i++ {
		word, value := words[i], ""
		if word != "default" && i+1 < len(words) {
			i++
			value = words[i]
		}
		switch {
		case ours && (word == "machine" || word == "default"):
			return login, password
		case word == "machine":
			ours = value == host
		case ours && word == "login":
			login = value
		case ours && word == "password":
			password = value
		}
	}
	return login, password
}

// netrcWords returns the words of a .netrc file, but those of comments and macros. A macro
// ends at an empty line.
func netrcWords(text string) (all []string) {
	macro := false
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if macro = macro && len(words) > 0; macro {
			continue
		}
		for i, w := range words {
			if macro = w == "macdef" && (i == 0 || words[i-1] != "password"); macro || strings.HasPrefix(w, "#") && (i == 0 || words[i-1] != "password") {
				break
			}
			all = append(all, w)
		}
	}
	return all
}

// authorized adds the login to what goes to the server of the store, and to nothing else:
// where it leads by a redirect signs its own addresses.
type authorized struct {
	base  http.RoundTripper
	at    *url.URL
	login Login
}

// RoundTrip implements http.RoundTripper.
func (t authorized) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.login.name == "" || req.URL.Host != t.at.Host || req.URL.Scheme != t.at.Scheme {
		return t.base.RoundTrip(req)
	}
	req = req.Clone(req.Context())
	req.Header.Set(t.login.name, t.login.value)
	return t.base.RoundTrip(req)
}
