// Package ghatest is the cache service of GitHub Actions on loopback, after the public
// definitions of github.actions.results.api.v1, with the storage that it signs addresses of.
package ghatest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Token is that of the job.
const Token = "token-of-the-running-job"

// Signature is what a signed address has in its query.
const Signature = "signature-of-an-address"

// A Server is the service of one branch. Its fields are set before it is asked, or with
// Change.
type Server struct {
	*httptest.Server

	Storage string // of the host that addresses are signed for; "" for the one that was asked

	ReadOnly bool // the job's token only reads, as that of a pull request from a fork
	Denied   bool // the job's token does not even read
	Expired  bool // addresses that were signed are good no more

	// Fault is called before a request is served, and reports whether it answered it. nil
	// answers none.
	Fault func(w http.ResponseWriter, r *http.Request) bool

	mu      sync.Mutex
	asked   []string
	entries map[string]*entry // by version and key
	blobs   []*entry          // by number
}

type entry struct {
	version, key string
	number       int
	at           int // when it was made
	blocks       map[string][]byte
	data         []byte
	uploaded     bool
	whole        bool
}

// Handler returns a service that nothing listens for.
func Handler() *Server { return &Server{entries: make(map[string]*entry)} }

// Start starts a service. The caller closes it.
func Start() *Server {
	s := Handler()
	s.Server = httptest.NewServer(s)
	return s
}

// New starts a service that ends with the test.
func New(t testing.TB) *Server {
	s := Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Server.Close()
	})
	return s
}

// Change changes fields while the service is asked.
func (s *Server) Change(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// Asked returns the requests since it was called last: the name of a method of the service,
// or METHOD and what is asked of the storage.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.asked
	s.asked = nil
	return all
}

// Keys returns the keys of the entries that are whole, sorted.
func (s *Server) Keys() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.whole {
			all = append(all, e.key)
		}
	}
	slices.Sort(all)
	return all
}

// Evict removes the entries whose keys have a text in them.
func (s *Server) Evict(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.entries, func(_ string, e *entry) bool {
		if !strings.Contains(e.key, text) {
			return false
		}
		e.uploaded = false
		return true
	})
}

// Damage changes the last byte of each entry.
func (s *Server) Damage() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		e.data = bytes.Clone(e.data)
		e.data[len(e.data)-1] ^= 1
	}
}

// Refuse answers with an error of the service.
func Refuse(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"code": code, "msg": text})
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method, ofService := strings.CutPrefix(r.URL.Path, "/twirp/github.actions.results.api.v1.CacheService/")
	s.mu.Lock()
	if ofService {
		s.asked = append(s.asked, method)
	} else {
		s.asked = append(s.asked, strings.TrimSpace(r.Method+" "+cmp.Or(r.URL.Query().Get("comp"), "blob")))
	}
	fault := s.Fault
	s.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ofService {
		s.storage(w, r, body)
		return
	}
	var in struct {
		Key         string   `json:"key"`
		RestoreKeys []string `json:"restore_keys"`
		Version     string   `json:"version"`
		Size        string   `json:"size_bytes"`
	}
	switch {
	case r.Header.Get("Authorization") != "Bearer "+Token:
		Refuse(w, http.StatusUnauthorized, "unauthenticated", "the token "+r.Header.Get("Authorization")+" is not valid")
		return
	case r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || json.Unmarshal(body, &in) != nil:
		Refuse(w, http.StatusBadRequest, "malformed", "no JSON")
		return
	case in.Key == "" || len(in.Key) > 512 || strings.Contains(in.Key, ",") || in.Version == "":
		Refuse(w, http.StatusBadRequest, "invalid_argument", "key")
		return
	case s.Denied:
		Refuse(w, http.StatusForbidden, "permission_denied", "cache read denied: the token has no scope")
		return
	case s.ReadOnly && method != "GetCacheEntryDownloadURL":
		Refuse(w, http.StatusForbidden, "permission_denied", "cache write denied: the token has no scope to write")
		return
	}
	switch e := s.entries[in.Version+" "+in.Key]; method {
	case "CreateCacheEntry":
		if e != nil {
			Refuse(w, http.StatusConflict, "already_exists", "an entry with this key, version and scope exists")
			return
		}
		e = &entry{version: in.Version, key: in.Key, number: len(s.blobs), at: len(s.blobs), blocks: make(map[string][]byte)}
		s.entries[in.Version+" "+in.Key] = e
		s.blobs = append(s.blobs, e)
		answer(w, map[string]any{"ok": true, "signed_upload_url": s.signed(r, e)})
	case "FinalizeCacheEntryUpload":
		if e == nil || e.whole || !e.uploaded || in.Size != strconv.Itoa(len(e.data)) {
			Refuse(w, http.StatusNotFound, "not_found", "no upload of that key and size")
			return
		}
		e.whole = true
		answer(w, map[string]any{"ok": true, "entry_id": strconv.Itoa(e.number)})
	case "GetCacheEntryDownloadURL":
		if len(in.RestoreKeys) > 10 {
			Refuse(w, http.StatusBadRequest, "invalid_argument", "restore_keys")
			return
		}
		if e == nil || !e.whole {
			e = s.newest(in.Version, append([]string{in.Key}, in.RestoreKeys...))
		}
		if e == nil {
			answer(w, map[string]any{"ok": false, "signed_download_url": "", "matched_key": ""})
			return
		}
		answer(w, map[string]any{"ok": true, "signed_download_url": s.signed(r, e), "matched_key": e.key})
	default:
		Refuse(w, http.StatusNotFound, "bad_route", "no such method")
	}
}

// newest returns the newest entry of the first prefix that any has.
func (s *Server) newest(version string, prefixes []string) (best *entry) {
	for _, p := range prefixes {
		for _, e := range s.entries {
			if e.whole && e.version == version && strings.HasPrefix(e.key, p) && (best == nil || e.at > best.at) {
				best = e
			}
		}
		if best != nil {
			return best
		}
	}
	return nil
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (s *Server) signed(r *http.Request, e *entry) string {
	return fmt.Sprintf("%s/actions-cache/%d?sv=2025-11-05&sig=%s", cmp.Or(s.Storage, "http://"+r.Host), e.number, Signature)
}

// storage answers what is asked of the storage: the part of Azure's that the addresses are
// good for.
func (s *Server) storage(w http.ResponseWriter, r *http.Request, body []byte) {
	refuse := func(status int, code string) {
		w.Header().Set("X-Ms-Error-Code", code)
		w.WriteHeader(status)
		fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><Error><Code>%s</Code></Error>`, code)
	}
	n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/actions-cache/"))
	query := r.URL.Query()
	switch {
	case query.Get("sig") != Signature || s.Expired || r.Header.Get("Authorization") != "":
		refuse(http.StatusForbidden, "AuthenticationFailed")
		return
	case err != nil || n < 0 || n >= len(s.blobs) || r.Method == http.MethodGet && !s.blobs[n].uploaded:
		refuse(http.StatusNotFound, "BlobNotFound")
		return
	}
	e := s.blobs[n]
	switch {
	case r.Method == http.MethodGet:
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, n))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(e.data))
		return
	case r.Method != http.MethodPut || r.ContentLength != int64(len(body)):
		refuse(http.StatusBadRequest, "InvalidInput")
		return
	case query.Get("comp") == "block":
		if len(query.Get("blockid")) == 0 {
			refuse(http.StatusBadRequest, "InvalidQueryParameterValue")
			return
		}
		e.blocks[query.Get("blockid")] = body
	case query.Get("comp") == "blocklist":
		var list struct{ Latest []string }
		if err := xml.Unmarshal(body, &list); err != nil {
			refuse(http.StatusBadRequest, "InvalidXmlDocument")
			return
		}
		var data []byte
		for _, id := range list.Latest {
			block, ok := e.blocks[id]
			if !ok {
				refuse(http.StatusBadRequest, "InvalidBlockList")
				return
			}
			data = append(data, block...)
		}
		e.data, e.uploaded = data, true
	case r.Header.Get("X-Ms-Blob-Type") != "BlockBlob":
		refuse(http.StatusBadRequest, "MissingRequiredHeader")
		return
	default:
		e.data, e.uploaded = body, true
	}
	w.WriteHeader(http.StatusCreated)
}
