package transfer

import (
	"sync"
	"time"
)

// Refusals remembers why a repository or bucket is not asked again in this
// process: it refused to be read, or written, or nothing answers for it. The zero
// Refusals is empty. It is safe for concurrent use.
type Refusals struct {
	mu          sync.Mutex
	read, write refusal
}

type refusal struct {
	err   error
	until time.Time // zero: for good
}

func (r *refusal) now() error {
	if r.until.IsZero() || time.Now().Before(r.until) {
		return r.err
	}
	return nil
}

func (r *refusal) set(err error, while time.Duration) {
	if r.now() != nil {
		return
	}
	*r = refusal{err: err}
	if while > 0 {
		r.until = time.Now().Add(while)
	}
}

// Reading returns why nothing is read; nil where nothing is known.
func (r *Refusals) Reading() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.read.now()
}

// Writing returns why nothing is written; nil where nothing is known. What may
// not be read is not written either.
func (r *Refusals) Writing() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.write.now(); err != nil {
		return err
	}
	return r.read.now()
}

// Read has Reading and Writing return err from now on; for a while, if that is
// not 0.
func (r *Refusals) Read(err error, while time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read.set(err, while)
}

// Write has Writing return err from now on; for a while, if that is not 0.
func (r *Refusals) Write(err error, while time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.write.set(err, while)
}

// Pause is for how long a host is not asked that could not be reached; 0, for good,
// for an error that says something else.
func Pause(err error) time.Duration {
	if Unreachable(err) {
		return pause
	}
	return 0
}
