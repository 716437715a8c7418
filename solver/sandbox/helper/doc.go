// Package helper is the process inside a sandbox: this program once more, started
// for one job. It makes the mounts, runs the command, ends what the command leaves
// behind, and removes what it put into the root for it. Process is its other end.
package helper
