package github

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// answers keeps what the API answered, by URL and token: ETags differ per token.
type answers struct {
	dir      string
	readOnly bool
	token    string // its fingerprint
}

// An answer is kept with what a later request needs to be conditional.
type answer struct {
	ETag string          `json:"etag"`
	Link string          `json:"link,omitempty"`
	Body json.RawMessage `json:"body"`
}

func fingerprint(token string) string {
	sum := sha256.Sum256([]byte("clayer answers " + token))
	return hex.EncodeToString(sum[:8])
}

func (a *answers) path(url, accept string) string {
	sum := sha256.Sum256([]byte(a.token + "\x00" + accept + "\x00" + url))
	return filepath.Join(a.dir, hex.EncodeToString(sum[:]))
}

func (a *answers) load(url, accept string) (answer, bool) {
	var kept answer
	if a.dir == "" {
		return kept, false
	}
	data, err := os.ReadFile(a.path(url, accept))
	if err != nil || json.Unmarshal(data, &kept) != nil || kept.ETag == "" || len(kept.Body) == 0 {
		return answer{}, false
	}
	return kept, true
}

// keep is a shortcut for later: where it fails nothing is lost but that.
func (a *answers) keep(url, accept string, kept answer) {
	if a.dir == "" || a.readOnly || kept.ETag == "" || !json.Valid(kept.Body) {
		return
	}
	data, err := json.Marshal(kept)
	if err != nil || os.MkdirAll(a.dir, 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(a.dir, "part-*") // 0600: a private repository's names may be in it
	if err != nil {
		return
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), a.path(url, accept))
	}
	if err != nil {
		os.Remove(f.Name())
	}
}
