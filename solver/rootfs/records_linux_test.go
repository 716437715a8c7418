package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/merge"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

const (
	userRoot  = "root:x:0:0:root:/root:/bin/sh\n"
	userAlice = "alice:x:1000:1000::/home/alice:/bin/sh\n"
	userBob   = "bob:x:1001:1001::/home/bob:/bin/sh\n"
	userDave  = "dave:x:1002:1002::/home/dave:/bin/sh\n"
	userCarol = "carol:x:1003:1003::/home/carol:/bin/sh\n"
)

// changed is a step that made after of a database that was before.
func changed(t testing.TB, name, path, before, after string) (record.Applied, snapshot.Changes) {
	t.Helper()
	db, ok := databases.Known(path)
	if !ok {
		t.Fatalf("%s is no database", path)
	}
	c, err := db.Diff([]byte(before), []byte(after))
	if err != nil {
		t.Fatal(err)
	}
	step := record.Applied{Key: keyOf(name), Layer: "base", Digest: "sha256:x", Text: "RUN " + name}
	step.Placement.Databases = []snapshot.Need{{Kind: snapshot.NeedContent, Path: path, Digest: digest.FromString(before), Set: c.Set, Removed: c.Removed}}
	return step, stream(file(path, after))
}

func applyChanged(t *testing.T, l *Lock, name, path, before, after string) {
	t.Helper()
	step, changes := changed(t, name, path, before, after)
	if res, err := l.Apply(t.Context(), step, changes); err != nil || len(res.Problems) > 0 {
		t.Fatal(name, err, res.Problems)
	}
	commit(t, l)
}

func wantFile(t *testing.T, r *Root, path, want string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(r.Dir(), path))
	if err != nil || string(got) != want {
		t.Errorf("%s has\n%s%v; want\n%s", path, got, err, want)
	}
}

func wantDrift(t *testing.T, r *Root, want string) {
	t.Helper()
	list, err := drift.Verify(t.Context(), r.Dir(), r.state, nil)
	var got []string
	for _, f := range list {
		if f.State != drift.AsApplied {
			got = append(got, fmt.Sprintf("%s %s %v", f.Path, f.State, f.What))
		}
	}
	if err != nil || strings.Join(got, "; ") != want {
		t.Errorf("verify reports %q, %v; want %q", got, err, want)
	}
}

func undo(t *testing.T, l *Lock, stay int, force bool, want string) {
	t.Helper()
	res, err := l.Undo(t.Context(), stay, force)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range res.Preserved {
		got = append(got, p.Path+": "+p.Why)
	}
	if len(res.Problems) > 0 || strings.Join(got, "; ") != want {
		t.Errorf("undo preserved %q, problems %v; want %q", got, res.Problems, want)
	}
	commit(t, l)
}

func etc(t *testing.T, r *Root, passwd string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Join(r.Dir(), "etc"), 0o755), os.WriteFile(filepath.Join(r.Dir(), "etc/passwd"), []byte(passwd), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func add(t testing.TB, r *Root, path, text string) {
	t.Helper()
	time.Sleep(10 * time.Millisecond) // the clock of the file system ticks
	f, err := os.OpenFile(filepath.Join(r.Dir(), path), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, r *Root, path, old, now string) {
	t.Helper()
	at := filepath.Join(r.Dir(), path)
	data, err := os.ReadFile(at)
	if err == nil {
		err = os.WriteFile(at, []byte(strings.Replace(string(data), old, now, 1)), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A root keeps its own users, whether they were there before a step or came after it.
func TestRecords(t *testing.T) {
	r, l := testRoot(t)
	etc(t, r, userRoot+userAlice)
	before := treetest.Describe(t, r.Dir(), func(p string) bool { return p == "var" })
	applyChanged(t, l, "bob", "etc/passwd", userRoot, userRoot+userBob)
	wantFile(t, r, "etc/passwd", userRoot+userAlice+userBob)
	applyChanged(t, l, "dave", "etc/passwd", userRoot+userBob, userRoot+userBob+userDave)
	wantFile(t, r, "etc/passwd", userRoot+userAlice+userBob+userDave)
	wantDrift(t, r, "")

	undo(t, l, 0, false, "")
	treetest.Diff(t, before, treetest.Describe(t, r.Dir(), func(p string) bool { return p == "var" }))

	applyChanged(t, l, "bob", "etc/passwd", userRoot, userRoot+userBob)
	applyChanged(t, l, "dave", "etc/passwd", userRoot+userBob, userRoot+userBob+userDave)
	add(t, r, "etc/passwd", userCarol)
	wantDrift(t, r, "")
	list, err := drift.Diff(t.Context(), r.Dir(), r.state, nil)
	if err != nil || len(list) != 1 || list[0].Path != "etc/passwd" || !list[0].Key.IsZero() {
		t.Errorf("diff lists %v, %v; want that the machine changed etc/passwd", list, err)
	}
	undo(t, l, 1, false, "")
	wantFile(t, r, "etc/passwd", userRoot+userAlice+userBob+userCarol)
	wantDrift(t, r, "")
	undo(t, l, 0, false, "")
	wantFile(t, r, "etc/passwd", userRoot+userAlice+userCarol)
}

// A record that the user changed is preserved, as a file would be, and no other one.
func TestPreservedRecords(t *testing.T) {
	r, l := testRoot(t)
	etc(t, r, userRoot+userAlice)
	applyChanged(t, l, "bob and dave", "etc/passwd", userRoot, userRoot+userBob+userDave)
	bob := strings.Replace(userBob, "/bin/sh", "/bin/zsh", 1)
	replace(t, r, "etc/passwd", userBob, bob)
	wantDrift(t, r, "etc/passwd changed [bob: was changed]")
	if _, err := l.Undo(t.Context(), 0, false); err != nil {
		t.Fatal(err)
	}
	// The same solve applies a new version of the step.
	step, changes := changed(t, "bob and carol", "etc/passwd", userRoot, userRoot+userBob+userCarol)
	res, err := l.Apply(t.Context(), step, changes)
	if err != nil || fmt.Sprint(res.Preserved) != "[etc/passwd]" {
		t.Fatal(err, res)
	}
	commit(t, l)
	wantFile(t, r, "etc/passwd", userRoot+userAlice+bob+userCarol)
	wantDrift(t, r, "")

	// And so does the next.
	if _, err := l.Undo(t.Context(), 0, false); err != nil {
		t.Fatal(err)
	}
	wantFile(t, r, "etc/passwd", userRoot+userAlice+bob)
	step, changes = changed(t, "bob", "etc/passwd", userRoot, userRoot+userBob)
	if _, err := l.Apply(t.Context(), step, changes); err != nil {
		t.Fatal(err)
	}
	commit(t, l)

	undo(t, l, 0, true, "")
	wantFile(t, r, "etc/passwd", userRoot+userAlice)
}

// What the user changed stays where a step that found it changes it in turn.
func TestPreservedRecordsThatTheStepFound(t *testing.T) {
	r, l := testRoot(t)
	etc(t, r, userRoot)
	applyChanged(t, l, "bob", "etc/passwd", userRoot, userRoot+userBob)
	bob := strings.Replace(userBob, "/bin/sh", "/bin/zsh", 1)
	replace(t, r, "etc/passwd", userBob, bob)
	if _, err := l.Undo(t.Context(), 0, false); err != nil {
		t.Fatal(err)
	}
	step, changes := changed(t, "bob and dave", "etc/passwd", userRoot+bob, userRoot+userBob+userDave)
	if _, err := l.Apply(t.Context(), step, changes); err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	wantFile(t, r, "etc/passwd", userRoot+bob+userDave)
	if _, err := l.Undo(t.Context(), 0, false); err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	wantFile(t, r, "etc/passwd", userRoot+bob)
}

// What two databases say of one user is judged together, whichever was changed.
func TestPreservedRecordsOfOneUser(t *testing.T) {
	const shadowBob, shadowDave = "bob:!:20000::::::\n", "dave:!:20000::::::\n"
	for _, tt := range []struct{ name, path, old, now string }{
		{"passwd", "etc/passwd", userBob, strings.Replace(userBob, "/bin/sh", "/bin/zsh", 1)},
		{"shadow", "etc/shadow", shadowBob, "bob:$6$x:20001::::::\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, l := testRoot(t)
			etc(t, r, userRoot)
			add(t, r, "etc/shadow", "root:*:1::::::\n")
			step, _ := changed(t, "users", "etc/passwd", userRoot, userRoot+userBob+userDave)
			more, _ := changed(t, "users", "etc/shadow", "root:*:1::::::\n", "root:*:1::::::\n"+shadowBob+shadowDave)
			step.Placement.Databases = append(step.Placement.Databases, more.Placement.Databases...)
			changes := stream(file("etc/passwd", userRoot+userBob+userDave), file("etc/shadow", "root:*:1::::::\n"+shadowBob+shadowDave))
			if _, err := l.Apply(t.Context(), step, changes); err != nil {
				t.Fatal(err)
			}
			commit(t, l)
			time.Sleep(10 * time.Millisecond)
			replace(t, r, tt.path, tt.old, tt.now)
			passwd, shadow := userRoot+userBob, "root:*:1::::::\n"+shadowBob
			if tt.path == "etc/passwd" {
				passwd = userRoot + tt.now
			} else {
				shadow = "root:*:1::::::\n" + tt.now
			}
			for range 2 { // what stays is tried again
				undo(t, l, 0, false, "etc/shadow: records changed: bob; etc/passwd: records changed: bob")
				wantFile(t, r, "etc/passwd", passwd)
				wantFile(t, r, "etc/shadow", shadow)
			}
			undo(t, l, 0, true, "")
			wantFile(t, r, "etc/passwd", userRoot)
			wantFile(t, r, "etc/shadow", "root:*:1::::::\n")
		})
	}
}

// What apt-get remove leaves of a package that a step installed goes with its configuration
// files, or the next install of it would not have these.
func TestUndoOfAPackageThatWasRemoved(t *testing.T) {
	const status = "var/lib/dpkg/status"
	const libc, nano = "Package: libc6\nStatus: install ok installed\n", "\nPackage: nano\nStatus: install ok installed\nVersion: 7\n"
	r, l := testRoot(t)
	if err := os.MkdirAll(filepath.Join(r.Dir(), path.Dir(status)), 0o755); err != nil {
		t.Fatal(err)
	}
	add(t, r, status, libc)
	applyChanged(t, l, "nano", status, libc, libc+nano)
	time.Sleep(10 * time.Millisecond)
	replace(t, r, status, "Status: install ok installed\nVersion", "Status: deinstall ok config-files\nVersion")
	undo(t, l, 0, false, "")
	wantFile(t, r, status, libc)
}

// What has no place in a root is refused, and the root is as it was.
func TestRecordsInConflict(t *testing.T) {
	r, l := testRoot(t)
	alice := strings.Replace(userAlice, "1000", "1001", 1)
	etc(t, r, userRoot+alice)
	step, changes := changed(t, "bob", "etc/passwd", userRoot, userRoot+userBob)
	_, err := l.Apply(t.Context(), step, changes)
	var conflict *merge.ConflictError
	if !errors.As(err, &conflict) || err.Error() != "the step needs a change of /etc/passwd that is not possible here: bob: alice has its uid 1001 here" {
		t.Errorf("the error is %v", err)
	}
	if err := l.Rollback(); err != nil {
		t.Fatal(err)
	}
	wantFile(t, r, "etc/passwd", userRoot+alice)

	lies, changes := changed(t, "bob", "etc/passwd", userRoot, userRoot+userBob)
	lies.Placement.Databases[0].Set = []string{"dave>123456789abc"}
	var unsafe *snapshot.UnsafeError
	if _, err := l.Apply(t.Context(), lies, changes); !errors.As(err, &unsafe) {
		t.Errorf("changes that are not of the file: %v", err)
	}
	if err := l.Rollback(); err != nil {
		t.Fatal(err)
	}
}

// A step that removes a database, or puts a link in its place, is not applied where that has
// records of the machine.
func TestDatabaseThatIsReplaced(t *testing.T) {
	for _, e := range []*snapshot.Entry{
		{Path: "etc/passwd", Kind: snapshot.Delete},
		{Path: "etc/passwd", Kind: snapshot.Symlink, Target: "../data/passwd", ModTime: time.Unix(1e9, 0)},
	} {
		r, l := testRoot(t)
		etc(t, r, userRoot+userAlice)
		step, _ := changed(t, "replace", "etc/passwd", userRoot, "")
		var conflict *merge.ConflictError
		if _, err := l.Apply(t.Context(), step, stream(e)); !errors.As(err, &conflict) {
			t.Errorf("kind %v: the error is %v", e.Kind, err)
		}
		if err := l.Rollback(); err != nil {
			t.Fatal(err)
		}
		wantFile(t, r, "etc/passwd", userRoot+userAlice)

		step, _ = changed(t, "replace", "etc/passwd", userRoot+userAlice, "")
		if _, err := l.Apply(t.Context(), step, stream(e)); err != nil {
			t.Errorf("kind %v, of the file that the step found: %v", e.Kind, err)
		}
		commit(t, l)
		undo(t, l, 0, false, "")
		wantFile(t, r, "etc/passwd", userRoot+userAlice)
	}
}

// A database that a step made is removed with it, unless it has records of the machine.
func TestRecordsOfANewFile(t *testing.T) {
	r, l := testRoot(t)
	etc(t, r, userRoot)
	applyChanged(t, l, "range", "etc/subuid", "", "bob:100000:65536\n")
	undo(t, l, 0, false, "")
	if _, err := os.Lstat(filepath.Join(r.Dir(), "etc/subuid")); !os.IsNotExist(err) {
		t.Error(err)
	}
	applyChanged(t, l, "range", "etc/subuid", "", "bob:100000:65536\n")
	add(t, r, "etc/subuid", "alice:200000:65536\n")
	undo(t, l, 0, false, "")
	wantFile(t, r, "etc/subuid", "alice:200000:65536\n")
	replace(t, r, "etc/subuid", "alice:200000:65536\n", "")

	applyChanged(t, l, "range", "etc/subgid", "", "bob:100000:65536\n")
	os.Chtimes(filepath.Join(r.Dir(), "etc/subgid"), when, when.Add(1))
	undo(t, l, 0, false, "")
	if _, err := os.Lstat(filepath.Join(r.Dir(), "etc/subgid")); !os.IsNotExist(err) {
		t.Error(err)
	}
}

// A machine keeps what its tools saved of a database. A step that knows nothing of
// records replaces the file, as it always did.
func TestOtherFilesAsTheyAre(t *testing.T) {
	r, l := testRoot(t)
	etc(t, r, userRoot+userAlice)
	add(t, r, "etc/passwd-", userAlice)
	add(t, r, "etc/group-", "old")
	step, _ := changed(t, "bob", "etc/passwd", userRoot, userRoot+userBob)
	changes := stream(file("etc/group-", "new"), file("etc/passwd", userRoot+userBob), file("etc/passwd-", userRoot), file("etc/shadow-", userRoot))
	if _, err := l.Apply(t.Context(), step, changes); err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	wantFile(t, r, "etc/passwd-", userAlice)
	wantFile(t, r, "etc/group-", "new")
	add(t, r, "etc/passwd-", userBob)
	wantDrift(t, r, "")
	undo(t, l, 0, false, "")
	wantFile(t, r, "etc/passwd-", userAlice+userBob)
	wantFile(t, r, "etc/group-", "old")

	// Where the root's file is the one that the step found, the backup is that of the
	// step, until the machine makes another.
	etc(t, r, userRoot)
	step, _ = changed(t, "bob", "etc/passwd", userRoot, userRoot+userBob)
	if _, err := l.Apply(t.Context(), step, stream(file("etc/passwd", userRoot+userBob), file("etc/passwd-", userRoot))); err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	wantFile(t, r, "etc/passwd-", userRoot)
	add(t, r, "etc/passwd-", userCarol)
	wantDrift(t, r, "")
	undo(t, l, 0, false, "")
	wantFile(t, r, "etc/passwd-", userRoot+userCarol)

	step = record.Applied{Key: keyOf("copy"), Layer: "base", Digest: "sha256:x"}
	if _, err := l.Apply(t.Context(), step, stream(file("etc/passwd", userRoot))); err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	wantFile(t, r, "etc/passwd", userRoot)
	add(t, r, "etc/passwd", userCarol)
	wantDrift(t, r, "etc/passwd changed [time size]")
	undo(t, l, 0, false, "etc/passwd: changed: time, size")
}

// A view shows the base with its own users, and none of the steps that are hidden in it.
func TestRevertRecords(t *testing.T) {
	r, l := testRoot(t)
	etc(t, r, userRoot+userAlice)
	applyChanged(t, l, "bob", "etc/passwd", userRoot, userRoot+userBob)
	applyChanged(t, l, "dave", "etc/passwd", userRoot+userBob, userRoot+userBob+userDave)
	add(t, r, "etc/passwd", userCarol)
	replace(t, r, "etc/passwd", userDave, strings.Replace(userDave, "/bin/sh", "/bin/zsh", 1))
	for stay, want := range []string{userRoot + userAlice + userCarol, userRoot + userAlice + userBob + userCarol} {
		changes, err := r.Revert(l.state.Log[:stay], l.state.Log[stay:])
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for e, err := range changes {
			if err != nil {
				t.Fatal(err)
			}
			if e.Path == "etc/passwd" {
				got = string(e.Content)
			}
		}
		if got != want {
			t.Errorf("without the steps after %d:\n%swant\n%s", stay, got, want)
		}
	}
}

// A view over which a snapshot is unpacked keeps its users too.
func TestUnpackRecords(t *testing.T) {
	both(t, func(t *testing.T, opt unpack.Options) {
		dir := t.TempDir()
		shell(t, dir, "mkdir etc; echo root:x:0:0:::; printf '"+strings.ReplaceAll(userRoot+userAlice, "\n", `\n`)+"' > etc/passwd; chmod 600 etc/passwd")
		step, changes := changed(t, "bob", "etc/passwd", userRoot, userRoot+userBob)
		opt.Placement = step.Placement
		if res, err := unpack.Unpack(t.Context(), dir, changes, opt); err != nil || len(res.Problems) > 0 {
			t.Fatal(err, res.Problems)
		}
		got, err := os.ReadFile(filepath.Join(dir, "etc/passwd"))
		if err != nil || string(got) != userRoot+userAlice+userBob {
			t.Errorf("%s %v", got, err)
		}
		if st, err := os.Stat(filepath.Join(dir, "etc/passwd")); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the file has the mode %v, %v", st.Mode(), err)
		}
	})
}

// Over the root below, the users of that are seen too, and undo shows it again.
func TestRecordsOverTheRootBelow(t *testing.T) {
	below := t.TempDir()
	shell(t, below, "mkdir etc; printf '"+strings.ReplaceAll(userRoot+userAlice, "\n", `\n`)+"' > etc/passwd")
	r, err := Open(filepath.Join(t.TempDir(), "root"), Options{Lower: below})
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(t.Context(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	applyChanged(t, l, "bob", "etc/passwd", userRoot, userRoot+userBob)
	wantFile(t, r, "etc/passwd", userRoot+userAlice+userBob)
	add(t, r, "etc/passwd", userCarol)
	wantDrift(t, r, "")
	undo(t, l, 0, false, "etc: holds files that are not clayer's, or were changed")
	wantFile(t, r, "etc/passwd", userRoot+userAlice+userCarol)
	applyChanged(t, l, "bob", "etc/passwd", userRoot, userRoot+userBob)
	undo(t, l, 0, false, "etc: holds files that are not clayer's, or were changed")
	wantFile(t, r, "etc/passwd", userRoot+userAlice+userCarol)
}

// What a step on the root itself changed in a database is undone: all of it, as long as
// the machine changes nothing there, and then its records.
func TestAdoptedRecords(t *testing.T) {
	r, l := testRoot(t)
	etc(t, r, userRoot+userAlice)
	add(t, r, "etc/group", "root:x:0:\n")
	add(t, r, "etc/passwd-", userRoot)
	describe := func() string {
		if err := os.Chtimes(filepath.Join(r.Dir(), "etc"), when, when); err != nil { // no entry of the step has it
			t.Fatal(err)
		}
		return treetest.Describe(t, r.Dir(), func(p string) bool { return p == "var" })
	}
	before := describe()
	run := func() {
		t.Helper()
		commit(t, l)
		if err := l.SaveDatabases(); err != nil {
			t.Fatal(err)
		}
		shell(t, r.Dir(), "cp -p etc/passwd etc/passwd-; rm etc/group; echo bob:1:1 > etc/subuid")
		passwd := userRoot + userAlice + userBob
		if err := os.WriteFile(filepath.Join(r.Dir(), "etc/passwd"), []byte(passwd), 0o644); err != nil {
			t.Fatal(err)
		}
		var entries []*snapshot.Entry
		for _, p := range []string{"etc/passwd", "etc/passwd-", "etc/subuid"} {
			st, err := os.Stat(filepath.Join(r.Dir(), p))
			if err != nil {
				t.Fatal(err)
			}
			e := file(p, passwd)
			e.Size, e.ModTime = st.Size(), st.ModTime()
			entries = append(entries, e)
		}
		step := record.Applied{Key: keyOf("bob"), Layer: "base", Digest: "sha256:x", Text: "RUN bob", Before: func(p string) (*snapshot.Entry, bool) { return nil, p != "etc/subuid" }}
		if _, err := l.Adopt(t.Context(), step, stream(append(entries[:2:2], gone("etc/group"), entries[2])...)); err != nil {
			t.Fatal(err)
		}
		wantDrift(t, r, "")
	}
	run()
	undo(t, l, 0, false, "")
	treetest.Diff(t, before, describe())

	run()
	add(t, r, "etc/passwd", userCarol)
	wantDrift(t, r, "")
	undo(t, l, 0, false, "")
	wantFile(t, r, "etc/passwd", userRoot+userAlice+userCarol)
	wantFile(t, r, "etc/group", "root:x:0:\n")
	if _, err := os.Lstat(r.state.Path("saved")); !os.IsNotExist(err) {
		t.Error("what was saved is left")
	}
}

// An undo of records, and a merge, that is killed at any of its calls, or whose disk
// fails there, is rolled back.
func TestRecordsKilledAtEverySystemCall(t *testing.T) {
	before := func(t testing.TB, dir string) {
		shell(t, dir, "mkdir -p root/var/lib root/etc; printf '"+strings.ReplaceAll(userRoot+userAlice, "\n", `\n`)+"' > root/etc/passwd; touch -d @1000000000 root/etc/passwd root/etc root/var/lib root/var root")
		l := lockOf(t, dir)
		defer l.Unlock()
		step, changes := changed(t, "1", "etc/passwd", userRoot, userRoot+userBob)
		if _, err := l.Apply(t.Context(), step, changes); err != nil {
			t.Fatal(err)
		}
		commit(t, l)
		add(t, l.root, "etc/passwd", userCarol)
		if err := os.Chtimes(filepath.Join(l.root.Dir(), "etc/passwd"), when, when); err != nil {
			t.Fatal(err)
		}
	}
	op := operation{"edit", func(l *Lock) (bool, error) {
		undone, err := l.Undo(t.Context(), 0, false)
		if err != nil {
			return false, err
		}
		step, changes := changed(t, "2", "etc/passwd", userRoot, userRoot+userDave)
		if _, err := l.Apply(t.Context(), step, changes); err != nil {
			return false, err
		}
		return len(undone.Problems) > 0, l.Commit("test", []record.LayerKeys{{Name: "base", Steps: []key.Key{step.Key}}}, nil)
	}}
	was, is, calls, all := reference(t, op, before)
	for n := 1; n <= calls; n++ {
		dir := fastDir(t)
		before(t, dir)
		kill(t, dir, op, n)
		recovered(t, dir, was, is, fmt.Sprintf("killed at call %d", n))
	}
	for n := 1; n <= all; n++ {
		dir := fastDir(t)
		before(t, dir)
		l := lockOf(t, dir)
		i := 0
		_ = hooked(l.root, func(string, bool) error {
			if i++; i == n {
				return unix.EIO
			}
			return nil
		}, func() error {
			_, err := op.do(l)
			return errors.Join(err, l.Rollback())
		})
		l.close()
		recovered(t, dir, was, is, fmt.Sprintf("call %d failed", n))
	}
}
