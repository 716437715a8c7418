package catchup

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/safefile"
)

// A Memory is a directory with what stores are known to have; "" remembers nothing.
// What is lost of it is asked again.
type Memory string

const (
	// lasts is how long an answer is believed.
	lasts = 24 * time.Hour
	// forgotten is when an answer is removed.
	forgotten = 30 * lasts
	// maxMemory bounds what is read of a file.
	maxMemory = 4 << 20
	partial   = "part-"
)

// An answer is what a store had of a layer.
type answer struct {
	Asked   time.Time `json:"asked"`
	Missing int       `json:"missing,omitempty"` // steps that it lacks
	Refused string    `json:"refused,omitempty"` // why they were not put; "" if that was not tried
}

func (a answer) complete() bool { return a.Missing == 0 && a.Refused == "" }

// remembered has the answers of one store, by the layers' tags.
type remembered map[string]answer

func (r remembered) get(m *cache.Manifest) (a answer, fresh bool) {
	a, ok := r[m.Name+" "+m.Key.String()]
	return a, ok && time.Since(a.Asked) < lasts && time.Since(a.Asked) >= 0
}

func (r remembered) set(m *cache.Manifest, a answer) {
	a.Asked = time.Now().UTC()
	r[m.Name+" "+m.Key.String()] = a
}

func (m Memory) name(location string) string {
	sum := sha256.Sum256([]byte(location))
	return fmt.Sprintf("%x.json", sum[:16])
}

func (m Memory) load(location string) remembered {
	r := make(remembered)
	if m == "" {
		return r
	}
	dir, err := safefile.OpenDir(string(m))
	if err != nil {
		return r
	}
	defer dir.Close()
	data, err := safefile.ReadFile(dir, m.name(location), maxMemory)
	if err != nil || json.Unmarshal(data, &r) != nil || r == nil {
		return make(remembered)
	}
	return r
}

// store writes what is known of a store. It is a shortcut for later: where it fails
// nothing is lost but that.
func (m Memory) store(location string, r remembered) {
	for id, a := range r {
		if time.Since(a.Asked) > forgotten {
			delete(r, id)
		}
	}
	data, err := json.Marshal(r)
	if m == "" || err != nil || len(r) == 0 || len(data) > maxMemory {
		return
	}
	dir, err := safefile.MakeDir(string(m), 0o700)
	if err != nil {
		return
	}
	defer dir.Close()
	_, _ = safefile.Sweep(dir, ".", func(name string) bool { return strings.HasPrefix(name, partial) }) // of killed processes
	_ = safefile.WriteFile(dir, m.name(location), partial, data)
}
