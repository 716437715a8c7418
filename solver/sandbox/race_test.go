//go:build race

package sandbox_test

// raceEnabled reports whether this test binary has the race detector.
const raceEnabled = true
