//go:build race

package sandbox

// raceEnabled reports whether this test binary has the race detector.
const raceEnabled = true
