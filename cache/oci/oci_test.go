package oci_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"oras.land/oras-go/v2/registry"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/oci"
	"github.com/clayer/clayer/cache/oci/ocitest"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/transfer"
)

// quick is how tests send: a failure shows within a second or two.
var quick = transfer.Options{Stall: time.Second, Patience: 300 * time.Millisecond, Retries: 2}

func parse(t *testing.T, name string) registry.Reference {
	t.Helper()
	ref, err := oci.ParseRepository(name)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func login(t *testing.T, ref registry.Reference, user, password string) oci.Login {
	t.Helper()
	l, err := oci.FindLogin(ref, func(name string) string {
		return map[string]string{oci.UserVariable: user, oci.PasswordVariable: password}[name]
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

func TestStore(t *testing.T) {
	r := ocitest.New(t, ocitest.Options{Login: true})
	var n atomic.Int32
	t.Run("one session", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) cache.Keeper {
			return open(t, fmt.Sprintf("%s/me/env%d", r.Host, n.Add(1)), ocitest.User, ocitest.Password)
		})
	})
	// Each look is taken by a session of its own: what counts is what the
	// registry keeps.
	t.Run("a session for each look", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) cache.Keeper {
			name := fmt.Sprintf("%s/me/env%d", r.Host, n.Add(1))
			next := func() *oci.Store { return open(t, name, ocitest.User, ocitest.Password) }
			return sessions{next}
		})
	})
}
