package gittest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strings"
)

// Large keeps a file by Git LFS, and returns the pointer that a tree has in its place.
func (s *Server) Large(content string) (pointer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
	if s.large == nil {
		s.large = make(map[string][]byte)
	}
	s.large[id] = []byte(content)
	return fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", id, len(content))
}

// SetLarge changes what the server gives for a pointer; nil: it has nothing.
func (s *Server) SetLarge(pointer string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, rest, _ := strings.Cut(pointer, "sha256:")
	id, _, _ := strings.Cut(rest, "\n")
	if s.large[id] = content; content == nil {
		delete(s.large, id)
	}
}

// serveLarge is the server of LFS, for downloads (its batch API and basic transfer).
func (s *Server) serveLarge(w http.ResponseWriter, r *http.Request) {
	type action struct {
		Href   string            `json:"href"`
		Header map[string]string `json:"header,omitempty"`
	}
	type object struct {
		OID     string            `json:"oid"`
		Size    int64             `json:"size"`
		Actions map[string]action `json:"actions,omitempty"`
		Error   any               `json:"error,omitempty"`
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodGet {
		content, ok := s.large[path.Base(r.URL.Path)]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(content)
		return
	}
	var batch struct {
		Transfer string   `json:"transfer"`
		Objects  []object `json:"objects"`
	}
	if !strings.HasSuffix(r.URL.Path, "/objects/batch") || json.NewDecoder(r.Body).Decode(&batch) != nil {
		http.NotFound(w, r)
		return
	}
	batch.Transfer = "basic"
	for i, o := range batch.Objects {
		if _, ok := s.large[o.OID]; !ok {
			batch.Objects[i].Error = map[string]any{"code": 404, "message": "Object does not exist on the server"}
			continue
		}
		header := make(map[string]string)
		if login := r.Header.Get("Authorization"); login != "" {
			header["Authorization"] = login
		}
		batch.Objects[i].Actions = map[string]action{"download": {strings.TrimSuffix(s.URL+r.URL.Path, "batch") + o.OID, header}}
	}
	w.Header().Set("Content-Type", "application/vnd.git-lfs+json")
	_ = json.NewEncoder(w).Encode(batch)
}
