package mounts

import (
	"fmt"
	"strings"

	"github.com/clayer/clayer/internal/safefile"
)

// A Secret is where the content of RUN --mount=type=secret comes from: one of
// a file, a variable of the session, and the content itself.
type Secret struct {
	File    string
	Env     string
	Content []byte
}

// MaxSecret bounds a secret, in bytes, as BuildKit does.
const MaxSecret = 500 << 10

// Secrets returns, as Source.Secret, secrets by their ids; environ is what the variables of
// the session are.
func Secrets(all map[string]Secret, environ []string) func(id string) ([]byte, bool, error) {
	return func(id string) ([]byte, bool, error) {
		s, ok := all[id]
		if !ok {
			return nil, false, nil
		}
		content, err := s.read(environ)
		if err != nil {
			return nil, false, fmt.Errorf("secret %q: %w", id, err)
		}
		return content, true, nil
	}
}

func (s *Secret) read(environ []string) ([]byte, error) {
	if s.Content != nil {
		return s.Content, nil
	}
	if s.Env == "" {
		return safefile.Read(s.File, MaxSecret)
	}
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, s.Env+"="); ok {
			return []byte(v), nil
		}
	}
	return nil, fmt.Errorf("variable %s is not set", s.Env)
}
