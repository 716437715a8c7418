package oci_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/oci"
	"github.com/clayer/clayer/cache/registry"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/ocitest"
)

// quick is how tests send: a failure shows within a second or two.
var quick = transfer.Options{Retries: 2}

func parse(t *testing.T, name string) registry.Repository {
	t.Helper()
	ref, err := oci.ParseRepository(name)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func login(t *testing.T, ref registry.Repository, user, password string) registry.Login {
	t.Helper()
	l, err := registry.FindLogin(ref, func(name string) string {
		return map[string]string{registry.UserVariable: user, registry.PasswordVariable: password}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// open returns the store of a new session.
func open(t *testing.T, name, user, password string) *oci.Store {
	t.Helper()
	ref := parse(t, name)
	return oci.New(ref, oci.Options{Login: login(t, ref, user, password), Temp: t.TempDir(), Transfer: quick})
}

func both(t *testing.T, open func(t *testing.T) cache.Store) {
	storetest.Run(t, open)
	storetest.RunVariants(t, open)
}

func TestStore(t *testing.T) {
	r := ocitest.New(t, ocitest.Options{Login: true})
	var n atomic.Int32
	t.Run("one session", func(t *testing.T) {
		both(t, func(t *testing.T) cache.Store {
			return open(t, fmt.Sprintf("%s/me/env%d", r.Host, n.Add(1)), ocitest.User, ocitest.Password)
		})
		storetest.RunDelta(t, open(t, fmt.Sprintf("%s/me/env%d", r.Host, n.Add(1)), ocitest.User, ocitest.Password), 360<<10)
	})
	// Each look is taken by a session of its own: what counts is what the
	// registry keeps.
	t.Run("a session for each look", func(t *testing.T) {
		both(t, func(t *testing.T) cache.Store {
			name := fmt.Sprintf("%s/me/env%d", r.Host, n.Add(1))
			next := func() *oci.Store { return open(t, name, ocitest.User, ocitest.Password) }
			return sessions{next}
		})
	})
}

// A blob that comes in several ranges, from a registry that requires a login.
func TestLargeBlob(t *testing.T) {
	r := ocitest.New(t, ocitest.Options{Login: true})
	s := open(t, r.Host+"/me/env", ocitest.User, ocitest.Password)
	content := make([]byte, 40<<20)
	for i := 0; i < len(content); i += 4096 {
		binary.BigEndian.PutUint32(content[i:], uint32(i))
	}
	d, blob := storetest.Step("large", string(content))
	if err := s.Put(t.Context(), d, blob); err != nil {
		t.Fatal(err)
	}
	f, err := storetest.Open(t, open(t, r.Host+"/me/env", ocitest.User, ocitest.Password), d)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// A name that is no tag is stored all the same.
func TestLongNames(t *testing.T) {
	r := ocitest.New(t, ocitest.Options{})
	s := open(t, r.Host+"/me/env", "", "")
	d, blob := storetest.Step("a", "content")
	m := storetest.Layer(strings.Repeat("long-", 50), 1, d)
	if err := errors.Join(s.Put(t.Context(), d, blob), s.Complete(t.Context(), m)); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != m.Name {
		t.Errorf("List: %v, %v", list, err)
	}
	if _, err := s.Remove(t.Context(), list); err != nil {
		t.Error(err)
	}
	if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("after Remove: %v, %v", list, err)
	}
}
