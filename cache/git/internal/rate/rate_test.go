package rate_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/clayer/clayer/cache/git/internal/rate"
)

func TestSixAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rate.New(6, time.Minute)
		start := time.Now()
		for i := range 14 {
			if err := r.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if want := time.Duration(i/6) * time.Minute; time.Since(start) != want {
				t.Errorf("number %d after %v, want %v", i+1, time.Since(start), want)
			}
		}
	})
}
