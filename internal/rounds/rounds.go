// Package rounds says how often a test repeats what it chooses at random, or how
// many cases it takes of a table that is too long for every run.
package rounds

import (
	"os"
	"testing"
)

// Variable asks for long runs where it is set. .ci/run sets it for the tests of
// this kind, in a second run without the race detector.
const Variable = "CLAYER_TEST_LONG"

// Long reports whether a long run is asked for.
func Long() bool { return os.Getenv(Variable) != "" }

// Of returns the rounds of a run with -short, of a usual one, and of a long one.
func Of(short, usual, long int) int {
	switch {
	case Long():
		return long
	case testing.Short():
		return short
	}
	return usual
}
