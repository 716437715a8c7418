package git

import (
	"context"
	"time"
)

// NewRate and Wait are for tests with virtual time.
func NewRate(n int, in time.Duration) *rate { return newRate(n, in) }

func (r *rate) Wait(ctx context.Context) error { return r.wait(ctx) }
