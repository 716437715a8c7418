// Package histories takes one composition through random edits, reorderings,
// failures, kills and undo, with the built program, and compares the root after each
// solve with what a build from scratch of the same files gives in the same mode.
//
// Each RUN of a recipe also writes a listing of what it sees, so that the comparison
// covers what the steps saw and not only what they left.
//
// A failure prints its seed and the smallest history that still fails:
//
//	go test ./cmd/clayer/internal/histories -histories.seed=17 -histories.count=1
package histories
