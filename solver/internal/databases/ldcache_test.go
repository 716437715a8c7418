package databases

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func cacheOf(libs ...string) []byte {
	var records []record
	for _, l := range libs {
		soname, path, _ := strings.Cut(l, " ")
		records = append(records, record{body: fmt.Sprintf("%s\x00%s\x00%d", soname, path, 0x303)})
	}
	return writeLibraries(records)
}

func list(t testing.TB, file []byte) string {
	t.Helper()
	libs, ok := parseLibraries(file)
	if !ok {
		t.Fatalf("a cache that is not understood: %q", file)
	}
	var names []string
	for _, l := range libs {
		names = append(names, l.soname+" "+l.path)
	}
	return strings.Join(names, "; ")
}

// The libraries of a machine are found, and those that a step added.
func TestLibraries(t *testing.T) {
	d := db(t, "etc/ld.so.cache")
	before := cacheOf("libc.so.6 /lib/libc.so.6", "libgone.so.1 /usr/local/lib/libgone.so.1")
	after := cacheOf("libc.so.6 /lib/libc.so.6", "libpq.so.5 /usr/local/lib/libpq.so.5")
	here := cacheOf("libc.so.6 /lib/libc.so.6", "libgone.so.1 /usr/local/lib/libgone.so.1", "libmine.so.2 /opt/libmine.so.2", "libpq.so.5 /opt/libpq.so.5")
	c, err := d.Diff(before, after)
	if err != nil {
		t.Fatal(err)
	}
	merged, conflicts, err := d.Merge(here, after, c)
	if err != nil || len(conflicts) > 0 {
		t.Fatal(conflicts, err)
	}
	const want = "libpq.so.5 /opt/libpq.so.5; libpq.so.5 /usr/local/lib/libpq.so.5; libmine.so.2 /opt/libmine.so.2; libc.so.6 /lib/libc.so.6"
	if got := list(t, merged); got != want {
		t.Errorf("merged: %s\nwant:   %s", got, want)
	}
	undo, err := d.Diff(merged, here)
	if err != nil {
		t.Fatal(err)
	}
	back, _, err := d.Merge(merged, here, undo)
	if err != nil || list(t, back) != list(t, here) {
		t.Errorf("undone: %s, %v", list(t, back), err)
	}
}

func TestCompareSonames(t *testing.T) {
	sorted := []string{"", "a", "liba.so", "liba.so.2", "liba.so.02.1", "liba.so.10", "liba1.so", "libb.so"}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := compareSonames(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%q and %q: %d", a, b, got)
			}
		}
	}
}

// What clayer writes, ldconfig reads, in the order that it would have written itself.
func TestLibrariesOfLdconfig(t *testing.T) {
	ldconfig, err := exec.LookPath("ldconfig")
	if err != nil {
		if ldconfig, err = exec.LookPath("/sbin/ldconfig"); err != nil {
			t.Skip("there is no ldconfig")
		}
	}
	file, err := os.ReadFile("/etc/ld.so.cache")
	if err != nil {
		t.Skip(err)
	}
	if _, ok := parseLibraries(file); !ok {
		t.Skip("the cache of this machine is another format")
	}
	records := libraries(file)
	slices.Reverse(records)
	written := writeLibraries(records)
	names := func(at string) string {
		out, err := exec.Command(ldconfig, "-p", "-C", at).Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n\t")
		for i, l := range lines[1:] {
			lines[i+1], _, _ = strings.Cut(l, "=>") // of equal names, the order of directories counts
		}
		lines[0] = ""
		text := strings.Join(lines, "\n")
		text, _, _ = strings.Cut(text, "Cache generated")
		return strings.TrimSpace(text)
	}
	at := filepath.Join(t.TempDir(), "cache")
	if err := os.WriteFile(at, written, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := names(at), names("/etc/ld.so.cache"); got != want {
		t.Errorf("ldconfig reads\n%s\nwant\n%s", got, want)
	}
	if again := writeLibraries(libraries(written)); !bytes.Equal(again, written) {
		t.Error("the second time it is another file")
	}
}

// A small cache that says of each library that its name is the same long text would take
// gigabytes.
func TestLibrariesOfOneText(t *testing.T) {
	const n = 20_000
	file := make([]byte, ldHeader+n*ldEntry, ldHeader+n*ldEntry+4096)
	copy(file, ldMagic)
	binary.LittleEndian.PutUint32(file[20:], n)
	for i := range n {
		e := file[ldHeader+i*ldEntry:]
		binary.LittleEndian.PutUint32(e[4:], uint32(len(file)))
		binary.LittleEndian.PutUint32(e[8:], uint32(len(file)))
	}
	file = append(append(file, bytes.Repeat([]byte("a"), 4095)...), 0)
	if list, ok := parseLibraries(file); ok {
		t.Errorf("it is taken, with %d libraries", len(list))
	}
}

func FuzzLibraries(f *testing.F) {
	f.Add(cacheOf("libc.so.6 /lib/libc.so.6", "a b"))
	f.Add([]byte(ldMagic + "\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, file []byte) {
		written := writeLibraries(libraries(file))
		if _, ok := parseLibraries(written); !ok {
			t.Errorf("%q is written as %q", file, written)
		}
	})
}
