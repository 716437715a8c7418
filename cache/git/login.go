package git

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/clayer/clayer/internal/git/remote"
)

// A login is how git says who it is. Left to itself, git learns again in each run that a
// server asks for that: a request more each time. So it is learned once, and then sent
// with every request.
//
//	anonymous ──▶ sent ──▶ own
//
// The zero login is anonymous. It becomes sent when the server asks and a credential
// helper answers, and is that from the beginning for a URL with a password. It becomes
// own when the server leads elsewhere: only git knows whether the password is for there.
type login struct {
	mu    sync.Mutex
	state loginState
	found credential
	turns int // how often it has changed
}

type loginState uint8

const (
	anonymous loginState = iota // no helper is asked
	sent                        // in a header, and no redirect is followed
	own                         // git does what it does
)

// A credential is what a helper has. The zero credential is none.
type credential struct {
	about          string // what it is for, as helpers read it
	user, password string
	given          bool // by the URL, and not by a helper
}

// given returns the login that a URL has.
func given(address string) (loginState, credential) {
	u, err := url.Parse(address)
	if err != nil || u.User == nil || u.Scheme != "http" && u.Scheme != "https" {
		return anonymous, credential{}
	}
	password, ok := u.User.Password()
	if !ok {
		return anonymous, credential{}
	}
	return sent, credential{user: u.User.Username(), password: password, given: true}
}

// settings returns the configuration, and the arguments, by which git says who it is.
func (l *login) settings(address string) (config string, args []string, turn int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	switch l.state {
	case anonymous:
		args = []string{"credential.helper=", "core.askPass="}
		remote.Write(&b, "remote.store.url", address)
	case sent:
		args = []string{"credential.helper=", "core.askPass=", "http.followRedirects=false"}
		remote.Write(&b, "remote.store.url", remote.WithoutLogin(address))
		basic := base64.StdEncoding.EncodeToString([]byte(l.found.user + ":" + l.found.password))
		remote.Write(&b, "http.extraHeader", "Authorization: Basic "+basic)
	case own:
		remote.Write(&b, "remote.store.url", address)
	}
	return b.String(), args, l.turns
}

// next changes the login after a server has refused one, and reports whether another try
// makes sense. turn is that of the login which was refused.
func (r *repo) nextLogin(ctx context.Context, turn int, why kind) bool {
	l := &r.git.login
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.turns != turn: // another call has changed it
		return true
	case why == moved && l.state == sent:
		l.state = own
	case why == noLogin && l.state == anonymous:
		found, ok := r.askHelpers(ctx)
		if !ok {
			return false
		}
		l.state, l.found = sent, found
	case why == noLogin && l.state == sent && !l.found.given:
		// It may have expired since: the helper may have a new one.
		_ = r.answerHelpers(ctx, "reject", l.found)
		found, ok := r.askHelpers(ctx)
		if !ok || found == l.found {
			return false
		}
		l.found = found
	default:
		return false
	}
	r.git.hide(l.found.password)
	l.turns++
	return true
}

// askHelpers asks the credential helpers, as git does.
func (r *repo) askHelpers(ctx context.Context) (c credential, ok bool) {
	var out bytes.Buffer
	// The address as it is after insteadOf.
	if err := r.run(ctx, call{args: []string{"ls-remote", "--get-url", "store"}, stdout: &out}); err != nil {
		return c, false
	}
	u, err := url.Parse(strings.TrimSpace(out.String()))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return c, false
	}
	c.about = fmt.Sprintf("protocol=%s\nhost=%s\npath=%s\n", u.Scheme, u.Host, strings.TrimPrefix(u.Path, "/"))
	if u.User != nil {
		c.about += "username=" + u.User.Username() + "\n"
	}
	out.Reset()
	// A helper may ask its own server, and may hang: it is watched like one.
	err = r.run(ctx, call{network: true, args: []string{"credential", "fill"}, stdin: strings.NewReader(c.about + "\n"), stdout: &out})
	if err != nil {
		return c, false
	}
	for line := range strings.Lines(out.String()) {
		name, value, _ := strings.Cut(strings.TrimRight(line, "\n"), "=")
		switch name {
		case "username":
			c.user = value
		case "password":
			c.password = value
		}
	}
	return c, c.password != ""
}

// answerHelpers reports what became of a credential.
func (r *repo) answerHelpers(ctx context.Context, what string, c credential) error {
	text := c.about + "username=" + c.user + "\npassword=" + c.password + "\n\n"
	return r.run(ctx, call{network: true, args: []string{"credential", what}, stdin: strings.NewReader(text)})
}

// remote runs git with the server.
func (r *repo) remote(ctx context.Context, c call) error {
	c.network = true
	own := c.settings
	for {
		config, settings, turn := r.git.login.settings(r.git.address)
		if err := r.configure(config); err != nil {
			return err
		}
		c.settings = slices.Concat(own, settings)
		err := r.run(ctx, c)
		var e *Error
		if errors.As(err, &e) && e.kind == otherIDs && r.git.sha256.CompareAndSwap(false, true) && c.args[0] == "fetch" {
			continue // nothing was fetched yet
		}
		if !errors.As(err, &e) || e.kind != noLogin && e.kind != moved || !r.nextLogin(ctx, turn, e.kind) {
			return err
		}
	}
}
