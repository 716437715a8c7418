package shim

import (
	"os"
	"testing"
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
