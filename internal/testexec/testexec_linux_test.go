package testexec

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A program is executable when it is written, also if somebody else has it open meanwhile.
func TestReleased(t *testing.T) {
	name := filepath.Join(t.TempDir(), "program")
	if err := WriteFile(name, []byte("#!/bin/sh\n")); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan time.Time, 1)
	time.AfterFunc(50*time.Millisecond, func() {
		closed <- time.Now()
		f.Close()
	})
	if err := released(name); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	default:
		t.Error("it does not wait for a writer")
	}
}
