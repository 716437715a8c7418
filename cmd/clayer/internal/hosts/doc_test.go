// Package hosts has the built program restore, on each kind of machine that package hosttest
// emulates, what other machines pushed: from each store, through the network of that host.
//
// What clayer prints there is in testdata, a file for each host: first the stores, each with
// what a solve that names it alone says, then what doctor says.
//
//	go test ./cmd/clayer/internal/hosts -update
package hosts
