package github

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"sync"

	"github.com/clayer/clayer/internal/safefile"
)

// answers stores what the API answered, by URL and token: ETags differ per token.
type answers struct {
	dir      string
	readOnly bool
	token    string // its fingerprint

	sweeping sync.Once // of what killed processes left
}

const partPrefix = "part-"

// An answer is stored with what a later request needs to be conditional.
type answer struct {
	ETag string          `json:"etag"`
	Link string          `json:"link,omitempty"`
	Body json.RawMessage `json:"body"`
}

func fingerprint(token string) string {
	sum := sha256.Sum256([]byte("clayer answers " + token))
	return hex.EncodeToString(sum[:8])
}

func (a *answers) name(url, accept string) string {
	sum := sha256.Sum256([]byte(a.token + "\x00" + accept + "\x00" + url))
	return hex.EncodeToString(sum[:])
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

func (a *answers) load(url, accept string) (answer, bool) {
	var stored answer
	if a.dir == "" {
		return stored, false
	}
	dir, err := safefile.OpenDir(a.dir)
	if err != nil {
		return stored, false
	}
	defer dir.Close()
	data, err := safefile.ReadFile(dir, a.name(url, accept), maxAnswer)
	if err != nil || json.Unmarshal(data, &stored) != nil || stored.ETag == "" || len(stored.Body) == 0 {
		return answer{}, false
	}
	return stored, true
}

// store is a shortcut for later: where it fails nothing is lost but that.
func (a *answers) store(url, accept string, stored answer) {
	if a.dir == "" || a.readOnly || stored.ETag == "" || !json.Valid(stored.Body) {
		return
	}
	data, err := json.Marshal(stored)
	if err != nil {
		return
	}
	dir, err := safefile.MakeDir(a.dir, 0o700)
	if err != nil {
		return
	}
	defer dir.Close()
	a.sweeping.Do(func() {
		_, _ = safefile.Sweep(dir, ".", func(name string) bool { return strings.HasPrefix(name, partPrefix) })
	})
	_ = safefile.WriteFile(dir, a.name(url, accept), partPrefix, data) // 0600: a private repository's names may be in it
}
