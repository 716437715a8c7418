package rootfs

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// A state that nobody could look at was not removed.
func TestStateIsNotGoneForWantOfFiles(t *testing.T) {
	l := lockOf(t, t.TempDir())
	defer l.Unlock()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := l.Resettle()
	if rerr := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); rerr != nil {
		t.Fatal(rerr)
	}
	if !errors.Is(err, unix.EMFILE) || errors.Is(err, ErrStateGone) || errors.Is(err, ErrStateCovered) {
		t.Errorf("Resettle without a file descriptor to be had: %v, want %v alone", err, unix.EMFILE)
	}
	if _, err := l.Resettle(); err != nil {
		t.Errorf("Resettle after it: %v", err)
	}
}
