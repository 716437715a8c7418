// Package boots starts sessions with the script of "clayer init claude" while something goes
// wrong, and checks that each session starts, and that what clayer says of it is true.
//
// # A boot
//
// A [Boot] is data, drawn from one number, the seed, which a failure prints:
//
//	go test ./cmd/clayer/internal/boots -run TestBoots -boots.seed=17 -boots.count=1
//
// It has the layers of a project, the network of a host (internal/hosttest), what the
// project's store has of them (all, an older version, nothing, damaged blobs), how the
// store's host answers, a budget, how much space the disk has, and what is killed when: clayer,
// what it has started, or the script. The machine is a small root on a tmpfs, in a chroot.
//
// Instants are counted, where they can be: at the n-th request of the machine something is
// killed, or nothing is answered until the budget has ended. A step may run until then, too.
// Nothing that is checked depends on how fast the machine is.
//
// # What is checked
//
// After the boot: the script exits with 0, unless it was killed itself, and has not hung.
// "clayer verify" finds each applied file as it was applied. What the state of the root has
// of each layer is there, and works. What the report calls missing is not there; a layer of
// which it says nothing is whole, and its program runs. "clayer status --exit-code" exits
// with 1 if anything is missing. Neither store lists a layer under a key which the report
// names as wanted.
//
// Then the machine is healthy, and what failed is mended. A second boot makes all layers,
// leaves nothing of older ones, and has nothing to report; so does the boot of another machine
// with the same store. After undo the root is as it was.
//
// A boot that fails is made smaller, and is printed as JSON. Put into testdata, it is
// repeated by each run of the test.
package boots
