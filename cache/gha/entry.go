package gha

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/order"
)

// A head begins an entry: a line "clayer-entry 1 SIZE SHA256", and as many bytes of JSON.
type head struct {
	cache.Descriptor
	Gone bool `json:"gone,omitempty"` // there is no snapshot at this place any more
}

const magic = "clayer-entry 1 "

// maxHead bounds what is read of a head, and firstRead is what is asked for at first.
const (
	maxHead   = 4 << 20
	firstRead = 16 << 10
)

var errHead = errors.New("not the head of an entry")

func (h head) bytes() ([]byte, error) {
	data, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	return append(fmt.Appendf(nil, "%s%d %s\n", magic, len(data), hex.EncodeToString(sum[:])), data...), nil
}

// parseHead reads a head. more is how many bytes have to be there, if there are fewer.
func parseHead(data []byte) (h head, size, more int, err error) {
	line, _, ok := bytes.Cut(data[:min(len(data), 128)], []byte("\n"))
	text, isHead := strings.CutPrefix(string(line), magic)
	length, sum, ok2 := strings.Cut(text, " ")
	n, err := strconv.Atoi(length)
	if !ok || !isHead || !ok2 || err != nil || n < 0 || n > maxHead {
		return h, 0, 0, errHead
	}
	size = len(line) + 1 + n
	if len(data) < size {
		return h, 0, size, nil
	}
	data = data[len(line)+1 : size]
	if got := sha256.Sum256(data); hex.EncodeToString(got[:]) != sum || json.Unmarshal(data, &h) != nil {
		return h, 0, 0, errHead
	}
	return h, size, 0, nil
}

// An entry is one of the service.
type entry struct {
	head
	place, edition int
	url            string // signed, and so a secret; "" where it was not asked for
	offset         int64  // of the snapshot: the size of the head
}

func stepName(k key.Key) string { return "clayer-" + k.String() + "-" }

func placeName(k key.Key, place int) string { return stepName(k) + strconv.Itoa(place) + "-" }

func entryName(k key.Key, place, edition int) string {
	return placeName(k, place) + strconv.Itoa(edition)
}

// parseName returns the place and the edition of an entry of a step.
func parseName(k key.Key, name string) (place, edition int, ok bool) {
	rest, ok := strings.CutPrefix(name, stepName(k))
	p, e, ok2 := strings.Cut(rest, "-")
	place, err1 := strconv.Atoi(p)
	edition, err2 := strconv.Atoi(e)
	return place, edition, ok && ok2 && err1 == nil && err2 == nil && place >= 1 && place <= cache.MaxVariants && edition >= 0 &&
		name == entryName(k, place, edition)
}

// newest returns the newest entry of a step whose name begins with the first of the
// prefixes, or else the next. ErrNotCached says that there is none.
func (s *Store) newest(ctx context.Context, k key.Key, prefixes ...string) (e entry, err error) {
	name, signed, err := s.ask(ctx, prefixes)
	if err != nil {
		return e, err
	}
	miss := func(why string) (entry, error) {
		return entry{}, fmt.Errorf("%w: step %s: %s", cache.ErrNotCached, k.Short(), why)
	}
	var ok bool
	if e.place, e.edition, ok = parseName(k, name); !ok {
		return miss("the entry is of another name")
	}
	e.url = signed
	for want := firstRead; ; {
		ans, err := s.storage(ctx, stored{method: http.MethodGet, url: signed, header: http.Header{"Range": {fmt.Sprintf("bytes=0-%d", want-1)}}})
		if err != nil {
			return entry{}, err
		}
		h, size, more, err := parseHead(ans.Body)
		if err == nil && more > want {
			want = more
			continue
		}
		if err == nil && more > 0 {
			err = errHead
		}
		if err == nil && !h.Gone && (h.Key != k || !valid(h.Descriptor)) {
			err = errors.New("not the descriptor of its key")
		}
		if err != nil {
			return miss(err.Error())
		}
		e.head, e.offset = h, int64(size)
		if !e.Gone {
			s.note(e)
		}
		return e, nil
	}
}

// first returns the entry that Find returns of a step.
func (s *Store) first(ctx context.Context, k key.Key) (entry, error) {
	e, err := s.newest(ctx, k, placeName(k, 1), stepName(k))
	if err != nil || !e.Gone {
		return e, err
	}
	places, err := s.places(ctx, k)
	if live := places.live(); err == nil && len(live) > 0 {
		return live[0], nil
	}
	return entry{}, cmp.Or(err, cache.ErrNotCached)
}

// places are the newest entries of a step, in the order of their places.
type places []entry

// live returns those with a snapshot, each snapshot once.
func (p places) live() (live places) {
	for _, e := range p {
		if !e.Gone && !slices.ContainsFunc(live, func(o entry) bool { return same(o.Descriptor, e.Descriptor) }) {
			live = append(live, e)
		}
	}
	return live
}

func same(a, b cache.Descriptor) bool { return a.Digest == b.Digest && a.VariantID() == b.VariantID() }

// places asks for the entry at each place of a step, if it has any.
func (s *Store) places(ctx context.Context, k key.Key) (places, error) {
	first, err := s.newest(ctx, k, placeName(k, 1), stepName(k))
	if errors.Is(err, cache.ErrNotCached) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := places{first}
	var others []int
	for n := 1; n <= cache.MaxVariants; n++ {
		if n != first.place {
			others = append(others, n)
		}
	}
	var mu sync.Mutex
	err = forEach(ctx, others, func(ctx context.Context, n int) error {
		e, err := s.newest(ctx, k, placeName(k, n))
		if errors.Is(err, cache.ErrNotCached) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			all = append(all, e)
		}
		return err
	})
	order.Stable(all, func(a, b entry) int { return a.place - b.place })
	return all, err
}
