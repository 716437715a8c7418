package github

import (
	"bufio"
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The ladder of GitHub's documentation: retry-after, else the reset, else a
// minute and doubling; a clock that is wrong changes nothing.
func TestLimitLadder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		there := now.Add(7 * time.Hour) // GitHub's clock
		date := there.UTC().Format(http.TimeFormat)
		reset := strconv.FormatInt(there.Add(90*time.Second).Unix(), 10)
		h := func(kv ...string) http.Header {
			h := make(http.Header)
			for i := 0; i < len(kv); i += 2 {
				h.Set(kv[i], kv[i+1])
			}
			return h
		}
		const secondary = "You have exceeded a secondary rate limit"
		tests := []struct {
			name string
			code int
			h    http.Header
			said string
			want time.Duration // 0: no limit
		}{
			{"a plain 403", 403, h("X-RateLimit-Remaining", "59"), "Resource not accessible", 0},
			{"a 500", 500, h("Retry-After", "5"), "", 0},
			{"retry-after goes first", 403, h("Retry-After", "5", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset, "Date", date), secondary, 5 * time.Second},
			{"the reset, by GitHub's clock", 403, h("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset, "Date", date), "API rate limit exceeded", 91 * time.Second},
			{"429 with the reset", 429, h("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset, "Date", date), "", 91 * time.Second},
			{"a minute", 403, h("Date", date), secondary, time.Minute},
			{"two", 403, h("Date", date), secondary, 2 * time.Minute},
			{"four", 429, h(), "", 4 * time.Minute},
		}
		l := &limit{budget: time.Hour}
		for _, tt := range tests {
			l.until = time.Time{}
			wait, limited := l.note(tt.code, tt.h, tt.said, now)
			if wait.Round(time.Second) != tt.want || limited != (tt.want > 0) {
				t.Errorf("%s: %v, %t; want %v", tt.name, wait, limited, tt.want)
			}
		}
		l.ok()
		l.until = time.Time{}
		if wait, _ := l.note(429, h(), "", now); wait != time.Minute {
			t.Errorf("after a success: %v, want a minute again", wait)
		}
		// A write waits as long as its budget; a read does not sit it out.
		ctx := context.Background()
		if err := l.wait(ctx, false); !Is(err, Limited) {
			t.Errorf("a read: %v", err)
		}
		if err := l.wait(ctx, true); err != nil || time.Since(now) < time.Minute {
			t.Errorf("a write: %v after %v", err, time.Since(now))
		}
		l.budget = 30 * time.Second
		l.note(429, h(), "", time.Now())
		if err := l.wait(ctx, true); !Is(err, Limited) {
			t.Errorf("beyond its budget: %v", err)
		}
	})
}

// At most one request that creates content at a time, and a second between
// many.
func TestCreatingIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		start, at := time.Now(), 0
		done := make(chan struct{})
		for range 15 {
			go func() {
				c.create(t.Context(), func() error {
					if at++; at != 1 {
						t.Errorf("%d at a time", at)
					}
					time.Sleep(10 * time.Millisecond)
					at--
					return nil
				})
				done <- struct{}{}
			}()
		}
		for range 15 {
			<-done
		}
		if d := time.Since(start); d < 4*time.Second || d > 7*time.Second {
			t.Errorf("15 took %v; ten are free, then a second each", d)
		}
	})
}

func FuzzFindRef(f *testing.F) {
	id := strings.Repeat("a", 40)
	f.Add("001e# service=git-upload-pack\n0000003c"+id+" HEAD\x00x\n0000", "")
	f.Add("0000", "main")
	f.Add("ffff", "main")
	f.Add("0003", "main")
	f.Fuzz(func(t *testing.T, text, ref string) {
		id, err := findRef(bufio.NewReader(strings.NewReader(text)), ref)
		if err == nil && id != "" && !IsCommit(id) {
			t.Errorf("%q", id)
		}
	})
}
