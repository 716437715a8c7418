// Package lives plays whole sessions on two machines with the built program, and checks
// after each action that what one of them built works on the other one, and that both keep
// what is theirs.
//
// # Machines
//
// Both are copies of the root in testdata/machine.txtar, which has package managers of its
// own that behave like pip, apt-get, npm and useradd. Each has besides what some commands
// made there: packages, other versions of packages, users with ids, libraries, directories
// where files go, and another $HOME. The platform, and so every key, is the same. They share
// a store.
//
// # A life
//
// A [Life] is data, drawn from one number, the seed, which a failure prints:
//
//	go test ./cmd/clayer/internal/lives -run TestLives -lives.seed=17 -lives.count=1
//
// Its actions are edits of the Containerfile with a solve, RUNs that fail, kills, undo, a
// new machine of the first kind that restores from the store, and installs by hand, with the
// shim and without. A solve of the first machine is followed by one of the second.
//
// # What is checked
//
// After a solve, on both machines: each instruction has a probe, which is executed there and
// works. All files and records that the machine has of its own are there and unchanged, but
// those that an instruction changes on purpose. All else is explained by an instruction.
// After undo the machine is as it was, with what was done by hand since. A solve that fails,
// or leaves a probe that fails, does so without clayer too.
//
// A life that fails is made smaller, and is printed as JSON. Put into testdata, it is played
// by each run of the test.
//
// # Pairs
//
// TestPairs builds layers on one machine of a pair and plans each of them on the other. What
// is restored there works and damages nothing. What runs there again is restored from a
// store without needs, on a copy of the machine: where that works, the run was needless.
package lives
