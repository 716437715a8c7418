// Package storm runs the built program through faults in random combination
// and checks that clayer keeps its promises: the old root or the new root
// exactly, nothing outside touched, the next command works, and nothing is left
// over.
//
// # A round
//
// A round is data ([Round]): two Containerfiles, the second an edit of the
// first; the way in which the root is changed (--root or --dest, overlay or in
// place, root or plain user); a store after the local one; and some actions, which are
// commands, each with what goes wrong before and while it runs. All of it is
// drawn from one number, the seed, which a failure prints:
//
//	go test ./cmd/clayer/internal/storm -run TestStorm -storm.seed=17 -storm.rounds=1
//
// A usual run plays ten of them beside those in testdata, and CI two hundred.
//
// # Isolation
//
// Each round is a process of its own, this test binary without the race detector,
// in new mount and PID namespaces. Its root is a small machine on a tmpfs: a
// shell, devices, the program, and no file of the machine that runs the test. The
// root to change, the cache and all else lie on tmpfs mounts that only the round
// sees, with limits for bytes and inodes. The round is process 1 of its
// namespace: it inherits what others leave running, and when it ends, the kernel
// ends them and removes the mounts. Rounds run side by side.
//
// # Faults
//
// A command runs under a seccomp filter that reports the system calls on files
// to the round, which counts those of clayer itself. At the n-th call the round
// sends a signal, fills a disk, makes it read-only, or lets this call, or all
// from here on, fail. An instant is therefore a number, and a repetition comes
// close to it; not always to the same call, since clayer has several threads.
// The programs that a RUN starts are not tampered with: a shell that
// ignores an error would make another environment, and clayer would be right to
// keep it.
//
// The HTTP server that FETCH and the stores talk to has a list of answers:
// refused, cut off, stalled, something else entirely. Between commands the contents of
// stores are damaged, and links, FIFOs and foreign files are put into them.
//
// # What is checked
//
// The trees to expect come from solving the Containerfiles without faults in an
// identical root. A tree is compared in type, mode, owner, size, time, content,
// link target, hard links, and extended attributes; times that lie after the
// round's start count as equal.
//
// A round knows which trees the root may have. A command that succeeds leaves
// one. A command that fails adds its aim to those possible until the next
// command, and the root is one of them exactly. In place, a RUN that was cut off
// may have done anything (docs/root.md), until the next solve or undo.
// After the last action, with the faults gone but the stores as damaged as they
// are: solve succeeds and gives the new tree, verify finds no drift, undo gives
// the base. After each command no process and no mount is left; at the end no
// temporary file either, and what lies outside of root and cache is as it was.
//
// # Failures
//
// A round that fails is made smaller by leaving out actions and faults as long
// as it still fails, and is printed as JSON. Put into testdata, it is
// repeated by each run of the test.
package storm
