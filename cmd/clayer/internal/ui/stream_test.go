package ui

import (
	"context"
	"io"
	"os"
	"testing"
)

// TestStreamsWriteTheEnd: what is written long after an interrupt is read by who reads.
func TestStreamsWriteTheEnd(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	passed := make(chan struct{})
	close(passed)
	s := &stream{file: w, turn: make(chan struct{}, 1), giveUp: passed, cause: func() error { return context.Canceled }}
	for range 50 {
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	if got, err := io.ReadAll(r); len(got) != 50 || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
