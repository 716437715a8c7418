package ui

import (
	"bytes"
	"io"
	"testing"

	"github.com/creack/pty"

	"github.com/clayer/clayer/internal/printable"
)

func TestDataIsExactUnlessATerminalShowsIt(t *testing.T) {
	var buf bytes.Buffer
	if _, err := io.WriteString(Data(printable.NewWriter(&buf)), "\x1b\r\xff"); err != nil || buf.String() != "\x1b\r\xff" {
		t.Errorf("a program reads %q, %v", buf.String(), err)
	}
	screen, tty, err := pty.Open()
	if err != nil {
		t.Skip(err)
	}
	defer screen.Close()
	defer tty.Close()
	w := printable.NewWriter(tty)
	if Data(w) != io.Writer(w) {
		t.Error("nothing is escaped on a terminal")
	}
}
