// Package oracle compares what the built program makes of a Containerfile with what
// BuildKit makes of it. "A Dockerfile means here what it means in Docker" is a promise
// about all Containerfiles; this test draws them at random, so that who wrote an
// instruction is not who thought of its cases.
//
// # A case
//
// A [Case] is a Containerfile with the files beside it, .dockerignore included. It is
// drawn from one number, the seed, which a failure prints:
//
//	go test ./cmd/clayer/internal/oracle -oracle.seed=17 -oracle.rounds=1
//
// The paths are few, and the base has links and files at some of them, so that
// instructions meet: a COPY onto the link that a RUN made, into the WORKDIR that is a
// file. A RUN writes what it sees to /out.
//
// # What is compared
//
// BuildKit builds the case on the base, an OCI layout of a small root, and exports the
// tree. clayer solves it with --root on a copy of the same root, in the overlay and in
// place. The trees are equal in type, mode, owner, size, content, link targets, hard
// links and extended attributes; times are clayer's own.
//
// What one refuses the other refuses too, at the same line. An instruction that both
// refuse is removed from the case, and the rest is compared.
//
// # Differences
//
// differences_linux_test.go lists what clayer does otherwise: on purpose, which is in
// docs/migration.md too; or because it is not mended yet. Each has a case in testdata
// that shows it, and the test fails if that case no longer differs. What is known of
// an instruction is coarse, so it counts only in cases that fail: they are played again
// without such instructions.
//
// # The corpus
//
// testdata/corpus has Dockerfiles in the manner of those that people have, each with a small
// context. They are built on a root whose npm, pip and cargo are scripts that leave files as
// those do. All are planned; each tree is compared, a second root gets the same from the
// store, and a command is run in both:
//
//	go test ./cmd/clayer/internal/oracle -run TestCorpus -oracle.corpus='node-*' -oracle.dir=/tmp/corpus
//
// # Rules
//
// TestChecks compares what clayer check says by BuildKit's rules with what docker build
// --check says, of the cases of package buildchecks and of files that are drawn. BuildKit
// says nothing of what follows a line that it refuses: what is drawn it builds.
//
// # Failures
//
// A case that fails is made smaller by removing instructions, commands and files as
// long as it fails, and is printed as a txtar archive. Put into testdata, it is played by each
// run of the test.
package oracle
