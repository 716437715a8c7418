package shim

import (
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestNoteOfAnEndedProcess(t *testing.T) {
	o := Options{Dir: t.TempDir(), File: "/Containerfile"}
	if err := o.write(Note{Text: "RUN true"}); err != nil {
		t.Fatal(err)
	}
	list := notes(o.Dir)
	if len(list) != 1 || !list[0].Making() {
		t.Fatalf("notes %+v, want the one of this process, which makes a snapshot", list)
	}
	list[0].PID = os.Getppid() // another process has the number now
	if list[0].Making() {
		t.Error("a process that started at another time makes the snapshot")
	}
}

// Who waits for a snapshot says so once, and not for ever.
func TestWaitForASnapshot(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		o := Options{Dir: dir, File: "/Containerfile"}
		if err := o.write(Note{Text: "RUN true"}); err != nil {
			t.Fatal(err)
		}
		start, said := time.Now(), 0
		Wait(t.Context(), dir, func(n Note) {
			said++
			if n.Text != "RUN true" || time.Since(start) > 2*time.Second {
				t.Errorf("waiting for %q after %v", n.Text, time.Since(start))
			}
		})
		if took := time.Since(start); said != 1 || took > 2*packingTime {
			t.Errorf("waited %v, and said so %d times", took, said)
		}
	})
}
