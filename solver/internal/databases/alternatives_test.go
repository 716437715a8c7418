package databases

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const awk = "auto\n/usr/bin/awk\nawk.1.gz\n/man/awk.1.gz\n\n/usr/bin/gawk\n10\n/man/gawk.gz\n/usr/bin/mawk\n5\n\n\n"

// What update-alternatives has written is written again alike.
func TestAlternativesOfThisMachine(t *testing.T) {
	files, err := filepath.Glob("/" + alternativesDir + "*")
	if err != nil || len(files) == 0 {
		t.Skip("there are none")
	}
	for _, name := range files {
		file, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		list, ok := parseAlternatives(string(file))
		if got := writeAlternatives(list); !ok || string(got) != string(file) {
			t.Errorf("%s: understood: %t, written again as\n%s", name, ok, got)
		}
	}
}

func TestAlternatives(t *testing.T) {
	merge := func(here, before, after string) (string, []Conflict) {
		t.Helper()
		d := db(t, alternativesDir+"awk")
		c, err := d.Diff([]byte(before), []byte(after))
		if err != nil {
			t.Fatal(err)
		}
		merged, conflicts, err := d.Merge([]byte(here), []byte(after), c)
		if err != nil {
			t.Fatal(err)
		}
		return string(merged), conflicts
	}
	const mawk = "auto\n/usr/bin/awk\n\n/usr/bin/mawk\n5\n\n"
	const own = "manual\n/usr/bin/awk\nawk.7.gz\n/man/awk.7.gz\n\n/usr/bin/own\n50\n/man/own.gz\n\n"
	// Links that follow are those of both.
	if got, conflicts := merge(own, mawk, awk); len(conflicts) > 0 || got !=
		"manual\n/usr/bin/awk\nawk.1.gz\n/man/awk.1.gz\nawk.7.gz\n/man/awk.7.gz\n\n/usr/bin/gawk\n10\n/man/gawk.gz\n\n/usr/bin/own\n50\n\n/man/own.gz\n\n" {
		t.Errorf("merged:\n%s\nconflicts: %v", got, conflicts)
	}
	// A group stays while a choice of the machine's own is left, and no longer.
	if got, conflicts := merge("auto\n/usr/bin/awk\n\n/usr/bin/mawk\n5\n/usr/bin/own\n50\n\n", mawk, ""); len(conflicts) > 0 || got != "auto\n/usr/bin/awk\n\n/usr/bin/own\n50\n\n" {
		t.Errorf("left:\n%s\nconflicts: %v", got, conflicts)
	}
	if got, conflicts := merge(mawk, mawk, ""); len(conflicts) > 0 || got != "" {
		t.Errorf("left:\n%s\nconflicts: %v", got, conflicts)
	}
	// What is not understood is not merged, nor what has a name that is no key.
	long := strings.Repeat("/long", 30)
	for _, file := range []string{"auto\n/usr/bin/awk\n\n/opt/awk(2)\n50\n\n", "auto\n/usr/bin/awk\n\n/opt/c#/awk\n50\n\n", "auto\n/usr/bin/awk\n\n" + long + "\n50\n\n",
		"auto\n/usr/bin/awk\nawk=1\n/man/awk=1\n\n/usr/bin/own\n50\n/man/own\n\n", "x", "auto\n", "auto\n/usr/bin/awk\n\n/usr/bin/mawk\n5\n", "other\n/usr/bin/awk\n\n/usr/bin/mawk\n5\n\n", awk + "more\n"} {
		if _, ok := parseAlternatives(file); ok {
			t.Errorf("%q is understood", file)
		}
		if got, conflicts := merge(file, mawk, awk); got == awk || len(conflicts) == 0 {
			t.Errorf("%q merged: %q without a conflict", file, got)
		}
	}
}

func TestChoices(t *testing.T) {
	groups := map[string][]byte{"awk": []byte(awk), "broken": []byte("x")}
	for _, tt := range []struct {
		link, target string
		want         string // the priority; "-": there is no choice
	}{
		{"etc/alternatives/awk", "/usr/bin/gawk", "10"},
		{"etc/alternatives/awk.1.gz", "/man/gawk.gz", "10"},
		{"etc/alternatives/awk", "/usr/bin/busybox", "-"},
		{"etc/alternatives/awk.1.gz", "/usr/bin/gawk", "-"},
	} {
		c, ok := ChoiceOf(groups, tt.link, tt.target)
		if got := c.Priority; ok != (tt.want != "-") || ok && got != tt.want {
			t.Errorf("%s to %s: %+v, %t, want %s", tt.link, tt.target, c, ok, tt.want)
		}
	}
	for link, want := range map[string]string{"etc/alternatives/awk": "/usr/bin/gawk", "etc/alternatives/awk.1.gz": "/man/gawk.gz", "etc/alternatives/none": ""} {
		if got := Automatic([]byte(awk), "awk", link); got != want {
			t.Errorf("%s leads to %q by itself, want %q", link, got, want)
		}
	}
	const link, gawk = "etc/alternatives/awk", "/usr/bin/gawk"
	for _, tt := range []struct {
		name     string
		priority string // of the step's
		mode     string
		asFound  bool
		want     bool
	}{
		{name: "a better one", priority: "20", mode: "auto"},
		{name: "a worse one", priority: "5", mode: "auto", want: true},
		{name: "a worse one, which is left of what the step found", priority: "5", mode: "auto", asFound: true},
		{name: "somebody chose here", priority: "20", mode: "manual", want: true},
		{name: "somebody chose here what the step found", priority: "20", mode: "manual", asFound: true, want: true},
		{name: "the step chooses", mode: "auto"},
	} {
		if got := Outranks([]byte(tt.mode+awk[len("auto"):]), link, gawk, tt.asFound, Choice{"awk", tt.priority}); got != tt.want {
			t.Errorf("%s: outranks %t", tt.name, got)
		}
	}
}

func TestDiversions(t *testing.T) {
	d := db(t, "var/lib/dpkg/diversions")
	const base, mine, yours = "/a\n/a.real\nbase\n", "/b\n/b.real\nmine\n", "/c\n/c.real\nyours\n"
	c, err := d.Diff([]byte(base), []byte(base+yours))
	if err != nil {
		t.Fatal(err)
	}
	merged, conflicts, err := d.Merge([]byte(base+mine), []byte(base+yours), c)
	if err != nil || len(conflicts) > 0 || string(merged) != base+mine+yours {
		t.Errorf("merged: %q, %v, %v", merged, conflicts, err)
	}
	if _, conflicts, _ = d.Merge([]byte(base+"/c\n/c.mine\nmine\n"), []byte(base+yours), c); len(conflicts) != 1 {
		t.Errorf("conflicts of what is diverted to another place: %v", conflicts)
	}
}
